"""Vision Transformer in DeiT's sizes (Dosovitskiy et al., arXiv 2010.11929; Touvron et al., arXiv 2012.12877)."""

import torch
from torch import Tensor, nn

from mixprof.models.layers import Mlp, PatchEmbed, Residual, add, init_weights
from mixprof.models.mixers.global_attention import GlobalAttention

EPSILON = 1e-6  # of DeiT's layer norms


class ViTBlock(Residual):
    """x + attention(norm(x)), then x + mlp(norm(x)). (B, 1, N, C) -> (B, 1, N, C)."""

    def __init__(self, dim: int, tokens: int, heads: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=EPSILON)
        self.attn = GlobalAttention(dim, (1, tokens), tokens, heads)
        self.norm2 = nn.LayerNorm(dim, eps=EPSILON)
        self.mlp = Mlp(dim)

    def forward(self, x: Tensor) -> Tensor:
        x = add(x, self.attn(self.norm1(x)), self.drop1)
        return add(x, self.mlp(self.norm2(x)), self.drop2)


class ViT(nn.Module):
    """Classify images by a class token. (B, 3, H, W) -> (B, num_classes); patches of 16x16 pixels.

    Built for one resolution (height, width) in pixels, the size of its position embedding; it has no window.
    Its `drop_path` rate is for training.py: eval mode has none.
    """

    def __init__(
        self,
        resolution: tuple[int, int],
        window: int,
        num_classes: int,
        *,
        dim: int,
        depth: int,
        heads: int,
        drop_path: float = 0.0,
    ):
        super().__init__()
        self.drop_path = drop_path
        self.patch_embed = PatchEmbed(resolution, 16, dim, norm=False)
        tokens = self.patch_embed.resolution[0] * self.patch_embed.resolution[1] + 1
        self.cls_token = nn.Parameter(0.02 * torch.randn(1, 1, dim))
        self.pos_embed = nn.Parameter(0.02 * torch.randn(1, tokens, dim))
        self.blocks = nn.ModuleList(ViTBlock(dim, tokens, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=EPSILON)
        self.head = nn.Linear(dim, num_classes)
        self.apply(init_weights)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed(x).flatten(1, 2)  # (B, N, C)
        x = torch.cat((self.cls_token.expand(len(x), -1, -1), x), dim=1) + self.pos_embed
        x = x[:, None]  # (B, 1, N + 1, C)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x[:, 0, 0]))
