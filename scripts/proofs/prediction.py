"""How good a latency predicted by roofline is, shown in two ways.

    python scripts/proofs/prediction.py [--run RUN] [--quick]

1. Against this CPU: measures scripts/sweeps/prediction.toml (some minutes; --quick: one launch a case), or takes a run
   that is there, predicts each eager case from the same run's peaks, fits four factors (of matrix products, of vector
   multiply-adds, of memory, of a product's overhead) on the models of CALIBRATED alone, and prints the median absolute
   error over all others.
2. Against published throughputs of one V100 (batch 128, 224x224), from its data sheet, with nothing fitted.

Ends with 1 if the median error is above 25 % or a ratio of networks is off by more than 20 %.
"""

import argparse
import math
import subprocess
import sys
import tempfile
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import minimize

from mixprof import models, reports
from mixprof.data import run_folder
from mixprof.data.case import Case
from mixprof.data.errors import UsageError
from mixprof.data.json import to_builtins
from mixprof.plan import prediction
from mixprof.plan.prediction import Efficiency, Operator
from mixprof.plan.settings import Measure
from mixprof.reports.text.markdown import table
from mixprof.run.session import Session, session

SWEEP = Path(__file__).parents[1] / "sweeps" / "prediction.toml"
CALIBRATED = ("window_attention", "depthwise_conv", "vit_s")
BOUNDS = [*[(math.log(0.02), 0.0)] * 3, (0.0, math.log(100.0))]  # of the logarithms: a peak is not exceeded
MOST_ERROR, MOST_RATIO_ERROR = 0.25, 0.20
PUBLISHED = {  # images per second
    name: images
    for name, entry in models.MODELS.items()
    if entry.published and (images := entry.published.images_per_s)
}
RATIOS = (("dwnet_t", "swin_t"), ("dwnet_b", "swin_b"))
# As the published code of 2021 ran it: no fused attention existed for it.
FORMULATIONS = {"explicit attention": ":attention=explicit", "fused attention": ""}


def operators_of(asked: Session, case: Case) -> list[Operator]:
    answer = asked.operators(case, asked.describe(case.model))
    if answer["status"] != "ok":
        raise SystemExit(f"no operators of {case.label()}: {answer['reason']}")
    operators: list[Operator] = answer["operators"]
    return operators


def fit(known: list[tuple[list[Operator], float]], hardware: prediction.Hardware) -> Efficiency:
    """The efficiencies with the least sum of squared log errors over (operators, seconds)."""

    def error(logarithms: np.ndarray) -> float:
        efficiency = Efficiency(*np.exp(logarithms))
        ratios = [prediction.latency_s(operators, hardware, efficiency) / seconds for operators, seconds in known]
        return float(np.sum(np.log(ratios) ** 2))

    start = np.log([0.5, 0.5, 0.5, 5.0])
    least = minimize(error, start, method="Nelder-Mead", bounds=BOUNDS, options={"maxiter": 2000, "xatol": 1e-3})
    return Efficiency(*(float(factor) for factor in np.exp(least.x)))


def against_cpu(run: Path, asked: Session) -> float:
    """Prints the table; the median absolute error of what was not calibrated on."""
    run_folder.read_manifest(run)
    if len(all_peaks := run_folder.read_peaks(run)) != 1:
        raise UsageError(
            f"got '{run}' with {len(all_peaks)} sets of peaks, expected one: a sweep of this version on a CPU"
        )
    (peaks,) = all_peaks
    hardware = prediction.here(peaks)
    records = [record for record in run_folder.read_records(run) if record.case.model != "anchor_v1"]
    frame = reports.load(run).query("lowering == 'eager'")
    latencies = dict(zip(map(_key_of_row, frame.to_dict("records")), frame["latency_ms"] / 1000, strict=True))
    cases = [record.case for record in records if record.status == "ok" and record.case.lowering == "eager"]
    known = {case: (operators_of(asked, case), float(latencies[_key(case)])) for case in cases}
    efficiency = fit([known[case] for case in cases if case.model in CALIBRATED], hardware)
    rows, errors = [], []
    for case in cases:
        operators, seconds = known[case]
        bare, fitted = (prediction.latency_s(operators, hardware, record) for record in (Efficiency(), efficiency))
        error, used = fitted / seconds - 1, case.model in CALIBRATED
        errors += [] if used else [abs(error)]
        rows.append(
            {
                "case": case.label().removesuffix(" c96"),
                "measured (ms)": f"{1000 * seconds:.3f}",
                "predicted (ms)": f"{1000 * fitted:.3f}",
                "error": f"{error:+.0%}",
                "without efficiencies": f"{bare / seconds - 1:+.0%}",
                "calibrated on": "yes" if used else "",
            }
        )
    rates = {name: value for name, value in to_builtins(peaks).items() if isinstance(value, int | float)}
    print("Peaks of this CPU:", ", ".join(f"{name} {value:.4g}" for name, value in rates.items()))
    print(f"Efficiencies, fitted on {', '.join(CALIBRATED)}: {efficiency}")
    print(table(rows))
    left_out = sum(record.status != "ok" for record in records)
    median = float(np.median(errors))
    print(f"Median absolute error of the {len(errors)} cases not calibrated on: {median:.1%}; {left_out} cases not ok.")
    return median


def _key(case: Case) -> tuple[object, ...]:
    return case.model, case.batch, case.resolution, case.window


def _key_of_row(row: dict[Hashable, Any]) -> tuple[object, ...]:
    window = None if pd.isna(row["window"]) else row["window"]
    return row["model"], row["batch"], (row["height"], row["width"]), window


def against_v100(asked: Session) -> float:
    """Prints the table; the largest relative error of a ratio, with attention as the published code had it."""
    worst = 0.0
    hardware = prediction.on("V100", "float32")
    for words, option in FORMULATIONS.items():
        predicted = {}
        for name in PUBLISHED:
            model = name + (option if name.startswith("swin") else "")
            case = Case(model, "eager", "cuda:0", "float32", "channels_last", "hot", 128, (224, 224), 7, None)
            predicted[name] = 128 / prediction.latency_s(operators_of(asked, case), hardware)
        print(f"\nPredicted for {hardware.name}, float32, batch 128, 224x224, {words}; not measured:")
        heads = ("network", "predicted (img/s)", "published (img/s)", "predicted / published")
        rows = [(name, images, PUBLISHED[name], images / PUBLISHED[name]) for name, images in predicted.items()]
        texts = ((name, f"{here:.0f}", str(there), f"{ratio:.2f}") for name, here, there, ratio in rows)
        print(table(dict(zip(heads, text, strict=True)) for text in texts))
        for top, bottom in RATIOS:
            ratio, published = predicted[top] / predicted[bottom], PUBLISHED[top] / PUBLISHED[bottom]
            print(f"{top} : {bottom}: predicted {ratio:.3f}, published {published:.3f}, {ratio / published - 1:+.1%}")
            worst = max(worst, abs(ratio / published - 1) if option else 0.0)
    return worst


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="a run of the sweep that is there already")
    parser.add_argument("--quick", action="store_true", help="one short launch a case")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mixprof-prediction-") as folder:
        run = options.run or Path(folder) / "run"
        if options.run is None:
            command = [sys.executable, "-m", "mixprof", "sweep", str(SWEEP), "--out", str(run)]
            subprocess.run([*command, *["--quick"] * options.quick], check=True)
        with session(Measure(), models) as asked:
            median, worst = against_cpu(run, asked), against_v100(asked)
    print(f"\nmedian error on this CPU {median:.1%} (at most {MOST_ERROR:.0%}), ", end="")
    print(f"largest error of a V100 ratio {worst:.1%} (at most {MOST_RATIO_ERROR:.0%})")
    return int(median > MOST_ERROR or worst > MOST_RATIO_ERROR)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UsageError as error:
        print(f"prediction: {error}", file=sys.stderr)
        sys.exit(2)
