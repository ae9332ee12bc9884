"""What the name of a kernel or an operator tells. The one table of such facts; the first pattern that fits decides.

Names of CUDA kernels are those of PyTorch 2.4 to 2.9, cuDNN 8 and 9, cuBLAS 12 and CUTLASS, from their sources and
published profiles: never seen on a GPU by this project. Those of operators were seen on a CPU.
"""

import re
from collections.abc import Iterable

ATTENTION = (
    ("flash", r"flash_fwd|pytorch_flash|FlashAttnFwd|_scaled_dot_product_flash_attention\b"),
    ("efficient", r"fmha_cutlass|AttentionKernel<|_scaled_dot_product_efficient_attention"),
    ("cuDNN", r"cudnn.*(sdpa|flash_fprop)|_scaled_dot_product_cudnn_attention"),
    ("flash on the CPU", r"_flash_attention_for_cpu"),
    ("Triton", r"triton_.*(flex_attention|attention)|mixprof_window_attention"),
    ("products and softmax", r"softmax"),
)
CONVOLUTION = (
    ("oneDNN", r"mkldnn_convolution|mkldnn.*conv"),
    ("PyTorch's depth-wise kernel", r"conv_depthwise2d|_conv_depthwise2d"),
    ("cuDNN's depth-wise kernel", r"cudnn.*(grouped_direct|depthwise)|dgrad2d_grouped|conv2d_c1_k1"),
    ("cuDNN", r"cudnn_convolution|cudnn.*conv|xmma_fprop|implicit_convolve|implicit_gemm|winograd|_cudnn_"),
    ("Triton", r"triton_.*conv|mixprof_(depthwise|inhomogeneous)"),
    ("im2col and product", r"_slow_conv2d|thnn_conv2d|im2col_kernel"),
)
PRODUCT = (
    ("Triton", r"triton_.*(mm|gemm)"),
    ("CUTLASS", r"cutlass::Kernel|cutlass.*gemm"),
    ("cuBLAS", r"gemm|gemv|nvjet|cublas|xmma_.*_gemm"),
    ("oneDNN", r"mkldnn_linear|mkl_linear|_linear_pointwise"),
    ("BLAS", r"^aten::(mm|addmm|bmm|baddbmm|addbmm|addmv|mv|dot)_?$"),
)
TF32 = r"tf32|s1688"  # of a product in float32
SINGLE = r"[^a-z]sgemm|^sgemm|ffma|s884|simt_sgemm"  # float32 on vector units
TRANSPOSES = r"nchwToNhwc|nhwcToNchw|nchw_to_nhwc|tensorTransform|transpose_|direct_copy|^aten::(copy_|_to_copy)$"


def first(table: tuple[tuple[str, str], ...], name: str) -> str | None:
    """The word of the first pattern that a name fits."""
    return next((word for word, pattern in table if re.search(pattern, name)), None)


def words(table: tuple[tuple[str, str], ...], names: Iterable[str]) -> tuple[str, ...]:
    """The words that these names have in a table, in its order, each once."""
    seen = {first(table, name) for name in names}
    return tuple(word for word, _ in table if word in seen)


def attention(names: Iterable[str]) -> tuple[str, ...]:
    """The backends of attention: a softmax by itself is one only where nothing is fused."""
    seen = words(ATTENTION, names)
    return seen[:-1] if len(seen) > 1 and seen[-1] == ATTENTION[-1][0] else seen


def tf32(names: Iterable[str]) -> bool | None:
    """Whether products in float32 were rounded to TF32; None where no name tells."""
    names = list(names)
    if any(re.search(TF32, name) for name in names):
        return True
    return False if any(re.search(SINGLE, name) for name in names) else None


def moves_layout(name: str) -> bool:
    """Whether it copies a tensor into another layout, or just copies it."""
    return re.search(TRANSPOSES, name) is not None
