"""Kernels of the inhomogeneous convolution: each position's taps are predicted where they are used, and never stored.

Channels come as (C/G, group), weights as (tap, D, group): what is read together lies together. Sums are in float32, in
float64 for float64.
"""

import triton
import triton.language as tl


@triton.jit
def rows_of(start, place, inside, inner, D: tl.constexpr):
    """What predicts the taps of some places, (places, D), the ReLU of hidden: zeros for those outside of the map."""
    mask = inside[:, None] & (inner < D)[None, :]
    values = tl.load(start + place[:, None] * D + inner[None, :], mask=mask, other=0.0)
    wide = values.to(tl.float64 if values.dtype == tl.float64 else tl.float32)
    return tl.where(wide < 0, 0.0, wide).to(values.dtype)


@triton.jit
def normalized(total, scale, shift, channel, C: tl.constexpr, RELU: tl.constexpr):
    """The sums, (places, C/G, groups), times scale, plus shift, each of which may be None, and their ReLU."""
    if scale is not None:
        total *= tl.load(scale + channel, mask=channel < C, other=0.0).to(total.dtype)[None, :, :]
    if shift is not None:
        total += tl.load(shift + channel, mask=channel < C, other=0.0).to(total.dtype)[None, :, :]
    if RELU:
        total = tl.where(total < 0, 0.0, total)
    return total


@triton.jit
def mixprof_inhomogeneous_aggregate(
    x, hidden, weight, bias, scale, shift, out, TRANSPOSED: tl.constexpr, PRECISION: tl.constexpr, RELU: tl.constexpr,
    H: tl.constexpr, W: tl.constexpr, C: tl.constexpr, D: tl.constexpr, K: tl.constexpr, G: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, GROUPS: tl.constexpr, EACH: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """A tile of positions by some channels of a block of groups. TRANSPOSED: the gradient of the map, from that of out.

    A tap is one product, hidden (positions, D) by its weights (D, groups), and one load of the map, shifted. Taps are
    not unrolled: the weights of several at once would not fit the registers.
    """
    SUM: tl.constexpr = tl.float64 if x.dtype.element_ty == tl.float64 else tl.float32
    tile, image = tl.program_id(0), tl.program_id(2).to(tl.int64)
    place, inner = tl.arange(0, ROWS * COLUMNS), tl.arange(0, WIDE)
    row = tile // tl.cdiv(W, COLUMNS) * ROWS + place // COLUMNS
    column = tile % tl.cdiv(W, COLUMNS) * COLUMNS + place % COLUMNS
    here = (row < H) & (column < W)
    group = tl.program_id(1) % (G // GROUPS) * GROUPS + tl.arange(0, GROUPS)
    each = tl.program_id(1) // (G // GROUPS) * EACH + tl.arange(0, EACH)
    channel = each[:, None] * G + group[None, :]
    known = (channel < C)[None, :, :]
    x += image * (H * W * C)
    hidden += image * (H * W * D)
    weight += inner[:, None] * G + group[None, :]
    used = (inner < D)[:, None] & (group < G)[None, :]
    features = rows_of(hidden, row * W + column, here, inner, D)
    total = tl.zeros((ROWS * COLUMNS, EACH, GROUPS), dtype=SUM)
    for tap in range(K * K):
        dy, dx = tap // K - K // 2, tap % K - K // 2
        y, across = (row - dy, column - dx) if TRANSPOSED else (row + dy, column + dx)
        inside = (y >= 0) & (y < H) & (across >= 0) & (across < W)
        if TRANSPOSED:
            features = rows_of(hidden, y * W + across, inside, inner, D)
        taps = tl.dot(features, tl.load(weight + tap * (G * D), mask=used, other=0.0), input_precision=PRECISION)
        taps = taps.to(SUM) + tl.load(bias + tap * G + group).to(SUM)[None, :]
        source = x + (y * W + across)[:, None, None] * C + channel[None, :, :]
        taken = tl.load(source, mask=inside[:, None, None] & known, other=0.0)
        total += taken.to(SUM) * taps[:, None, :]
    total = normalized(total, scale, shift, channel, C, RELU)
    out += image * (H * W * C) + (row * W + column)[:, None, None] * C + channel[None, :, :]
    tl.store(out, total.to(out.dtype.element_ty), mask=here[:, None, None] & known)


@triton.jit
def of_taps(
    x, gradient, place, tap,
    N: tl.constexpr, H: tl.constexpr, W: tl.constexpr, C: tl.constexpr, K: tl.constexpr, G: tl.constexpr,
    EACH: tl.constexpr, SUM: tl.constexpr,
):  # fmt: skip
    """The gradient of one tap of each position and group, (positions, G): the map times out's, over a group's channels.

    place: positions of all N images, counted through.
    """
    dy, dx = tap // K - K // 2, tap % K - K // 2
    y, across = place % (H * W) // W + dy, place % W + dx
    inside = (place < N * H * W) & (y >= 0) & (y < H) & (across >= 0) & (across < W)
    channel = tl.arange(0, EACH)[:, None] * G + tl.arange(0, G)[None, :]
    mask = inside[:, None, None] & (channel < C)[None, :, :]
    here = place.to(tl.int64)[:, None, None] * C + channel[None, :, :]
    taken = tl.load(x + here + (dy * W + dx) * C, mask=mask, other=0.0).to(SUM)
    return tl.sum(taken * tl.load(gradient + here, mask=mask, other=0.0).to(SUM), axis=1)


@triton.jit
def mixprof_inhomogeneous_hidden_gradient(
    x, gradient, hidden, weight, out,
    N: tl.constexpr, H: tl.constexpr, W: tl.constexpr, C: tl.constexpr, D: tl.constexpr, K: tl.constexpr,
    G: tl.constexpr, PRECISION: tl.constexpr, PLACES: tl.constexpr, EACH: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """The gradient of hidden, (positions, D): that of every tap, times the tap's weights."""
    SUM: tl.constexpr = tl.float64 if x.dtype.element_ty == tl.float64 else tl.float32
    place = tl.program_id(0) * PLACES + tl.arange(0, PLACES)
    group, inner = tl.arange(0, G), tl.arange(0, WIDE)
    used = (group < G)[:, None] & (inner < D)[None, :]
    weight += group[:, None] + inner[None, :] * G
    total = tl.zeros((PLACES, WIDE), dtype=SUM)
    for tap in range(K * K):
        of_tap = of_taps(x, gradient, place, tap, N, H, W, C, K, G, EACH, SUM)
        weights = tl.load(weight + tap * (G * D), mask=used, other=0.0)
        total += tl.dot(of_tap.to(weights.dtype), weights, input_precision=PRECISION)
    place = place.to(tl.int64)
    total = tl.where(rows_of(hidden, place, place < N * H * W, inner, D) > 0, total, 0.0)
    out += place[:, None] * D + inner[None, :]
    tl.store(out, total.to(out.dtype.element_ty), mask=(place < N * H * W)[:, None] & (inner < D)[None, :])


@triton.jit
def mixprof_inhomogeneous_weight_gradient(
    x, gradient, hidden, of_weight, of_bias,
    N: tl.constexpr, H: tl.constexpr, W: tl.constexpr, C: tl.constexpr, D: tl.constexpr, K: tl.constexpr,
    G: tl.constexpr, PRECISION: tl.constexpr, SPLITS: tl.constexpr, PLACES: tl.constexpr, EACH: tl.constexpr,
    WIDE: tl.constexpr,
):  # fmt: skip
    """One tap's weights over a share of all positions. of_weight: (SPLITS, K*K, D, G), of_bias: (SPLITS, K*K, G)."""
    SUM: tl.constexpr = tl.float64 if x.dtype.element_ty == tl.float64 else tl.float32
    tap, split = tl.program_id(0), tl.program_id(1)
    group, inner = tl.arange(0, G), tl.arange(0, WIDE)
    weights, biases = tl.zeros((WIDE, G), dtype=SUM), tl.zeros((G,), dtype=SUM)
    for block in range(split, tl.cdiv(N * H * W, PLACES), SPLITS):
        place = block * PLACES + tl.arange(0, PLACES)
        of_tap = of_taps(x, gradient, place, tap, N, H, W, C, K, G, EACH, SUM)
        features = rows_of(hidden, place.to(tl.int64), place < N * H * W, inner, D)
        weights += tl.dot(tl.trans(features), of_tap.to(features.dtype), input_precision=PRECISION)
        biases += tl.sum(of_tap, axis=0)
    first = split * K * K + tap
    tl.store(of_bias + first * G + group, biases)
    of_weight += first * (D * G) + inner[:, None] * G + group[None, :]
    tl.store(of_weight, weights, mask=(inner < D)[:, None] & (group < G)[None, :])
