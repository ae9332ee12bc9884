"""What measuring itself costs, in one run.

    python scripts/proofs/overhead.py [--sweep]

Prints the bias of a forward that does nothing, the cost of a sample beyond the forward beside
torch.utils.benchmark's, and with --sweep (some minutes) the share of the default sweep's wall
time that is spent outside building and measuring: building is making the module with the reference's
weights, folding and lowering it; measuring is checking the output, sampling and memory; references and
counts, shown by themselves, are made once for all launches of a case. Ends with 1 if the bias is above 1 µs or the
share above 10 %.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from torch.utils.benchmark import Timer

from mixprof.data import run_folder
from mixprof.machine import streams
from mixprof.machine.devices.cpu import Cpu

MOST_BIAS_US = 1.0
MOST_SHARE = 0.10


def nothing() -> None:
    pass


def bias_us(repeats: int) -> float:
    """What a sample of a forward that does nothing says, in microseconds per forward."""
    take = streams.host_sampler(nothing, repeats, Cpu())
    return 1000 * statistics.median(take() for _ in range(10_000 // repeats + 100))


def cost_us(take: Callable[[], object], samples: int = 2000) -> float:
    """Wall time of one sample of one forward that does nothing, in microseconds."""
    start = time.perf_counter()
    for _ in range(samples):
        take()
    return 1e6 * (time.perf_counter() - start) / samples


def share_outside() -> dict[str, float]:
    """Seconds of the default sweep by what they were spent on."""
    with tempfile.TemporaryDirectory(prefix="mixprof-overhead-") as folder:
        run = Path(folder) / "run"
        start = time.perf_counter()
        command = [sys.executable, "-m", "mixprof", "sweep", "--out", str(run)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wall = time.perf_counter() - start
        launches = [launch for _, launch in run_folder.read_launches(run)]
    parts = {"building": "built_s", "measuring": "measure_s", "references and counts": "prepare_s"}
    environments = [launch.environment for launch in launches]
    return {"wall": wall} | {part: sum(getattr(e, name) or 0.0 for e in environments) for part, name in parts.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sweep", action="store_true", help="run the default sweep, too")
    options = parser.parse_args()
    worst = 0.0
    for repeats in (1, 10, 1000):
        worst = max(worst, bias := bias_us(repeats))
        print(f"bias of a null forward, {repeats:>4} forwards a sample: {bias:.3f} µs")
    ours = cost_us(streams.host_sampler(nothing, 1, Cpu()))
    timer = Timer("nothing()", globals={"nothing": nothing})
    theirs = cost_us(lambda: timer.timeit(1), 200)
    print(f"a sample of one forward costs {ours:.2f} µs; torch's Timer.timeit(1) {theirs / ours:.0f} times that")
    failed = worst > MOST_BIAS_US
    if options.sweep:
        spent = share_outside()
        wall = spent.pop("wall")
        outside = 1 - sum(spent.values()) / wall
        shares = ", ".join(f"{name} {seconds / wall:.1%}" for name, seconds in spent.items())
        print(f"the default sweep's wall time: {shares}")
        print(f"outside all of these: {outside:.1%}")
        failed |= outside > MOST_SHARE
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
