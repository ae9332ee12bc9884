"""ONNX files as they are quantized and as onnxruntime fuses them: makers of onnx_people."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from onnx import numpy_helper

from onnx_makers import FLOAT, File, array, node, save, weights


def quantized(folder: Path) -> File:
    """QDQ: a convolution of int8 weights and an int32 bias, scales beside them. 432 + 16 parameters, four scales."""
    constants = [
        weights("w", 16, 3, 3, 3, kind=np.int8), weights("b", 16, kind=np.int32), array("zero", 0, np.int8),
        array("zero32", 0, np.int32),
        *(array(name, value, np.float32) for name, value in
          (("x_scale", 0.05), ("w_scale", 0.02), ("b_scale", 0.001), ("y_scale", 0.1))),
    ]  # fmt: skip
    nodes = [
        node("QuantizeLinear", "x x_scale zero", "xq"), node("DequantizeLinear", "xq x_scale zero", "xd"),
        node("DequantizeLinear", "w w_scale zero", "wd"), node("DequantizeLinear", "b b_scale zero32", "bd"),
        node("Conv", "xd wd bd", "c", pads=[1] * 4), node("QuantizeLinear", "c y_scale zero", "yq"),
        node("DequantizeLinear", "yq y_scale zero", "y"),
    ]  # fmt: skip
    path = save(folder / "qdq.onnx", nodes, {"x": (FLOAT, [1, 3, 8, 8])}, {"y": (FLOAT, [1, 16, 8, 8])}, constants)
    return File(path, 448, 64 * 432, resolution=(8, 8))


def quantized_operators(folder: Path) -> File:
    """QLinearConv and MatMulInteger: eight-bit weights that no DequantizeLinear stands before."""
    constants = [
        weights("w", 8, 3, 3, 3, kind=np.int8), weights("v", 8, 5, kind=np.int8), array("zero", 0, np.int8),
        array("byte", 128, np.uint8), array("xs", 0.05, np.float32), array("ws", 0.02, np.float32),
        array("axes", [2, 3]),
    ]  # fmt: skip
    nodes = [
        node("QuantizeLinear", "x xs byte", "xq"),
        node("QLinearConv", "xq xs byte w ws zero xs byte", "c", pads=[1] * 4),
        node("DequantizeLinear", "c xs byte", "d"), node("ReduceMean", "d axes", "p", keepdims=0),
        node("DynamicQuantizeLinear", "p", "pq ps pz"), node("MatMulInteger", "pq v pz zero", "m"),
        node("Cast", "m", "y", to=FLOAT),
    ]  # fmt: skip
    path = save(folder / "qlinear.onnx", nodes, {"x": (FLOAT, [1, 3, 8, 8])}, {"y": (FLOAT, [1, 5])}, constants)
    return File(path, 216 + 40, 64 * 216 + 40, resolution=(8, 8))


def fused_products(folder: Path) -> File:
    """onnxruntime's fusions of products and of what follows them. x (2, 10, 16)."""
    micro = "com.microsoft"
    nodes = [
        node("FusedMatMul", "x w", "a", micro, transB=1, alpha=0.5), node("BiasGelu", "a bias", "b", micro),
        node("SkipLayerNormalization", "b x gamma beta", "c", micro), node("QuickGelu", "c", "d", micro),
        node("Reshape", "d flat", "e"), node("FusedGemm", "e v bv", "y", micro, activation="Relu"),
    ]  # fmt: skip
    constants = [
        weights("w", 16, 16), weights("bias", 16), weights("gamma", 16), weights("beta", 16), weights("v", 16, 6),
        weights("bv", 6), array("flat", [-1, 16]),
    ]  # fmt: skip
    path = save(folder / "fused.onnx", nodes, {"x": (FLOAT, [2, 10, 16])}, {"y": (FLOAT, [20, 6])}, constants)
    return File(path, 256 + 3 * 16 + 96 + 6, 20 * 256 + 20 * 96, 2)


def fused_convolution(folder: Path) -> File:
    nodes = [node("FusedConv", "x w b", "y", "com.microsoft", pads=[1] * 4, activation="Relu")]
    constants = [weights("w", 8, 3, 3, 3), weights("b", 8)]
    path = save(folder / "fusedconv.onnx", nodes, {"x": (FLOAT, [1, 3, 8, 8])}, {"y": (FLOAT, [1, 8, 8, 8])}, constants)
    return File(path, 224, 64 * 216, resolution=(8, 8))


def fused_attention(folder: Path) -> File:
    """Microsoft's Attention, its projection inside, and MultiHeadAttention, which has none. x (2, 10, 16)."""
    micro = "com.microsoft"
    nodes = [
        node("Attention", "x w b", "a", micro, num_heads=2),
        node("MultiHeadAttention", "a a a", "y", micro, num_heads=2),
    ]
    constants = [weights("w", 16, 48), weights("b", 48)]
    path = save(
        folder / "attention.onnx", nodes, {"x": (FLOAT, [2, 10, 16])}, {"y": (FLOAT, [2, 10, 16])}, constants
    )  # fmt: skip
    return File(path, 768 + 48, 2 * (10 * 768 + 2 * 2 * 10 * 10 * 16), 2)


def four_bits(folder: Path) -> File:
    """MatMulNBits: 32 x 24 weights of four bits, two in a byte, in blocks of 16. x (3, 32)."""
    packed = numpy_helper.from_array(np.random.default_rng(0).integers(0, 256, (24, 2, 8)).astype(np.uint8), "w")
    options: dict[str, Any] = {"K": 32, "N": 24, "bits": 4, "block_size": 16}
    nodes = [node("MatMulNBits", "x w scales", "y", "com.microsoft", **options)]
    path = save(
        folder / "nbits.onnx", nodes, {"x": (FLOAT, [3, 32])}, {"y": (FLOAT, [3, 24])},
        [packed, array("scales", [0.01] * 48, np.float32)],
    )  # fmt: skip
    return File(path, 32 * 24, 3 * 32 * 24, 3)


def dynamic_quantization(folder: Path) -> File:
    """What onnxruntime's dynamic quantization leaves: DynamicQuantizeMatMul on int8 weights. x (3, 32)."""
    nodes = [node("DynamicQuantizeMatMul", "x w scale zero bias", "y", "com.microsoft")]
    constants = [
        weights("w", 32, 24, kind=np.int8), array("scale", 0.01, np.float32), array("zero", 0, np.int8),
        weights("bias", 24),
    ]  # fmt: skip
    path = save(folder / "dynamic.onnx", nodes, {"x": (FLOAT, [3, 32])}, {"y": (FLOAT, [3, 24])}, constants)
    return File(path, 32 * 24 + 24, 3 * 32 * 24, 3)
