"""Runs that a command reads: folders, fleets, and copies of those at URLs."""

import contextlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from mixprof.data import run_folder
from mixprof.data.fleet import expanded
from mixprof.data.remote import local_copy
from mixprof.run.sweep import set_torn_lines_aside


@contextlib.contextmanager
def copies(names: Iterable[str]) -> Iterator[list[Path]]:
    """The folders that these are, in the place of a URL a copy that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="mixprof-run-") as temporary:
        yield [local_copy(name, Path(temporary) / str(number)) for number, name in enumerate(names)]


@contextlib.contextmanager
def runs_of(names: Iterable[str]) -> Iterator[list[Path]]:
    """The run folders that these are or hold, a torn last line of each set aside."""
    with copies(names) as folders:
        runs = expanded(folders)
        for folder in runs:
            run_folder.read_manifest(folder)
            if os.access(folder, os.W_OK):
                with run_folder.lock(folder):  # lines of a live sweep are not torn, they are being written
                    set_torn_lines_aside(folder)
        yield runs
