"""A machine with GPUs that has none: libcuda and libnvidia-ml compiled from the C files of tests/fakes.

The real ctypes, pynvml and cuda.bindings load them in a process of its own: `ask` runs a few lines of Python there.
"""

import atexit
import functools
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

SOURCES = Path(__file__).parent / "fakes"
ROOT = Path(__file__).parents[1]
UUID = "GPU-a0a1a2a3-a4a5-a6a7-a8a9-aaabacadae{:02x}"  # of the fake GPU number so-and-so


@functools.cache
def libraries(old: bool = False) -> Path:
    """A folder of both libraries. old: NVML is that of a driver before 510. Skips where there is no C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler here (cc or gcc), and the fake driver is compiled from source")
    folder = Path(tempfile.mkdtemp(prefix="mixprof-fake-driver-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    flags = ["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", *(["-DOLD"] if old else [])]
    for name, source in (("libcuda.so.1", "cuda.c"), ("libnvidia-ml.so.1", "nvml.c")):
        subprocess.run([compiler, *flags, "-o", folder / name, SOURCES / source, "-ldl"], check=True)
    if lacking := sorted(_wanted_by_pycuda() - _symbols("--defined-only", folder / "libcuda.so.1")):
        # pycuda is linked with all that it may call; what the fake has not is "not supported", 801.
        (folder / "rest.c").write_text("".join(f"int {name}(void) {{ return 801; }}\n" for name in lacking))
        sources = (SOURCES / "cuda.c", folder / "rest.c")
        subprocess.run([compiler, *flags, "-o", folder / "libcuda.so.1", *sources, "-ldl"], check=True)
    (folder / "libcuda.so").symlink_to("libcuda.so.1")
    return folder


def _wanted_by_pycuda() -> set[str]:
    """What the driver must have for pycuda, where it is installed, to be loaded."""
    found = importlib.util.find_spec("pycuda")
    folders = found.submodule_search_locations or () if found else ()
    return {name for folder in folders for path in Path(folder).glob("_driver*.so") for name in _undefined(path)}


def _undefined(path: Path) -> set[str]:
    return {name for name in _symbols("--undefined-only", path) if name.startswith("cu") and name[2].isupper()}


def _symbols(which: str, path: Path) -> set[str]:
    lines = subprocess.run(["nm", "-D", which, path], capture_output=True, text=True, check=True).stdout.splitlines()
    return {line.split()[-1].partition("@")[0] for line in lines}


def environment(old: bool = False, **scenario: object) -> dict[str, str]:
    """The variables of a process on such a machine, its scenario among them: cuda_init=802 is FAKE_CUDA_INIT=802."""
    paths = {
        "LD_LIBRARY_PATH": (str(libraries(old)), os.environ.get("LD_LIBRARY_PATH")),
        "PYTHONPATH": (str(ROOT / "src"), str(Path(__file__).parent), os.environ.get("PYTHONPATH")),
    }
    fakes = {f"FAKE_{name.upper()}": str(value) for name, value in scenario.items()}
    return {**os.environ, **{name: os.pathsep.join(filter(None, each)) for name, each in paths.items()}, **fakes}


def run(*command: str, old: bool = False, **scenario: object) -> subprocess.CompletedProcess[str]:
    """A command of this interpreter on such a machine: run("-m", "mixprof", "doctor", cuda_init=802)."""
    variables = environment(old, **scenario)
    return subprocess.run([sys.executable, *command], env=variables, capture_output=True, text=True, timeout=300)


def ask(code: str, old: bool = False, **scenario: object) -> Any:
    """What `answer` is after some lines of Python on such a machine."""
    done = run("-c", f"{code}\nimport json; print(json.dumps(answer))", old=old, **scenario)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def has_bindings() -> bool:
    try:
        return importlib.util.find_spec("cuda.bindings.driver") is not None
    except ImportError:
        return False


needs_bindings = pytest.mark.skipif(not has_bindings(), reason="pip install 'mixprof[cuda]'")
