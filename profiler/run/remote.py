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
from mixprof.data.claims import Claim
from mixprof.data.errors import UsageError, one_line
from mixprof.data.launch import Launch
from mixprof.data.remote import RemoteRun
from mixprof.run.progress import Progress, Watch

TAKEN = "another sweep took this one for dead and goes on in its place: nothing more is sent"


@dataclass
class Sending:
    """A watch that sends what a launch added to a run's folder."""

    watch: Watch
    remote: RemoteRun
    folder: Path
    claim: Claim

    @contextlib.contextmanager
    def over(self, launches: int) -> Iterator[Progress]:
        with self.watch.over(launches) as progress:
            self.remote.push(self.folder)
            yield _Sent(progress, self)

    def stop(self) -> bool:
        return self.watch.stop() or self.claim.lost


@dataclass
class _Sent:
    progress: Progress
    sending: Sending

    def begin(self, case: Case, round: int) -> None:
        self.progress.begin(case, round)

    def end(self, case: Case, launch: Launch) -> None:
        try:
            if self.sending.claim.check():
                self.sending.remote.push(self.sending.folder)
            else:
                print(f"mixprof: {TAKEN}", file=sys.stderr)
        except Exception as error:  # of many types, those of each store's client
            print(f"mixprof: not sent yet, with the next launch again: {one_line(error)}", file=sys.stderr)
        self.progress.end(case, launch)


@contextlib.contextmanager
def working_copy(url: str, resume: bool) -> Iterator[tuple[Path, RemoteRun, Claim]]:
    """A folder that stands for the run at a URL, to which nobody else writes; its last lines are sent at the end.

    Raises UsageError where a run is, or another sweep writes; OSError, with the folder kept, where what was measured
    cannot be sent.
    """
    remote = RemoteRun(url)
    if remote.exists() and not resume:
        raise UsageError(f"got '{url}', where a run is, expected another URL, or --resume to go on with it")
    with remote.claim().keeping() as claim:
        folder = Path(tempfile.mkdtemp(prefix="mixprof-remote-"))
        for message in remote.pull(folder):
            print(f"mixprof: {message}", file=sys.stderr)
        try:
            yield folder, remote, claim
        finally:
            _send_rest(remote, claim, folder)
        shutil.rmtree(folder, ignore_errors=True)


def _send_rest(remote: RemoteRun, claim: Claim, folder: Path) -> None:
    """Send the last lines. OSError where they cannot be, or must not."""
    try:
        if not claim.check():
            raise ConnectionAbortedError(TAKEN)
        remote.push(folder)
    except Exception as error:
        kept = f"{one_line(error)}; what was measured lies in {folder}"
        raise OSError(errno.EIO, kept, remote.url) from error
