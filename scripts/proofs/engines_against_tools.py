"""Each engine's figure beside that of its own tool on the same file: do the two agree within 2 %?

    python scripts/proofs/engines_against_tools.py [--quick] [--models swin_t,dwnet_t] [--engines eager] [--pairs 20]

Some four minutes on a quiet machine. For Swin-T at 224 pixels in float32 (--models for others): a launch of ours and a
process of the tool take turns, A B then B A, each for some seconds: onnxruntime in a plain Python loop,
OpenVINO's benchmark_app (a plain loop where it is not installed), a plain loop of the eager module. Prints a table in
Markdown: the ratio ours / tool, a 95 % t interval over pairs of turns, and whether it is within 2 %.
"""

import argparse
import json
import math
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from scipy import stats

from mixprof import models
from mixprof.data.launch import Launch
from mixprof.machine.process import default_threads, inherited, worker_environment
from mixprof.plan.axes import Planned, expand
from mixprof.plan.settings import Axes, Measure
from mixprof.run import launching
from mixprof.run.client import Server
from mixprof.run.executors import local
from mixprof.run.session import session

GOAL = 0.02
SIDE, QUICK_SIDE = 224, 64
ENGINES = ("eager", "onnxruntime", "openvino")


@dataclass(frozen=True)
class Tool:
    """What a process of the other side is told."""

    engine: str
    model: str
    side: int
    file: str  # of the graph; "" for eager
    threads: int
    warm_s: float
    seconds: float


def loop(told: Tool) -> float:
    """Milliseconds, the median of a plain loop over one request at a time."""
    run = {"eager": _eager, "onnxruntime": _onnxruntime, "openvino": _openvino}[told.engine](told)
    end = time.perf_counter() + told.warm_s
    while time.perf_counter() < end:
        run()
    times, end = [], time.perf_counter() + told.seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times)


def _eager(told: Tool) -> Callable[[], object]:
    import torch

    import mixprof

    torch.set_num_threads(told.threads)
    torch.set_flush_denormal(True)
    module = mixprof.build(told.model, resolution=told.side, lowering="eager")
    module = torch.nn.Module.to(module, memory_format=torch.channels_last)  # type: ignore[call-overload]
    example = torch.randn(1, 3, told.side, told.side).to(memory_format=torch.channels_last)

    def run() -> object:
        with torch.inference_mode():
            return module(example)

    return run


def _onnxruntime(told: Tool) -> Callable[[], object]:
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = told.threads
    session = onnxruntime.InferenceSession(told.file, options, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    fed = {given.name: np.random.default_rng(0).normal(size=given.shape).astype(np.float32)}
    return lambda: session.run(None, fed)


def _openvino(told: Tool) -> Callable[[], object]:
    import numpy as np
    import openvino

    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": told.threads, "INFERENCE_PRECISION_HINT": "f32"}
    request = openvino.Core().compile_model(told.file, "CPU", settings).create_infer_request()
    shape = list(request.model_inputs[0].shape)
    request.set_input_tensor(openvino.Tensor(np.random.default_rng(0).normal(size=shape).astype(np.float32)))
    return lambda: request.infer()


def benchmark_app(program: str, told: Tool) -> float:
    """Milliseconds, the median that OpenVINO's own program tells."""
    command = [program, "-m", told.file, "-d", "CPU", "-api", "sync", "-hint", "none", "-nstreams", "1"]
    command += ["-infer_precision", "f32", "-nthreads", str(told.threads)]
    command += ["-t", str(max(1, round(told.seconds + told.warm_s)))]
    done = subprocess.run(command, env=_environment(told), capture_output=True, text=True)
    match = re.search(r"Median:\s+([\d.]+) (ms|us)", done.stdout)
    if match is None:
        raise SystemExit(f"benchmark_app ended with {done.returncode}: {(done.stdout + done.stderr).strip()[-400:]}")
    return float(match[1]) * (1e-3 if match[2] == "us" else 1.0)


def tool_ms(told: Tool) -> float:
    """One turn of the tool, in a process of its own, in the environment that our workers have."""
    program = shutil.which("benchmark_app", path=str(Path(sys.executable).parent))
    if told.engine == "openvino" and program:
        return benchmark_app(program, told)
    command = [sys.executable, __file__, "--tool", json.dumps(asdict(told))]
    done = subprocess.run(command, env=_environment(told), check=True, capture_output=True, text=True)
    return float(done.stdout.split()[-1])


def _environment(told: Tool) -> dict[str, str]:
    return {**inherited(), **worker_environment(told.threads, "pinned", Path(tempfile.gettempdir()))}


def our_ms(entry: Planned, scratch: Path, measure: Measure) -> tuple[float, Launch]:
    """One turn of ours: a launch from a server of its own."""
    threads = default_threads()
    with Server(scratch, local.preload([entry]), threads, measure.allocator) as server:
        launch = launching.launch_case(entry, launching.Bench(server, measure))
    if launch.host_ms is None:
        raise SystemExit(f"{entry.case.label()}: {launch.status}: {launch.reason}")
    return statistics.median(launch.host_ms.samples), launch


def compare(entry: Planned, scratch: Path, measure: Measure, pairs: int) -> str:
    """A row: pairs of turns, every other one begun by the tool."""
    case, threads = entry.case, default_threads()
    _, first = our_ms(entry, scratch, measure)  # exports, and warms the page cache
    sha256 = (first.proof or {}).get("onnx_sha256")
    file = "" if sha256 is None else _file(scratch, sha256)
    told = Tool(case.lowering, case.model, case.resolution[0], file, threads, 0.5, measure.seconds or 1.0)
    turns = {"ours": lambda: our_ms(entry, scratch, measure)[0], "tool": lambda: tool_ms(told)}
    taken = []
    for number in range(pairs):
        order = ("ours", "tool") if number % 2 else ("tool", "ours")
        taken.append({side: turns[side]() for side in order})
    logs = [math.log(pair["ours"] / pair["tool"]) for pair in taken]
    half = float(stats.t.ppf(0.975, pairs - 1)) * statistics.stdev(logs) / math.sqrt(pairs)
    low, ratio, high = (math.exp(statistics.mean(logs) + away) for away in (-half, 0.0, half))
    ours, tool = (statistics.median(pair[side] for pair in taken) for side in ("ours", "tool"))
    inside = low >= 1 - GOAL and high <= 1 + GOAL
    outside = high < 1 - GOAL or low > 1 + GOAL
    word = "yes" if inside else "no" if outside else "undecided"
    return (
        f"| {case.model} | {case.lowering} | {ours:.4g} | {tool:.4g} | {ratio:.3f} [{low:.3f}, {high:.3f}] | {word} |"
    )


def _file(scratch: Path, sha256: str) -> str:
    """The graph that our launches ran."""
    import hashlib

    paths = (scratch / "cache").glob("*.onnx")
    return str(next(path for path in paths if hashlib.sha256(path.read_bytes()).hexdigest() == sha256).resolve())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="64 pixels, two short pairs: whether it runs at all")
    parser.add_argument("--models", default="swin_t")
    parser.add_argument("--engines", default=",".join(ENGINES))
    parser.add_argument("--pairs", type=int, help="of turns, 2 at least: more decide what is undecided (default: 6)")
    parser.add_argument("--seconds", type=float, help="of each turn (default: 1.5)")
    parser.add_argument("--tool", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.tool:
        print(loop(Tool(**json.loads(arguments.tool))))
        return
    pairs, seconds = (2, 0.3) if arguments.quick else (6, 1.5)
    pairs, seconds = arguments.pairs or pairs, arguments.seconds or seconds
    if pairs < 2:
        parser.error(f"--pairs: got {pairs}, expected 2 at least: an interval needs two")
    measure = Measure(seconds=seconds, formulations="usual", quick=True)
    side = QUICK_SIDE if arguments.quick else SIDE
    axes = Axes(
        tuple(arguments.models.split(",")), tuple(arguments.engines.split(",")), ("cpu",), resolutions=((side, side),)
    )
    with session(measure, models) as asked:
        planned = expand([axes], asked.describe, ("cpu",))
    print("| model | engine | ours, ms | its tool, ms | ours / tool, 95 % | within 2 % |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="mixprof-tools-") as folder:
        for entry in planned:
            print(compare(entry, Path(folder), measure, pairs), flush=True)


if __name__ == "__main__":
    main()
