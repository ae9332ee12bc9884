"""A history as one static page, without a script: what changed, then each testbed and each of its cases."""

import math
from collections.abc import Sequence
from html import escape
from string import Template

from mixprof.reports.gate.history import HORIZON
from mixprof.reports.gate.stored import Stored
from mixprof.reports.gate.trend_text import Changes, all_changes, in_words, name_of, next_command
from mixprof.reports.gate.trends import CHANCE, LEAST, PERMUTATIONS, Change, Testbed
from mixprof.reports.page.html import FOLDER, head
from mixprof.reports.page.trend_chart import chart

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
METHOD = (
    "A value is the time of a case over that of the anchor, which every run times beside it; a bar is its 95 % "
    f"interval over launches. Of each testbed the newest {HORIZON} runs are read. Changes of level are those of the "
    "partition with the least absolute deviation from segments' medians and a penalty for each change, with "
    f"{LEAST} runs on either side; one is shown if, of {PERMUTATIONS:,} random orders of its runs, at most "
    f"{CHANCE:.1%} part as much anywhere. Its size is Hodges and Lehmann's estimate, with Moses' 95 % interval. "
    "Counts change when they change. No statistic is over two testbeds."
)


def page(name: str, beds: Sequence[Testbed], commit_url: str | None = None) -> str:
    """The page of a history. commit_url: what stands before a commit's hash in a link to it."""
    changes = all_changes(beds)
    runs, cases = sum(len(bed.runs) for bed in beds), sum(len(bed.series) for bed in beds)
    counts = f"Runs: {runs}, on {len(beds)} testbed{'s' * (len(beds) != 1)}. Series: {cases}. Changes: {len(changes)}."
    html, *styles = (
        (FOLDER / file).read_text(encoding="utf-8") for file in ("history.html", "page.css", "history.css")
    )
    title = f"mixprof history: {name}"
    return Template(html).substitute(
        head=head(title, POLICY, "\n".join(styles)),
        title=escape(title),
        counts=escape(counts),
        links=" ".join(f'<a href="#{escape(bed.key)}">{escape(bed.name)}</a>' for bed in beds),
        changes=_changes(changes, commit_url),
        testbeds="\n".join(_testbed(bed, commit_url) for bed in beds),
        method=escape(METHOD),
    )


def _changes(changes: Changes, commit_url: str | None) -> str:
    if not changes:
        return "<p>None.</p>"
    rows = [_change(bed, change, commit_url) for bed, change in changes]
    return _table(("case", "testbed", "change", "last before", "first after", "software", "what goes on"), rows)


def _change(bed: Testbed, change: Change, commit_url: str | None) -> list[str]:
    further = f"<code>{escape(next_command(change))}</code>" if change.is_worse else ""
    mark = ' class="worse"' if change.is_worse else ""
    runs = [f"<td>{linked(run, commit_url)}</td>" for run in (change.before, change.after)]
    words = [f"<td>{escape(text)}</td>" for text in (change.timed.label(), bed.name)]
    software = escape(", ".join(change.software))
    return [*words, f"<td{mark}>{escape(in_words(change))}</td>", *runs, f"<td>{software}</td>", f"<td>{further}</td>"]


def linked(run: Stored, commit_url: str | None) -> str:
    """A run's day and commit, a link where that is known, and the commit's subject."""
    text = escape(name_of(run))
    if run.commit is None:
        return text
    linked = f'<a href="{escape(commit_url + run.commit.hash)}">{text}</a>' if commit_url else text
    return f"{linked} {escape(run.commit.subject)}"


def _testbed(bed: Testbed, commit_url: str | None) -> str:
    changed = [one for one in bed.series if one.changes]
    quiet = [one for one in bed.series if not one.changes]
    figures = "".join(chart(bed, one, commit_url) for one in changed)
    rest = "".join(chart(bed, one, commit_url) for one in quiet)
    folded = f"<details{' open' * (not changed)}><summary>without a change: {len(quiet)}</summary>{rest}</details>"
    rows = [[f"<td>{linked(run, commit_url)}</td>", f"<td>{_timed(run)}</td>"] for run in reversed(bed.runs)]
    software = [f"<li>{escape(name_of(run))}: {escape(', '.join(words))}</li>" for run, words in bed.software]
    of_software = f"<p>Software changed with these runs:</p><ul>{''.join(software)}</ul>" if software else ""
    runs = f"<details><summary>runs: {len(rows)}</summary>{_table(('run', 'cases timed'), rows)}</details>"
    heading = f'<section id="{escape(bed.key)}"><h2>{escape(bed.name)}</h2>'
    return f"{heading}{of_software}{figures}{folded if quiet else ''}{runs}</section>"


def _timed(run: Stored) -> int:
    return sum(kept.log_ratio is not None and math.isfinite(kept.log_ratio) for kept in run.cases.values())


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f'<th scope="col">{escape(title)}</th>' for title in titles)
    body = "".join(f"<tr>{''.join(row)}</tr>" for row in rows)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="scroll" tabindex="0" role="region" aria-label="table">{table}</div>'
