"""What ran: real profiles of a CPU, and events of CUDA that were written by hand (no GPU has made them)."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

from mixprof import models
from mixprof.data.run_folder import read_records
from mixprof.metrics import kernel_names
from mixprof.metrics.ran import SCOPE, Event, profiled, ran, scopes


@torch.no_grad()
def test_operators_of_a_cpu_are_counted_and_named():
    layers = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)).double()
    x = torch.randn(4, 8, dtype=torch.float64)
    table = ran(profiled(lambda: layers(x), "cpu"))
    counts = {kernel.name: kernel.count for kernel in table.kernels}
    assert (table.of, counts["aten::addmm"], table.product) == ("operators", 3, ("BLAS",))
    assert (table.attention, table.convolution, table.tf32) == ((), (), None)
    assert sum(kernel.share for kernel in table.kernels) == pytest.approx(1.0)


@torch.no_grad()
def test_backends_of_a_cpu():
    q = torch.randn(1, 2, 9, 16)
    fused = ran(profiled(lambda: functional.scaled_dot_product_attention(q, q, q), "cpu"))
    explicit = ran(profiled(lambda: (q @ q.mT).softmax(-1) @ q, "cpu"))
    assert fused.attention == ("flash on the CPU",)
    assert explicit.attention == ("products and softmax",)
    conv, x = nn.Conv2d(64, 64, 3, groups=64), torch.randn(1, 64, 28, 28)
    assert ran(profiled(lambda: conv(x), "cpu")).convolution == ("oneDNN",)


@torch.no_grad()
def test_a_copy_into_another_layout_is_seen_and_a_view_is_not():
    x = torch.randn(2, 3, 8, 8)
    assert ran(profiled(lambda: x.permute(0, 2, 3, 1), "cpu")).transposes == 0
    assert ran(profiled(lambda: x.permute(0, 2, 3, 1).contiguous(), "cpu")).transposes == 1


@torch.no_grad()
def test_roles_by_the_modules_that_run_which_keep_no_hook():
    network = models.build("swin_t", resolution=64, lowering="eager")
    image = torch.randn(1, 3, 64, 64)
    with scopes(network) as places:
        table = ran(profiled(lambda: network(image), "cpu"), places)
    assert {"mixer", "reshape", "mlp", "norm", "merge", "embed", "head"} <= set(table.role_shares)
    assert sum(table.role_shares.values()) == pytest.approx(1.0)
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in network.modules())
    assert not any(kernel.name.startswith(SCOPE) for kernel in table.kernels)


# Written by hand after names in PyTorch's, cuDNN's and CUTLASS's sources; no GPU has run them.
CUDA = [
    Event("aten::conv2d", 9.0, within=(SCOPE + "conv",)),
    Event("aten::cudnn_convolution", 30.0, kernels_us=12.0, within=("aten::conv2d", SCOPE + "conv")),
    Event("void cudnn::ops::nchwToNhwcKernel<__half, __half, float, false, true>(...)", 2.0, on_device=True),
    Event(
        "sm80_xmma_fprop_implicit_gemm_indexed_f16f16_f16f32_f32_nhwckrsc_nhwc_tilesize128x64x32", 10.0, on_device=True
    ),
    Event("aten::_scaled_dot_product_flash_attention", 8.0, kernels_us=6.0, within=(SCOPE + "attn",)),
    Event(
        "void pytorch_flash::flash_fwd_kernel<pytorch_flash::Flash_fwd_kernel_traits<32, 128, 128>>",
        6.0,
        on_device=True,
    ),
    Event("aten::addmm", 5.0, kernels_us=2.0, within=(SCOPE + "mlp.fc1", SCOPE + "mlp")),
    Event("ampere_fp16_s16816gemm_fp16_128x64_ldg8_f2f_stages_64x4_tn", 2.0, on_device=True),
]
PLACES = {
    SCOPE + "conv": ("conv", "Conv2d", "torch.nn"),
    SCOPE + "attn": ("attn", "WindowAttention", "mixprof.models.mixers.window_attention"),
    SCOPE + "mlp": ("mlp", "Mlp", "mixprof.models.layers"),
    SCOPE + "mlp.fc1": ("mlp.fc1", "Linear", "torch.nn"),
}


def test_kernels_of_a_gpu_are_the_table_where_there_are_any():
    table = ran(CUDA, PLACES, wide=False)
    assert (table.of, table.launches, table.us) == ("kernels", 4, 20.0)
    assert table.kernels[0].name.startswith("sm80_xmma_fprop")
    assert table.kernels[0].share == 0.5
    assert (table.attention, table.convolution, table.product) == (("flash",), ("cuDNN",), ("cuBLAS",))
    assert (table.transposes, table.transposes_share, table.tf32) == (1, 0.1, None)
    assert table.role_shares == {"other": 0.6, "mixer": 0.3, "mlp": 0.1}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cutlass_80_tensorop_s1688gemm_128x256_16x3_tn_align4", True),
        ("sm80_xmma_gemm_f32f32_tf32f32_f32_tn_n_tilesize128x128x16", True),
        ("ampere_sgemm_128x64_tn", False),
        ("void at::native::vectorized_elementwise_kernel<4>", None),
    ],
)
def test_tf32_is_told_by_the_kernel_of_the_product(name, expected):
    assert ran([Event(name, 1.0, on_device=True)]).tf32 is expected


@pytest.mark.parametrize(
    ("table", "name", "word"),
    [
        (kernel_names.ATTENTION, "fmha_cutlassF_f16_aligned_64x64_rf_sm80(PyTorchMemEffAttention...)", "efficient"),
        (kernel_names.ATTENTION, "cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma_f16_knob", "cuDNN"),
        (
            kernel_names.ATTENTION,
            "void at::native::(anonymous namespace)::softmax_warp_forward<float>",
            "products and softmax",
        ),
        (
            kernel_names.CONVOLUTION,
            "void at::native::conv_depthwise2d_forward_kernel<7, float>",
            "PyTorch's depth-wise kernel",
        ),
        (kernel_names.CONVOLUTION, "void cudnn::cnn::conv2d_grouped_direct_kernel<false>", "cuDNN's depth-wise kernel"),
        (kernel_names.CONVOLUTION, "triton_tem_fused_convolution_0", "Triton"),
        (kernel_names.PRODUCT, "triton_tem_fused_addmm_1", "Triton"),
        (kernel_names.PRODUCT, "nvjet_hsh_128x256_64x4_2x1_v_bz_TNN", "cuBLAS"),
    ],
)
def test_words_of_kernels_that_other_projects_published(table, name, word):
    assert kernel_names.first(table, name) == word


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A sweep of one mixer with its trace."""
    folder = tmp_path_factory.mktemp("ran")
    axes = "--models depthwise_conv --resolutions 8 --channels 32 --devices cpu --formulations usual"
    measuring = "--threads 1 --seconds 0.05 --quick --max-lost-cpu 1 --trace --out run"
    command = [sys.executable, "-m", "mixprof", "sweep", *axes.split(), *measuring.split()]
    subprocess.run(command, cwd=folder, check=True)
    return folder / "run"


def test_a_record_holds_what_ran(run):
    (record,) = [one for one in read_records(run) if one.case.model == "depthwise_conv"]
    assert record.proof is not None
    proven = record.proof["ran"]
    assert proven["of"] == "operators"
    assert proven["convolution"]
    assert sum(proven["role_shares"].values()) == pytest.approx(1.0)


def test_a_trace_of_each_case_lies_in_the_run_folder(run):
    paths = list((run / "traces").iterdir())
    assert len(paths) == 2  # the anchor's, too
    (path,) = [one for one in paths if one.name.startswith("depthwise_conv-eager-cpu-float32-b1-8x8")]
    with gzip.open(path) as file:
        names = {event.get("name") for event in json.load(file)["traceEvents"]}
    assert {"aten::convolution", SCOPE + "conv"} <= names
