"""The package copied to a folder of its own, so that a test can edit it as a contributor would."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import mixprof as original


class PackageCopy:
    """A copy of mixprof in a folder, and its command line."""

    def __init__(self, folder: Path):
        self.folder = folder
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(Path(original.__file__).parent, folder / "mixprof", ignore=ignored)

    def write(self, path: str, text: str) -> None:
        (self.folder / "mixprof" / path).write_text(text)

    def replace(self, path: str, old: str, new: str) -> None:
        """Exchange a text that must be there, its first occurrence."""
        file = self.folder / "mixprof" / path
        text = file.read_text()
        assert old in text, f"{path} has no {old!r}"
        file.write_text(text.replace(old, new, 1))

    def run(self, *arguments: object, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        """`mixprof ARGUMENTS` of the copy, with a cache of its own."""
        environment = {**os.environ, "PYTHONPATH": str(self.folder), "MIXPROF_CACHE": str(self.folder / "cache")}
        command = [sys.executable, "-m", "mixprof", *map(str, arguments)]
        work = self.folder / "work"
        work.mkdir(exist_ok=True)
        return subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True, timeout=timeout)
