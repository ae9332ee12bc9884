"""The files of a report."""

import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from mixprof.data.run_folder import read_manifest
from mixprof.reports.answers import answers
from mixprof.reports.frame import COLUMNS, TEXT, load, run_names
from mixprof.reports.text.summary import summary

TEXTS = 3  # files without a figure


def write_report(runs: Sequence[str | Path], out: str | Path) -> list[Path]:
    """Write index.html, summary.md, results.csv, results.parquet and the figures of these runs into `out`.

    Returns the files written, the page first.

    Raises UsageError, before anything is written, for a folder that is no run.
    """
    frame = load(*runs)
    manifests = {name: read_manifest(run) for name, run in run_names(runs).items()}
    known, folder = answers(frame), Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    text, index = folder / "summary.md", folder / "index.html"
    text.write_text(summary(known, manifests), encoding="utf-8")
    files = [text, *write_tables(frame, folder)]
    try:
        from mixprof.reports.charts.figures import charts, write_figures

        drawn = charts(known)
        files += write_figures(known, drawn, folder)
        from mixprof.reports.page.html import page
    except ModuleNotFoundError as error:
        _leave_out("index.html" if len(files) > TEXTS else "index.html and figures", error)
        return files
    index.write_text(page(known, manifests, drawn, [path.name for path in files]), encoding="utf-8")
    return [index, *files]


def _leave_out(what: str, error: ModuleNotFoundError) -> None:
    """Say which file is not written, and what brings it; an error of our own modules is none of these."""
    package = (error.name or "mixprof").partition(".")[0]
    if package == "mixprof":
        raise error
    print(f"mixprof: no {what}: {package} is not installed (python scripts/missing.py)", file=sys.stderr)


def write_tables(frame: pd.DataFrame, folder: Path) -> list[Path]:
    """Write results.csv and results.parquet: every column, floats in full, an empty frame's of their types, too."""
    csv, parquet = folder / "results.csv", folder / "results.parquet"
    frame.to_csv(csv, index=False)
    texts = frame.astype({name: "string" for name, dtype in COLUMNS.items() if dtype == TEXT})
    try:
        texts.to_parquet(parquet, index=False)
    except ImportError:  # pandas has no module's name in it
        _leave_out("results.parquet", ModuleNotFoundError(name="pyarrow"))
        return [csv]
    return [csv, parquet]
