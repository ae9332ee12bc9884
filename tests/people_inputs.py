"""Modules that take what is no (B, 3, H, W), as people write them: for real worker processes."""

import torch
import torch.nn.functional as F
from torch import nn


class Grey(nn.Module):
    """Digits: (B, channels, H, W) -> (B, 10)."""

    def __init__(self, channels=1):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(channels, 8, 3, padding=1), nn.Linear(8, 10)

    def forward(self, x):
        return self.fc(F.relu(self.conv(x)).mean((2, 3)))


def net(channels=1):
    """Makes a network of images with that many channels: no mixer."""
    return Grey(channels)


def grey():
    return Grey()


def multispectral():
    return Grey(13)


class OwnMixer(nn.Module):
    """A mixer of one's own. (B, H, W, C) -> (B, H, W, C)."""

    def __init__(self, channels):
        super().__init__()
        self.norm, self.mix = nn.LayerNorm(channels), nn.Linear(channels, channels)

    def forward(self, x):
        return x + self.mix(self.norm(x).roll(1, 1))


def mixer(channels):
    return OwnMixer(channels)


class TextEncoder(nn.Module):
    """Token indices (B, L) of a vocabulary of 1,000 -> (B, 32)."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(1000, 32)
        self.layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)

    def forward(self, ids):
        return self.layer(self.table(ids)).mean(1)


def text():
    return TextEncoder()


class TextWithExamples(TextEncoder):
    def example_inputs(self, batch, resolution):
        return torch.randint(1000, (batch, 77))


def text_with_examples():
    return TextWithExamples()


class TwoTowers(nn.Module):
    """Images, token ids -> their similarity, as CLIP. (B, 3, H, W), (B, L) -> dict of (B, 32), (B, 32), (B, B)."""

    def __init__(self):
        super().__init__()
        self.image, self.text = nn.Conv2d(3, 32, 16, stride=16), TextEncoder()
        self.logit_scale = nn.Parameter(torch.tensor(2.6592))

    def forward(self, pixel_values, input_ids):
        image = F.normalize(self.image(pixel_values).mean((2, 3)), dim=-1)
        text = F.normalize(self.text(input_ids), dim=-1)
        return {"image": image, "text": text, "logits": self.logit_scale.exp() * image @ text.t()}


def two_towers():
    """Makes a module that wants two inputs and says of neither what it is."""
    return TwoTowers()


def with_inputs():
    """Makes the module and its inputs, a dictionary of keywords."""
    ids = torch.randint(1000, (2, 20), generator=torch.Generator().manual_seed(0))
    return TwoTowers(), {"pixel_values": torch.randn(2, 3, 32, 32), "input_ids": ids}


def with_a_tuple():
    """Makes the module and its inputs, in their order."""
    ids = torch.randint(1000, (2, 20), generator=torch.Generator().manual_seed(0))
    return TwoTowers(), (torch.randn(2, 3, 32, 32), ids)


def with_one_tensor():
    return Grey(), torch.randn(2, 1, 28, 28)


class Masked(nn.Module):
    """An image and a mask by keyword alone. (B, 3, H, W), (B, H, W) -> (B, 4)."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, *, image, mask):
        y = self.conv(image).masked_fill(~mask.bool()[:, None], 0)
        return y.sum((2, 3)) / mask.sum((1, 2), keepdim=True)[:, 0]

    def example_inputs(self, batch, resolution):
        mask = torch.zeros(batch, *resolution, dtype=torch.bool)
        mask[:, : resolution[0] // 2] = True
        return {"image": torch.randn(batch, 3, *resolution), "mask": mask}


def keywords():
    return Masked()


class Optional(nn.Module):
    """An image, and a mask that most calls leave out. (B, 3, H, W) -> (B, 4)."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x, mask=None, return_map=False):
        y = self.conv(x if mask is None else x * mask)
        return y if return_map else y.mean((2, 3))


def optional():
    return Optional()


class Camera(nn.Module):
    """Bytes (B, H, W, 3), normalised inside. -> (B, 4)."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, frame):
        x = frame.permute(0, 3, 1, 2).to(self.conv.weight.dtype) / 255
        return self.conv(x).mean((2, 3))

    def example_inputs(self, batch, resolution):
        return torch.randint(256, (batch, *resolution, 3), dtype=torch.uint8)


def camera():
    return Camera()


class Audio(nn.Module):
    """Waveforms. (B, 1, T) -> (B, 5)."""

    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv1d(1, 8, 16, stride=8), nn.Linear(8, 5)

    def forward(self, wave):
        return self.fc(F.gelu(self.conv(wave)).mean(2))

    def example_inputs(self, batch, resolution):
        return (torch.randn(batch, 1, 1600),)


def audio():
    return Audio()


class Points(nn.Module):
    """Clouds of points and what is known of each. (B, N, 3), (B, N, 4) -> (B, 6)."""

    def __init__(self):
        super().__init__()
        self.mlp, self.head = nn.Linear(7, 16), nn.Linear(16, 6)

    def forward(self, points, features):
        return self.head(F.relu(self.mlp(torch.cat([points, features], -1))).amax(1))

    def example_inputs(self, batch, resolution):
        return torch.randn(batch, 100, 3), torch.randn(batch, 100, 4)


def points():
    return Points()


class Batches(nn.Module):
    """One dictionary as its only argument, as data loaders hand it over. -> (B, 4)."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, batch):
        return self.conv(batch["image"]).mean((2, 3)) * batch["weight"][:, None]


def nested_inputs():
    return Batches(), ({"image": torch.randn(2, 3, 32, 32), "weight": torch.rand(2)},)
