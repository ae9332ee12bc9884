"""The driver of `--on ray`, `merge` and `report` at 200 simulated nodes and 20,000 cases.

    python scripts/proofs/fleet_scale.py [--nodes 200] [--cases 20000] [--launches 1] [--json]

The nodes are of four testbeds, each of which runs a quarter of the cases' records. They are simulated: a launch, copied
from a real one of this machine but for its times, takes no time, and one in 200 takes its node with it. Everything else
is what a sweep does: planning, surveys, dispatch, journals on disk, retries, then the commands `merge` and `report`.
Streams are handed out one by one. Ray's own work for a launch is not in it: `ray_overhead.py` measures that.
Prints a table; ends with 1 beyond 10 minutes or 2 GiB.
"""

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "tests"))

from mixprof import models
from mixprof.data import run_folder
from mixprof.data.fleet import mark
from mixprof.data.launch import Launch, Samples
from mixprof.plan.axes import Planned
from mixprof.plan.files import Given
from mixprof.plan.settings import Axes, Measure
from mixprof.run.executors.node import Task
from mixprof.run.session import planned_cases, session
from simulated_nodes import SimulatedTasks, drive, nodes_of

SPEED = {"H100": 1.0, "A100": 1.9, "L4": 5.0, "T4": 9.0}
DEATHS = 1 / 200
MOST_S, MOST_BYTES = 600.0, 2 << 30
Spent = dict[str, float]


def planned(cases: int) -> list[Planned]:
    """Two models over resolutions, windows and batches: so many cases, the anchor among them."""
    batches = tuple(range(1, -(-cases // (2 * 10 * 5)) + 1))
    sides = tuple((side, side) for side in range(7, 77, 7))
    axes = Axes(("depthwise_conv", "window_attention"), devices=("cpu",), batches=batches, resolutions=sides)
    with session(Measure(), models, Given()) as asked:
        entries, _ = planned_cases([replace(axes, windows=(3, 5, 7, 9, 11), channels=(32,))], asked)
    return entries[:cases]


def real_launch(folder: Path) -> Launch:
    """A launch of a small case, made here."""
    axes = ("--models", "depthwise_conv", "--resolutions", "7", "--channels", "32", "--devices", "cpu")
    command = [sys.executable, "-m", "mixprof", "sweep", *axes, "--quick", "--max-lost-cpu", "1", "--out", str(folder)]
    subprocess.run(command, check=True, capture_output=True)
    return next(one for of, one in run_folder.read_launches(folder) if not of.is_anchor)


class Maker:
    """Makes launches whose times follow from the case and the node's label."""

    def __init__(self, template: Launch):
        self.template, self.random = template, random.Random(0)
        self.count = len(template.host_ms.samples) if template.host_ms else 30

    def __call__(self, task: Task, round: int) -> Launch:
        case, label = task.entry.case, task.node.partition("-")[2]
        window = (case.window or 7) ** 2
        work = case.batch * case.resolution[0] ** 2 * (window if case.model == "depthwise_conv" else 60 + window / 2)
        level = 0.02 + 1e-6 * work * SPEED.get(label, 1.0) * self.random.lognormvariate(0, 0.02)
        samples = tuple(level * self.random.lognormvariate(0, 0.05) for _ in range(self.count))
        return replace(self.template, host_ms=Samples(samples, 1))


def drive_phase(folder: Path, arguments: argparse.Namespace) -> None:
    """The driver, in a process of its own; prints what it took."""
    template = next(one for of, one in run_folder.read_launches(folder / "real") if not of.is_anchor)
    start = time.process_time()
    entries = planned(arguments.cases // len(SPEED))
    planning = time.process_time() - start
    nodes = nodes_of(list(SPEED), arguments.nodes // len(SPEED))
    tasks = SimulatedTasks({node.id: node for node in nodes}, Maker(template), random.Random(2), DEATHS)
    (folder / "fleet").mkdir()
    start = time.process_time()
    with open(os.devnull, "w") as sys.stderr:
        drive(entries, folder / "fleet", Measure(launches=arguments.launches), tasks)
    mark(folder / "fleet")
    spent = {"planning": planning, "driving": time.process_time() - start, "lost": tasks.lost, "virtual": tasks.now}
    print(json.dumps(spent))


def measured(*command: str) -> tuple[str, Spent]:
    """Standard output of a command, with its seconds by the clock and of the CPU, and the most memory it had."""
    start = time.perf_counter()
    with subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, text=True) as process:
        output = process.stdout.read() if process.stdout else ""
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command[:4])} ended with {process.returncode}")
    cpu = usage.ru_utime + usage.ru_stime
    return output, {"wall": time.perf_counter() - start, "cpu": cpu, "bytes": usage.ru_maxrss * 1024}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("nodes", 200), ("cases", 20_000), ("launches", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--json", action="store_true", help="a line of JSON at the end")
    parser.add_argument("--phase", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.phase:
        drive_phase(Path(arguments.phase), arguments)
        return 0
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with tempfile.TemporaryDirectory(prefix="mixprof-scale-") as temporary:
        return table(Path(temporary), arguments)


def table(folder: Path, arguments: argparse.Namespace) -> int:
    """Carry out the three phases and print what each took; 1 where one is beyond its bound."""
    real_launch(folder / "real")
    sizes = [f"--{name}={getattr(arguments, name)}" for name in ("nodes", "cases", "launches")]
    output, driver = measured(__file__, "--phase", str(folder), *sizes)
    inner = json.loads(output.splitlines()[-1])
    _, merge = measured("-m", "mixprof", "merge", str(folder / "fleet"), "--out", str(folder / "merged"))
    _, report = measured("-m", "mixprof", "report", str(folder / "merged"), "--out", str(folder / "report"))
    runs = sorted(path for path in (folder / "merged").iterdir() if path.is_dir())
    records = sum(len((run / run_folder.RECORDS).read_bytes().splitlines()) for run in runs)
    launches = records * arguments.launches
    print(f"{arguments.nodes} simulated nodes of {len(SPEED)} testbeds, {records:,} cases, {launches:,} launches,")
    print(
        f"{inner['lost']} nodes lost and back; page {(folder / 'report' / 'index.html').stat().st_size / 1e6:.0f} MB\n"
    )
    print("| phase | s by the clock | s of CPU | ms of CPU a case | most memory, MiB |\n|---|---|---|---|---|")
    for name, spent in (("driver", driver), ("merge", merge), ("report", report)):
        case_ms, memory = 1000 * spent["cpu"] / records, spent["bytes"] / 2**20
        print(f"| {name} | {spent['wall']:.0f} | {spent['cpu']:.0f} | {case_ms:.2f} | {memory:.0f} |")
    print(f"\nof the driver's CPU {inner['planning']:.1f} s plan, {inner['driving']:.1f} s survey, dispatch and write:")
    print(f"{1000 * inner['driving'] / launches:.2f} ms a launch")
    wall, memory = (max(spent[key] for spent in (driver, merge, report)) for key in ("wall", "bytes"))
    if arguments.json:
        print(json.dumps({"records": records, "driver": driver, "merge": merge, "report": report, **inner}))
    return int(driver["wall"] + merge["wall"] + report["wall"] > MOST_S or wall > MOST_S or memory > MOST_BYTES)


if __name__ == "__main__":
    sys.exit(main())
