"""What Swin and DWNet share: a stem, four stages with merging between them, a head."""

from collections.abc import Callable

from torch import Tensor, nn

from mixprof.models.layers import PatchEmbed, PatchMerging, init_weights, resolution_after


class Stage(nn.Module):
    """Blocks at one resolution, and the merging after them where there is one."""

    def __init__(self, dim: int, blocks: list[nn.Module], *, merge: bool):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = PatchMerging(dim) if merge else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return self.downsample(x)


class Pyramid(nn.Module):
    """Four stages of blocks, each at half the resolution and twice the channels of the one before.

    (B, 3, H, W) -> (B, num_classes), built for one resolution (height, width) in pixels. What Swin and DWNet share;
    they differ in their `block(dim, mixer)`. Attributes are named as in the published checkpoints. Its
    `drop_path` rate is for training.py: eval mode has none.
    """

    block: Callable[[int, nn.Module], nn.Module]

    def __init__(
        self,
        resolution: tuple[int, int],
        window: int,
        num_classes: int,
        *,
        mixer: Callable[..., nn.Module],
        dim: int,
        depths: tuple[int, ...],
        drop_path: float = 0.0,
    ):
        super().__init__()
        self.drop_path = drop_path
        self.patch_embed = PatchEmbed(resolution, 4, dim, norm=True)
        self.layers = nn.ModuleList()
        for stage, depth in enumerate(depths):
            width, side = dim * 2**stage, resolution_after(self.patch_embed.resolution, stage)
            mixers = [mixer(width, side, window, width // 32, stage=stage, shifted=n % 2 == 1) for n in range(depth)]
            blocks = [type(self).block(width, one) for one in mixers]
            self.layers.append(Stage(width, blocks, merge=stage < len(depths) - 1))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, num_classes)
        self.apply(init_weights)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed(x)
        for stage in self.layers:
            x = stage(x)
        return self.head(self.norm(x).mean((1, 2)))
