"""What a person sees while a sweep runs: a bar on a terminal, plain lines elsewhere."""

import contextlib
import importlib.util
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Protocol, TextIO

from mixprof.data.case import Case
from mixprof.data.launch import Launch
from mixprof.run.tally import Tally


class Progress(Protocol):
    """Hears of each launch as it begins and ends."""

    def begin(self, case: Case, round: int) -> None: ...

    def end(self, case: Case, launch: Launch) -> None: ...


class Watch(Protocol):
    """Whoever watches a sweep, and may end it."""

    def over(self, launches: int) -> AbstractContextManager[Progress]: ...

    def stop(self) -> bool: ...


class Unstopped:
    """Progress on a stream; nothing ends the sweep but an exception."""

    def __init__(self, stream: TextIO):
        self.stream = stream

    def over(self, launches: int) -> AbstractContextManager[Progress]:
        return shown(self.stream, launches)

    def stop(self) -> bool:
        return False


@contextlib.contextmanager
def shown(stream: TextIO, launches: int) -> Iterator[Progress]:
    """The progress of so many launches on a stream."""
    if stream.isatty() and importlib.util.find_spec("rich"):
        from mixprof.run.bar import Bar

        bar = Bar(stream, Tally(launches))
        with bar.display:
            yield bar
    else:
        yield Lines(stream, Tally(launches))


class Lines:
    """A line for each launch that ends."""

    def __init__(self, stream: TextIO, tally: Tally):
        self.stream, self.tally = stream, tally

    def begin(self, case: Case, round: int) -> None:
        pass

    def end(self, case: Case, launch: Launch) -> None:
        outcome = self.tally.add(case, launch)
        lines = [f"[{self.tally.done}/{self.tally.launches}] {self.tally.clock()}  {outcome}"]
        if note := self.tally.note(case, launch):
            lines.append(f"mixprof: {note}")
        print("\n".join(lines), file=self.stream, flush=True)
