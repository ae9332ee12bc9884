"""How trtexec is called and read. Its output below is as NVIDIA documents it: no such program has run here."""

import shlex
import sys
from pathlib import Path

import pytest

from mixprof.data.errors import Unsupported
from mixprof.lowerings.tensorrt import trtexec

# tensorrt-rtx/latest/performance/benchmarking.html, "Expected summary", with that page's line breaks.
RTX_PAGE = """[I] === Performance summary ===
[I] Throughput: 1133.1 qps
[I] Latency: min = 0.877441 ms, max = 0.886963 ms, mean = 0.881485 ms,
median = 0.881592 ms, percentile(90%) = 0.883606 ms,
percentile(95%) = 0.883789 ms, percentile(99%) = 0.885010 ms
[I] Enqueue Time: min = 0.004639 ms, max = 0.020630 ms, mean = 0.005356 ms,
median = 0.005249 ms, percentile(90%) = 0.005859 ms,
percentile(95%) = 0.006104 ms, percentile(99%) = 0.007324 ms
[I] GPU Compute Time: min = 0.877441 ms, max = 0.886963 ms,
mean = 0.881485 ms, median = 0.881777 ms,
percentile(90%) = 0.883606 ms, percentile(95%) = 0.883789 ms,
percentile(99%) = 0.885010 ms
"""
# The lines that samples/common/sampleReporting.cpp of github.com/NVIDIA/TensorRT prints, with numbers of our own.
ONE_LINE_EACH = """[10/03/2024-10:47:59] [I] Latency: min = 5 ms, max = 13 ms, mean = 7.6 ms, median = 7.2 ms, percentile(90%) = 9 ms
[10/03/2024-10:47:59] [I] H2D Latency: min = 0 ms, max = 0 ms, mean = 0 ms, median = 0 ms, percentile(90%) = 0 ms
[10/03/2024-10:47:59] [V] GPU Compute Time: the GPU latency to execute the kernels for a query.
[10/03/2024-10:47:59] [I] GPU Compute Time: min = 5.34 ms, max = 13.3 ms, mean = 7.58 ms, median = {} ms, percentile(90%) = 9 ms
[10/03/2024-10:47:59] [I] D2H Latency: min = 0 ms, max = 0 ms, mean = 0 ms, median = 0.1 ms, percentile(90%) = 0 ms
[10/03/2024-10:47:59] [I] Total Host Walltime: 3.00082 s
[10/03/2024-10:47:59] [I] Total GPU Compute Time: 2.96536 s
"""  # noqa: E501


@pytest.fixture
def program(tmp_path):
    """Makes a program that stands for trtexec: a Python body with sys.argv."""

    def make(body):
        path = tmp_path / "trtexec"
        path.write_text(f"#!{sys.executable}\nimport sys, time\n{body}\n")
        path.chmod(0o755)
        return str(path)

    return make


def test_the_median_gpu_time_is_read_among_the_others():
    assert trtexec.gpu_ms(RTX_PAGE) == 0.881777
    assert trtexec.gpu_ms(ONE_LINE_EACH.format("7.14139")) == 7.14139
    assert trtexec.gpu_ms(ONE_LINE_EACH.format("1.2e-05")) == 1.2e-05


@pytest.mark.parametrize("median", ["nan", "inf", "0", "-1", "fast"])
def test_a_median_that_is_no_time_is_refused(median):
    with pytest.raises(Unsupported, match="no median GPU compute time"):
        trtexec.gpu_ms(ONE_LINE_EACH.format(median))


def test_no_summary_is_said_with_the_programs_last_error():
    with pytest.raises(Unsupported, match="Engine could not be created"):
        trtexec.gpu_ms("[E] Engine could not be created\n[I] bye\nTotal GPU Compute Time: 3 s")


@pytest.mark.parametrize(
    "said",
    [
        "flag has been ignored. The inference will be launched without using CUDA graph launch.",
        "CUDA graph capture failed. The inference will be launched without using CUDA graph.",
    ],
)
def test_a_time_without_the_graph_that_was_asked_for_is_refused(said):
    printed = f"[W] {said}\n" + ONE_LINE_EACH.format("7")
    assert trtexec.gpu_ms(printed, graphed=False) == 7
    with pytest.raises(Unsupported, match="could not capture a CUDA graph"):
        trtexec.gpu_ms(printed, graphed=True)


@pytest.mark.parametrize(
    ("flavour", "version", "plain", "graphed"),
    [
        ("tensorrt", "10.3.0.26", {"--noDataTransfers", "--useSpinWait"}, {"--useCudaGraph"}),
        ("tensorrt", "11.0.0.114", {"--noCudaGraph"}, set()),
        ("tensorrt_rtx", "1.1.1.26", {"--noDataTransfers", "--useSpinWait"}, {"--useCudaGraph"}),
        ("tensorrt_rtx", "1.3.0.35", {"--noDataTransfers", "--useSpinWait", "--rtxCudaGraphStrategy=disable"}, {"…"}),
        ("tensorrt_rtx", "1.7.1.116", {"--rtxCudaGraphStrategy=disable"}, {"--rtxCudaGraphStrategy=wholeGraph"}),
    ],
)
def test_the_flags_that_differ_by_version_ask_for_the_same_conditions(tmp_path, flavour, version, plain, graphed):
    always = {f"--loadEngine={tmp_path}", "--device=1", "--warmUp=1000", "--duration=3"}
    found = {on: set(trtexec.arguments(flavour, version, tmp_path, 1, {}, graphed=on)) for on in (False, True)}
    assert found[False] == always | plain
    transfers_off = plain & {"--noDataTransfers", "--useSpinWait"}
    strategy = {"--rtxCudaGraphStrategy=wholeGraph"} if graphed == {"…"} else graphed
    assert found[True] == always | transfers_off | strategy


def test_shapes_are_given_for_inputs_that_vary(tmp_path):
    parts = trtexec.arguments("tensorrt", "10.3", tmp_path, 0, {"x": (2, 3, 8, 8), "y": (2,)}, graphed=False)
    assert "--shapes=x:2x3x8x8,y:2" in parts


def test_a_program_is_run_with_these_arguments_and_read(program):
    tool = program(f"print({ONE_LINE_EACH!r}.format(len(sys.argv)))")
    assert trtexec.time(tool, ["--loadEngine=a b", "--device=0"], graphed=False, timeout_s=30) == 3


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("print('[E] Unknown option: --noCudaGraph'); sys.exit(1)", "exit code 1: Unknown option: --noCudaGraph"),
        ("print('hello')", "no median GPU compute time: hello"),
        ("time.sleep(60)", "was not done after 0.5 s"),
    ],
)
def test_what_goes_wrong_is_told_in_the_programs_words(program, body, said):
    with pytest.raises(Unsupported, match=said):
        trtexec.time(program(body), [], graphed=False, timeout_s=0.5 if "sleep" in body else 30)


def test_a_file_that_is_no_program_is_told(tmp_path):
    path = tmp_path / "trtexec"
    path.write_text("\0not a program")
    path.chmod(0o755)
    with pytest.raises(Unsupported, match="cannot be run"):
        trtexec.time(str(path), [], graphed=False, timeout_s=30)


def test_the_recorded_command_is_the_one_that_is_run(tmp_path, monkeypatch):
    pytest.importorskip("tensorrt_rtx")
    import torch

    from mixprof import models
    from mixprof.data.case import Case
    from mixprof.data.record import Record
    from mixprof.lowerings import Target
    from mixprof.lowerings.tensorrt.lower import lower
    from mixprof.run import crosscheck

    monkeypatch.setenv("MIXPROF_CACHE", str(tmp_path / "cache"))
    module = models.build("depthwise_conv", resolution=7, window=3, channels=32, lowering="tensorrt_rtx")
    name = "tensorrt_rtx:dynamic:batches=1-4:graph=on"
    options = {"dynamic": "", "batches": "1-4", "graph": "on"}
    target = Target("cuda:1", "float16", "contiguous", options, 1, tmp_path, False, "key", "tensorrt_rtx")
    with torch.no_grad():
        proof = lower(module.requires_grad_(False), (torch.randn(2, 7, 7, 32),), target).proof
    case = Case("depthwise_conv", name, "cuda:1", "float16", "contiguous", "hot", 2, (7, 7), 3, 32)
    program, *parts = shlex.split(proof["trtexec"])
    assert program == "tensorrt_rtx"
    assert parts == crosscheck.command_of(Record(case, "ok", proof=proof))
    (engine,) = (part.removeprefix("--loadEngine=") for part in parts if part.startswith("--loadEngine="))
    assert Path(engine).stat().st_size == proof["engine_bytes"]
    assert any(part.startswith("--shapes=") and part.endswith(":2x7x7x32") for part in parts)
