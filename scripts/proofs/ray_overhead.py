"""What a launch through Ray costs beyond one of the local executor, on one machine.

    python scripts/proofs/ray_overhead.py [--pairs 8] [--cases 4]

Starts a Ray of one node here, then runs the same small cases through both executors, in pairs in a drawn order. Both
make each launch in a process of its own; the local executor starts one server for a round of cases, a node of a cluster
one for each launch. Prints a table with 95 % t intervals over pairs. The parts of Ray are by the machine's own clock:
from sending a case to its beginning on the node, and from its end there to the launch's arrival.
"""

import argparse
import contextlib
import logging
import math
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mixprof import models
from mixprof.data.case import Case
from mixprof.data.launch import Launch
from mixprof.data.messages import Machine
from mixprof.plan.axes import Planned
from mixprof.plan.files import Given
from mixprof.plan.settings import Axes, Measure
from mixprof.reports.statistics import t_quantile
from mixprof.run.executors import local
from mixprof.run.executors.ray import cluster
from mixprof.run.executors.ray.dispatch import Bed, Dispatch, Job
from mixprof.run.executors.ray.surveys import Asker
from mixprof.run.journal import Journal
from mixprof.run.session import planned_cases, session

MEASURE = Measure(launches=1, quick=True, seconds=0.05, threads=1, max_lost_cpu=1.0)


@dataclass
class Clock:
    """A progress that notes when cases were sent, and when their launches arrived."""

    began: dict[Case, float] = field(default_factory=dict)
    sent_s: list[float] = field(default_factory=list)  # from sending to the beginning on the node
    back_s: list[float] = field(default_factory=list)
    node_s: list[float] = field(default_factory=list)

    def begin(self, case: Case, round: int) -> None:
        self.began[case] = time.time()

    def end(self, case: Case, launch: Launch) -> None:
        if launch.status != "ok":
            raise SystemExit(f"{case.label()}: {launch.status}: {launch.reason}")
        place = launch.environment
        if place.began_s is not None and place.ended_s is not None:
            self.sent_s.append(place.began_s - self.began[case])
            self.back_s.append(time.time() - place.ended_s)
            self.node_s.append(place.ended_s - place.began_s)


def cases(count: int) -> tuple[list[Planned], Machine]:
    axes = Axes(("depthwise_conv",), devices=("cpu",), resolutions=((7, 7),), channels=(32,))
    with session(MEASURE, models, Given()) as asked:
        planned, machine = planned_cases([Axes(**{**vars(axes), "batches": tuple(range(1, count + 1))})], asked)
    return [entry for entry in planned if not entry.case.is_anchor], machine


def locally(planned: list[Planned], run: Path, clock: Clock) -> None:
    local.execute(planned, run, MEASURE, clock)


def through_ray(planned: list[Planned], run: Path, clock: Clock, machine: Machine) -> None:
    (node,) = cluster.nodes()
    asker = Asker(planned, MEASURE, {})
    bed = Bed("here", None, Journal.open(run, MEASURE.rounds), {node.id}, node, machine)
    bed.waiting.extend(Job(asker.sent(entry)) for entry in planned)
    Dispatch(cluster.RayTasks(), [bed], MEASURE, clock, lambda: False, lambda up: None).run()


def mean(values: Sequence[float]) -> tuple[float, float, float]:
    """The mean and its 95 % t interval."""
    center = statistics.fmean(values)
    half = float(t_quantile(len(values) - 1, 0.975)) * statistics.stdev(values) / math.sqrt(len(values))
    return center, center - half, center + half


@contextlib.contextmanager
def one_node() -> Iterator[None]:
    import ray

    ray.init("local", num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    try:
        yield
    finally:
        ray.shutdown()


def pairs(planned: list[Planned], machine: Machine, count: int) -> tuple[list[float], list[float], Clock]:
    """Seconds a launch of each pair, local and through Ray; the first pair, which fills caches, is left out."""
    here: list[float] = []
    there: list[float] = []
    clock, chance = Clock(), random.Random(0)
    for number in range(count + 1):
        kept = clock if number else Clock()
        for name in chance.sample(["local", "ray"], 2):
            with tempfile.TemporaryDirectory(prefix="mixprof-overhead-") as folder:
                start = time.perf_counter()
                if name == "local":
                    locally(planned, Path(folder), Clock())
                else:
                    through_ray(planned, Path(folder), kept, machine)
                spent = (time.perf_counter() - start) / len(planned)
            if number:
                (here if name == "local" else there).append(spent)
        print(f"pair {number} of {count}", file=sys.stderr, flush=True)
    return here, there, clock


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--cases", type=int, default=4)
    arguments = parser.parse_args()
    os.environ["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    planned, machine = cases(arguments.cases)
    with one_node():
        here, there, clock = pairs(planned, machine, arguments.pairs)
    ratio = [math.exp(value) for value in mean([math.log(b / a) for a, b in zip(here, there, strict=True)])]
    rows = {
        "a launch, local executor": mean(here),
        "a launch, through Ray": mean(there),
        "difference": mean([b - a for a, b in zip(here, there, strict=True)]),
        "of it: Ray, from sending to beginning": mean(clock.sent_s),
        "of it: Ray, from end to arrival": mean(clock.back_s),
        "on the node, server and launch": mean(clock.node_s),
    }
    print(f"{arguments.pairs} pairs of {arguments.cases} launches\n\n| | s a launch [95 %] |\n|---|---|")
    for name, (center, low, high) in rows.items():
        print(f"| {name} | {center:.3f} [{low:.3f}, {high:.3f}] |")
    print(f"| ratio | {ratio[0]:.2f} [{ratio[1]:.2f}, {ratio[2]:.2f}] |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
