"""Our mixers and networks against plain formulations of the same function, on the CPU.

    python scripts/proofs/bench_mixers.py [--minutes 8] [--lowerings eager,compile] [--models swin_t,dwnet_t]
    python scripts/proofs/bench_mixers.py --roofs

Prints Markdown. Each row: time and peak memory above the weights, ours / plain, and how near ours is to its floor (the
longer of arithmetic and least bytes at this machine's peaks). A lowering whose share of the minutes ends is stopped,
and its cases without a record are named. Exit code 1 when a target is missed, 2 when outputs disagree. `--roofs`: the
default sweep's mixers at 28 and 56 in the usual formulations and in those that the choice by measurement finds.

One short launch a case (`--launches 3` for more), mixers at the first stage of a 224x224 network (56x56x96, window 7),
float32, batch 1. The allocator keeps its memory, as in workers (`--allocator system`: as in a user's own script; plain
formulations then pay page faults for what they unfold). A mixer that plain_formulations.py does not write out is
compared with its own published formulation. In compile ours are the C++ kernels, unless `--raced`.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import torch

import plain_formulations
from mixprof import models, reports
from mixprof.data import toml
from mixprof.metrics import accuracy
from mixprof.plan import sweep_file
from mixprof.reports.answers.ratios import Pair, ratios
from mixprof.reports.text.markdown import of_floor, table

WINDOW, TOLERANCE = 7, 1e-4
NETWORKS = ("swin_t", "dwnet_t", "dynamic_dwnet_t", "i_dynamic_dwnet_t")
MINUTES = {"eager": 3.0, "onnxruntime": 1.0, "openvino": 1.0, "compile": 2.0, "aot": 1.0}  # shares of all
SLOW = ("compile", "aot")  # a compiler builds every rival: the mixers of the default sweep and two networks
TIME_TARGETS = {"swin_t": 0.7, "dwnet_t": 0.7, "inhomogeneous_depthwise_conv": 0.05}  # in eager; elsewhere 1
FLOOR_TARGETS = {"inhomogeneous_depthwise_conv": 1 / 1.5}  # share of the latency, in eager
PLAIN = "plain_formulations:"
COLUMNS = (
    *("model", "lowering", "formulation", "ours ms", "plain ms", "time ratio", "95 %", "of floor", "over eager"),
    *("memory ratio", "verdict"),
)
PINNED = {"compile": ":formulation=cpp+cpp"}  # unless --raced: a race there compiles up to nine rivals a part
STOP_S = 20.0  # for a sweep to end after it was asked to


def plain_of(name: str) -> str | None:
    """The model that `name` is compared with; None where there is no other formulation."""
    for pinned in PINNED.values():
        name = name.removesuffix(pinned)
    if name.split(":")[0] in plain_formulations.MODELS:
        return PLAIN + name
    return f"{name}:formulation=plain" if models.MODELS[name].formulations else None


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


def groups(names: list[str], lowering: str) -> Iterator[str]:
    """The tables of a sweep file: ours in channels_last, the written-out ones contiguous where that is a choice."""
    for kind, side in (("network", 224), ("mixer", 56)):
        ours = [name for name in names if models.kind(name) == kind]
        rivals = [rival for name in ours if (rival := plain_of(name))]
        for asked in (
            [*ours, *(r for r in rivals if not r.startswith(PLAIN))],
            [r for r in rivals if r.startswith(PLAIN)],
        ):
            contiguous = bool(asked) and asked[0].startswith(PLAIN) and lowering in ("eager", "compile", "aot")
            layout = "layouts = ['contiguous']\n" if contiguous else ""
            if asked:
                yield f"[[group]]\nmodels = {asked}\nresolutions = [{side}]\nlowerings = ['{lowering}']\n{layout}"


def sweep(text: str, run: Path, options: argparse.Namespace, most_s: float, *more: str) -> pd.DataFrame:
    """The records of a sweep, stopped after so many seconds; what has no record is left out."""
    file = run.with_suffix(".toml")
    file.write_text(text)
    command = [sys.executable, "-m", "mixprof", "sweep", str(file), "--out", str(run), "--devices", "cpu", "--quick"]
    command += ["--launches", str(options.launches), "--allocator", options.allocator]
    command += ["--max-lost-cpu", str(options.max_lost_cpu), *more]
    process = subprocess.Popen(command, cwd=Path(__file__).parent, stdout=subprocess.DEVNULL)
    try:
        process.wait(most_s)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGTERM)
        process.wait(STOP_S)
    frame = reports.load(run).assign(layout="")  # each side in its own
    # A mixer without a window, too: its rival is asked with it.
    return frame.assign(window=frame["window"].fillna(WINDOW))


def row(name: str, frame: pd.DataFrame, eager: pd.Series | None) -> tuple[dict[str, str], bool]:
    """A line of the table for one lowering, and whether its targets are met. eager: our record in eager."""
    lowering, compared = str(frame["lowering"].iloc[0]), ratios(frame, Pair(name, plain_of(name) or "", ""))
    ours, plain = (frame[frame["model"] == model] for model in (name, plain_of(name)))
    if compared.empty or compared["status"].iloc[0] != "ok":
        status = "no record" if compared.empty else str(compared["status"].iloc[0])
        why = "; ".join(str(reason) for side in (ours, plain) for reason in side["reason"].dropna())
        return {
            **dict.fromkeys(COLUMNS, ""),
            "model": name,
            "lowering": lowering,
            "verdict": f"{status} {why}".strip(),
        }, False
    both, mine, other = compared.iloc[0], ours.iloc[0], plain.iloc[0]
    missed = list(_missed(name, lowering, both, mine, eager))
    return {
        "model": name,
        "lowering": lowering,
        "formulation": str(mine["formulation"]),
        "ours ms": f"{mine['latency_ms']:.2f}",
        "plain ms": f"{other['latency_ms']:.2f}",
        "time ratio": f"{both['ratio']:.3f}",
        "95 %": "[{ratio_low:.3f}, {ratio_high:.3f}]".format(**both) if both["interval"] else "none",
        "of floor": of_floor(mine["attainable_share"]),
        "over eager": "" if eager is None else f"{mine['latency_ms'] / eager['latency_ms']:.2f}",
        "memory ratio": f"{mine['allocator_peak_bytes'] / other['allocator_peak_bytes']:.3f}",
        "verdict": "; ".join(missed) or "pass",
    }, not missed


def _missed(name: str, lowering: str, both: pd.Series, mine: pd.Series, eager: pd.Series | None) -> Iterator[str]:
    """The targets that a row misses beyond its interval."""
    low = both["ratio"] if pd.isna(both["ratio_low"]) else both["ratio_low"]
    target = TIME_TARGETS.get(name, 1.0) if lowering == "eager" else 1.0
    if low > target:
        yield f"MISSED: time ≤ {target}"
    floor = FLOOR_TARGETS.get(name) if lowering == "eager" else None
    if floor is not None and mine["attainable_share"] < floor:
        yield f"MISSED: at least {floor:.0%} of floor"
    if eager is not None and mine["latency_low_ms"] > eager["latency_high_ms"]:
        yield "slower than eager"


def compare(options: argparse.Namespace, names: list[str], folder: Path) -> int:
    """Print the table of ours against plain; 1 if a target was missed."""
    end, eager = time.monotonic() + 60 * options.minutes, dict[str, pd.Series]()
    lines: list[tuple[dict[str, str], bool]] = []
    chosen = options.lowerings.split(",")
    for place, lowering in enumerate(chosen):
        some = [
            n for n in names if lowering not in SLOW or options.models or n in _default_mixers() or n in NETWORKS[:2]
        ]
        pinned = "" if options.raced else PINNED.get(lowering, "")
        some = [name + pinned for name in some]
        left = {one: MINUTES.get(one, 1.0) for one in chosen[place:]}
        share = (end - time.monotonic()) * left[lowering] / sum(left.values())
        frame = sweep("\n".join(groups(some, lowering)), folder / lowering, options, share)
        of_models = frame[frame["lowering"] == lowering]
        if of_models.empty:
            lines.append(
                ({**dict.fromkeys(COLUMNS, ""), "lowering": lowering, "verdict": "no record in its time"}, False)
            )
            continue
        lines += [
            row(name, of_models, eager.get(name.removesuffix(pinned)) if lowering == "compile" else None)
            for name in some
            if plain_of(name)
        ]
        if lowering == "eager":
            ok = of_models[of_models["status"] == "ok"].set_index("model", drop=False)
            eager = {name: ok.loc[name] for name in names if name in ok.index}
    print(table(line for line, _ in lines))
    missed = [f"{line['model']} ({line['lowering']})" for line, met in lines if not met]
    print(f"\n{'missed: ' + ', '.join(missed) if missed else 'all targets met'}")
    return 1 if missed else 0


def _default_mixers() -> list[str]:
    """The mixers of the sweep without arguments."""
    default = toml.decode(sweep_file.DEFAULT.read_text())
    named = dict.fromkeys(name for group in default["group"] for name in group["models"])
    return [name for name in named if models.kind(name) == "mixer"]


def roofs(options: argparse.Namespace, folder: Path) -> int:
    """Print the share of their floors that the default sweep's mixers reach, before and after the choice."""
    text = f"[[group]]\nmodels = {_default_mixers()}\nresolutions = [28, 56]\nlowerings = ['eager', 'onnxruntime']\n"
    keys, shares = ["lowering", "model", "resolution"], {}
    for kind in ("usual", "measured"):
        frame = sweep(text, folder / kind, options, 30 * options.minutes, "--formulations", kind)
        frame = frame[frame["attainable_share"].notna() & ~frame["model"].str.startswith("anchor")]
        shares[kind] = frame.set_index(keys)[["attainable_share", "latency_ms", "formulation"]]
    both = shares["usual"].join(shares["measured"], lsuffix="_before", rsuffix="_after", how="outer").reset_index()
    print(table(_roof(line) for _, line in both.iterrows()))
    for lowering, part in both.groupby("lowering"):
        medians = [of_floor(part[f"attainable_share_{when}"].median()) for when in ("before", "after")]
        print(f"\nMedian of {lowering}: {medians[0]} before, {medians[1]} after.")
    return 0


def _roof(line: pd.Series) -> dict[str, str]:
    cells = {name: str(line[name]) for name in ("lowering", "model", "resolution")}
    for when in ("before", "after"):
        cells[f"ms {when}"] = f"{line[f'latency_ms_{when}']:.3f}"
        cells[f"of floor {when}"] = of_floor(line[f"attainable_share_{when}"])
        cells[f"formulation {when}"] = str(line[f"formulation_{when}"])
    return cells


def main() -> int:
    known = [name for name, entry in models.MODELS.items() if entry.kind == "mixer" or name in NETWORKS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=8.0, help="for all sweeps together (default: %(default)s)")
    parser.add_argument("--lowerings", default=",".join(MINUTES), help="default: %(default)s")
    parser.add_argument("--launches", type=int, default=1, help="of a case (default: %(default)s)")
    parser.add_argument("--allocator", default="pinned", help="pinned or system (default: %(default)s)")
    parser.add_argument("--max-lost-cpu", type=float, default=0.1, help="share of a launch that others may take")
    parser.add_argument("--models", default="", help=f"default: {','.join(known)}")
    parser.add_argument("--raced", action="store_true", help="the choice by measurement in compile, too: takes long")
    parser.add_argument("--roofs", action="store_true", help="the default sweep's mixers under their roofs")
    options = parser.parse_args()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    names = options.models.split(",") if options.models else known
    with tempfile.TemporaryDirectory(prefix="mixprof-bench-") as folder:
        if options.roofs:
            return roofs(options, Path(folder))
        for name in names:
            if name in plain_formulations.MODELS and not (error := disagreement(name)) <= TOLERANCE:
                print(f"{name}: outputs differ by {error:.1e}, expected at most {TOLERANCE:.0e}", file=sys.stderr)
                return 2
        return compare(options, names, Path(folder))


if __name__ == "__main__":
    sys.exit(main())
