"""The changes of a history in words: for a terminal, a page, and the text of an issue."""

import math
from collections.abc import Iterable, Sequence
from datetime import date

from mixprof.reports.gate.check import axes_of
from mixprof.reports.gate.exporters.markdown import escaped
from mixprof.reports.gate.stored import Stored
from mixprof.reports.gate.trends import Change, Testbed

Changes = Sequence[tuple[Testbed, Change]]


def all_changes(beds: Iterable[Testbed], since: date | None = None) -> Changes:
    """Every change with a run of this day or a later one, those for the worse first."""
    pairs = [(bed, change) for bed in beds for change in bed.changes]
    kept = [pair for pair in pairs if since is None or pair[1].after.time.date() >= since]
    return sorted(kept, key=lambda pair: not pair[1].is_worse)


def in_words(change: Change) -> str:
    """ "+5.1% [+4.0%, +6.2%]", "macs 1,000 -> 2,000", or "ok -> oom"."""
    if change.time is not None:
        size, low, high = (math.expm1(value) for value in (change.time.size, change.time.low, change.time.high))
        return f"{size:+.1%} [{low:+.1%}, {high:+.1%}]"
    if change.status is not None:
        return " -> ".join(change.status)
    return ", ".join(f"{name} {old:,} -> {new:,}" for name, (old, new) in (change.exact or {}).items())


def row(bed: Testbed, change: Change) -> dict[str, str]:
    """A change in columns."""
    return {
        "case": change.timed.label(),
        "testbed": bed.name,
        "change": in_words(change),
        "before": name_of(change.before),
        "from": name_of(change.after),
        "software": ", ".join(change.software),
    }


def name_of(run: Stored) -> str:
    """ "2026-01-31 1a2b3c4d5e", with a + for changes that were in no commit."""
    commit = run.commit
    return run.created[:10] + (f" {commit.hash[:10]}{'+' * commit.dirty}" if commit else "")


def next_command(change: Change) -> str:
    """What finds the commit, or why nothing here can, as a sentence."""
    before, after = change.before.commit, change.after.commit
    if change.software:
        return f"software changed with it ({', '.join(change.software)}): mixprof ab python:BEFORE python:AFTER"
    if before is None or after is None:
        return "no commit is known of the runs before and after it: sweep in the repository"
    if before.hash == after.hash:
        return "both runs are of one commit: not the code but the machine, or what was not committed"
    if change.status is not None:
        return f"git log {before.hash[:12]}..{after.hash[:12]}"
    counts = "" if change.time is not None else " --exact-only"
    return " ".join(f"mixprof bisect {before.hash} {after.hash} {axes_of([change.timed.case])}{counts}".split())


def as_issue(changes: Changes, commit_url: str | None) -> str:
    """Markdown for an issue: a sentence, a table, and a command for each case that became worse."""
    worse = [(bed, change) for bed, change in changes if change.is_worse]
    cases = f"{len(worse)} change{'s' * (len(worse) != 1)} for the worse, {len(changes) - len(worse)} for the better"
    lines = [f"**mixprof history: {cases}.** Each testbed is judged by itself.", "", *_table(changes, commit_url)]
    for bed, change in worse:
        lines += ["", f"{escaped(change.timed.label())}, on {escaped(bed.name)}:", "", f"    {next_command(change)}"]
    return "\n".join(lines) + "\n"


def _table(changes: Changes, commit_url: str | None) -> list[str]:
    titles = ("case", "testbed", "change", "last before", "first after", "its message", "software")
    lines = ["| " + " | ".join(titles) + " |", "|" + "---|" * len(titles)]
    for bed, change in changes:
        cells = row(bed, change)
        runs = [_linked(run, commit_url) for run in (change.before, change.after)]
        subject = change.after.commit.subject if change.after.commit else ""
        words = [escaped(cells[name]) for name in ("case", "testbed", "change")]
        lines.append("| " + " | ".join([*words, *runs, escaped(subject), escaped(cells["software"])]) + " |")
    return lines


def _linked(run: Stored, commit_url: str | None) -> str:
    name = escaped(name_of(run))
    return f"[{name}]({commit_url}{run.commit.hash})" if commit_url and run.commit else name
