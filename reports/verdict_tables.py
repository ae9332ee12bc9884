"""Verdicts as tables: for a terminal, and as Markdown for a step summary."""

from __future__ import annotations

from reports.markdown import plain_table, table
from reports.outcome import Judged, Outcome


def as_text(outcome: Outcome) -> str:
    """One aligned line a case, family and the grid."""
    return "\n".join([plain_table(_rows(outcome)) if _rows(outcome) else "no case", *outcome.notes])


def as_markdown(outcome: Outcome, words: str) -> str:
    """What a step summary shows."""
    return "\n\n".join([f"**{words}**", table(_rows(outcome)), *outcome.notes]) + "\n"


def _rows(outcome: Outcome) -> list[dict[str, str]]:
    judged = [*outcome.cases, *outcome.families, *([outcome.grid] if outcome.grid else [])]
    return [_row(each) for each in [*judged, *([outcome.canary] if outcome.canary else [])]]


def _row(judged: Judged) -> dict[str, str]:
    return {
        "case": judged.name,
        "verdict": judged.verdict
        + (" (unconfirmed)" if not judged.confirmed else "")
        + (" (waived)" if judged.waived else ""),
        "change": "" if judged.change is None else f"{judged.change:+.1%}",
        "95 % interval": "" if judged.low is None else f"[{judged.low:+.1%}, {judged.high:+.1%}]",
        "rounds": str(judged.rounds or ""),
        "what else": _what_else(judged),
    }


def _what_else(judged: Judged) -> str:
    said = [judged.reason] if judged.reason else []
    if not judged.reason:
        said += [f"{name} {base:,} -> {head:,}" for name, (base, head) in judged.exact.items()]
    if judged.more_rounds is not None and judged.more_s is not None:
        said.append(f"about {judged.more_rounds} more rounds, {judged.more_s:.0f} s, would decide it")
    elif judged.verdict == "inconclusive" and judged.rounds and not judged.reason:
        said.append("no number of rounds would decide it if it stays where it is")
    return "; ".join(said)
