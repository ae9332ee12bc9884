"""Annotations of GitHub Actions: lines of output that its runner reads as commands."""

from mixprof.reports.gate.outcome import FAILING, Judged, Outcome, Policy, exit_code, in_words
from mixprof.reports.gate.tables import change_of, interval_of, what_else

MOST = 10  # of one level that GitHub shows for a step


def as_annotations(outcome: Outcome, policy: Policy) -> str:
    """A command for each verdict that is not good, failures first; one that tells of the rest where there are many."""
    lines: dict[str, list[str]] = {"error": [], "warning": [], "notice": []}
    if outcome.flagged:
        lines["error"].append(_command("error", "canary", in_words(outcome, exit_code(outcome, policy))))
    for judged in sorted(outcome.judged, key=lambda judged: judged.verdict not in FAILING):
        if level := _level(judged, judged in outcome.cases, policy):
            lines[level].append(_command(level, f"{judged.name}: {judged.verdict}", _message(judged)))
    return "".join(f"{line}\n" for level, commands in lines.items() for line in _at_most(level, commands))


def _level(judged: Judged, is_case: bool, policy: Policy) -> str | None:
    if judged.verdict in ("same", "improved"):
        return None
    if judged.waived is not None:
        return "notice"
    if judged.verdict in FAILING:
        return "error"
    if judged.verdict == "inconclusive" and not is_case:
        return None
    return "warning" if policy.passes(judged.verdict) else "error"


def _message(judged: Judged) -> str:
    parts = [f"{change_of(judged)} {interval_of(judged)}".strip(), what_else(judged)]
    parts += [f"waived: {judged.waived}"] if judged.waived else []
    return "; ".join(part for part in parts if part) or judged.verdict


def _at_most(level: str, commands: list[str]) -> list[str]:
    if len(commands) <= MOST:
        return commands
    rest = len(commands) - MOST + 1
    return [*commands[: MOST - 1], _command(level, f"{rest} more", f"{rest} more verdicts are in the step's output")]


def _command(level: str, title: str, message: str) -> str:
    """`::error title=…::…`, escaped as the runner unescapes: percent signs first, and more in a property."""
    escaped = _data(title).replace(":", "%3A").replace(",", "%2C")
    return f"::{level} title={escaped}::{_data(message)}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
