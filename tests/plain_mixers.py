"""Every mixer as plain float64 loops over images, positions, heads and taps: the right answer of test_mixers.py.

A function takes x (B, H, W, C), the parameters by their published names, and the window; it returns (B, H, W, C).
The pieces (who attends to whom, where a kernel comes from) are functions of their own, so that a test can get
exactly one of them wrong.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
State = dict[str, Array]
Neighbour = tuple[int, int, int | None]  # row and column of a key, and which relative bias it gets
HEAD = 32  # channels of a head
GROUPS = 32  # kernels of a position of the inhomogeneous convolution
REDUCTIONS = (8, 4, 2, 1)  # of spatial_reduction_attention, by stage
EPSILON = 1e-5  # of batch and layer norms


def linear(x: Array, state: State, name: str) -> Array:
    """A Linear, or a 1x1 convolution seen as one, over the last axis."""
    weight = state[name + ".weight"]
    y = x @ weight.reshape(weight.shape[0], -1).T
    return y + state[name + ".bias"] if name + ".bias" in state else y


def batch_norm(x: Array, state: State, name: str) -> Array:
    scale = state[name + ".weight"] / np.sqrt(state[name + ".running_var"] + EPSILON)
    return (x - state[name + ".running_mean"]) * scale + state[name + ".bias"]


def layer_norm(x: Array, state: State, name: str) -> Array:
    centred = x - x.mean(axis=-1, keepdims=True)
    normal = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + EPSILON)
    return normal * state[name + ".weight"] + state[name + ".bias"]


def relu(x: Array) -> Array:
    return np.maximum(x, 0.0)


def pad_to_multiple(x: Array, multiple: int) -> Array:
    """Zeros at the bottom and the right of (B, H, W, C)."""
    return np.pad(x, ((0, 0), (0, -x.shape[1] % multiple), (0, -x.shape[2] % multiple), (0, 0)))


def taps(height: int, width: int, y: int, x: int, window: int) -> list[tuple[int, int, int]]:
    """(row, column, tap) of every neighbour of (y, x) inside the map; taps run row-major from the top left."""
    found = []
    for dy in range(window):
        for dx in range(window):
            row, column = y + dy - window // 2, x + dx - window // 2
            if 0 <= row < height and 0 <= column < width:
                found.append((row, column, dy * window + dx))
    return found


def attend(
    q: Array, k: Array, v: Array, neighbours: Callable[[int, int], Sequence[Neighbour]], bias: Array | None = None
) -> Array:
    """Attention of every position to the keys listed for it.

    q (B, H, W, C); k and v (B, any, any, C); bias (heads, entries), one added to each score as the neighbour says.
    """
    out = np.empty_like(q)
    for y in range(q.shape[1]):
        for x in range(q.shape[2]):
            keys = neighbours(y, x)
            rows, columns = [key[0] for key in keys], [key[1] for key in keys]
            for image in range(q.shape[0]):
                for head in range(q.shape[3] // HEAD):
                    part = slice(head * HEAD, (head + 1) * HEAD)
                    scores = k[image, rows, columns, part] @ q[image, y, x, part] / np.sqrt(HEAD)
                    if bias is not None:
                        scores += [bias[head, key[2]] for key in keys]
                    weights = np.exp(scores - scores.max())
                    out[image, y, x, part] = weights @ v[image, rows, columns, part] / weights.sum()
    return out


def everywhere(height: int, width: int) -> Callable[[int, int], Sequence[Neighbour]]:
    keys: list[Neighbour] = [(row, column, None) for row in range(height) for column in range(width)]
    return lambda y, x: keys


def same_window(position: int, side: int, window: int, shift: int) -> list[tuple[int, int]]:
    """(key, query - key) along one axis: cuts lie at shift, shift + window, ..., so the ends hold partial windows."""
    return [(key, position - key) for key in range(side) if (key - shift) // window == (position - shift) // window]


def same_window_wrapped(position: int, side: int, window: int, shift: int) -> list[tuple[int, int]]:
    """Wrong: the window that the cyclic roll makes of the two ends, unmasked."""
    rolled = (position - shift) % side
    start = rolled // window * window
    return [((key + shift) % side, rolled - key) for key in range(start, start + window)]


def window_attention(
    x: Array,
    state: State,
    window: int,
    shifted: bool = False,
    axis_neighbours: Callable[[int, int, int, int], list[tuple[int, int]]] = same_window,
) -> Array:
    height, width = x.shape[1:3]
    x = pad_to_multiple(x, window)
    sides = x.shape[1:3]
    shifts = [window // 2 if shifted and side > window else 0 for side in sides]

    def neighbours(y: int, column: int) -> list[Neighbour]:
        return [
            (ky, kx, (dy + window - 1) * (2 * window - 1) + dx + window - 1)
            for ky, dy in axis_neighbours(y, sides[0], window, shifts[0])
            for kx, dx in axis_neighbours(column, sides[1], window, shifts[1])
        ]

    q, k, v = np.split(linear(x, state, "qkv"), 3, axis=-1)
    out = attend(q, k, v, neighbours, state["relative_position_bias_table"].T)
    return linear(out, state, "proj")[:, :height, :width]


def global_attention(x: Array, state: State, window: int) -> Array:
    q, k, v = np.split(linear(x, state, "qkv"), 3, axis=-1)
    return linear(attend(q, k, v, everywhere(*x.shape[1:3])), state, "proj")


def spatial_reduction_attention(x: Array, state: State, window: int, stage: int = 0) -> Array:
    reduction = REDUCTIONS[stage]
    small = x
    if reduction > 1:
        padded, weight = pad_to_multiple(x, reduction), state["sr.weight"]
        batch, height, width = padded.shape[:3]
        small = np.tile(state["sr.bias"], (batch, height // reduction, width // reduction, 1))
        for y in range(height):
            for column in range(width):
                tap = weight[:, :, y % reduction, column % reduction]
                small[:, y // reduction, column // reduction] += padded[:, y, column] @ tap.T
        small = layer_norm(small, state, "norm")
    k, v = np.split(linear(small, state, "kv"), 2, axis=-1)
    return linear(attend(linear(x, state, "q"), k, v, everywhere(*small.shape[1:3])), state, "proj")


def neighborhood_attention(x: Array, state: State, window: int) -> Array:
    q, k, v = np.split(linear(x, state, "qkv"), 3, axis=-1)
    height, width = x.shape[1:3]
    out = attend(q, k, v, lambda y, column: taps(height, width, y, column, window), state["relative_position_bias"])
    return linear(out, state, "proj")


def conv(x: Array, state: State, window: int) -> Array:
    height, width, channels = x.shape[1:]
    kernels = state["conv.weight"].reshape(channels, channels, window * window)
    out = np.tile(state["conv.bias"], (*x.shape[:3], 1))
    for y in range(height):
        for column in range(width):
            for ky, kx, tap in taps(height, width, y, column, window):
                out[:, y, column] += x[:, ky, kx] @ kernels[:, :, tap].T
    return out


def pointwise_conv(x: Array, state: State, window: int) -> Array:
    return linear(x, state, "conv")


def aggregate(x: Array, kernel: Callable[[int, int, int, int], Array], window: int) -> Array:
    """Sum over taps of kernel(image, y, x, tap) -> (C,) times the neighbour; zeros outside the map."""
    out = np.zeros_like(x)
    for image in range(x.shape[0]):
        for y in range(x.shape[1]):
            for column in range(x.shape[2]):
                for ky, kx, tap in taps(x.shape[1], x.shape[2], y, column, window):
                    out[image, y, column] += kernel(image, y, column, tap) * x[image, ky, kx]
    return out


def depthwise_block(x: Array, state: State, middle: Callable[[Array], Array]) -> Array:
    """1x1, norm, ReLU, the depth-wise convolution, norm, ReLU, 1x1, norm."""
    hidden = relu(batch_norm(linear(x, state, "conv0"), state, "bn0"))
    hidden = relu(batch_norm(middle(hidden), state, "bn"))
    return batch_norm(linear(hidden, state, "conv2"), state, "bn2")


def depthwise_conv(x: Array, state: State, window: int) -> Array:
    kernels = state["conv.weight"].reshape(-1, window * window)
    return depthwise_block(
        x,
        state,
        lambda hidden: aggregate(hidden, lambda image, y, column, tap: kernels[:, tap], window) + state["conv.bias"],
    )


def dynamic_depthwise_conv(
    x: Array, state: State, window: int, kernel_of: Callable[[int], int] = lambda image: image
) -> Array:
    """kernel_of: whose kernel an image gets."""

    def middle(hidden: Array) -> Array:
        pooled = relu(batch_norm(linear(hidden.mean(axis=(1, 2)), state, "conv.conv1"), state, "conv.bn"))
        kernels = linear(pooled, state, "conv.conv2").reshape(len(x), -1, window * window)  # image, channel, tap
        out = aggregate(hidden, lambda image, y, column, tap: kernels[kernel_of(image), :, tap], window)
        return out + state["conv.bias"]

    return depthwise_block(x, state, middle)


def inhomogeneous_depthwise_conv(
    x: Array, state: State, window: int, kernel_of: Callable[[int], int] = lambda image: image
) -> Array:
    """kernel_of: whose kernels an image gets."""

    def middle(hidden: Array) -> Array:
        features = relu(batch_norm(linear(hidden, state, "conv.conv1.0"), state, "conv.conv1.1"))
        kernels = linear(features, state, "conv.conv2.0").reshape(*x.shape[:3], GROUPS, window * window)
        channels_per_group = x.shape[3] // GROUPS
        return aggregate(
            hidden,
            lambda image, y, column, tap: kernels[kernel_of(image), y, column, :, tap].repeat(channels_per_group),
            window,
        )

    return depthwise_block(x, state, middle)


def local_mlp(x: Array, state: State, window: int) -> Array:
    weight = state["weight"]  # (H, W, taps, heads)
    mixed = aggregate(
        linear(x, state, "value"), lambda image, y, column, tap: weight[y, column, tap].repeat(HEAD), window
    )
    return linear(mixed, state, "proj")


def spatial_mlp(x: Array, state: State, window: int) -> Array:
    batch, height, width, channels = x.shape
    out = np.zeros((batch, height * width, channels))
    for position in range(height * width):
        out[:, position] += state["bias"][position]
        for source in range(height * width):
            out[:, position] += state["weight"][position, source] * x[:, source // width, source % width]
    return out.reshape(x.shape)


MIXERS: dict[str, Callable[..., Array]] = {
    "window_attention": window_attention,
    "global_attention": global_attention,
    "spatial_reduction_attention": spatial_reduction_attention,
    "neighborhood_attention": neighborhood_attention,
    "conv": conv,
    "pointwise_conv": pointwise_conv,
    "depthwise_conv": depthwise_conv,
    "dynamic_depthwise_conv": dynamic_depthwise_conv,
    "inhomogeneous_depthwise_conv": inhomogeneous_depthwise_conv,
    "local_mlp": local_mlp,
    "spatial_mlp": spatial_mlp,
}
