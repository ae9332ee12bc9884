"""h_t = decay_t h_{t-1} + drive_t along a sequence, h_0 = drive_0; equal in value.

Decays, drives and h are (..., L, C). A loop over L would be L operators one after the other; both formulations compose
neighbours instead, (a, b) then (c, d) being (c a, c b + d): exact, and few operators of fixed sizes for an exporter.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

CHUNK = 8  # positions that are composed one after the other, in all chunks at once


def chunked(decay: Tensor, drive: Tensor) -> Tensor:
    """Each chunk by itself, then the chunks' ends, then what every chunk takes over: few passes over the sequence."""
    length = decay.shape[-2]
    size = min(CHUNK, length)
    decay, drive = (F.pad(part, (0, 0, 0, -length % size)).unflatten(-2, (-1, size)) for part in (decay, drive))
    decays, states = [decay[..., 0, :]], [drive[..., 0, :]]  # (..., chunks, C) each
    for place in range(1, size):
        states.append(decay[..., place, :] * states[-1] + drive[..., place, :])
        decays.append(decay[..., place, :] * decays[-1])
    state = torch.stack(states, dim=-2)
    if length > size:
        before = F.pad(chunked(decays[-1], states[-1])[..., :-1, :], (0, 0, 1, 0))
        state = state + torch.stack(decays, dim=-2) * before.unsqueeze(-2)
    return state.flatten(-3, -2)[..., :length, :]


def doubling(decay: Tensor, drive: Tensor) -> Tensor:
    """Each position with the one 1, 2, 4, … before it: log2(L) passes over the sequence."""
    reach = 1
    while reach < decay.shape[-2]:
        before = F.pad(drive[..., :-reach, :], (0, 0, reach, 0))
        drive = drive + decay * before
        decay = decay * F.pad(decay[..., :-reach, :], (0, 0, reach, 0))
        reach *= 2
    return drive


FORMULATIONS = {"chunked": chunked, "doubling": doubling}


def scan(formulation: str, u: Tensor, delta: Tensor, rate: Tensor, entry: Tensor, readout: Tensor) -> Tensor:
    """The selective scan of Mamba with a state of one value per channel (Gu and Dao, arXiv 2312.00752).

    y = readout_t h_t, h_t = exp(-delta_t exp(rate)) h_{t-1} + delta_t entry_t u_t. u and delta (D, B, L, C), rate
    (D, C), entry and readout (D, B, L, 1) for D directions; y is u's shape and dtype, the states are float32 or wider.
    """
    dtype = torch.promote_types(u.dtype, torch.float32)  # in 16 bits a decay near 1 would forget too soon or never
    wide = delta.to(dtype)
    decay = torch.exp(-wide * rate.to(dtype).exp()[:, None, None])
    state = FORMULATIONS[formulation](decay, wide * entry * u)
    return (state * readout).to(u.dtype)


@torch.library.custom_op("mixprof::selective_scan", mutates_args=())
def selective_scan(u: Tensor, delta: Tensor, rate: Tensor, entry: Tensor, readout: Tensor) -> Tensor:
    """The scan as one operator, which counters see: pointwise products in any number would cost them nothing."""
    return scan("chunked", u, delta, rate, entry, readout)


@selective_scan.register_fake
def _(u: Tensor, delta: Tensor, rate: Tensor, entry: Tensor, readout: Tensor) -> Tensor:
    return torch.empty_like(u, memory_format=torch.contiguous_format)


Gradients = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


@torch.library.custom_op("mixprof::selective_scan_backward", mutates_args=())
def selective_scan_backward(
    gradient: Tensor, u: Tensor, delta: Tensor, rate: Tensor, entry: Tensor, readout: Tensor
) -> Gradients:
    """The gradients of the scan's operands, its states computed anew: the recurrence once more, from the end."""
    dtype = torch.promote_types(u.dtype, torch.float32)
    gradient, wide, speed = gradient.to(dtype), delta.to(dtype), rate.to(dtype).exp()[:, None, None]
    decay = torch.exp(-wide * speed)
    state = chunked(decay, wide * entry * u)
    behind = F.pad(decay[..., 1:, :], (0, 0, 0, 1))
    of_drive = chunked(behind.flip(-2), (gradient * readout).flip(-2)).flip(-2)
    of_exponent = of_drive * F.pad(state[..., :-1, :], (0, 0, 1, 0)) * decay  # of -delta exp(rate)
    gradients = (
        of_drive * wide * entry,
        of_drive * entry * u - of_exponent * speed,
        -(of_exponent * wide * speed).sum(dim=(1, 2)),
        (of_drive * wide * u).sum(dim=-1, keepdim=True),
        (gradient * state).sum(dim=-1, keepdim=True),
    )
    made = [each.to(like.dtype) for each, like in zip(gradients, (u, delta, rate, entry, readout), strict=True)]
    return made[0], made[1], made[2], made[3], made[4]


@selective_scan_backward.register_fake
def _(gradient: Tensor, u: Tensor, delta: Tensor, rate: Tensor, entry: Tensor, readout: Tensor) -> Gradients:
    made = [torch.empty_like(each, memory_format=torch.contiguous_format) for each in (u, delta, rate, entry, readout)]
    return made[0], made[1], made[2], made[3], made[4]


def _keep(ctx: torch.autograd.function.FunctionCtx, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: torch.autograd.Function, gradient: Tensor) -> Gradients:
    return selective_scan_backward(gradient, *ctx.saved_tensors)


selective_scan.register_autograd(_backward, setup_context=_keep)


@register_flop_formula(torch.ops.mixprof.selective_scan)
def _flops(u: tuple[int, ...], *others: tuple[int, ...], out_shape: object, **settings: object) -> int:
    """Two multiply-accumulates, of 2 FLOPs each, per value of u: the state's and the readout's."""
    return 4 * torch.Size(u).numel()


@register_flop_formula(torch.ops.mixprof.selective_scan_backward)
def _backward_flops(gradient: tuple[int, ...], *others: tuple[int, ...], out_shape: object, **settings: object) -> int:
    """Two for each of the forward's, as of any product; the states computed anew are not counted."""
    return 8 * torch.Size(gradient).numel()
