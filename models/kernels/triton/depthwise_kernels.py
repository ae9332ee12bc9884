"""Kernels of the depth-wise convolution with zero padding, in channels_last.

Sums are in float32, in float64 for float64. Sizes are parameters, each a constant: there are more than of a function.
"""

import triton
import triton.language as tl


@triton.jit
def mixprof_depthwise_forward(
    x, weight, bias, out,
    IMAGE_STRIDE: tl.constexpr, TAP_STRIDE: tl.constexpr, CHANNEL_STRIDE: tl.constexpr,
    H: tl.constexpr, W: tl.constexpr, C: tl.constexpr, K: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, CHANNELS: tl.constexpr, RELU: tl.constexpr,
):  # fmt: skip
    """One tile of rows x columns, flat, by channels of one image: a tap is one load of the map, shifted."""
    SUM: tl.constexpr = tl.float64 if x.dtype.element_ty == tl.float64 else tl.float32
    tile, image = tl.program_id(0), tl.program_id(2)
    place = tl.arange(0, ROWS * COLUMNS)
    row = tile // tl.cdiv(W, COLUMNS) * ROWS + place // COLUMNS
    column = tile % tl.cdiv(W, COLUMNS) * COLUMNS + place % COLUMNS
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    known = channel < C
    x += image.to(tl.int64) * (H * W * C)
    weight += image.to(tl.int64) * IMAGE_STRIDE + channel * CHANNEL_STRIDE
    total = tl.zeros((ROWS * COLUMNS, CHANNELS), dtype=SUM)
    for dy in range(K):
        y = row + dy - K // 2
        for dx in tl.static_range(K):
            across = column + dx - K // 2
            inside = (y >= 0) & (y < H) & (across >= 0) & (across < W)
            taken = tl.load(
                x + (y * W + across)[:, None] * C + channel[None, :], mask=inside[:, None] & known[None, :], other=0.0
            )
            tap = tl.load(weight + (dy * K + dx) * TAP_STRIDE, mask=known, other=0.0)
            total += taken.to(SUM) * tap.to(SUM)[None, :]
    if bias is not None:
        total += tl.load(bias + channel, mask=known, other=0.0).to(SUM)[None, :]
    if RELU:
        total = tl.where(total < 0, 0.0, total)
    inside = (row < H) & (column < W)
    out += image.to(tl.int64) * (H * W * C)
    out += (row * W + column)[:, None] * C + channel[None, :]
    tl.store(out, total.to(out.dtype.element_ty), mask=inside[:, None] & known[None, :])


@triton.jit
def mixprof_depthwise_weight_gradient(
    x, gradient, out,
    H: tl.constexpr, W: tl.constexpr, C: tl.constexpr, K: tl.constexpr, TAPS: tl.constexpr,
    SPLITS: tl.constexpr, PLACES: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """One row of taps by channels, over a share of an image's positions. out: (B, SPLITS, K, K, C), one sum each."""
    SUM: tl.constexpr = tl.float64 if x.dtype.element_ty == tl.float64 else tl.float32
    dy, share = tl.program_id(1), tl.program_id(2).to(tl.int64)
    image, split = share // SPLITS, (share % SPLITS).to(tl.int32)
    channel = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    known = (channel < C)[None, :]
    tap = tl.arange(0, TAPS)
    x += image * (H * W * C)
    gradient += image * (H * W * C)
    total = tl.zeros((TAPS, CHANNELS), dtype=SUM)
    for block in range(split, tl.cdiv(H * W, PLACES), SPLITS):
        place = block * PLACES + tl.arange(0, PLACES)
        there = (place < H * W)[:, None] & known
        of_sum = tl.load(gradient + place[:, None] * C + channel[None, :], mask=there, other=0.0).to(SUM)
        y, across = place // W + dy - K // 2, (place % W)[None, :] + tap[:, None] - K // 2  # (TAPS, PLACES)
        inside = ((y >= 0) & (y < H) & (place < H * W))[None, :] & (across >= 0) & (across < W) & (tap < K)[:, None]
        taken = tl.load(
            x + (y[None, :] * W + across)[:, :, None] * C + channel[None, None, :],
            mask=inside[:, :, None] & known[None, :, :], other=0.0,
        )  # fmt: skip
        total += tl.sum(taken.to(SUM) * of_sum[None, :, :], axis=1)
    out += ((share * K + dy) * K + tap)[:, None] * C + channel[None, :]
    tl.store(out, total, mask=(tap < K)[:, None] & known)
