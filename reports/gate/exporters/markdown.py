"""Markdown for a step summary or a file."""

import re

from mixprof.reports.gate.outcome import Outcome, Policy, exit_code, in_words
from mixprof.reports.gate.tables import rows
from mixprof.reports.text.markdown import SPECIAL

MOST_BYTES = 1_000_000  # a step's summary is dropped whole above 1 MiB


def as_markdown(outcome: Outcome, policy: Policy) -> str:
    """The job in a sentence, a table of its verdicts, and its notes. Where it would be too long, good rows go first."""
    shown = rows(outcome)
    while len((text := _document(outcome, policy, shown)).encode()) > MOST_BYTES and shown:
        shown = sorted(shown, key=lambda row: row["verdict"] in ("same", "improved"))[: len(shown) // 2]
    return text


def _document(outcome: Outcome, policy: Policy, shown: list[dict[str, str]]) -> str:
    left_out = len(rows(outcome)) - len(shown)
    parts = [f"**{escaped(in_words(outcome, exit_code(outcome, policy)))}**"]
    parts += [_table(shown)] if shown else []
    parts += [f"{left_out} more rows were left out: the file would be too long."] if left_out else []
    # The word in front keeps a note from being read as a heading, a list or a quotation.
    return "\n\n".join([*parts, *(f"Note: {escaped(note)}" for note in outcome.notes)]) + "\n"


def _table(shown: list[dict[str, str]]) -> str:
    names = [name for name in shown[0] if any(row[name] for row in shown)]
    lines = [names, ["---"] * len(names), *([escaped(row[name]) for name in names] for row in shown)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def escaped(text: str) -> str:
    r"""On one line, with nothing that Markdown would take for its own: also links, images and `&lt;`."""
    return re.sub(r"[\[\]&]", r"\\\g<0>", re.sub(SPECIAL, r"\\\1", " ".join(text.split())))
