"""Mixers of 2021 to 2025 as plain float64 loops, written from their papers: see plain_mixers.py."""

from math import erf

import numpy as np

from plain_mixers import HEAD, MIXERS, Array, State, aggregate, layer_norm, linear, relu


def depthwise(x: Array, state: State, name: str) -> Array:
    """A depth-wise convolution with a kernel of two odd sides, zeros outside the map, a bias if there is one."""
    weight = state[name + ".weight"][:, 0]  # (C, rows, columns)
    (_, height, width, _), (_, rows, columns) = x.shape, weight.shape
    out = np.zeros_like(x) + state.get(name + ".bias", 0.0)
    for y in range(height):
        for column in range(width):
            for dy in range(rows):
                for dx in range(columns):
                    row, place = y + dy - rows // 2, column + dx - columns // 2
                    if 0 <= row < height and 0 <= place < width:
                        out[:, y, column] += weight[:, dy, dx] * x[:, row, place]
    return out


def gelu(x: Array) -> Array:
    return x * (1 + np.vectorize(erf)(x / np.sqrt(2))) / 2


def convnext(x: Array, state: State, window: int) -> Array:
    return layer_norm(depthwise(x, state, "dwconv"), state, "norm")


def split_depthwise_conv(x: Array, state: State, window: int) -> Array:
    """The last three eighths of the channels: square, row and column, in this order."""
    eighth = x.shape[3] // 8
    out = x.copy()
    for number, name in enumerate(("square", "row", "column"), start=5):
        part = slice(number * eighth, (number + 1) * eighth)
        out[..., part] = depthwise(x[..., part], state, name)
    return out


def focal_modulation(x: Array, state: State, window: int) -> Array:
    gates, context = linear(x, state, "gates"), linear(x, state, "context")
    total = np.zeros_like(x)
    for level in range(3):
        context = gelu(depthwise(context, state, f"levels.{level}"))
        total += context * gates[..., level : level + 1]
    everywhere = gelu(context.mean(axis=(1, 2)))
    for image in range(len(x)):
        total[image] += everywhere[image] * gates[image, ..., 3:]
    return linear(linear(x, state, "query") * linear(total, state, "modulator"), state, "proj")


def linear_attention(x: Array, state: State, window: int) -> Array:
    """Every query meets every key, and what they weigh is normed by its sum: no product is reordered."""
    q, k, v = (part.reshape(len(x), -1, x.shape[3]) for part in np.split(linear(x, state, "qkv"), 3, axis=-1))
    out = np.zeros_like(q)
    for image in range(len(q)):
        for head in range(x.shape[3] // HEAD):
            part = slice(head * HEAD, (head + 1) * HEAD)
            for place in range(q.shape[1]):
                scores = relu(k[image, :, part]) @ relu(q[image, place, part]) / q.shape[1]
                out[image, place, part] = scores @ v[image, :, part] / (scores.sum() + 1e-6)
    return linear(out.reshape(x.shape), state, "proj")


def dynamic_large_kernel(x: Array, state: State, window: int) -> Array:
    batch, height, width, channels = x.shape
    rows, columns = (
        [(side * n // 7, -(side * (n + 1) // -7)) for n in range(7)] for side in (height, width)
    )  # whose overlap or repeat where 7 does not divide the side
    regions = np.stack([x[:, a:b, c:d].mean(axis=(1, 2)) for a, b in rows for c, d in columns], axis=1)
    query, key = linear(x, state, "query"), linear(regions, state, "key")
    kernels = np.empty((batch, height, width, window**2, channels))
    for image, y, column in np.ndindex(batch, height, width):
        for start in range(0, channels, HEAD):
            part = slice(start, start + HEAD)
            affinity = key[image, :, part] @ query[image, y, column, part] / np.sqrt(HEAD)
            taps = np.exp(linear(affinity, state, "kernel"))
            kernels[image, y, column, :, part] = (taps / taps.sum())[:, None]
    mixed = aggregate(x, lambda image, y, column, tap: kernels[image, y, column, tap], window)
    return linear(mixed, state, "proj")


def bilinear(value: Array, row: float, column: float) -> Array:
    """A map (H, W, d) between its positions, zeros outside: (d,)."""
    total = np.zeros(value.shape[2])
    for y in range(value.shape[0]):
        for x in range(value.shape[1]):
            total += max(0.0, 1 - abs(row - y)) * max(0.0, 1 - abs(column - x)) * value[y, x]
    return total


def deformable_aggregation(x: Array, state: State, window: int) -> Array:
    value, asked = linear(x, state, "value"), linear(x, state, "offset_mask")
    taps, out = window**2, np.zeros_like(x)
    for image, y, column in np.ndindex(x.shape[:3]):
        for head, wanted in enumerate(asked[image, y, column].reshape(-1, 3 * taps)):
            part = slice(head * HEAD, (head + 1) * HEAD)
            for tap in range(taps):
                across, down = wanted[2 * tap : 2 * tap + 2]
                place = (y + tap // window - window // 2 + down, column + tap % window - window // 2 + across)
                out[image, y, column, part] += wanted[2 * taps + tap] * bilinear(value[image, ..., part], *place)
    return linear(out, state, "proj")


def selective_scan(x: Array, state: State, window: int) -> Array:
    """Position after position along four paths: rows, columns, and both from the end."""
    u = depthwise(linear(x, state, "in_proj"), state, "conv")
    u = u / (1 + np.exp(-u))
    batch, height, width, channels = x.shape
    low, states = linear(u, state, "steps").reshape(batch, height, width, 4, -1), linear(u, state, "states")
    rows = [(y, column) for y in range(height) for column in range(width)]
    columns = [(y, column) for column in range(width) for y in range(height)]
    out = u * state["skip"].sum(axis=0)
    for direction, path in enumerate((rows, columns, rows[::-1], columns[::-1])):
        for image in range(batch):
            hidden = np.zeros(channels)
            for y, column in path:
                at = image, y, column
                step = low[at][direction] @ state["step_weight"][direction] + state["step_bias"][direction, 0]
                step = np.log1p(np.exp(step))
                hidden *= np.exp(-step * np.exp(state["rate"][direction]))
                hidden += step * states[at][direction] * u[at]
                out[at] += states[at][4 + direction] * hidden
    return linear(layer_norm(out, state, "norm"), state, "out_proj")


NEWER = {
    "focal_modulation": focal_modulation,
    "split_depthwise_conv": split_depthwise_conv,
    "linear_attention": linear_attention,
    "convnext": convnext,
    "dynamic_large_kernel": dynamic_large_kernel,
    "selective_scan": selective_scan,
    "deformable_aggregation": deformable_aggregation,
}
EVERY = {**MIXERS, **NEWER}
