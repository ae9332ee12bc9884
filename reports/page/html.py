"""index.html: one page that holds all it needs, opens without a network and asks nothing of one."""

import base64
import hashlib
import json
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from html import escape
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any
from urllib.parse import quote

import pandas as pd
from markdown_it import MarkdownIt
from matplotlib.colors import to_hex

from mixprof.reports.answers import Answers
from mixprof.reports.answers.slices import all_in_words
from mixprof.reports.charts.spec import Chart
from mixprof.reports.charts.style import file_stem, styles_of
from mixprof.reports.text.markdown import Part, Section, Table
from mixprof.reports.text.measurements import counts_in_words
from mixprof.reports.text.method import Manifests
from mixprof.reports.text.summary import details, first

FOLDER = resources.files("mixprof.reports.page")
SCRIPTS = ("data.js", "charts.js", "table.js")
LONGEST, FOLDED = 1500, 60  # rows of a section's tables: more are only in summary.md, or folded away
OPEN = 12  # rows of the verdict that stand open
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
    *(Column(name, name) for name in ("run", "model", "lowering", "device", "dtype", "layout", "mode")),
    *(Column(name, name) for name in ("step", "batch")),
    Column("resolution", "resolution", sort="side"),
    *(Column(name, name) for name in ("window", "channels", "status")),
    Column("latency_ms", "latency (ms)", low="latency_low_ms", high="latency_high_ms"),
    Column("gain", "over eager", low="gain_low", high="gain_high"),
    Column("pace", "pace"),
    Column("run_gain", "over first run", low="run_gain_low", high="run_gain_high"),
    Column("images_per_s", "images/s"),
    Column("launches", "launches"),
    Column("flops", "GFLOPs", 1e9),
    Column("params", "params (M)", 1e6),
    Column("allocator_peak_bytes", "peak (MiB)", MEBIBYTE),
    Column("attainable_share", "% of attainable", 0.01),
    Column("relative_error", "relative error"),
)
ONCE = ("run", "device", "dtype", "layout", "mode", "step", "launches")  # a column only where it varies


def page(answers: Answers, manifests: Manifests, charts: Sequence[Chart], files: Sequence[str] = ()) -> str:
    """The page for these answers and charts, and the manifest of each run by its name.

    files: names of what lies beside it, to be linked; a chart's PNG and SVG from the chart.
    """
    from plotly.offline import get_plotlyjs

    # The charting library as its package ships it, with the line ends that a browser hashes.
    scripts = [str(get_plotlyjs()).replace("\r\n", "\n").replace("\r", "\n"), *map(_text, SCRIPTS)]
    verdict, missing, *exchange = first(answers, manifests)
    title = f"mixprof: {', '.join(manifests) or 'no run'}"
    return Template(_text("page.html")).substitute(
        head=head(title, policy(scripts), _text("page.css")),
        title=escape(title),
        counts=as_html(counts_in_words(answers.cases)),
        verdict=section_html(verdict, "verdict", OPEN),
        not_measured=section_html(missing, "not-measured"),
        exchange="".join(section_html(section) for section in exchange),
        constants=as_html(_constants(answers.cases)),
        details="\n".join(section_html(section) for section in details(answers, manifests)),
        files=" ".join(f'<li><a href="{quote(name)}">{escape(name)}</a></li>' for name in files),
        data=embedded(data(answers, charts, files)),
        scripts="\n".join(f"<script>{script}</script>" for script in scripts),
    )


def _text(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


def head(title: str, policy: str, style: str) -> str:
    """The head of a page. policy: of its content; style: in CSS."""
    return Template(_text("head.html")).substitute(title=escape(title), policy=escape(policy), style=style)


def policy(scripts: Iterable[str]) -> str:
    """A Content-Security-Policy that runs these scripts and nothing else, and loads nothing."""
    hashes = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in hashes)
    style = "style-src 'unsafe-inline'"  # plotly sets styles as attributes
    rest = "img-src data: blob:; base-uri 'none'; form-action 'none'"
    return f"default-src 'none'; script-src {allowed}; {style}; {rest}"


def embedded(value: object) -> str:
    """JSON in ASCII that cannot end its script element, whatever a name or a reason holds."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def data(answers: Answers, charts: Sequence[Chart], files: Sequence[str] = ()) -> dict[str, Any]:
    """Return the data of the page's scripts: every case by column, the columns of the table, styles, charts."""
    cases = answers.cases
    columns = {name: _column(cases[name]) for name in cases if name != "breakdown" and cases[name].notna().any()}
    shown = [c for c in TABLE if c.column in columns and (c.column not in ONCE or cases[c.column].nunique() > 1)]
    files_of = {chart.name: [name for name in files if Path(name).stem == file_stem(chart.name)] for chart in charts}
    return {
        "columns": columns,
        "count": len(cases),
        "table": [asdict(column) for column in shown],
        "styles": {name: _style(style) for name, style in styles_of(cases).items()},
        "charts": _finite([{**asdict(chart), "files": files_of[chart.name]} for chart in charts]),
    }


def _constants(cases: pd.DataFrame) -> str:
    """Name the settings that are equal in all cases, for which the table has no column."""
    equal = {name: cases[name].iloc[0] for name in ONCE[1:-1] if cases[name].nunique() == 1}
    return f"All of these: {text}." if (text := all_in_words(equal)) else ""


def _column(column: pd.Series) -> dict[str, Any]:
    """Numbers as they are, texts once each with a code per case; what is missing is null, or the code -1."""
    if pd.api.types.is_numeric_dtype(column):
        return {"values": _finite(column.astype(object).where(column.notna(), None).tolist())}
    codes, values = pd.factorize(column)
    return {"codes": codes.tolist(), "values": [str(value) for value in values]}


def _finite(value: Any) -> Any:
    """Put null in place of NaN and infinity, which JSON has no word for."""
    if isinstance(value, dict):
        return {name: _finite(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _style(style: Mapping[str, Any]) -> dict[str, str]:
    """A model's style in plotly's words."""
    line = style["linestyle"]
    dash = DASHES.get(line) if isinstance(line, str) else ",".join(f"{2 * length}px" for length in line[1])
    hollow = "-open" * (style["fillstyle"] == "none")
    return {"color": to_hex(style["color"]), "symbol": SYMBOLS[style["marker"]] + hollow, "dash": dash or "solid"}


def as_html(part: Part) -> str:
    """Markdown or a table -> HTML. Nothing in it is a link, a picture or a tag."""
    if isinstance(part, Table):
        return _table(part.shown(), part.lines(), part.differing)
    reader = MarkdownIt("commonmark", {"html": False})
    reader.disable(["link", "image", "autolink", "html_inline", "html_block", "entity", "reference", "code", "fence"])
    return str(reader.render(part))


def _table(head: Sequence[str], lines: Sequence[Sequence[str]], differing: Collection[int] = ()) -> str:
    marks = [' class="differs"' * (number in differing) for number in range(len(lines))]
    rows = [
        f"<tr{mark}>{''.join(f'<td>{escape(cell)}</td>' for cell in line)}</tr>"
        for mark, line in zip(marks, lines, strict=True)
    ]
    titles = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    table = f"<table><thead><tr>{titles}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    return f'<div class="scroll" tabindex="0" role="region" aria-label="table">{table}</div>'


def section_html(section: Section, name: str = "", shown: int = LONGEST) -> str:
    """A section, by this name. A long one is folded, one that is too long only named; so are rows after `shown`."""
    rows = sum(len(table.rows) for table in section.tables())
    inside = "".join(_folded(part, shown) for part in section.parts)
    if rows > LONGEST:
        inside = "<p>Too long for this page: it stands in <code>summary.md</code>.</p>"
    elif rows > FOLDED:
        inside = f"<details><summary>{rows} rows</summary>{inside}</details>"
    named = f' id="{name}"' if name else ""
    return f"<section{named}><h2>{escape(section.heading)}</h2>{inside}</section>"


def _folded(part: Part, shown: int) -> str:
    if isinstance(part, str) or len(part.rows) <= shown:
        return as_html(part)
    head, lines = part.shown(), part.lines()
    more = f"<details><summary>{len(lines) - shown} more</summary>{_table(head, lines[shown:])}</details>"
    return _table(head, lines[:shown]) + more
