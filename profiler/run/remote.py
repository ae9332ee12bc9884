"""A sweep whose run is at a URL: it works in a folder here, and sends each launch there when it has ended."""

import contextlib
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mixprof.data.case import Case
from mixprof.data.errors import UsageError
from mixprof.data.launch import Launch
from mixprof.data.remote import RemoteRun
from mixprof.run.progress import Progress, Watch


@dataclass
class Sending:
    """A watch that sends what a launch added to a run's folder."""

    watch: Watch
    remote: RemoteRun
    folder: Path

    @contextlib.contextmanager
    def over(self, launches: int) -> Iterator[Progress]:
        with self.watch.over(launches) as progress:
            self.remote.push(self.folder)
            yield _Sent(progress, self)

    def stop(self) -> bool:
        return self.watch.stop()


@dataclass
class _Sent:
    progress: Progress
    sending: Sending

    def begin(self, case: Case, round: int) -> None:
        self.progress.begin(case, round)

    def end(self, case: Case, launch: Launch) -> None:
        self.sending.remote.push(self.sending.folder)
        self.progress.end(case, launch)


@contextlib.contextmanager
def working_copy(url: str, resume: bool) -> Iterator[tuple[Path, RemoteRun]]:
    """A folder that stands for the run at a URL; its last lines are sent at the end. UsageError where one is."""
    remote = RemoteRun(url)
    if remote.exists() and not resume:
        raise UsageError(f"got '{url}', where a run is, expected another URL, or --resume to go on with it")
    with tempfile.TemporaryDirectory(prefix="mixprof-remote-") as temporary:
        folder = Path(temporary) / "run"
        folder.mkdir()
        for message in remote.pull(folder):
            print(f"mixprof: {message}", file=sys.stderr)
        try:
            yield folder, remote
        finally:
            remote.push(folder)
