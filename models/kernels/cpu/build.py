"""The C++ of this folder compiled once, into a folder that this user alone can write."""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

LIBRARY = torch.library.Library("mixprof", "FRAGMENT")  # our operators' names
DTYPES = {torch.float32: "float32", torch.float64: "float64", torch.bfloat16: "bfloat16"}
HERE = Path(__file__).parent
INSTRUCTIONS = {
    "AVX512": ["-mavx512f", "-mavx512dq", "-mavx512vl", "-mavx512bw", "-mfma"],
    "AVX2": ["-mavx2", "-mfma"],
}
FLAGS = ["-std=c++20", "-O3", "-shared", "-fPIC", "-fopenmp", "-fno-math-errno", "-ffp-contract=fast"]
BUILD_S = 300.0  # a compiler that takes longer has been stopped by something


def call(name: str, shape: Sequence[int], operands: Sequence[Tensor], out: Tensor) -> None:
    """Run the kernel `name`, from operands of the dtype of `out` into that dense tensor. ValueError for a dtype."""
    if out.dtype not in DTYPES:
        raise ValueError(f"got {out.dtype} for the kernel {name!r}, expected {', '.join(map(str, DTYPES))}")
    dense = [part if _is_dense(part, out.dtype) else part.to(out.dtype).contiguous() for part in operands]
    pointers = (ctypes.c_void_p * len(dense))(*(part.data_ptr() for part in dense))
    entry = getattr(library(name), f"{name}_{DTYPES[out.dtype]}")
    entry((ctypes.c_int64 * len(shape))(*shape), pointers, ctypes.c_void_p(out.data_ptr()))


def _is_dense(part: Tensor, dtype: torch.dtype) -> bool:
    return part.dtype == dtype and part.is_contiguous()


@cache
def library(name: str) -> ctypes.CDLL:
    """What `name`.cpp compiles to, built if it is not there yet. ValueError without a compiler, or one that fails."""
    compiler = compiler_here()
    if compiler is None:
        raise ValueError("got no C++ compiler, expected one for a kernel of our own: apt-get install g++")
    command = [compiler, *FLAGS, *INSTRUCTIONS.get(torch.backends.cpu.get_cpu_capability(), [])]
    command += [f"-I{folder}" for folder in _headers()]
    text = "".join(path.read_text() for path in sorted(HERE.glob("*.h"))) + (HERE / f"{name}.cpp").read_text()
    key = hashlib.sha256(
        "\0".join([*command, _version(compiler), torch.__version__, platform.machine(), text]).encode()
    )
    try:
        path = _own(_cache() / "kernels") / f"{name}-{key.hexdigest()[:32]}.so"
        if not path.exists():
            _compile([*command, str(HERE / f"{name}.cpp")], path)
        return ctypes.CDLL(str(path))
    except (OSError, subprocess.SubprocessError) as error:  # read-only, full, mounted noexec
        raise ValueError(
            f"the kernel {name!r} cannot be built here ({error}): set MIXPROF_CACHE to another folder"
        ) from error


def compiler_here() -> str | None:
    """The C++ compiler that torch.compile would take; None where there is none."""
    names = (os.environ.get("CXX", ""), "c++", "g++", "clang++")
    return next((path for name in names if name and (path := shutil.which(name))), None)


def _headers() -> list[Path]:
    return [Path(torch.__file__).parent / "include"]


def _version(compiler: str) -> str:
    return subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False).stdout


def _compile(command: list[str], path: Path) -> None:
    """Write the library whole or not at all: several processes may be building it."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    os.close(descriptor)
    try:
        libraries = Path(torch.__file__).parent / "lib"
        tail = ["-o", temporary, f"-L{libraries}", "-lc10", "-ltorch_cpu"]
        done = subprocess.run([*command, *tail], capture_output=True, text=True, timeout=BUILD_S, check=False)
        if done.returncode:
            reason = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr.strip()[:200])
            raise ValueError(f"the C++ compiler {command[0]} cannot build {path.name}: {reason}")
        Path(temporary).chmod(0o700)
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def _cache() -> Path:
    """$MIXPROF_CACHE, else mixprof in the user's cache folder, or in that of temporary files."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    usual = home / "mixprof" if home.is_absolute() else Path(tempfile.gettempdir()) / f"mixprof-{os.getuid()}"
    return Path(os.environ.get("MIXPROF_CACHE") or usual).expanduser()


def _own(folder: Path) -> Path:
    """The folder, made if it is missing; ValueError where others could put code into it."""
    for each in (folder.parent, folder):
        each.mkdir(mode=0o700, parents=True, exist_ok=True)
        if each.stat().st_uid != os.getuid() or each.stat().st_mode & 0o022:
            raise ValueError(
                f"got '{each}', which others own or can write, expected a folder of your own: chmod go-w it"
            )
    return folder
