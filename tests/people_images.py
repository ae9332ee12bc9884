"""Convolutional networks as people write them, for real worker processes: layouts, kernels of their own, resampling."""

import torch
import torch.nn.functional as F
from torch import nn


class Tutorial(nn.Module):
    """The network of every first tutorial. (B, 3, 32, 32) -> (B, 10)."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=2)
        self.fc = nn.Linear(8 * 15 * 15, 10)

    def forward(self, x):
        x = torch.relu(self.conv(x))
        return self.fc(x.view(x.size(0), -1))


def tutorial():
    return Tutorial()


class TokensByView(nn.Module):
    """Patches to tokens with a view. (B, 3, H, W) -> (B, 6)."""

    def __init__(self):
        super().__init__()
        self.patch, self.head = nn.Conv2d(3, 8, 4, stride=4), nn.Linear(8, 6)

    def forward(self, x):
        x = self.patch(x)
        b, c, h, w = x.shape
        return self.head(x.view(b, c, h * w).transpose(1, 2)).mean(1)


def tokens_by_view():
    return TokensByView()


class UnshuffleByView(nn.Module):
    """Space to depth by a view of the image itself. (B, 3, H, W) -> (B, 8, H/2, W/2)."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(12, 8, 1)

    def forward(self, x):
        b, c, h, w = x.shape
        x = x.view(b, c, h // 2, 2, w // 2, 2).permute(0, 1, 3, 5, 2, 4)
        return self.conv(x.reshape(b, c * 4, h // 2, w // 2))


def unshuffle_by_view():
    return UnshuffleByView()


class ChannelShuffle(nn.Module):
    """Two convolutions with a shuffle of their channels between, as ShuffleNet writes it. (B, 3, H, W) -> (B, 8)."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 8, 3, padding=1, groups=4)

    def forward(self, x):
        x = self.first(x)
        b, c, h, w = x.size()
        x = x.view(b, 4, c // 4, h, w).transpose(1, 2).contiguous().view(b, -1, h, w)
        return self.second(x).mean((2, 3))


def channel_shuffle():
    return ChannelShuffle()


class StridesAssumed(nn.Module):
    """Windows by as_strided with the strides of a contiguous image: silently wrong for any other. -> (B, 4, 16, 16)."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)

    def forward(self, x):
        b, c, h, w = x.shape
        windows = x.as_strided((b, c, h // 2, w // 2, 2, 2), (c * h * w, h * w, 2 * w, 2, w, 1))
        return self.conv(windows.amax((4, 5)))


def strides_assumed():
    return StridesAssumed()


class UNet(nn.Module):
    """One level down and up again, by a transposed convolution. (B, 3, H, W) -> (B, 2, H, W)."""

    def __init__(self):
        super().__init__()
        self.enter = nn.Conv2d(3, 8, 3, padding=1)
        self.down = nn.Conv2d(8, 16, 3, stride=2, padding=1)
        self.up = nn.ConvTranspose2d(16, 8, 2, stride=2)
        self.leave = nn.Conv2d(16, 2, 1)

    def forward(self, x):
        fine = F.relu(self.enter(x))
        coarse = F.relu(self.down(fine))
        return self.leave(torch.cat([fine, self.up(coarse)], dim=1))


def unet():
    return UNet()


class Upsampling(nn.Module):
    """A prediction at an eighth, interpolated to the size of the image. (B, 3, H, W) -> (B, 5, H, W)."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 8, stride=8)

    def forward(self, x):
        return F.interpolate(self.conv(x), size=x.shape[-2:], mode="bilinear", align_corners=False)


def upsampling():
    return Upsampling()


class DynamicConvolution(nn.Module):
    """Each image's kernel is a mixture of a bank of four, (4, 16, 16, 3, 3). (B, 3, H, W) -> (B, 16, H, W)."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.choose = nn.Linear(16, 4)
        self.bank = nn.Parameter(torch.randn(4, 16, 16, 3, 3) * 0.1)

    def forward(self, x):
        x = F.relu(self.stem(x))
        b, c, h, w = x.shape
        share = self.choose(x.mean((2, 3))).softmax(1)
        kernels = torch.einsum("bk,koihw->boihw", share, self.bank)
        y = F.conv2d(x.reshape(1, b * c, h, w), kernels.reshape(b * c, c, 3, 3), padding=1, groups=b)
        return y.view(b, c, h, w)


def dynamic_convolution():
    return DynamicConvolution()


class GlobalFilter(nn.Module):
    """A filter in the frequencies, as GFNet: its weights are complex, or pairs viewed as such. -> (B, 8, H, W)."""

    def __init__(self, height, width, as_pairs):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 4, stride=4)
        sides = (8, height // 4, width // 8 + 1)
        self.as_pairs = as_pairs
        if as_pairs:
            self.complex_weight = nn.Parameter(torch.randn(*sides, 2) * 0.02)
        else:
            self.complex_weight = nn.Parameter(torch.randn(*sides, dtype=torch.complex64) * 0.02)

    def forward(self, x):
        x = self.stem(x)
        weight = torch.view_as_complex(self.complex_weight) if self.as_pairs else self.complex_weight
        return torch.fft.irfft2(torch.fft.rfft2(x, norm="ortho") * weight, s=x.shape[-2:], norm="ortho")


def global_filter(resolution=32):
    return GlobalFilter(resolution, resolution, as_pairs=False)


def global_filter_of_pairs(resolution=32):
    return GlobalFilter(resolution, resolution, as_pairs=True)


class Unfolding(nn.Module):
    """A convolution as unfold and a product with an einsum. (B, 3, H, W) -> (B, 6, H, W)."""

    def __init__(self):
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(6, 27) * 0.2)

    def forward(self, x):
        patches = F.unfold(x, 3, padding=1)
        return torch.einsum("bkn,ok->bon", patches, self.kernel).reshape(len(x), 6, *x.shape[2:])


def unfolding():
    return Unfolding()


class SpatialTransformer(nn.Module):
    """A learned affine map of the image, then a convolution. (B, 3, H, W) -> (B, 4, H, W)."""

    def __init__(self):
        super().__init__()
        self.locate, self.conv = nn.Linear(3, 6), nn.Conv2d(3, 4, 3, padding=1)
        self.locate.weight.data.zero_()
        self.locate.bias.data.copy_(torch.tensor([1, 0, 0, 0, 1, 0], dtype=torch.float))

    def forward(self, x):
        theta = self.locate(x.mean((2, 3))).view(-1, 2, 3)
        grid = F.affine_grid(theta, x.size(), align_corners=False)
        return self.conv(F.grid_sample(x, grid, align_corners=False))


def spatial_transformer():
    return SpatialTransformer()


class Volume(nn.Module):
    """A small network on (B, 1, D, H, W)."""

    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv3d(1, 4, 3, padding=1), nn.Linear(4, 2)

    def forward(self, volume):
        x = F.max_pool3d(F.relu(self.conv(volume)), 2)
        return self.fc(x.mean((2, 3, 4)))

    def example_inputs(self, batch, resolution):
        return torch.randn(batch, 1, 4, *resolution)


def volume():
    return Volume()
