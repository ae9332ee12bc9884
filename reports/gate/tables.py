"""Verdicts in words and numbers, and as a table for a terminal."""

from mixprof.reports.gate.outcome import Judged, Outcome
from mixprof.reports.text.markdown import plain_table


def as_text(outcome: Outcome) -> str:
    """One aligned line a case, family and the grid."""
    table = rows(outcome)
    return "\n".join([plain_table(table) if table else "no case", *outcome.notes])


def rows(outcome: Outcome) -> list[dict[str, str]]:
    """Cases, families, grid and canary, in columns of equal names."""
    return [
        {
            "case": judged.name,
            "verdict": judged.verdict + " (unconfirmed)" * (not judged.confirmed) + " (waived)" * bool(judged.waived),
            "change": change_of(judged),
            "95 % interval": interval_of(judged),
            "rounds": str(judged.rounds or ""),
            "what else": what_else(judged),
        }
        for judged in [*outcome.judged, *([outcome.canary] if outcome.canary else [])]
    ]


def change_of(judged: Judged) -> str:
    """ "+5.0%"; empty when no time was compared."""
    return "" if judged.change is None else f"{judged.change:+.1%}"


def interval_of(judged: Judged) -> str:
    """ "[+3.1%, +6.9%]"."""
    return "" if judged.low is None or judged.high is None else f"[{judged.low:+.1%}, {judged.high:+.1%}]"


def what_else(judged: Judged) -> str:
    """The reason, or the counts that differ; and what would decide an open verdict."""
    counts = [f"{name} {base:,} -> {head:,}" for name, (base, head) in judged.exact.items()]
    parts = [judged.reason] if judged.reason else counts
    if judged.host_bound and judged.time is None:
        parts.append("host-bound: forwards wait for the host")
    if judged.more_rounds is not None and judged.more_s is not None:
        parts.append(f"about {judged.more_rounds} more rounds, {judged.more_s:.0f} s, would decide it")
    return "; ".join(parts)


def in_words(judged: Judged) -> str:
    """A verdict: "regressed +12.0% [+10.0%, +14.0%] in 5 rounds (macs 1 -> 2)"."""
    words = [judged.verdict]
    if judged.change is not None and judged.low is not None:
        words.append(f"{change_of(judged)} {interval_of(judged)} in {judged.rounds} rounds")
    if judged.reason:
        words.append(f"({judged.reason})")
    return " ".join(words)
