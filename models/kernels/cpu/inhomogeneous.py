"""mixprof::inhomogeneous: kernels predicted per position and applied there in one pass, on a CPU."""

import ctypes

import torch
from torch import Tensor

from mixprof.models.kernels.cpu.build import library

GROUPS = 32  # kernels per position: what the C++ is compiled for
MOST_TAPS = 64  # in a row
DTYPES = {torch.float32: "float32", torch.float64: "float64", torch.bfloat16: "bfloat16"}
LIBRARY = torch.library.Library("mixprof", "FRAGMENT")
LIBRARY.define(
    "inhomogeneous(Tensor x, Tensor hidden, Tensor weight, Tensor bias, Tensor scale, Tensor shift, int window)"
    " -> Tensor"
)


def inhomogeneous(
    x: Tensor, hidden: Tensor, weight: Tensor, bias: Tensor, scale: Tensor, shift: Tensor, window: int
) -> Tensor:
    """sum over t of (relu(hidden) @ weight[t] + bias[t]) * x shifted by t, times scale plus shift. -> (B, H, W, C).

    x (B, H, W, C) with channels as (C/G, group); hidden (B, H, W, J); weight (K*K, J, G), bias (K*K, G), scale and
    shift (C,). Sums are float32 or float64. ValueError for another dtype.
    """
    if x.dtype not in DTYPES or x.shape[3] % GROUPS or window > MOST_TAPS:
        raise ValueError(
            f"got {x.dtype}, {x.shape[3]} channels, window={window}, expected one of {', '.join(map(str, DTYPES))}, "
            f"a multiple of {GROUPS} channels, a window of at most {MOST_TAPS}"
        )
    shape = (*x.shape, hidden.shape[3], window)
    operands = [part.to(x.dtype).contiguous() for part in (x, hidden, weight, bias, scale, shift)]
    out = torch.empty_like(operands[0])
    entry = getattr(library("inhomogeneous"), f"inhomogeneous_{DTYPES[x.dtype]}")
    pointers = (ctypes.c_void_p * len(operands))(*(part.data_ptr() for part in operands))
    entry((ctypes.c_int64 * len(shape))(*shape), pointers, ctypes.c_void_p(out.data_ptr()))
    return out


LIBRARY.impl("inhomogeneous", inhomogeneous, "CPU")


@torch.library.register_fake("mixprof::inhomogeneous", lib=LIBRARY)
def _shape(
    x: Tensor, hidden: Tensor, weight: Tensor, bias: Tensor, scale: Tensor, shift: Tensor, window: int
) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)
