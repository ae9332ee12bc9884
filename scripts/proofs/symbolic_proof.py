"""Formulas against counts at random points, and a plan of 10,000 cases against fvcore.

    python scripts/proofs/symbolic_proof.py [--points 200] [--models A,B] [--sample 40]
    python scripts/proofs/symbolic_proof.py --write     renews those that come with the package

Every registered network and mixer, at points that are drawn anew with --seed: small maps, wide windows, padding of
every kind, batch 1. Exact means equal MACs, parameters and minimal bytes. The plan runs as a user would run it, start
included, on one core, with an empty cache; fvcore counts a sample of the same cases in this process, on one thread.
Both are compared in seconds of CPU time, which other work on the machine does not change; the wall clock is printed.
Ends with 1 if anything differs, or the plan takes more than 10 s, or is not 500 times as fast per case.
"""

import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from fvcore.nn import FlopCountAnalysis

from mixprof import models
from mixprof.data.case import Case
from mixprof.metrics import flops
from mixprof.plan import sources
from mixprof.plan.axes import Source
from mixprof.run.client import source_request
from mixprof.symbolic import shelf
from mixprof.symbolic.derive import Points, in_words, values_at
from mixprof.symbolic.formula import Point
from mixprof.worker import counting

BYTES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
GRID = """
[[group]]
models = [{networks}]
resolutions = [64, 96, 160, 224, "224x320", 256, 300, 384, 448, 512]
batches = [1, 2, 4, 8, 16, 32, 64]
windows = [3, 5, 7, 9, 11, 13, 15]

[[group]]
models = [{mixers}]
resolutions = [7, 14, 20, 28, "28x40", 56, 64]
batches = [1, 4, 16, 64]
windows = [3, 5, 7, 9, 11, 13]
channels = [32, 64, 96, 192, 384]
"""


def source_of(name: str) -> Source:
    return sources.describe(name, models, lambda _: sources.Described((), ""))


def write() -> int:
    """Derive the formulas of all registered models and put them into the package."""
    formulas = {}
    old = shelf.shipped()["formulas"] if shelf.SHIPPED.exists() else {}
    for name in models.MODELS:
        start = time.perf_counter()
        answer = counting.derive({"source": source_request(source_of(name)), "formulas": old.get(name)})
        print(f"{name:32} {time.perf_counter() - start:6.1f} s  {answer.get('reason', 'ok')}", flush=True)
        if answer["status"] == "ok":
            formulas[name] = answer["formulas"]
    shelf.SHIPPED.write_text(shelf.written(formulas))
    return 0 if len(formulas) == len(models.MODELS) else 1


def random_points(name: str, seed: int, number: int) -> Iterator[Point]:
    """Points that a model can have, of which a registered one knows."""
    source = source_of(name)
    is_mixer = source.kind == "mixer"
    drawn = Points(random.Random(seed), "window" in source.accepts, is_mixer, 1 if is_mixer else models.SMALLEST_IMAGE)
    yielded = 0
    while yielded < number:
        point = drawn.small()
        sides = (point.height, point.width)
        if models.check(name, resolution=sides, window=point.window, channels=point.channels) is None:
            yielded += 1
            yield point


def counted(name: str, point: Point, dtype: str) -> dict[str, int]:
    """What the counter says of the published module, in a dtype."""
    shape = (point.batch, point.height, point.width, point.channels or 0)
    if models.kind(name) == "network":
        shape = (point.batch, 3, point.height, point.width)
    with torch.device("meta"):
        module = models.build(
            name, resolution=(point.height, point.width), window=point.window, channels=point.channels
        ).to(BYTES[dtype])
    with torch.inference_mode():
        counts = flops.count(module, torch.empty(shape, dtype=BYTES[dtype], device="meta"))
    params = sum(parameter.numel() for parameter in module.parameters())
    return {"macs": counts.macs, "params": params, "min_bytes": counts.min_bytes}


def prove(name: str, seed: int, number: int) -> list[str]:
    """The points at which the formulas of a model are not what is counted, in words."""
    formulas, wrong = shelf.from_json(shelf.shipped()["formulas"][name]), []
    for index, point in enumerate(random_points(name, seed, number)):
        dtype = list(BYTES)[index % len(BYTES)]
        if values_at(formulas, point, dtype) != counted(name, point, dtype):
            wrong.append(f"{in_words(point)}, {dtype}")
    return wrong


def planned(folder: Path) -> tuple[float, float, list[dict[str, Any]]]:
    """Seconds of CPU and wall time of a plan of at least 10,000 cases on one core, and its rows."""
    kinds = {kind: [name for name in models.MODELS if models.kind(name) == kind] for kind in ("network", "mixer")}
    networks, mixers = (", ".join(map(json.dumps, kinds[kind])) for kind in ("network", "mixer"))
    grid = folder / "grid.toml"
    grid.write_text(GRID.format(networks=networks, mixers=mixers))
    command = [sys.executable, "-m", "mixprof", "plan", str(grid), "--json"]
    environment = {**os.environ, "MIXPROF_CACHE": str(folder / "cache")}
    core = {min(os.sched_getaffinity(0))}
    how: dict[str, Any] = {"env": environment, "capture_output": True, "text": True, "check": True}
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, preexec_fn=lambda: os.sched_setaffinity(0, core), **how)
    wall_s, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return cpu_s, wall_s, json.loads(done.stdout)["cases"]


def fvcore_seconds(row: dict[str, Any]) -> float:
    """CPU time of counting one case with fvcore, the module's making not included."""
    case = Case.from_json(row["case"])
    side = (case.batch, *case.resolution)
    shape = (*side, case.channels or 0) if models.kind(case.model) == "mixer" else (side[0], 3, *side[1:])
    module = models.build(case.model, resolution=case.resolution, window=case.window, channels=case.channels)
    start = time.process_time()
    with torch.no_grad():
        FlopCountAnalysis(module, torch.zeros(shape)).unsupported_ops_warnings(False).tracer_warnings("none").total()
    return time.process_time() - start


def race(sample: int, seed: int) -> tuple[str, bool]:
    """The plan against fvcore in words, and whether it is as fast as it has to be."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        plan_s, wall_s, rows = planned(Path(folder))
    possible = [row for row in rows if row["runs"] and row["case"]["model"] != "anchor_v1"]
    if any(row["macs"] is None for row in possible):
        return "a case was planned without its MACs", False
    # A sample that this machine's memory holds: fvcore runs the forward. It makes fvcore look faster, not slower.
    small = [row for row in possible if row["macs"] < 5e9]
    taken = random.Random(seed).sample(small, sample)
    fvcore_s = [fvcore_seconds(row) for row in taken]
    per_case_s = plan_s / len(rows)
    ratio = statistics.mean(fvcore_s) / per_case_s
    words = (
        f"plan: {len(rows):,} cases in {plan_s:.1f} s of one core ({wall_s:.1f} s by the clock), "
        f"{1e3 * per_case_s:.2f} ms a case; "
        f"fvcore: {1e3 * statistics.mean(fvcore_s):.0f} ms a case (mean of {sample}); ratio {ratio:,.0f}"
    )
    return words, len(rows) >= 10_000 and plan_s <= 10 and ratio >= 500


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=200)
    parser.add_argument("--models", default=",".join(models.MODELS))
    parser.add_argument("--sample", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    if options.write:
        return write()
    is_fast, failed = True, 0
    print(f"{'model':32} {'points':>7} {'exact':>7} {'s':>7}")
    for name in filter(None, options.models.split(",")):
        start = time.perf_counter()
        wrong = prove(name, options.seed, options.points)
        failed += bool(wrong)
        exact = options.points - len(wrong)
        print(f"{name:32} {options.points:>7} {exact:>7} {time.perf_counter() - start:>7.1f}  {'; '.join(wrong[:2])}")
        sys.stdout.flush()
    if options.sample:
        words, is_fast = race(options.sample, options.seed)
        print(words)
    return 0 if is_fast and not failed else 1


if __name__ == "__main__":
    sys.exit(main())
