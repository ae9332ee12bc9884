"""A sweep whose run is at a URL: it works in a folder here, and sends each launch there when it has ended."""

import contextlib
import errno
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mixprof.data.case import Case
from mixprof.data.errors import UsageError, one_line
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
        try:
            self.sending.remote.push(self.sending.folder)
        except Exception as error:  # of many types, those of each store's client
            print(f"mixprof: not sent yet, with the next launch again: {one_line(error)}", file=sys.stderr)
        self.progress.end(case, launch)


@contextlib.contextmanager
def working_copy(url: str, resume: bool) -> Iterator[tuple[Path, RemoteRun]]:
    """A folder that stands for the run at a URL; its last lines are sent at the end.

    Raises UsageError where a run is, and OSError, with the folder kept, where what was measured cannot be sent.
    """
    remote = RemoteRun(url)
    if remote.exists() and not resume:
        raise UsageError(f"got '{url}', where a run is, expected another URL, or --resume to go on with it")
    folder = Path(tempfile.mkdtemp(prefix="mixprof-remote-"))
    for message in remote.pull(folder):
        print(f"mixprof: {message}", file=sys.stderr)
    try:
        yield folder, remote
    finally:
        try:
            remote.push(folder)
        except Exception as error:
            kept = f"{one_line(error)}; what was measured lies in {folder}"
            raise OSError(errno.EIO, kept, url) from error
        shutil.rmtree(folder, ignore_errors=True)
