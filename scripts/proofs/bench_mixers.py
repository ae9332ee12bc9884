"""Our mixers and networks against plain formulations of the same function, in one sweep on the CPU.

    python scripts/proofs/bench_mixers.py [--quick] [--compile] [--allocator pinned] [--models swin_t,dwnet_t]

Prints a Markdown table: time and peak memory above the weights, each as a ratio ours / plain, and the time as a
multiple of FLOPs / peak rate of a matrix product. With --compile, torch.compile of ours against torch.compile of the
plain one as well. Exit code 1 when a target is missed, 2 when outputs disagree. The allocator is the system's, as in a
user's own script; `pinned` keeps its memory, as workers do: the plain inhomogeneous mixer then pays no page faults for
its unfolded tensor, and the ratio is closer to 1. Mixers at the first stage of a 224x224 network (56x56x96, window 7),
float32, batch 1.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd
import torch

import plain_formulations
from mixprof import models, reports
from mixprof.data import run_folder
from mixprof.metrics import accuracy
from mixprof.reports.answers.ratios import Pair, ratios
from mixprof.reports.text.markdown import table

WINDOW, TOLERANCE = 7, 1e-4
TIME_TARGETS = {"swin_t": 0.9, "dwnet_t": 0.95, "i_dynamic_dwnet_t": 0.35, "inhomogeneous_depthwise_conv": 0.1}
MEMORY_TARGETS = {"inhomogeneous_depthwise_conv": 0.2}
PLAIN = "plain_formulations:"


@torch.no_grad()
def disagreement(name: str) -> float:
    """The relative error of ours, specialised for eager, with the plain module's weights."""
    resolution = 224 if models.kind(name) == "network" else 56
    plain = plain_formulations.build(name, resolution, WINDOW).eval()
    shape = (2, 3, 224, 224) if models.kind(name) == "network" else (2, 56, 56, 96)
    x = accuracy.random_input(shape, torch.Generator().manual_seed(0), images=len(shape) == 4 and shape[1] == 3)
    accuracy.initialize(plain, (x,), 0)
    ours = models.build(name, resolution=resolution, window=WINDOW)
    models.load_published(ours, plain.state_dict())
    return accuracy.relative_error(models.specialize(ours, "eager")(x), plain(x).double())


def measure(names: list[str], options: argparse.Namespace, run: Path) -> None:
    """One sweep of ours, channels-last, and of the plain ones, contiguous."""
    lowerings = ["eager", "compile"] if options.compile else ["eager"]
    groups = [
        f"[[group]]\nmodels = {[prefix + name for name in names if models.kind(name) == kind]}\n"
        f"resolutions = [{side}]\nlayouts = ['{layout}']\nlowerings = {lowerings}\n"
        for kind, side in (("network", 224), ("mixer", 56))
        for prefix, layout in (("", "channels_last"), (PLAIN, "contiguous"))
        if any(models.kind(name) == kind for name in names)
    ]
    (run.parent / "sweep.toml").write_text("\n".join(groups))
    command = [sys.executable, "-m", "mixprof", "sweep", str(run.parent / "sweep.toml"), "--out", str(run)]
    command += ["--devices", "cpu", "--allocator", options.allocator, *["--quick"] * options.quick]
    command += ["--max-lost-cpu", str(options.max_lost_cpu)]
    subprocess.run(command, cwd=Path(__file__).parent, check=True, stdout=subprocess.DEVNULL)


def row(name: str, frame: pd.DataFrame, flops_per_s: float) -> tuple[dict[str, str], bool]:
    """A line of the table for one lowering, and whether its targets are met."""
    lowering = str(frame["lowering"].iloc[0])
    compared = ratios(frame, Pair(name, PLAIN + name, "")).iloc[0]
    if compared["status"] != "ok":
        return {"model": name, "lowering": lowering, "verdict": compared["status"]}, False
    ours, plain = (frame[frame["model"] == model].iloc[0] for model in (name, PLAIN + name))
    memory = ours["allocator_peak_bytes"] / plain["allocator_peak_bytes"]
    eager = lowering == "eager"
    targets = [(compared["ratio"], TIME_TARGETS.get(name)), (memory, MEMORY_TARGETS.get(name))] if eager else []
    judged = [value <= target for value, target in targets if target is not None]
    return {
        "model": name,
        "lowering": lowering,
        "formulation": str(ours["formulation"]),
        "ours ms": f"{ours['latency_ms']:.2f}",
        "plain ms": f"{plain['latency_ms']:.2f}",
        "time ratio": f"{compared['ratio']:.3f}",
        "95 %": "[{ratio_low:.3f}, {ratio_high:.3f}]".format(**compared) if compared["interval"] else "none",
        "x matmul rate": f"{ours['latency_ms'] / 1000 / (ours['flops'] / flops_per_s):.2f}",
        "memory ratio": f"{memory:.3f}",
        "targets": ", ".join(f"≤ {target}" for _, target in targets if target is not None),
        "verdict": "" if not judged else "pass" if all(judged) else "FAIL",
    }, all(judged)


def main() -> int:
    names = [*plain_formulations.MODELS, "window_attention:shifted=true"]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one short launch a case")
    parser.add_argument("--compile", action="store_true", help="torch.compile as well as eager")
    parser.add_argument("--allocator", default="system", help="system or pinned (default: %(default)s)")
    parser.add_argument("--max-lost-cpu", type=float, default=0.1, help="share of a launch that others may take")
    parser.add_argument("--models", default=",".join(plain_formulations.MODELS), help="default: %(default)s")
    options = parser.parse_args()
    chosen = options.models.split(",")
    if unknown := sorted(set(chosen) - set(names)):
        parser.error(f"--models: got {', '.join(unknown)}; expected among {', '.join(names)}")
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    for name in chosen:
        if not (error := disagreement(name)) <= TOLERANCE:
            print(f"{name}: outputs differ by {error:.1e}, expected at most {TOLERANCE:.0e}", file=sys.stderr)
            return 2
    with tempfile.TemporaryDirectory(prefix="mixprof-bench-") as folder:
        run = Path(folder) / "run"
        measure(chosen, options, run)
        frame, (peaks,) = reports.load(run), run_folder.read_peaks(run)
    frame = frame.assign(layout="")  # each side in its own
    by_lowering = [frame[frame["lowering"] == lowering] for lowering in frame["lowering"].unique()]
    rows = [row(name, part, peaks.matrix_flops_per_s) for name in chosen for part in by_lowering]
    print(table(line for line, _ in rows))
    missed = [f"{line['model']} ({line['lowering']})" for line, met in rows if not met]
    print(f"\n{'missed: ' + ', '.join(missed) if missed else 'all targets met'}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
