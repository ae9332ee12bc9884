"""Kernels of attention within windows: partition, padding, shift and mask are arithmetic on where to load and store.

Logits and sums are in float32, in float64 for float64.
"""

import triton
import triton.language as tl


@triton.jit
def places_of(
    window,
    H: tl.constexpr, W: tl.constexpr, K: tl.constexpr, SHIFT_Y: tl.constexpr, SHIFT_X: tl.constexpr,
    TOKENS: tl.constexpr,
):  # fmt: skip
    """Of each token of a window: its place in the map, whether it lies in it, and its region since the roll.

    The map is padded to multiples of the window, then rolled by the shift, up and left.
    """
    HEIGHT: tl.constexpr = (H + K - 1) // K * K
    WIDTH: tl.constexpr = (W + K - 1) // K * K
    token = tl.arange(0, TOKENS)
    rolled_y, rolled_x = window // (WIDTH // K) * K + token // K, window % (WIDTH // K) * K + token % K
    region = token * 0
    if SHIFT_Y > 0:
        region += 3 * ((rolled_y >= HEIGHT - K).to(tl.int32) + (rolled_y >= HEIGHT - SHIFT_Y).to(tl.int32))
    if SHIFT_X > 0:
        region += (rolled_x >= WIDTH - K).to(tl.int32) + (rolled_x >= WIDTH - SHIFT_X).to(tl.int32)
    y, x = (rolled_y + SHIFT_Y) % HEIGHT, (rolled_x + SHIFT_X) % WIDTH
    return y * W + x, (token < K * K) & (y < H) & (x < W), region


@triton.jit
def load(start, padding, place, inside, lane, offset, STRIDE: tl.constexpr, D: tl.constexpr):
    """The values of a window's tokens from an offset, (tokens, D): the padding's where a token lies outside."""
    mask = inside[:, None] & (lane < D)[None, :]
    values = tl.load(start + offset + place[:, None] * STRIDE + lane[None, :], mask=mask, other=0.0)
    if padding is not None:
        row = tl.load(padding + offset + lane, mask=lane < D, other=0.0)
        values = tl.where(inside[:, None], values, row[None, :])
    return values


@triton.jit
def load_three(start, padding, place, inside, lane, offset, C: tl.constexpr, D: tl.constexpr):
    """A head's query, key and value; offset: where its query starts."""
    return (
        load(start, padding, place, inside, lane, offset, 3 * C, D),
        load(start, padding, place, inside, lane, offset + C, 3 * C, D),
        load(start, padding, place, inside, lane, offset + 2 * C, 3 * C, D),
    )


@triton.jit
def store(start, values, place, inside, lane, STRIDE: tl.constexpr, D: tl.constexpr):
    """Store the values of those tokens that lie in the map."""
    mask = inside[:, None] & (lane < D)[None, :]
    tl.store(start + place[:, None] * STRIDE + lane[None, :], values.to(start.dtype.element_ty), mask=mask)


@triton.jit
def store_three(start, query, key, value, place, inside, lane, C: tl.constexpr, D: tl.constexpr):
    """Store what load_three() loads, where those tokens lie in the map."""
    store(start, query, place, inside, lane, 3 * C, D)
    store(start + C, key, place, inside, lane, 3 * C, D)
    store(start + 2 * C, value, place, inside, lane, 3 * C, D)


@triton.jit
def store_row(start, query, key, value, lane, C: tl.constexpr, D: tl.constexpr):
    """Store one row, (D,), of each of the three, where load_three() would load them."""
    tl.store(start + lane, query, mask=lane < D)
    tl.store(start + C + lane, key, mask=lane < D)
    tl.store(start + 2 * C + lane, value, mask=lane < D)


@triton.jit
def plus_padding(query, key, value, of_query, of_key, of_value, outside):
    """Add to three rows, (D,), the sums of a window's gradients over the tokens that lie outside of the map."""
    query += tl.sum(tl.where(outside[:, None], of_query, 0.0), axis=0)
    key += tl.sum(tl.where(outside[:, None], of_key, 0.0), axis=0)
    value += tl.sum(tl.where(outside[:, None], of_value, 0.0), axis=0)
    return query, key, value


@triton.jit
def probabilities(
    query, key, bias, region, SCALE: tl.constexpr, K: tl.constexpr, BIAS_STRIDE: tl.constexpr, MASKED: tl.constexpr,
    SHIFTED: tl.constexpr, PRECISION: tl.constexpr, TOKENS: tl.constexpr, SUM: tl.constexpr,
):  # fmt: skip
    """softmax(q k^T * SCALE + bias + mask), (tokens, tokens); 0 for keys beyond the window's."""
    token = tl.arange(0, TOKENS)
    real = (token < K * K)[:, None] & (token < K * K)[None, :]
    logits = tl.dot(query, tl.trans(key), input_precision=PRECISION).to(SUM) * SCALE
    logits += tl.load(bias + token[:, None] * BIAS_STRIDE + token[None, :], mask=real, other=0.0).to(SUM)
    if SHIFTED:
        logits += tl.where(region[:, None] != region[None, :], MASKED, 0.0)
    logits = tl.where((token < K * K)[None, :], logits, float("-inf"))
    weights = tl.exp(logits - tl.max(logits, axis=1)[:, None])
    return weights / tl.sum(weights, axis=1)[:, None]


@triton.jit
def mixprof_window_attention_forward(
    qkv, bias, padding, out,
    H: tl.constexpr, W: tl.constexpr, C: tl.constexpr, D: tl.constexpr, K: tl.constexpr,
    SHIFT_Y: tl.constexpr, SHIFT_X: tl.constexpr, SCALE: tl.constexpr, MASKED: tl.constexpr,
    HEAD_STRIDE: tl.constexpr, BIAS_STRIDE: tl.constexpr, PRECISION: tl.constexpr,
    TOKENS: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """One head of one window of one image."""
    SUM: tl.constexpr = tl.float64 if qkv.dtype.element_ty == tl.float64 else tl.float32
    window, head, image = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    place, inside, region = places_of(window, H, W, K, SHIFT_Y, SHIFT_X, TOKENS)
    lane = tl.arange(0, WIDE)
    query, key, value = load_three(qkv + image * (H * W * 3 * C), padding, place, inside, lane, head * D, C, D)
    weights = probabilities(
        query, key, bias + head * HEAD_STRIDE, region, SCALE, K, BIAS_STRIDE, MASKED, SHIFT_Y + SHIFT_X > 0,
        PRECISION, TOKENS, SUM,
    )  # fmt: skip
    mixed = tl.dot(weights.to(value.dtype), value, input_precision=PRECISION)
    store(out + image * (H * W * C) + head * D, mixed, place, inside, lane, C, D)


@triton.jit
def of_window(
    query, key, value, weights, of_out, real, SCALE: tl.constexpr, PRECISION: tl.constexpr, SUM: tl.constexpr
):
    """The gradients of one window's query, key, value and logits from that of its output; those of no token are 0."""
    of_value = tl.dot(tl.trans(weights).to(value.dtype), of_out, input_precision=PRECISION)
    of_weights = tl.dot(of_out, tl.trans(value), input_precision=PRECISION).to(SUM)
    of_logits = weights * (of_weights - tl.sum(of_weights * weights, axis=1)[:, None])
    of_logits = tl.where(real[:, None], of_logits, 0.0)
    rounded = (of_logits * SCALE).to(query.dtype)
    of_query = tl.dot(rounded, key, input_precision=PRECISION)
    return of_query, tl.dot(tl.trans(rounded), query, input_precision=PRECISION), of_value, of_logits


@triton.jit
def mixprof_window_attention_backward(
    qkv, bias, padding, gradient, of_qkv, of_bias, of_padding, SPLITS: tl.constexpr, N: tl.constexpr,
    H: tl.constexpr, W: tl.constexpr, C: tl.constexpr, D: tl.constexpr, K: tl.constexpr,
    SHIFT_Y: tl.constexpr, SHIFT_X: tl.constexpr, SCALE: tl.constexpr, MASKED: tl.constexpr,
    HEAD_STRIDE: tl.constexpr, BIAS_STRIDE: tl.constexpr, PRECISION: tl.constexpr,
    TOKENS: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """One head of a share of the windows of all N images; every position lies in one window, so none is added to.

    of_bias: (SPLITS, heads, K*K, K*K) and of_padding: (SPLITS, 3 * C), the sums over a share.
    """
    SUM: tl.constexpr = tl.float64 if qkv.dtype.element_ty == tl.float64 else tl.float32
    COUNT: tl.constexpr = ((H + K - 1) // K) * ((W + K - 1) // K)
    split, head = tl.program_id(0), tl.program_id(1)
    token, lane = tl.arange(0, TOKENS), tl.arange(0, WIDE)
    real = token < K * K
    bias += head * HEAD_STRIDE
    biases = tl.zeros((TOKENS, TOKENS), dtype=SUM)
    pad_q, pad_k, pad_v = tl.zeros((WIDE,), SUM), tl.zeros((WIDE,), SUM), tl.zeros((WIDE,), SUM)
    for number in range(split, N * COUNT, SPLITS):
        image = tl.full((), number // COUNT, tl.int64)
        place, inside, region = places_of(number % COUNT, H, W, K, SHIFT_Y, SHIFT_X, TOKENS)
        start = image * (H * W * 3 * C)
        query, key, value = load_three(qkv + start, padding, place, inside, lane, head * D, C, D)
        of_out = load(gradient + image * (H * W * C), None, place, inside, lane, head * D, C, D)
        weights = probabilities(
            query, key, bias, region, SCALE, K, BIAS_STRIDE, MASKED, SHIFT_Y + SHIFT_X > 0, PRECISION, TOKENS, SUM
        )
        of_query, of_key, of_value, of_logits = of_window(
            query, key, value, weights, of_out, real, SCALE, PRECISION, SUM
        )
        biases += of_logits
        store_three(of_qkv + start + head * D, of_query, of_key, of_value, place, inside, lane, C, D)
        if padding is not None:
            outside = real & (inside == 0)
            pad_q, pad_k, pad_v = plus_padding(pad_q, pad_k, pad_v, of_query, of_key, of_value, outside)
    of_bias += (split * (C // D) + head) * (K * K * K * K) + token[:, None] * (K * K) + token[None, :]
    tl.store(of_bias, biases, mask=real[:, None] & real[None, :])
    if padding is not None:
        store_row(of_padding + split * 3 * C + head * D, pad_q, pad_k, pad_v, lane, C, D)
