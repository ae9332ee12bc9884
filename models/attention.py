"""softmax(q k^T / sqrt(d) + bias) v in the formulations that suit different lowerings; equal in value."""

import torch
import torch.nn.functional as F
from torch import Tensor

from mixprof.models.formulations import OWN

CPU_SDPA_KEYS = 192  # from about this many keys on, blocking wins over two batched products on a CPU


def choose(override: str | None, lowering: str | None, device: torch.device, keys: int) -> str:
    """The formulation to run: the override, else what is fastest for the lowering, the device and so many keys."""
    if override is not None and (lowering is not None or override not in OWN):
        return override
    if lowering == "eager" and device.type == "cpu":
        return "baddbmm" if keys < CPU_SDPA_KEYS else "sdpa"
    return "sdpa" if lowering in ("eager", "compile") else "explicit"


def attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, formulation: str) -> Tensor:
    """Attend within each group of positions. q (B, G, h, L, d), k and v (B, G, h, M, d) -> (B, G, L, h * d).

    bias: added to the logits, (1 or G, h, L, M), or None. G is the number of windows, 1 for global attention.
    """
    mixed = FORMULATIONS[formulation](query, key, value, bias)  # (B, G, h, L, d)
    return mixed.transpose(2, 3).flatten(3)


def explicit(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None) -> Tensor:
    """Matrix product, softmax, matrix product, the group axis kept as its own: what exporters and counters know."""
    logits = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)
    return (logits if bias is None else logits + bias).softmax(dim=-1) @ value


def baddbmm(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None) -> Tensor:
    """The same with the scale and the bias inside the first product: one pass fewer over the logits for each."""
    batch, groups, heads, queries, dim = query.shape
    count, scale = batch * groups * heads, dim**-0.5
    query, key, value = (part.reshape(count, -1, dim) for part in (query, key, value))
    if bias is None:
        logits = torch.baddbmm(query.new_zeros(()), query, key.transpose(1, 2), beta=0, alpha=scale)
    else:
        logits = bias.expand(batch, groups, heads, -1, -1).reshape(count, queries, -1)
        logits = torch.baddbmm(logits, query, key.transpose(1, 2), alpha=scale)
    return (logits.softmax(dim=-1) @ value).view(batch, groups, heads, queries, dim)


def sdpa(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None) -> Tensor:
    """torch's fused attention, on four axes (its fused kernels take no five); a bias per group is copied per image."""
    batch, groups = query.shape[:2]
    if bias is not None and bias.shape[0] > 1 and batch > 1:
        bias = bias.repeat(batch, 1, 1, 1)  # (B * G, h, L, M)
    query, key, value = (part.flatten(0, 1) for part in (query, key, value))
    return F.scaled_dot_product_attention(query, key, value, attn_mask=bias).unflatten(0, (batch, groups))


FORMULATIONS = {"explicit": explicit, "baddbmm": baddbmm, "sdpa": sdpa}
