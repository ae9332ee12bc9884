"""mixprof::deformable: weighted samples of a map at places that each position moves, on a CPU."""

import torch
from torch import Tensor

from mixprof.models.kernels.cpu.build import LIBRARY, call

NAME = "deformable"
HEAD = 32  # channels of one head
LIBRARY.define("deformable(Tensor value, Tensor moved, int heads, int window) -> Tensor")


def deformable(value: Tensor, moved: Tensor, heads: int, window: int) -> Tensor:
    """sum over t of m_t value[p + p_t + offset_t] per head, bilinear, zeros outside: (B, H, W, C).

    value (B, H, W, C); moved (B, H, W, heads * 3*K*K), of each head K*K offsets (x, y), then K*K weights m. Places are
    float32 or float64. ValueError for heads of another size than 32 channels.
    """
    if value.shape[3] != heads * HEAD:
        raise ValueError(f"got {value.shape[3]} channels in {heads} heads, expected {HEAD} in each")
    out = _shape(value, moved, heads, window)
    call(NAME, (*value.shape[:3], heads, window), (value, moved), out)
    return out


LIBRARY.impl("deformable", deformable, "CPU")


@torch.library.register_fake("mixprof::deformable", lib=LIBRARY)
def _shape(value: Tensor, moved: Tensor, heads: int, window: int) -> Tensor:
    return torch.empty_like(value, memory_format=torch.contiguous_format)
