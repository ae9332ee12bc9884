"""Progress on a terminal: a bar, counts of outcomes, the case that runs, the slowest so far; failures stay above it."""

from __future__ import annotations

from types import TracebackType
from typing import TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from mixprof.data.types import Case, Launch
from mixprof.run.tally import Tally

COLOURS = {"ok": "green", "unsupported": "yellow", "unavailable": "yellow", "built": "cyan"}  # red for any other


class Bar:
    """Drawn when a launch begins or ends and at no other time: a thread that redraws would disturb what is timed."""

    def __init__(self, stream: TextIO, tally: Tally):
        self.tally, self.running = tally, ""
        self.live = Live(console=Console(file=stream), auto_refresh=False, transient=True)

    def __enter__(self) -> Bar:
        self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.live.stop()

    def begin(self, case: Case, round: int) -> None:
        self.running = f"{case.label()}, round {round + 1}"
        self._draw()

    def end(self, case: Case, launch: Launch) -> None:
        outcome = self.tally.add(case, launch)
        if launch.status != "ok":
            self.live.console.print(Text(outcome, style=_colour(launch.status)))
        self._draw()

    def _draw(self) -> None:
        tally = self.tally
        top = Table.grid(padding=(0, 1))
        counts = Text(", ").join(
            Text(f"{count} {status}", style=_colour(status)) for status, count in tally.outcomes.items()
        )
        bar = ProgressBar(total=tally.launches, completed=tally.done, width=24)
        top.add_row(bar, f"{tally.done}/{tally.launches}", tally.clock(), counts)
        lines = [Text(f"now      {self.running}", style="dim", no_wrap=True)]
        if tally.slowest is not None:
            lines.append(Text(f"slowest  {tally.slowest[1]}  {tally.slowest[0]:.3g} ms", style="dim", no_wrap=True))
        self.live.update(Group(top, *lines), refresh=True)


def _colour(status: str) -> str:
    return COLOURS.get(status, "red")
