"""The same case in two runs of eight launches, many times: how often do their intervals overlap?

    python scripts/proofs/aa.py [--copies 25] [--runs 5]

A run is a sweep of copies of one stage-1 depth-wise block under other names, eight launches each, in
rounds under a server executed afresh for each, as in any sweep. A pair is a copy in one run and in the
next: runs follow one another, so that the machine's drift is in the pair. Ends with 1 if fewer than
95 % of the pairs overlap.
"""

import argparse
import itertools
import statistics
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from mixprof.data import run_folder
from mixprof.plan.axes import Planned, Source, expand
from mixprof.plan.settings import Axes, Measure
from mixprof.reports.statistics import over_launches
from mixprof.run.executors import local

LAUNCHES = 8
TAKES = ("channels", "resolution", "window")
MIXER = Source("mixprof.models:build", {"name": "depthwise_conv"}, TAKES, "mixer", "mixprof.models:specialize")


class Silent:
    def begin(self, case: object, round: int) -> None: ...

    def end(self, case: object, launch: object) -> None: ...


def medians_of_a_run(copies: int, seed: int) -> dict[str, list[float]]:
    """The medians in milliseconds of the launches of each copy."""
    (entry,) = expand([Axes(models=("depthwise_conv",))], lambda _: MIXER, ["cpu"])
    planned = [Planned(replace(entry.case, model=f"copy {number}"), entry.source) for number in range(copies)]
    measure = Measure(launches=LAUNCHES, seconds=0.2, seed=seed, max_lost_cpu=1.0)
    with tempfile.TemporaryDirectory(prefix="mixprof-aa-") as folder:
        local.execute(planned, Path(folder), measure, Silent())
        records = run_folder.read_records(Path(folder))
    ok = [record for record in records if record.status == "ok"]
    times = {record.case.model: [launch.host_ms for launch in record.launches if launch.host_ms] for record in ok}
    return {copy: [statistics.median(one.samples) for one in launches] for copy, launches in times.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--copies", type=int, default=25)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    runs = [medians_of_a_run(options.copies, seed) for seed in range(options.runs)]
    pairs = [
        (over_launches(first[copy]), over_launches(second[copy]))
        for first, second in itertools.pairwise(runs)
        for copy in first.keys() & second.keys()
    ]
    of_one_copy = [statistics.stdev(medians) / statistics.mean(medians) for run in runs for medians in run.values()]
    overlapping = sum(first.low <= second.high and second.low <= first.high for first, second in pairs)
    print(f"{sum(len(medians) for run in runs for medians in run.values())} launches of cases that are ok")
    print(f"variation from launch to launch of one case {statistics.median(of_one_copy):.1%}, median")
    print(f"half-width of an interval {statistics.median(first.half_width for first, _ in pairs):.1%}, median")
    print(f"{overlapping} of {len(pairs)} pairs of runs of {LAUNCHES} launches overlap")
    return 0 if overlapping >= 0.95 * len(pairs) else 1


if __name__ == "__main__":
    sys.exit(main())
