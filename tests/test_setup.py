"""Set-up where a GPU may be: which torch is installed, and what works where little is."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fake_driver import ask

ROOT = Path(__file__).parents[1]
ABSENT = (
    *(
        "scipy",
        "pandas",
        "pyarrow",
        "matplotlib",
        "seaborn",
        "plotly",
        "markdown_it",
        "onnx",
        "onnxscript",
        "onnxruntime",
    ),
    *("rich", "shtab", "tomli_w", "fvcore", "pynvml", "cuda", "tensorrt_rtx", "openvino"),
)
BLOCK = f"""
import sys
from importlib.machinery import PathFinder
class Others(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in {ABSENT!r} else super().find_spec(name, path, target)
sys.meta_path[sys.meta_path.index(PathFinder)] = Others
"""
PYTHON = """#!/bin/sh
echo "$@" >> "$LOG"
case "$*" in
*"-m venv"*) mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
*"torch.version.cuda is None"*) exit "$WITHOUT_CUDA" ;;
*cuda_driver*) echo "$DRIVER" ;;
*__version__.split*) exit 1 ;;
*"torch=="*print* | *"print(f"*) echo torch==2.9.0a0+nv25.9 ;;
*"import onnxruntime"*) exit 1 ;;
esac
"""


@pytest.mark.parametrize(
    ("without_cuda", "driver", "installed"),
    [
        (0, "13.0", None),
        (1, "13.1", "torch==2.13.0"),
        (1, "12.4", "torch==2.13.0+cu126 --index-url https://download.pytorch.org/whl/cu126"),
        (1, "none", "torch==2.13.0+cpu"),
    ],
)
def test_the_build_of_torch_follows_the_driver_and_one_that_is_there_stays(tmp_path, without_cuda, driver, installed):
    """By an interpreter that only writes down what it is asked for."""
    if os.uname().machine != "x86_64":
        pytest.skip("another machine has no CPU build of its own")
    (tmp_path / "python").write_text(PYTHON)
    (tmp_path / "python").chmod(0o755)
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts/setup.sh", tmp_path / "scripts")
    variables = {
        "PYTHON": "./python",
        "LOG": str(tmp_path / "log"),
        "DRIVER": driver,
        "WITHOUT_CUDA": str(without_cuda),
    }
    done = subprocess.run(
        ["sh", "scripts/setup.sh"], cwd=tmp_path, env={**os.environ, **variables}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    calls = (tmp_path / "log").read_text()
    torches = [line.partition("--quiet ")[2] for line in calls.splitlines() if "--quiet torch" in line]
    assert torches == ([] if installed is None else [installed])
    assert ("--system-site-packages" in calls) == (installed is None)
    constraints = ".venv/constraints.txt" if installed is None else "constraints.txt"
    extra = "onnxruntime-gpu" if installed is None else "onnxruntime"
    assert f"--constraint {constraints} --editable .[dev,{extra}]" in calls
    if installed is None:
        assert (tmp_path / ".venv/constraints.txt").read_text() == "torch==2.9.0a0+nv25.9\n"


def test_a_driver_that_does_not_start_still_tells_its_version():
    code = "from mixprof.machine.cuda_driver import version; answer = version()"
    assert ask(code, cuda_version=12040) == "12.4"
    assert ask(code, cuda_version=12040, cuda_init=803) == "12.4"


def test_the_driver_is_asked_by_the_standard_library_alone():
    code = "from mixprof.machine.cuda_driver import no_device; import sys; no_device(); print('numpy' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run([sys.executable, "-S", "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "False\n"


@pytest.fixture
def bare(tmp_path):
    """Runs mixprof from this checkout by an interpreter that has torch and numpy, and little else."""
    (tmp_path / "block").mkdir()
    (tmp_path / "block" / "sitecustomize.py").write_text(BLOCK)
    path = os.pathsep.join((str(tmp_path / "block"), str(ROOT / "src")))

    def run(*arguments):
        command = [sys.executable, "-m", "mixprof", *arguments]
        environment = {**os.environ, "PYTHONPATH": path}
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)

    return run


def test_the_command_line_names_what_is_missing(bare):
    done = bare("--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "not here: pandas is not installed" in " ".join(done.stdout.split())
    done = bare("ab", "main", "HEAD", "--models", "depthwise_conv")
    assert done.returncode == 2
    assert done.stderr == f"mixprof: pandas is not installed: {sys.executable} -m pip install pandas\n"


def test_plan_and_count_need_torch_and_numpy_alone(bare):
    done = bare("plan", "--models", "depthwise_conv", "--json")
    assert done.returncode == 0, done.stderr
    done = bare("count", "depthwise_conv", "--json", "--resolution", "14", "--batch", "1", "--window", "7")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["macs"] > 14 * 14 * 49 * 96  # of the depth-wise kernel


@pytest.mark.slow
def test_time_measures_where_little_is_installed_and_names_what_is_missing(bare):
    done = bare("time", "depthwise_conv", "--quick", "--threads", "1", "--max-lost-cpu", "1", "--resolutions", "14")
    assert done.returncode == 0, done.stderr
    assert "no intervals: pandas is not installed" in done.stderr
    assert "depthwise_conv eager cpu float32" in done.stdout
    assert " ms" in done.stdout
