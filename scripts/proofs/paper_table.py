"""The paper's comparison, as Markdown: parameters, MACs and throughput of all networks here beside published figures.

    python scripts/proofs/paper_table.py [--quick] [--batch B] [--resolution R] [--run RUN]

Measures throughput here, in one run, on the default device; --quick: one short launch a case at 64x64. Throughputs of
different devices do not compare: what compares is the ratio to Swin of the same size, here and as published.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd

from mixprof import models, reports
from mixprof.data.errors import UsageError
from mixprof.data.run_folder import read_manifest
from mixprof.reports.text.markdown import number, table

NETWORKS = {name: entry for name, entry in models.MODELS.items() if entry.kind == "network" and entry.mixer is not None}


def throughput_published(name: str) -> int | None:
    """Images per second of one V100, batch 128, 224x224."""
    published = NETWORKS[name].published
    return None if published is None else published.images_per_s


def measure(run: Path, options: argparse.Namespace) -> None:
    command = [sys.executable, "-m", "mixprof", "sweep", "--models", ",".join(NETWORKS), "--out", str(run)]
    resolution = options.resolution or (64 if options.quick else 224)
    command += ["--resolutions", str(resolution), "--batches", str(options.batch), *["--quick"] * options.quick]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def rows(frame: pd.DataFrame) -> list[dict[str, str]]:
    by_name = {row["model"]: row for _, row in frame.iterrows()}
    return [_row(name, by_name[name], by_name[f"swin_{name[-1]}"]) for name in NETWORKS]


def _row(name: str, here: pd.Series, swin: pd.Series) -> dict[str, str]:
    """A network's figures here and as published. swin: the row of Swin of its size."""
    published, theirs = NETWORKS[name].published, throughput_published(str(swin["model"]))
    images_per_s = throughput_published(name)
    return {
        "network": name,
        "parameters": f"{here['params']:,}",
        "MACs": f"{here['macs'] // here['batch']:,}",
        "published parameters / MACs": "" if published is None else published.size,
        "published top-1 (%)": "" if published is None else f"{published.top1_percent}",
        "here (img/s)": _throughput(here),
        "V100, published (img/s)": "" if images_per_s is None else str(images_per_s),
        "here, over Swin of its size": number(here["images_per_s"] / swin["images_per_s"]),
        "published, over Swin of its size": number(images_per_s / theirs) if images_per_s and theirs else "",
    }


def _throughput(row: pd.Series) -> str:
    """ "12.3 [12.1, 12.5]", or the status that leaves none."""
    if pd.isna(row["images_per_s"]):
        return str(row["status"])
    bounds = (1000 * row["batch"] / row[f"latency_{side}_ms"] for side in ("high", "low"))
    low, high = (number(bound) for bound in bounds)
    return number(row["images_per_s"]) + (f" [{low}, {high}]" if low and high else "")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one short launch a case, 64x64")
    parser.add_argument("--batch", type=int, default=1, help="images (default: 1)")
    parser.add_argument("--resolution", type=int, help="side of the image (default: 224)")
    parser.add_argument("--run", type=Path, help="a run with all of these networks that is there already")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mixprof-paper-") as folder:
        run = options.run or Path(folder) / "run"
        if options.run is None:
            measure(run, options)
        frame = reports.load(run)
        testbed = read_manifest(run).environment.testbed
    frame = frame[frame["model"].isin(NETWORKS) & (frame["lowering"] == "eager")]
    if missing := sorted(set(NETWORKS) - set(frame["model"])):
        raise UsageError(f"got '{run}' without {', '.join(missing)}, expected a run of all networks: leave out --run")
    first = frame.iloc[0]
    device = testbed["cpu"] if first["device"] == "cpu" else ", ".join(filter(None, testbed["gpus"]))
    setting = f"{first['dtype']}, eager, batch {first['batch']}, {first['height']}x{first['width']}"
    print(f"Measured here: {device}, {testbed['threads']} threads, {setting}, {first['launches']} launches a network.")
    print("Published throughputs: one V100, batch 128, 224x224 (FocalNet, table 1).\n")
    print(table(rows(frame)))
    return 0 if (frame["status"] == "ok").all() else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UsageError as error:
        print(f"paper_table: {error}", file=sys.stderr)
        sys.exit(2)
