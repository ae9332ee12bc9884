"""index.html: one page that holds all it needs, opens without a network and asks nothing of one."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from html import escape
from importlib import resources
from string import Template
from typing import Any
from urllib.parse import quote

import pandas as pd
from markdown_it import MarkdownIt
from matplotlib.colors import to_hex

from mixprof.reports.answers.crossovers import crossovers
from mixprof.reports.charts.style import file_stem, model_styles
from mixprof.reports.page.charts import charts, with_derived
from mixprof.reports.text.summary import DIFFERS, constants, counts_in_words, varying
from mixprof.reports.text.verdict import not_measured, verdict

FOLDER = resources.files("mixprof.reports.page")
SCRIPTS = ("data.js", "charts.js", "table.js")
LONGEST, FOLDED = 1500, 60  # lines of a section of summary.md
FIRST = ("## The mixer exchanged",)
REPLACED = ("## Who is faster", "## Measurements", "## Cases that are not ok")  # by the verdict, charts and table
SHOWN = 6  # items of the verdict that stand open
SYMBOLS = {"o": "circle", "s": "square", "^": "triangle-up", "D": "diamond", "v": "triangle-down", "P": "cross"}
SYMBOLS |= {"X": "x", "<": "triangle-left", ">": "triangle-right", "*": "star", "p": "pentagon"}
DASHES = {"-": "solid", "--": "dash", "-.": "dashdot", ":": "dot"}
MEBIBYTE = 2**20


@dataclass(frozen=True)
class Column:
    """One of the table of all cases: a column of the cases, sorted by another where its text would sort badly."""

    column: str
    title: str
    divisor: float = 1
    low: str | None = None
    high: str | None = None
    sort: str | None = None


TABLE = (
    *(Column(name, name) for name in ("run", "model", "lowering", "device", "dtype", "layout", "mode", "batch")),
    Column("resolution", "resolution", sort="side"),
    *(Column(name, name) for name in ("window", "channels", "status", "reason")),
    Column("latency_ms", "latency (ms)", low="latency_low_ms", high="latency_high_ms"),
    Column("gain", "over eager", low="gain_low", high="gain_high"),
    Column("run_gain", "over first run", low="run_gain_low", high="run_gain_high"),
    Column("images_per_s", "images/s"),
    Column("launches", "launches"),
    Column("flops", "GFLOPs", 1e9),
    Column("params", "parameters (M)", 1e6),
    Column("allocator_peak_bytes", "peak (MiB)", MEBIBYTE),
    Column("attainable_share", "% of attainable", 0.01),
    Column("relative_error", "relative error"),
)


def page(frame: pd.DataFrame, manifests: Mapping[str, Mapping[str, Any]], text: str, files: Sequence[str] = ()) -> str:
    """The page for these cases and the manifest of each run by its name.

    text: summary.md, of which the page shows what it has nothing of its own for. files: names of what lies beside it,
    to be linked; a chart's PNG and SVG from the chart.
    """
    first, rest = sections(text)
    scripts = [_plotly(), *(_text(name) for name in SCRIPTS)]
    return Template(_text("page.html")).substitute(
        title=escape(f"mixprof: {', '.join(manifests) or 'no run'}"),
        policy=escape(policy(scripts)),
        style=_text("page.css"),
        counts=markdown([counts_in_words(frame)]),
        verdict=_items(verdict(frame, crossovers(frame)), SHOWN),
        not_measured=_items(not_measured(frame, manifests), 100),
        constants=markdown(constants(frame)) if len(frame) else "",
        first=first,
        details=rest,
        files=" ".join(f'<li><a href="{quote(name)}">{escape(name)}</a></li>' for name in files),
        data=embedded(data(frame, files)),
        scripts="\n".join(f"<script>{script}</script>" for script in scripts),
    )


def _text(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


def _plotly() -> str:
    """The charting library as its package ships it; with the line ends that a browser hashes."""
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs()).replace("\r\n", "\n").replace("\r", "\n")


def policy(scripts: Iterable[str]) -> str:
    """A Content-Security-Policy that runs these scripts and nothing else, and loads nothing."""
    hashes = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{each}'" for each in hashes)
    style = "style-src 'unsafe-inline'"  # plotly sets styles as attributes
    return (
        f"default-src 'none'; script-src {allowed}; {style}; img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


def embedded(value: object) -> str:
    """JSON in ASCII that cannot end its script element, whatever a name or a reason holds."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def data(frame: pd.DataFrame, files: Sequence[str] = ()) -> dict[str, Any]:
    """What the page's scripts work on: every case by column, the columns of the table, styles, charts."""
    cases = with_derived(frame)
    columns = {name: _column(cases[name]) for name in cases if name != "breakdown" and cases[name].notna().any()}
    shown = {*varying(cases), *(name for name in ("run", "dtype") if cases[name].nunique() > 1)}
    settings = {"run", "model", "lowering", "device", "dtype", "layout", "mode"}
    table = [asdict(c) for c in TABLE if c.column in columns and (c.column not in settings or c.column in shown)]
    drawn = [{**asdict(chart), "files": _files_of(chart.name, files)} for chart in charts(cases)]
    return {
        "columns": columns,
        "count": len(cases),
        "table": table,
        "styles": {name: _style(style) for name, style in model_styles(frame).items()},
        "charts": _finite(drawn),
    }


def _files_of(chart: str, files: Sequence[str]) -> list[str]:
    return [name for name in files if name.rpartition(".")[0] == file_stem(chart)]


def _column(column: pd.Series) -> dict[str, Any]:
    """Numbers as they are, texts once each with a code per case; what is missing is null, or the code -1."""
    if pd.api.types.is_numeric_dtype(column):
        return {"values": _finite(column.astype(object).where(column.notna(), None).tolist())}
    codes, values = pd.factorize(column)
    return {"codes": codes.tolist(), "values": [str(value) for value in values]}


def _finite(value: Any) -> Any:
    """The same with null in place of NaN and infinity, which JSON has no word for."""
    if isinstance(value, dict):
        return {name: _finite(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _style(style: Mapping[str, Any]) -> dict[str, str]:
    """A model's style in plotly's words."""
    line = style["linestyle"]
    dash = DASHES.get(line) if isinstance(line, str) else ",".join(f"{2 * length}px" for length in line[1])
    return {"color": to_hex(style["color"]), "symbol": SYMBOLS[style["marker"]], "dash": dash or "solid"}


def markdown(parts: Iterable[str]) -> str:
    """Markdown as summary.md holds it -> HTML. Nothing in it is a link, a picture or a tag."""
    reader = MarkdownIt("commonmark", {"html": False}).enable("table")
    reader.disable(["link", "image", "autolink", "html_inline", "html_block", "entity", "reference", "code", "fence"])
    html = str(reader.render("\n\n".join(parts)))
    html = html.replace("<table>", '<div class="scroll" tabindex="0" role="region" aria-label="table"><table>')
    html = html.replace("</table>", "</table></div>")
    return re.sub(rf"<td>([^<]*{re.escape(DIFFERS)})</td>", r'<td class="differs">\1</td>', html)


def _items(items: Sequence[str], shown: int) -> str:
    """A list of which what is beyond the first ones is folded away."""
    if not items:
        return "<p>Nothing that this report knows of.</p>"
    first, rest = (markdown(["\n".join(f"- {item}" for item in part)]) for part in (items[:shown], items[shown:]))
    more = f"<details><summary>{len(items) - shown} more</summary>{rest}</details>" if len(items) > shown else ""
    return first + more


def sections(text: str) -> tuple[str, str]:
    """The sections of summary.md as HTML: those that come first, and the rest without what the page replaces."""
    parts = re.split(r"\n+(?=## )", text)[1:]
    first = [part for part in parts if part.startswith(FIRST)]
    rest = [part for part in parts if not part.startswith((*FIRST, *REPLACED))]
    return "\n".join(map(_section, first)), "\n".join(map(_section, rest))


def _section(text: str) -> str:
    """One section; a long one is folded, and one that is too long only named."""
    heading, _, body = text.partition("\n")
    lines = body.count("\n")
    inside = markdown([body if lines <= LONGEST else "Too long for this page: it stands in `summary.md`."])
    if FOLDED < lines <= LONGEST:
        inside = f"<details><summary>{lines} lines</summary>{inside}</details>"
    return f"<section>{markdown([heading])}{inside}</section>"
