"""What two or more models share: views, padding, attention, embedding, merging, the MLP."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def channels_first(x: Tensor) -> Tensor:
    """(B, H, W, C) -> (B, C, H, W), a view: a contiguous map is already in channels_last order."""
    return x.permute(0, 3, 1, 2)


def channels_last(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, H, W, C), a view."""
    return x.permute(0, 2, 3, 1)


def require_map(x: Tensor, resolution: tuple[int, int] | None, dim: int) -> None:
    """Raise ValueError unless x is (B, H, W, C) with the resolution, None for any, and the channels of a mixer."""
    if resolution is None and x.dim() == 4 and x.shape[3] == dim:
        return
    if resolution is None or x.dim() != 4 or tuple(x.shape[1:]) != (*resolution, dim):
        sides = resolution or ("H", "W")
        raise ValueError(f"got {tuple(x.shape)}, expected (B, {sides[0]}, {sides[1]}, {dim}): build for this size")


def require_heads(dim: int, heads: int) -> None:
    """Raise ValueError unless the channels divide evenly into heads."""
    if heads < 1 or dim % heads:
        raise ValueError(f"got dim={dim}, heads={heads}: dim must be a multiple of heads")


def require_odd(window: int) -> None:
    """Raise ValueError for a kernel without a centre."""
    if window < 1 or window % 2 == 0:
        raise ValueError(f"got window={window}, expected an odd side: a convolution kernel needs a centre")


def round_up(size: int, multiple: int) -> int:
    """The least multiple of `multiple` that is not below size."""
    return -(-size // multiple) * multiple


def pad_to(x: Tensor, height: int, width: int) -> Tensor:
    """Zero-pad a map (B, H, W, C) at the bottom and the right; x itself where nothing is missing."""
    bottom, right = height - x.shape[1], width - x.shape[2]
    return F.pad(x, (0, 0, 0, right, 0, bottom)) if bottom or right else x


class Formulated(nn.Module):
    """A part of a model that computes one function in one of several formulations."""

    override: str | None = None  # the formulation asked for; None leaves the choice to the lowering
    lowering: str | None = None  # the one that it is specialized for

    def specialize(self, lowering: str) -> None:
        """Note the lowering that the formulation is to suit."""
        self.lowering = lowering


class AnySize(nn.Module):
    """A mixer that is built for one resolution of its map and can take any: no tensor of it has that size."""

    resolution: tuple[int, int] | None  # None for any

    def free_resolution(self) -> None:
        """Take maps of any resolution."""
        self.resolution = None


class PointwiseLinear(nn.Linear):
    """A Linear that runs as the 1x1 convolution it is: the convolution library's product instead of the BLAS's."""

    @classmethod
    def of(cls, linear: nn.Linear) -> "PointwiseLinear":
        """Make one of a Linear, sharing its parameters."""
        pointwise = cls(linear.in_features, linear.out_features, bias=linear.bias is not None, device="meta")
        pointwise.weight, pointwise.bias = linear.weight, linear.bias
        return pointwise.train(linear.training)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(1, -1, 1, x.shape[-1]).permute(0, 3, 1, 2)  # (1, C, N, 1), channels_last
        mixed = F.conv2d(rows, self.weight[:, :, None, None], self.bias)
        return mixed.permute(0, 2, 3, 1).reshape(*x.shape[:-1], self.out_features)


class EagerLinear(PointwiseLinear):
    """The usual Linear of eager mode, where nothing was measured: a 1x1 convolution in float32 on a CPU.

    Faster with two threads on an AMD CPU; with one thread and batch 1, torch does not hand such a convolution to
    oneDNN, and nothing is gained.
    """

    @staticmethod
    def suits(tensor: Tensor) -> bool:
        """Whether it runs as a convolution where such a tensor is."""
        return tensor.device.type == "cpu" and tensor.dtype == torch.float32

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if self.suits(x) else F.linear(x, self.weight, self.bias)


class PatchEmbed(nn.Module):
    """Non-overlapping patches, embedded. (B, 3, H, W) -> (B, ceil(H/p), ceil(W/p), C); zero-padded bottom and right."""

    image: tuple[int, int] | None  # height, width; None for any whose sides the patch divides

    def __init__(self, resolution: tuple[int, int], patch: int, dim: int, *, norm: bool):
        super().__init__()
        self.image = resolution
        self.padding = tuple(-side % patch for side in resolution)
        self.resolution = (-(-resolution[0] // patch), -(-resolution[1] // patch))
        self.proj = nn.Conv2d(3, dim, patch, stride=patch)
        self.norm = nn.LayerNorm(dim) if norm else nn.Identity()

    def free_resolution(self) -> None:
        """Take images of any size whose sides the patch divides."""
        self.image, self.padding = None, (0, 0)

    def forward(self, x: Tensor) -> Tensor:
        if self.image is None:
            return self.norm(channels_last(self.proj(x)))
        if x.dim() != 4 or tuple(x.shape[1:]) != (3, *self.image):
            raise ValueError(
                f"got {tuple(x.shape)}, expected (B, 3, {self.image[0]}, {self.image[1]}): build for this size"
            )
        bottom, right = self.padding
        if bottom or right:
            x = F.pad(x, (0, right, 0, bottom))
        return self.norm(channels_last(self.proj(x)))


class PatchMerging(nn.Module):
    """Halve the map: 2x2 neighbours side by side, normed, reduced. (B, H, W, C) -> (B, ceil(H/2), ceil(W/2), 2C)."""

    def __init__(self, dim: int):
        super().__init__()
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)
        self.norm = nn.LayerNorm(4 * dim)

    def forward(self, x: Tensor) -> Tensor:
        x = pad_to(x, round_up(x.shape[1], 2), round_up(x.shape[2], 2))
        batch, height, width, dim = x.shape
        x = x.view(batch, height // 2, 2, width // 2, 2, dim).permute(0, 1, 3, 4, 2, 5)  # the row offset runs fastest
        return self.reduction(self.norm(x.reshape(batch, height // 2, width // 2, 4 * dim)))


class Residual(nn.Module):
    """A block of two residual branches, which training.py gives a drop path each."""

    drop1: nn.Module | None
    drop2: nn.Module | None

    def __init__(self) -> None:
        super().__init__()
        self.drop1 = self.drop2 = None


def add(x: Tensor, branch: Tensor, drop: nn.Module | None) -> Tensor:
    """A residual connection; in training, its branch may be dropped for some images."""
    return x + (branch if drop is None else drop(branch))


class Mlp(nn.Module):
    """Linear, GELU, Linear on the last axis; the hidden width is `ratio` times the channels."""

    def __init__(self, dim: int, ratio: int = 4):
        super().__init__()
        self.fc1 = nn.Linear(dim, ratio * dim)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(ratio * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x)))


def init_weights(module: nn.Module) -> None:
    """Normal of 0.02 for weights, zero for biases; for `Module.apply`. Norms keep one and zero."""
    if isinstance(module, nn.Linear | nn.Conv2d):
        nn.init.normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def resolution_after(resolution: tuple[int, int], merges: int) -> tuple[int, int]:
    """The (height, width) of a map after so many mergings, each rounding up."""
    height, width = resolution
    for _ in range(merges):
        height, width = -(-height // 2), -(-width // 2)
    return height, width


def pointwise(conv: nn.Module, x: Tensor, norm: nn.Module | None = None) -> Tensor:
    """A 1x1 convolution, then a batch norm, on the map (B, H, W, C); once folded, one Linear over its last axis."""
    if isinstance(conv, nn.Linear):
        return conv(x)
    mixed = conv(channels_first(x))
    return channels_last(mixed if norm is None else norm(mixed))
