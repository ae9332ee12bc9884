"""Values and gradients of the Triton kernels by the interpreter, against float64: rows of JSON. See triton_kernels.py.

The operators get the kernels on the CPU here, and here alone, where TRITON_INTERPRET=1 was set before the start. What
is right: torch's convolution, a sum over unfolded neighbours, and the mixers as they are published, all in float64.
"""

import json
import sys
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
import triton.language as tl
from torch import Tensor
from triton.runtime import interpreter

from mixprof import models
from mixprof.metrics.flops import count
from mixprof.models.kernels.triton import depthwise, inhomogeneous, window_attention

OPERATORS = (
    (depthwise.depthwise, depthwise.depthwise_weight_gradient),
    (inhomogeneous.inhomogeneous, inhomogeneous.map_gradient, inhomogeneous.generator_gradient),
    (window_attention.window_attention, window_attention.window_attention_backward),
)
TOLERANCE = {torch.float32: 2e-6, torch.float16: 4e-3, torch.bfloat16: 3e-2}
SHIFT, MASKED = [1, 1], -100.0
Row = dict[str, Any]


def convolved(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """torch's grouped convolution, then a ReLU; kernels (B or 1, K*K, C). (B, H, W, C) -> (B, H, W, C)."""
    (batch, height, width, dim), window = x.shape, int(weight.shape[1] ** 0.5)
    kernels = weight.expand(batch, -1, -1).transpose(1, 2).reshape(batch * dim, 1, window, window)
    one = x.permute(0, 3, 1, 2).reshape(1, batch * dim, height, width)
    mixed = F.conv2d(one, kernels, padding=window // 2, groups=batch * dim)
    mixed = mixed.view(batch, dim, height, width).permute(0, 2, 3, 1)
    return (mixed + bias).relu()


def aggregated(given: list[Tensor]) -> Tensor:
    """All taps, all neighbours, one sum, scaled, shifted, rectified. (B, H, W, C) -> (B, H, W, C)."""
    x, hidden, weight, bias, scale, shift = given
    (batch, height, width, dim), (taps, _, groups) = x.shape, weight.shape
    kernels = torch.einsum("bhwd,tdg->bhwtg", hidden.relu(), weight) + bias
    around = F.unfold(x.permute(0, 3, 1, 2), int(taps**0.5), padding=int(taps**0.5) // 2)
    around = around.view(batch, dim // groups, groups, taps, height, width)
    mixed = torch.einsum("bigtyx,byxtg->byxig", around, kernels).reshape(x.shape)
    return (mixed * scale + shift).relu()


def drawn(*shapes: tuple[int, ...], dtype: torch.dtype) -> list[Tensor]:
    return [torch.randn(shape).to(dtype) for shape in shapes]


def error(got: Tensor, right: Tensor) -> float:
    return ((got.double() - right).abs().max() / right.abs().max()).item()


def of_operators() -> Iterator[Row]:
    """The operators at shapes that no block divides."""
    for dtype, limit in TOLERANCE.items():
        for batch, height, width, dim, window, images in ((1, 5, 9, 40, 3, 1), (2, 4, 7, 33, 7, 2)):
            x, weight, bias = drawn((batch, height, width, dim), (images, window**2, dim), (dim,), dtype=dtype)
            right = convolved(x.double(), weight.double(), bias.double())
            of = f"{images} x {window}x{window}, {tuple(x.shape)}"
            yield row("depthwise", of, dtype, error(depthwise.depthwise(x, weight, bias, True), right), limit)
        for shape, window, groups in (((1, 5, 9, 96), 3, 32), ((2, 3, 4, 208), 3, 16)):
            inner, dim = shape[3] // 4, shape[3]
            sizes = (shape, (*shape[:3], inner), (window**2, inner, groups), (window**2, groups), (dim,), (dim,))
            given = drawn(*sizes, dtype=dtype)
            right = aggregated([each.double() for each in given])
            of = f"{window}x{window}, {groups} groups, {shape}"
            yield row("inhomogeneous", of, dtype, error(inhomogeneous.inhomogeneous(*given, True), right), limit)


@torch.no_grad()
def of_mixers() -> Iterator[Row]:
    """The mixers as they run, Linears and folded norms around the kernel; padded windows, shifted and not."""
    names = ("depthwise_conv", "dynamic_depthwise_conv", "inhomogeneous_depthwise_conv")
    cases = [(name, (5, 6), 3, torch.float32) for name in names]
    cases += [("window_attention", (7, 14), 7, dtype) for dtype in TOLERANCE]
    cases += [("window_attention:shifted=true", (9, 16), 7, dtype) for dtype in TOLERANCE]
    for name, sides, window, dtype in cases:
        module = models.build(name, resolution=sides, window=window, channels=64).double()
        for tensor in [*module.parameters(), *module.buffers()]:
            if tensor.is_floating_point():
                tensor.copy_(0.5 + torch.rand_like(tensor) if tensor.dim() == 1 else torch.randn_like(tensor) / 8)
        module, x = module.to(dtype).double(), torch.randn(2, *sides, 64).to(dtype).double()
        right, macs = module(x), count(module, x).macs
        kernel = models.specialize(module, "eager", {"": "triton"}).to(dtype)
        spared = macs - count(kernel, x.to(dtype)).macs  # products of padded positions, which are rows of biases
        padded = name.startswith("window") and (sides[0] % window or sides[1] % window)
        limit = TOLERANCE[dtype]
        one = row(name, f"{window}x{window}, {tuple(x.shape)}", dtype, error(kernel(x.to(dtype)), right), limit)
        yield {**one, "right": one["right"] and (spared > 0 if padded else spared == 0)}


def of_gradients() -> Iterator[Row]:
    """gradcheck in float64, and the schema, fake and tracing of each operator."""
    checks: list[tuple[str, Any, list[tuple[int, ...]], tuple[Any, ...]]] = [
        ("depthwise", depthwise.depthwise, [(2, 2, 3, 2), (1, 9, 2), (2,)], (True,)),
        ("depthwise of each image", depthwise.depthwise, [(2, 2, 3, 2), (2, 9, 2), (2,)], (False,)),
        (
            "inhomogeneous",
            inhomogeneous.inhomogeneous,
            [(1, 2, 2, 32), (1, 2, 2, 3), (9, 3, 16), (9, 16)],
            (torch.rand(32, dtype=torch.float64), torch.rand(32, dtype=torch.float64), True),
        ),
        ("window_attention", window_attention.window_attention, [(1, 3, 4, 12), (2, 4, 4), (12,)], (2, SHIFT, MASKED)),
    ]
    for name, operator, shapes, settings in checks:
        given = [tensor.requires_grad_() for tensor in drawn(*shapes, dtype=torch.float64)]
        passed = torch.autograd.gradcheck(operator, (*given, *settings), fast_mode=True)
        tests = ("test_schema", "test_faketensor", "test_autograd_registration", "test_aot_dispatch_static")
        torch.library.opcheck(operator, (*given, *settings), test_utils=tests)
        yield row(f"{name}: gradcheck, opcheck", str(shapes[0]), torch.float64, 0.0 if passed else 1.0, 0.5)


def row(kernel: str, of: str, dtype: torch.dtype, largest: float, limit: float) -> Row:
    words = "passed" if "gradcheck" in kernel and largest < limit else f"{largest:.1e}"
    return {"kernel": kernel, "of": of, "dtype": str(dtype)[6:], "error": words, "right": largest < limit}


def read_bfloat16() -> None:
    """Have the interpreter multiply the values of bfloat16: its own products take their bits for whole numbers."""
    builder = interpreter.InterpreterBuilder
    product = builder.create_dot

    def create_dot(self: Any, a: Any, b: Any, *rest: Any) -> Any:
        return product(self, *(self.cast_impl(x, tl.float32) if x.dtype == tl.bfloat16 else x for x in (a, b)), *rest)

    builder.create_dot = create_dot


if __name__ == "__main__":
    read_bfloat16()
    torch.manual_seed(0)
    for operator in (operator for group in OPERATORS for operator in group):
        operator.register_kernel("cpu")(operator._init_fn)
    json.dump([*of_operators(), *of_mixers(), *of_gradients()], sys.stdout)
