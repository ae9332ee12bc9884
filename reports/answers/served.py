"""A service test as a DataFrame: a row for each case, scenario and launch; of churn, for each resolution."""

from collections.abc import Iterable, Iterator
from typing import Any

import pandas as pd

from mixprof.data.case import Case
from mixprof.data.served import Percentile, Served, Shape
from mixprof.reports.frame import REAL, TEXT, TRUTH, WHOLE

PERCENTILES = ("p50", "p90", "p99")
COLUMNS = {
    **dict.fromkeys(("model", "lowering", "device", "dtype", "layout", "scenario"), TEXT),
    **dict.fromkeys(("height", "width", "window", "channels", "launch"), WHOLE),
    **dict.fromkeys(("status", "reason"), TEXT),
    "rate": REAL,  # queries a second that were scheduled
    "queries": WHOLE,
    "per_second": REAL,  # samples that were answered
    # With 95 % bounds, whatever the distribution; missing where the run is too short. Of churn: later forwards.
    **dict.fromkeys((f"{name}{end}_ms" for name in PERCENTILES for end in ("", "_low", "_high")), REAL),
    "early_stopping_ms": REAL,
    **dict.fromkeys(("mean_batch", "padded_share"), REAL),
    **dict.fromkeys(("limit_ms", "keeps", "breaks"), REAL),  # the ends of the largest rate that keeps the limit
    **dict.fromkeys(("build_s", "first_ms"), REAL),  # of a resolution when it first came
    "recompiles": WHOLE,
    "lost_cpu_share": REAL,
    "simulated": TRUTH,
}


def frame(served: Iterable[Served]) -> pd.DataFrame:
    """Columns as in COLUMNS. What was not measured is missing, never 0."""
    rows = [row for each in served for row in _rows(each)]
    return pd.DataFrame(
        {name: pd.Series([row.get(name) for row in rows], dtype=kind) for name, kind in COLUMNS.items()}
    )


def _rows(served: Served) -> Iterator[dict[str, Any]]:
    case = Case.from_json(served.case)
    row = {name: getattr(served, name, None) or getattr(case, name, None) for name in COLUMNS}
    row |= {name: getattr(served, name) for name in ("launch", "recompiles", "padded_share", "lost_cpu_share")}
    row |= {"simulated": served.simulated, **_percentiles(served.percentiles)}
    if not served.shapes:
        yield {**row, "height": case.resolution[0], "width": case.resolution[1]}
    for shape in served.shapes:
        yield {**row, **_shape(shape)}


def _percentiles(of: Iterable[Percentile]) -> dict[str, float | None]:
    ends = {"": "ms", "_low": "low_ms", "_high": "high_ms"}
    return {f"p{100 * each.share:g}{end}_ms": getattr(each, name) for each in of for end, name in ends.items()}


def _shape(shape: Shape) -> dict[str, Any]:
    cells = {name: getattr(shape, name) for name in ("queries", "build_s", "first_ms", "recompiles")}
    none = {f"{name}{end}_ms": None for name in PERCENTILES for end in ("", "_low", "_high")}
    height, width = shape.resolution
    return {**cells, **none, **_percentiles(shape.percentiles), "height": height, "width": width}
