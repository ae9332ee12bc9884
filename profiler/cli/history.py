"""`mixprof history`: a page over the runs that `check --add` kept."""

import argparse
import sys
from datetime import date
from pathlib import Path

from mixprof.cli.command import Command
from mixprof.data.errors import UsageError
from mixprof.data.files import write_whole
from mixprof.data.histories import History, is_url
from mixprof.reports.gate import exporters, stored, trend_text, trends


def add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("history", metavar="DIR", help="the folder, or its URL, that `check --add` keeps runs in")
    command.add_argument("--out", required=True, metavar="PAGE", help="a folder for index.html")
    command.add_argument(
        "--commit-url", metavar="URL", help="what stands before a commit's hash: https://github.com/me/it/commit/"
    )
    command.add_argument(
        "--markdown", metavar="FILE", help="where there are changes, the text of an issue, with what finds the commit"
    )
    command.add_argument("--since", metavar="DATE", help="changes for --markdown from this day on: 2026-01-31")


def run(arguments: argparse.Namespace) -> int:
    """Write the page; say what changed."""
    from mixprof.reports.page.history import page

    since, commit_url, out = _date(arguments.since), _commit_url(arguments.commit_url), Path(arguments.out)
    if out.exists() and not out.is_dir():
        raise UsageError(f"got --out '{out}', which is a file, expected a folder")
    beds = trends.by_testbed(_runs(arguments.history))
    out.mkdir(parents=True, exist_ok=True)
    write_whole(out / "index.html", page(arguments.history, beds, commit_url).encode("utf-8", "backslashreplace"))
    print(out / "index.html")
    changes = trend_text.all_changes(beds, since)
    for bed, change in changes:
        words = trend_text.row(bed, change)
        print(" ".join(f"{words['case']}, {words['testbed']}: {words['change']} with {words['from']}".split()))
    if arguments.markdown and changes:
        exporters.write(Path(arguments.markdown), trend_text.as_issue(changes, commit_url))
        print(arguments.markdown)
    elif arguments.markdown:
        print(f"mixprof: no change, so no {arguments.markdown}", file=sys.stderr)
    return 0


def _runs(name: str) -> list[stored.Stored]:
    """Every run of a history. UsageError for a place that is none."""
    expected = "expected a history: `mixprof check RUN --against DIR --add` begins one"
    if not is_url(name) and not Path(name).is_dir():
        raise UsageError(f"got '{name}', which is {'a file' if Path(name).exists() else 'not there'}, {expected}")
    history = History(name)
    files = history.files()
    if not files:
        raise UsageError(f"got '{name}', in which no run is kept, {expected}")
    return [stored.of_file(history, file) for file in files]


def _commit_url(text: str | None) -> str | None:
    if text is None:
        return None
    if not text.startswith(("https://", "http://")) or any(letter.isspace() or letter in "()<>\"'" for letter in text):
        raise UsageError(f"--commit-url: got '{text}', expected what stands before a hash: https://host/me/it/commit/")
    return text if text.endswith(("/", "=")) else f"{text}/"


def _date(text: str | None) -> date | None:
    try:
        return date.fromisoformat(text) if text else None
    except ValueError:
        raise UsageError(f"--since: got '{text}', expected a day: 2026-01-31") from None


COMMAND = Command("a page over commits and testbeds, from the history that `check` keeps", add_options, run, (
    "history history/ --out page --commit-url https://github.com/me/it/commit/",
    "history s3://bucket/history --out page --markdown issue.md --since 2026-01-31",
))  # fmt: skip
