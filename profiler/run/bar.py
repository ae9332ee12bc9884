"""Progress on a terminal: a bar, counts of outcomes, the case that runs, the slowest so far; failures stay above it."""

from typing import TextIO

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from mixprof.data.case import Case
from mixprof.data.launch import Launch
from mixprof.run.tally import Tally

COLOURS = {"ok": "green", "unsupported": "yellow", "unavailable": "yellow", "built": "cyan"}  # red for any other


class Bar:
    """Drawn when a launch begins or ends and at no other time: a thread that redraws would disturb what is timed."""

    def __init__(self, stream: TextIO, tally: Tally):
        self.tally, self.running = tally, ""
        columns = (BarColumn(24), MofNCompleteColumn(), TextColumn("{task.description}"))
        self.display = Progress(*columns, console=Console(file=stream), auto_refresh=False, transient=True)
        self.task = self.display.add_task("", total=tally.launches)

    def begin(self, case: Case, round: int) -> None:
        self.running = f"{case.label()}, round {round + 1}"
        self._draw()

    def end(self, case: Case, launch: Launch) -> None:
        outcome = self.tally.add(case, launch)
        if launch.status != "ok":
            self.display.console.print(_coloured(outcome, launch.status))
        if note := self.tally.note(case, launch):
            self.display.console.print(escape(note))
        self._draw()

    def _draw(self) -> None:
        counts = [_coloured(f"{count} {status}", status) for status, count in self.tally.outcomes.items()]
        lines = [", ".join([self.tally.clock(), *counts]), f"[dim]now      {escape(self.running)}"]
        if self.tally.slowest is not None:
            median_ms, label = self.tally.slowest
            lines.append(f"[dim]slowest  {escape(label)}  {median_ms:.3g} ms")
        self.display.update(self.task, completed=self.tally.done, description="\n".join(lines))
        self.display.refresh()


def _coloured(words: str, status: str) -> str:
    return f"[{COLOURS.get(status, 'red')}]{escape(words)}[/]"
