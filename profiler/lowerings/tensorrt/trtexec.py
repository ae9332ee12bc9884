"""The program that times the very engine of a record, trtexec or tensorrt_rtx: how it is called, what it prints.

Never run here: every flag and the form of the output are from NVIDIA's documents, as the comments say.
"""

from __future__ import annotations

import math
import re
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from mixprof.data.errors import Unsupported

NAMES = {"tensorrt": "trtexec", "tensorrt_rtx": "tensorrt_rtx"}  # what each flavour calls its program
INSTALL = {
    "tensorrt": "it is in bin/ of TensorRT's archive and in /usr/src/tensorrt/bin of its Debian packages, not in pip's",
    "tensorrt_rtx": "it is in bin/ of the TensorRT-RTX SDK's archive, not in pip's package",
}
WARM_UP_MS = 1000  # as much work as a launch does on CUDA before its samples count (sampling.budget)
DURATION_S = 3  # the program's own default; a run has many such

# sampleReporting.cpp prints one line for each time, GPU Compute Time among them, and a total further down. NVIDIA's
# pages break that line: tensorrt-rtx/latest/performance/benchmarking.html, "Expected summary".
MEDIAN = re.compile(
    r"(?<!Total )\bGPU Compute Time: min = \S+ ms,\s+max = \S+ ms,\s+mean = \S+ ms,\s+median = (?P<median>\S+) ms"
)
# sampleInference.cpp, when a capture fails: "launched without using CUDA graph launch." in TensorRT 10,
# "launched without using CUDA graph." in 11.
WITHOUT_GRAPH = re.compile(r"launched\s+without\s+using\s+CUDA\s+graph")


def command(
    flavour: str, version: str, engine: Path, device: int, shapes: Mapping[str, Sequence[int]], *, graphed: bool
) -> str:
    """One line for a shell that times an engine as we do, with the program of its flavour; see `arguments`."""
    return shlex.join([NAMES[flavour], *arguments(flavour, version, engine, device, shapes, graphed=graphed)])


def arguments(
    flavour: str, version: str, engine: Path, device: int, shapes: Mapping[str, Sequence[int]], *, graphed: bool
) -> list[str]:
    """What follows the program's name: this engine, no transfers, a CUDA graph where the lowering has one.

    version: of TensorRT, which the engine was built by and the program must be of; shapes: of the inputs that vary.
    """
    # --loadEngine, --device, --warmUp (milliseconds), --duration (seconds), --shapes (of dynamic inputs only):
    # samples/common/sampleOptions.cpp in github.com/NVIDIA/TensorRT, alike in 10.x and 11.x. What decides a build
    # (--stronglyTyped, --noTF32, …) has no meaning with --loadEngine. One inference is queued ahead of the running one:
    # tensorrt/latest/reference/command-line-programs.html.
    parts = [f"--loadEngine={engine}", f"--device={device}"]
    if shapes:
        parts.append("--shapes=" + ",".join(f"{name}:{'x'.join(map(str, shape))}" for name, shape in shapes.items()))
    return [
        *parts,
        f"--warmUp={WARM_UP_MS}",
        f"--duration={DURATION_S}",
        *_conditions(flavour, _release(version), graphed),
    ]


def _conditions(flavour: str, release: tuple[int, ...], graphed: bool) -> list[str]:
    """The flags that differ: transfers off, waiting without sleep, CUDA graph on or off."""
    if flavour == "tensorrt_rtx":
        # --rtxCudaGraphStrategy=disable|wholeGraph: tensorrt-rtx/latest/inference-library/work-with-cuda-graphs.html.
        # Built-in graphs came with 1.2 (its release notes); before, it was --useCudaGraph (best-practices.html then).
        strategy = [f"--rtxCudaGraphStrategy={'wholeGraph' if graphed else 'disable'}"]
        graph = strategy if release >= (1, 2) else ["--useCudaGraph"] * graphed
        # best-practices.html up to 1.4 gives two more flags; benchmarking.html of today says that both are the default.
        # No page says since when: 1.5 is taken, and in trtexec 11 the old flags still do no harm.
        return graph if release >= (1, 5) else [*graph, "--noDataTransfers", "--useSpinWait"]
    if release >= (11,):
        # sampleOptions.cpp of 11.x: no transfers, spin-wait and graphs are the default, the flags of 10.x do nothing,
        # --includeDataTransfers, --noSpinWait and --noCudaGraph turn them back.
        return [] if graphed else ["--noCudaGraph"]
    # sampleOptions.cpp of 10.x: all three are off; there is no --noCudaGraph, and an unknown flag is an error.
    return ["--noDataTransfers", "--useSpinWait", *["--useCudaGraph"] * graphed]


def _release(version: str) -> tuple[int, ...]:
    """ "10.3.0.26" -> (10, 3)."""
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])


def gpu_ms(printed: str, *, graphed: bool = False) -> float:
    """The median GPU compute time in milliseconds that the program printed; Unsupported when it cannot be used."""
    if graphed and WITHOUT_GRAPH.search(printed):
        raise Unsupported("it could not capture a CUDA graph and went on without")
    match = MEDIAN.search(printed)
    try:
        median = float(match["median"]) if match else math.nan
    except ValueError:
        median = math.nan
    if not 0 < median < math.inf:
        raise Unsupported(f"it printed no median GPU compute time: {_last_words(printed)}")
    return median


def time(program: str, arguments: Sequence[str], *, graphed: bool, timeout_s: float) -> float:
    """Run the program once; its median GPU compute time in milliseconds. Unsupported, in its words, when it fails."""
    try:
        done = subprocess.run(
            [program, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            timeout=timeout_s,
        )
    except subprocess.TimeoutExpired as error:
        raise Unsupported(f"{program} was not done after {timeout_s:g} s") from error
    except OSError as error:
        raise Unsupported(f"{program} cannot be run: {error.strerror or error}") from error
    if done.returncode:
        raise Unsupported(f"{program} ended with exit code {done.returncode}: {_last_words(done.stdout)}")
    try:
        return gpu_ms(done.stdout, graphed=graphed)
    except Unsupported as error:
        raise Unsupported(f"{program}: {error}") from error


def _last_words(printed: str) -> str:
    """The last error that the program printed, "[E] …", else its last line."""
    lines = [line.strip() for line in printed.splitlines() if line.strip()]
    errors = [line.split("[E]", 1)[1].strip() for line in lines if "[E]" in line]
    return (errors or lines or ["it printed nothing"])[-1][:300]
