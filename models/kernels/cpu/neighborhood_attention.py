"""mixprof::neighborhood_attention: every position attends to its neighbours, from a map to a map, on a CPU."""

import torch
from torch import Tensor

from mixprof.models.kernels.cpu.build import LIBRARY, call

NAME = "neighborhood_attention"
HEAD = 32  # channels of one head
LIBRARY.define("neighborhood_attention(Tensor qkv, Tensor bias, int window) -> Tensor")


def neighborhood_attention(qkv: Tensor, bias: Tensor, window: int) -> Tensor:
    """softmax(q k^T / sqrt(d) + bias) v over the KxK neighbours that lie on the map: (B, H, W, C).

    qkv (B, H, W, 3C), part by part, head by head; bias (heads, K*K). ValueError for heads of other than 32 channels.
    """
    out, heads = _shape(qkv, bias, window), len(bias)
    if out.shape[3] != heads * HEAD:
        raise ValueError(f"got {out.shape[3]} channels in {heads} heads, expected {HEAD} in each")
    call(NAME, (*qkv.shape[:3], heads, window), (qkv, bias), out)
    return out


LIBRARY.impl("neighborhood_attention", neighborhood_attention, "CPU")


@torch.library.register_fake("mixprof::neighborhood_attention", lib=LIBRARY)
def _shape(qkv: Tensor, bias: Tensor, window: int) -> Tensor:
    return qkv.new_empty((*qkv.shape[:3], qkv.shape[3] // 3))
