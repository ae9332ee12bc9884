"""The peaks of this machine's devices: measured once per testbed, kept in the user's cache, copied into each run."""

import json
import sys
from pathlib import Path
from typing import Any, Protocol

from mixprof import lowerings
from mixprof.data import cache
from mixprof.data.case import QUANTIZED
from mixprof.data.errors import UsageError
from mixprof.data.files import write_whole
from mixprof.data.json import decode, digest, to_builtins
from mixprof.data.manifest import Peaks
from mixprof.data.messages import Machine
from mixprof.machine.cpu_contention import TRIES
from mixprof.plan.axes import Planned
from mixprof.plan.settings import Measure

PACKAGE = Path(__file__).parents[1]
MEASURED_BY = ("metrics/peaks.py", "metrics/overheads.py", "models/kernels/cpu/*")  # another code has other candidates
MOST_LOST = Measure.max_lost_cpu
RATES = ("matrix_flops_per_s", "vector_flops_per_s", "copy_bytes_per_s", "overhead_s")


class Asked(Protocol):
    """What runs a job in a worker."""

    def ask(self, job: str, **request: Any) -> dict[str, Any]: ...


def of_cases(planned: list[Planned], asked: Asked, machine: Machine) -> list[Peaks]:
    """The peaks of each device and dtype among these cases that is here; a failure is said and costs nothing else."""
    cases = [entry.case for entry in planned if entry.reason is None]
    wanted = {(case.device, case.dtype) for case in cases if case.dtype not in QUANTIZED}  # torch has no such products
    measured = []
    for device, dtype in sorted(wanted):
        if device not in machine.devices:
            continue
        try:
            measured.append(of(device, dtype, asked, machine))
        except UsageError as error:
            print(f"mixprof: no peaks of {device} in {dtype}, so no roofline: {error}", file=sys.stderr)
    return measured


def of(device: str, dtype: str, asked: Asked, machine: Machine) -> Peaks:
    """One device's peaks in one dtype, from the cache where this testbed has them; UsageError where there are none."""
    path = _path(device, dtype, machine)
    kept = _read(path)
    if kept is not None:
        return kept
    print(f"mixprof: measuring the peaks of {device} in {dtype}, once for this machine", file=sys.stderr)
    peaks, disturbed = _measure(device, dtype, asked)
    if disturbed:
        print("mixprof: others took CPU time from it: these peaks are too low, and not kept", file=sys.stderr)
        return peaks
    try:
        cache.own_folder(cache.own_folder(cache.folder()) / "peaks")
        write_whole(path, json.dumps(to_builtins(peaks)).encode())
    except (OSError, UsageError) as error:
        print(f"mixprof: the peaks are not kept for the next run: {error}", file=sys.stderr)
    return peaks


def _measure(device: str, dtype: str, asked: Asked) -> tuple[Peaks, bool]:
    """The peaks, and whether each of some tries lost too much of its CPU time to others; the fastest of these then."""
    disturbed: list[Peaks] = []
    for _ in range(TRIES):
        peaks = decode(asked.ask("peaks", device=device, dtype=dtype)["peaks"], Peaks)
        if (peaks.lost_cpu_share or 0.0) <= MOST_LOST:
            return peaks, False
        disturbed.append(peaks)
    return max(disturbed, key=lambda peaks: peaks.matrix_flops_per_s), True


def _path(device: str, dtype: str, machine: Machine) -> Path:
    offered = [digest(source.read_text()) for name in MEASURED_BY for source in _sources(name)]
    compiler = lowerings.missing("compile") is None  # without one, no candidate in C++
    key = digest([offered, compiler, machine.testbed_of([device]), machine.versions.get("torch"), device, dtype])
    return cache.folder() / "peaks" / f"{key}.json"


def _sources(name: str) -> list[Path]:
    return sorted(path for path in PACKAGE.glob(name) if path.suffix in (".py", ".cpp", ".h"))


def _read(path: Path) -> Peaks | None:
    """What is kept under a path; None where that is nothing, or nothing that can be used."""
    try:
        cache.own_folder(path.parent) if path.exists() else None
        peaks = decode(json.loads(path.read_text()), Peaks)
        return peaks if all((getattr(peaks, name) or 0.0) > 0 for name in RATES) else None
    except (OSError, ValueError, UsageError):
        return None
