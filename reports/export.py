"""The files of a report."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from mixprof.data.run_folder import read_manifest
from mixprof.reports.answers import answers
from mixprof.reports.charts.figures import charts, write_figures
from mixprof.reports.frame import COLUMNS, TEXT, load, run_names
from mixprof.reports.page.html import page
from mixprof.reports.text.summary import summary


def write_report(runs: Sequence[str | Path], out: str | Path) -> list[Path]:
    """Write index.html, summary.md, results.csv, results.parquet and the figures of these runs into `out`.

    Returns the files written, the page first.

    Raises UsageError, before anything is written, for a folder that is no run.
    """
    frame = load(*runs)
    manifests = {name: read_manifest(run) for name, run in run_names(runs).items()}
    known, folder = answers(frame), Path(out)
    drawn = charts(known)
    folder.mkdir(parents=True, exist_ok=True)
    text, index = folder / "summary.md", folder / "index.html"
    text.write_text(summary(known, manifests), encoding="utf-8")
    files = [text, *write_tables(frame, folder), *write_figures(known, drawn, folder)]
    index.write_text(page(known, manifests, drawn, [path.name for path in files]), encoding="utf-8")
    return [index, *files]


def write_tables(frame: pd.DataFrame, folder: Path) -> list[Path]:
    """Write results.csv and results.parquet: every column, floats in full, an empty frame's of their types, too."""
    csv, parquet = folder / "results.csv", folder / "results.parquet"
    frame.to_csv(csv, index=False)
    frame.astype({name: "string" for name, dtype in COLUMNS.items() if dtype == TEXT}).to_parquet(parquet, index=False)
    return [csv, parquet]
