"""The same case in two runs of eight launches, many times: how often do their intervals overlap?

    python scripts/aa.py [--pairs 100] [--pool 200]

Measures a pool of real launches of a stage-1 depth-wise block (each a process of its own, a
server executed afresh for every eight of them), then draws pairs of runs: two runs of eight
launches that were measured one after the other, starting anywhere in the pool, in the order in
which they were measured, so that the machine's drift is in them. Ends with 1 if fewer than 95 %
of the pairs overlap.
"""

import argparse
import random
import statistics
import sys
import tempfile
from pathlib import Path

from profiler import store
from profiler.executors import local
from profiler.sampling import over_launches
from profiler.sweep import Axes, Measure, Source, expand

LAUNCHES = 8
MIXER = Source(
    "models:build", {"name": "depthwise_conv"}, ("channels", "resolution", "window"), "mixer", "models:specialize"
)


class Silent:
    def begin(self, case: object, round: int) -> None: ...

    def end(self, case: object, launch: object) -> None: ...


def pool(launches: int) -> list[float]:
    """Medians in milliseconds of launches measured one after the other."""
    planned = expand([Axes(models=("depthwise_conv",))], lambda _: MIXER, ["cpu"])
    with tempfile.TemporaryDirectory(prefix="mixprof-aa-") as folder:
        run = Path(folder)
        local.execute(planned, run, Measure(launches=launches, seconds=0.5, max_lost_cpu=1.0), Silent())
        found = [launch.host_ms for _, launch in store.read_launches(run)]
    return [statistics.median(samples.samples) for samples in found if samples is not None]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=100)
    parser.add_argument("--pool", type=int, default=200)
    options = parser.parse_args()
    medians = pool(options.pool)
    generator, overlapping = random.Random(0), 0
    for _ in range(options.pairs):
        start = generator.randrange(len(medians) - 2 * LAUNCHES + 1)
        first = over_launches(medians[start : start + LAUNCHES])
        second = over_launches(medians[start + LAUNCHES : start + 2 * LAUNCHES])
        overlapping += first.low <= second.high and second.low <= first.high
    spread = statistics.stdev(medians) / statistics.mean(medians)
    print(f"{len(medians)} launches, variation from launch to launch {spread:.1%}")
    print(f"{overlapping} of {options.pairs} pairs of runs of {LAUNCHES} launches overlap")
    return 0 if overlapping >= 0.95 * options.pairs else 1


if __name__ == "__main__":
    sys.exit(main())
