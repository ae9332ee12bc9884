"""Flags and variables that change kernels: set whatever a user's module does, read back, recorded, or refused."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fake_driver import ask, run
from mixprof.data import run_folder
from mixprof.machine import flags, process

ROOT = Path(__file__).parents[1]
HOSTILE = """
import torch
from torch import nn

def set_flags():
    torch.set_float32_matmul_precision("medium")  # on a CPU this is bfloat16
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = False
    torch.backends.mkldnn.enabled = False
    torch.use_deterministic_algorithms(True)
    torch.backends.cuda.enable_math_sdp(False)
    torch.set_num_threads(1)

class Net(nn.Module):
    def __init__(self, hostile):
        super().__init__()
        self.layer, self.hostile = nn.Conv2d(3, 8, 3), hostile
    def forward(self, x):
        if self.hostile:
            torch.set_float32_matmul_precision("medium")
        return self.layer(x)

set_flags()

def at_import():
    set_flags()
    return Net(False)

def in_forward():
    return Net(True)
"""
STRIPPED = {
    "CUDA_LAUNCH_BLOCKING": "1",
    "NVIDIA_TF32_OVERRIDE": "1",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "1",  # NVIDIA's containers set it
    "TORCHINDUCTOR_MAX_AUTOTUNE": "1",
    "PYTORCH_NO_CUDA_MEMORY_CACHING": "1",
    "ONEDNN_DEFAULT_FPMATH_MODE": "BF16",
}
KEPT = {"PYTORCH_CUDA_ALLOC_CONF": "backend:native", "OMP_WAIT_POLICY": "ACTIVE"}


def mixprof(*arguments: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(filter(None, (str(ROOT / "src"), os.environ.get("PYTHONPATH"))))
    command = [sys.executable, "-m", "mixprof", *arguments]
    environment = {**os.environ, "PYTHONPATH": path, **variables}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("dtype", ["float32", "tf32", "float16"])
def test_flags_are_what_was_asked_for_whatever_was_set_before_in_either_way(dtype):
    """In a process of its own: these are the process's."""
    code = f"""
import torch
from mixprof.machine import flags
def older():
    torch.set_float32_matmul_precision("medium")
    torch.backends.cudnn.allow_tf32 = True
def newer():
    if hasattr(torch.backends, "fp32_precision"):
        torch.backends.fp32_precision = "tf32"
        torch.backends.cudnn.conv.fp32_precision = "tf32"
def neither():
    pass
values, answer = flags.wanted({dtype!r}, 1), []
for hostile in (older, newer, older, neither):
    hostile()
    flags.apply(values)
    answer.append([flags.changed(values), torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32,
                   torch.get_float32_matmul_precision()])
"""
    on = dtype == "tf32"
    assert ask(code) == [[None, on, on, "high" if on else "highest"]] * 4


def test_a_changed_flag_is_named_with_what_it_was_changed_to():
    code = """
import torch
from mixprof.machine import flags
values = flags.wanted("float32", 1)
flags.apply(values)
torch.backends.cudnn.benchmark = False
answer = flags.changed(values)
"""
    assert ask(code) == "backends.cudnn.benchmark to False"


def test_an_option_that_forces_attention_keeps_its_flags():
    assert "sdp.math" in flags.wanted("float16", 1)
    assert not any(name.startswith("sdp.") for name in flags.wanted("float16", 1, forces_attention=True))


@pytest.mark.slow
def test_a_hostile_module_is_timed_with_our_flags_or_not_at_all(tmp_path):
    (tmp_path / "hostile.py").write_text(HOSTILE)
    arguments = ("--resolutions", "16", "--threads", "2", "--quick", "--seconds", "0.05", "--max-lost-cpu", "1")
    done = mixprof(
        "sweep", "--models", "hostile:at_import,hostile:in_forward", *arguments, "--out", "run",
        folder=tmp_path, **STRIPPED, **KEPT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    records = {record.case.model: record for record in run_folder.read_records(tmp_path / "run")}
    calm, changing = records["hostile:at_import"], records["hostile:in_forward"]
    wanted = flags.wanted("float32", 2)
    assert calm.status in ("ok", "unstable"), calm.reason
    (launch,) = calm.launches
    assert launch.environment.flags == flags.read(wanted) | wanted  # all of them exist in this torch
    assert changing.status == "unsupported"
    assert changing.reason is not None
    assert "its forward sets float32_matmul_precision to medium" in changing.reason
    environment = run_folder.read_manifest(tmp_path / "run").environment
    assert environment.informing["stripped_variables"] == sorted(STRIPPED)
    assert {name: environment.testbed["variables"].get(name) for name in KEPT} == KEPT
    assert f"{', '.join(sorted(STRIPPED))} not passed on" in done.stderr


@pytest.mark.slow
def test_ab_does_not_compare_a_side_whose_forward_sets_flags(tmp_path):
    (tmp_path / "hostile.py").write_text(HOSTILE)
    done = mixprof(
        "ab", "--models", "hostile:in_forward", "--base-set", "lowering=eager", "--head-set", "lowering=compile",
        "--resolutions", "16", "--threads", "1", "--budget", "60", "--json", folder=tmp_path,
    )  # fmt: skip
    assert "its forward sets float32_matmul_precision to medium" in done.stdout
    assert json.loads(done.stdout)["exit_code"] == done.returncode != 0


def test_a_gpu_without_tf32_refuses_it():
    code = """
from mixprof.data.errors import Unsupported
from mixprof.machine import process
try:
    process.refuse_tf32("cuda:0", "tf32")
    answer = None
except Unsupported as error:
    answer = str(error)
"""
    assert ask(code, cuda_capability=75) == "dtype 'tf32' needs compute capability 8.0, cuda:0 has 7.5: use float32"
    assert ask(code, cuda_capability=80) is None
    assert ask(code, cuda_init=100) is None  # an engine may be built for another device


def test_tf32_is_unsupported_in_a_sweep_on_such_a_gpu(tmp_path):
    options = ("--devices", "cuda:0", "--dtypes", "tf32", "--quick", "--out", str(tmp_path / "run"))
    done = run("-m", "mixprof", "sweep", "--models", "depthwise_conv", *options, cuda_capability=75)
    assert done.returncode == 0, done.stderr
    records = run_folder.read_records(tmp_path / "run")
    assert {(record.status, record.reason) for record in records} == {
        ("unsupported", "dtype 'tf32' needs compute capability 8.0, cuda:0 has 7.5: use float32")
    }


def test_variables_of_ours_are_not_the_users(monkeypatch):
    for name, value in {**STRIPPED, **KEPT, "MKL_NUM_THREADS": "7", "HOME": "/home/x"}.items():
        monkeypatch.setenv(name, value)
    inherited = process.inherited()
    assert not set(STRIPPED) & set(inherited)
    assert inherited["HOME"] == "/home/x"
    recorded = process.recorded_variables()
    assert KEPT.items() <= recorded.items()
    assert "MKL_NUM_THREADS" not in recorded
