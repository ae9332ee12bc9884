"""mixprof::window_attention: attention within windows, from a map of queries, keys and values to a map, on a CPU."""

import torch
import torch.nn.functional as F
from torch import Tensor

from mixprof.models.kernels.cpu.build import LIBRARY, call

PANEL = 32  # keys side by side, and channels of a head, as the C++ has them
NOTHING = -1e30  # the logit of a key that is not there
LIBRARY.define(
    "window_attention(Tensor qkv, Tensor padding, Tensor bias, int heads, int window, int down, int right) -> Tensor"
)


def window_attention(
    qkv: Tensor, padding: Tensor, bias: Tensor, heads: int, window: int, down: int, right: int
) -> Tensor:
    """softmax(q k^T / sqrt(d) + bias) v within windows of a map rolled by -(down, right): (B, H, W, C).

    qkv (B, H, W, 3C), part by part, head by head; padding (3C,), that of positions beyond the map; bias as padded() has
    it. ValueError for heads of another size than 32 channels.
    """
    out = _shape(qkv, padding, bias, heads, window, down, right)
    if out.shape[3] != heads * PANEL:
        raise ValueError(f"got {out.shape[3]} channels in {heads} heads, expected {PANEL} in each")
    shape = (*qkv.shape[:3], heads, window, down, right, len(bias))
    call("window_attention", shape, (qkv, padding, bias), out)
    return out


LIBRARY.impl("window_attention", window_attention, "CPU")


@torch.library.register_fake("mixprof::window_attention", lib=LIBRARY)
def _shape(qkv: Tensor, padding: Tensor, bias: Tensor, heads: int, window: int, down: int, right: int) -> Tensor:
    return qkv.new_empty((*qkv.shape[:3], qkv.shape[3] // 3))


def padded(bias: Tensor) -> Tensor:
    """A bias (1 or windows, heads, L, L) with keys added that nobody attends to: L rounded up to 32."""
    return F.pad(bias, (0, -bias.shape[-1] % PANEL), value=NOTHING).contiguous()
