"""Our mixers and networks against plain formulations of the same function, on the CPU.

    python scripts/proofs/bench_mixers.py [--minutes 8] [--lowerings eager,compile] [--models swin_t,dwnet_t]
    python scripts/proofs/bench_mixers.py --roofs

Prints Markdown, a row for every model in every lowering: time and peak memory above the weights, ours / plain, how near
ours is to its floor (the longer of arithmetic and least bytes at this machine's peaks), and ours / ours in eager where
eager ran before. The default sweep's mixers come first, then two networks. A lowering is stopped when its share of the
minutes ends, and its other rows say so; what raced by then is kept: another run gets further. Exit code 1 when a target
is missed, 3 when none is and rows were not measured, 2 when outputs disagree. `--roofs`: the default sweep's
mixers at 28 and 56 in the usual formulations and in those that the choice by measurement finds.

One short launch a case (`--launches 3` for more), mixers at the first stage of a 224x224 network (56x56x96, window 7),
float32, batch 1. The allocator keeps its memory, as in workers (`--allocator system`: as in a user's own script; plain
formulations then pay page faults for what they unfold). In compile ours are the C++ kernels where there are such for
positions and Linears both, unless `--raced`.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import cache
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
NOT_MEASURED = "not measured"
NETWORKS = ("swin_t", "dwnet_t", "dynamic_dwnet_t", "i_dynamic_dwnet_t")
MINUTES = {"eager": 3.0, "onnxruntime": 1.0, "openvino": 1.0, "compile": 2.0, "aot": 1.0}  # shares of all
# Models of one sweep: when the minutes end, the pairs of a sweep that are not whole are lost.
TOGETHER = {"eager": 6}
USUALLY_TOGETHER, LEAST_S = 2, 15.0  # and the seconds under which none is begun
TIME_TARGETS = {"swin_t": 0.7, "dwnet_t": 0.7, "inhomogeneous_depthwise_conv": 0.05}  # in eager; elsewhere 1
FLOOR_TARGETS = {"inhomogeneous_depthwise_conv": 1 / 1.5}  # share of the latency, in eager
PLAIN = "plain_formulations:"
COLUMNS = (
    *("model", "lowering", "formulation", "ours ms", "plain ms", "time ratio", "95 %", "of floor", "over eager"),
    *("memory ratio", "verdict"),
)
PINNED = {"compile": "cpp+cpp"}  # unless --raced: a race there compiles up to nine rivals a part
STOP_S = 20.0  # for a sweep to end after it was asked to


def plain_of(name: str) -> str:
    """The model that `name` is compared with."""
    return PLAIN + name.split(":formulation=")[0]


def ours(name: str, lowering: str, options: argparse.Namespace) -> str:
    """What is measured of a model of ours in a lowering."""
    entry = models.MODELS[name]
    pinned = "" if options.raced else PINNED.get(lowering, "")
    offered = models.MODELS[entry.mixer or name].formulations
    return f"{name}:formulation={pinned}" if pinned in offered else name


@cache
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
    return accuracy.worst_error([models.specialize(ours, "eager")(x)], [plain(x).double()])


def agree(names: list[str]) -> None:
    """Exit with 2 where a model of ours computes something else than its plain rival."""
    for name in names:
        if not (error := disagreement(name.split(":")[0])) <= TOLERANCE:
            print(f"{name}: outputs differ by {error:.1e}, expected at most {TOLERANCE:.0e}", file=sys.stderr)
            sys.exit(2)


def groups(names: list[str], lowering: str) -> Iterator[str]:
    """The tables of a sweep file: ours in channels_last, the written-out ones contiguous where that is a choice."""
    for kind, side in (("network", 224), ("mixer", 56)):
        own = [name for name in names if models.kind(name) == kind]
        contiguous = "layouts = ['contiguous']\n" if lowering in ("eager", "compile", "aot") else ""
        for asked, layout in ((own, ""), ([plain_of(name) for name in own], contiguous)):
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
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:  # in the midst of a build
            process.kill()
            process.wait()
    if not (run / "records.jsonl").exists():
        return pd.DataFrame()
    frame = reports.load(run).assign(layout="", run="")  # each side in its own layout; all sweeps of a lowering as one
    # A mixer without a window, too: its rival is asked with it.
    return frame.assign(window=frame["window"].fillna(WINDOW))


def in_turn(names: list[str], lowering: str, folder: Path, options: argparse.Namespace, end: float) -> pd.DataFrame:
    """The records of a few models after the other, those begun before the time `end`. Empty where there are none."""
    frames, together = [pd.DataFrame()], TOGETHER.get(lowering, USUALLY_TOGETHER)
    for start in range(0, len(names), together):
        left = end - time.monotonic()
        if left >= LEAST_S:
            agree(names[start : start + together])
            left = end - time.monotonic()
            text = "\n".join(groups(names[start : start + together], lowering))
            frames.append(sweep(text, folder / f"{lowering}-{start}", options, left))
    frame = pd.concat([each for each in frames if not each.empty] or frames, ignore_index=True)
    return frame if frame.empty else frame[frame["lowering"] == lowering]


def row(name: str, lowering: str, frame: pd.DataFrame, eager: pd.Series | None) -> dict[str, str]:
    """A line of the table. eager: our record in eager."""
    line = {**dict.fromkeys(COLUMNS, ""), "model": name, "lowering": lowering}
    sides = [frame[frame["model"] == model] if len(frame) else frame for model in (name, plain_of(name))]
    if any(side.empty for side in sides):
        return {**line, "verdict": NOT_MEASURED}
    compared = ratios(frame, Pair(name, plain_of(name), ""))
    if (status := str(compared["status"].iloc[0])) != "ok":
        why = "; ".join(str(reason) for side in sides for reason in side["reason"].dropna())
        return {**line, "verdict": f"{NOT_MEASURED}: {status} {why}".strip()}
    both, mine, other = compared.iloc[0], sides[0].iloc[0], sides[1].iloc[0]
    return {
        **line,
        "formulation": str(mine["formulation"]),
        "ours ms": f"{mine['latency_ms']:.2f}",
        "plain ms": f"{other['latency_ms']:.2f}",
        "time ratio": f"{both['ratio']:.3f}",
        "95 %": "[{ratio_low:.3f}, {ratio_high:.3f}]".format(**both) if both["interval"] else "none",
        "of floor": of_floor(mine["attainable_share"]),
        "over eager": "" if eager is None else f"{mine['latency_ms'] / eager['latency_ms']:.2f}",
        "memory ratio": ""
        if pd.isna(peak := mine["allocator_peak_bytes"] / other["allocator_peak_bytes"])
        else f"{peak:.3f}",
        "verdict": "; ".join(_missed(name, lowering, both, mine, eager)) or "pass",
    }


def _missed(name: str, lowering: str, both: pd.Series, mine: pd.Series, eager: pd.Series | None) -> Iterator[str]:
    """The targets that a row misses beyond its interval."""
    low = both["ratio"] if pd.isna(both["ratio_low"]) else both["ratio_low"]
    target = TIME_TARGETS.get(name, 1.0) if lowering == "eager" else 1.0
    if low > target:
        yield f"MISSED: time ≤ {target}"
    floor = FLOOR_TARGETS.get(name) if lowering == "eager" else None
    if floor is not None and mine["attainable_share"] < floor:
        yield f"MISSED: at least {floor:.0%} of floor"
    if lowering == "compile" and eager is not None and mine["latency_low_ms"] > eager["latency_high_ms"]:
        yield f"MISSED: slower than eager ({eager['formulation']})"


def compare(options: argparse.Namespace, names: list[str], folder: Path, end: float) -> int:
    """Print the table of ours against plain; the exit code. end: when the minutes end."""
    eager: dict[str, pd.Series] = {}
    lines: list[dict[str, str]] = []
    chosen = options.lowerings.split(",")
    for place, lowering in enumerate(chosen):
        left = {one: MINUTES.get(one, 1.0) for one in chosen[place:]}
        share = (end - time.monotonic()) * left[lowering] / sum(left.values())
        measured = {name: ours(name, lowering, options) for name in names}
        frame = in_turn([*measured.values()], lowering, folder, options, time.monotonic() + share)
        lines += [row(own, lowering, frame, eager.get(name)) for name, own in measured.items()]
        if lowering == "eager" and len(frame):
            ok = frame[frame["status"] == "ok"].set_index("model", drop=False)
            eager = {name: ok.loc[name] for name in names if name in ok.index}
    print(table(iter(lines)))
    missed, absent = ([_of(line) for line in lines if word in line["verdict"]] for word in ("MISSED", NOT_MEASURED))
    print(f"\n{len(lines)} rows; not measured: {', '.join(absent) or 'none'}; missed: {', '.join(missed) or 'none'}")
    return 1 if missed else 3 if absent else 0


def _of(line: dict[str, str]) -> str:
    return f"{line['model']} ({line['lowering']})"


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
    both = shares["usual"].merge(shares["measured"], how="outer", on=keys, suffixes=("_before", "_after")).reset_index()
    print(table(_roof(line) for _, line in both.iterrows()))
    for lowering, part in both.groupby("lowering"):
        medians = [of_floor(part[f"attainable_share_{when}"].median()) for when in ("before", "after")]
        print(f"\nMedian of {lowering}: {medians[0]} before, {medians[1]} after.")
    return 0


def _roof(line: pd.Series) -> dict[str, str]:
    cells = {name: str(line[name]) for name in ("lowering", "model", "resolution")}
    for when in ("before", "after"):
        measured = pd.notna(line[f"latency_ms_{when}"])
        cells[f"ms {when}"] = f"{line[f'latency_ms_{when}']:.3f}" if measured else NOT_MEASURED
        cells[f"of floor {when}"] = of_floor(line[f"attainable_share_{when}"])
        cells[f"formulation {when}"] = str(line[f"formulation_{when}"]) if measured else ""
    return cells


def main() -> int:
    mixers = [name for name, entry in models.MODELS.items() if entry.kind == "mixer"]
    known = [*dict.fromkeys((*_default_mixers(), *NETWORKS[:2], *mixers, *NETWORKS))]
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
    end = time.monotonic() + 60 * options.minutes
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    names = options.models.split(",") if options.models else known
    with tempfile.TemporaryDirectory(prefix="mixprof-bench-") as folder:
        if options.roofs:
            return roofs(options, Path(folder))
        return compare(options, names, Path(folder), end)


if __name__ == "__main__":
    sys.exit(main())
