"""docs/your-model.md does what it says: its files are written, its commands run, and print what stands below them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "your-model.md"
BLOCK = re.compile(r"```(python|console)(?: (\S+))?\n(.*?)```\n", re.S)
COMMAND = re.compile(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", re.M)
QUICK = ["--quick", "--threads", "1", "--max-lost-cpu", "1", "--seconds", "0.05"]


def start(arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


def commands(page: str, folder: Path) -> list[tuple[re.Match[str], str]]:
    """Every command of the page with what it prints, in the order of the page; what it says of Python is done first."""
    made = []
    for block in BLOCK.finditer(page):
        kind, name, content = block.groups()
        if kind == "python" and name:
            (folder / name).write_text(content)
        elif kind == "python":
            assert start(["-c", content], folder).returncode == 0
        else:
            lines = COMMAND.finditer(page, block.start(3), block.end(3))
            made += [(line, printed(line[1], folder)) for line in lines]
    return made


def printed(command: str, folder: Path) -> str:
    """What a command prints; nothing of one that measures, whose rows are `ok`: times differ."""
    program, *arguments = command.split()
    assert program == "mixprof"
    measures = arguments[0] == "time"
    done = start(["-m", "mixprof", *arguments, *(QUICK if measures else [])], folder)
    if not measures:
        return done.stdout + done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith(arguments[1])]
    assert rows, done.stderr
    assert all(re.search(r"\s(ok|unstable: .*)$", row) for row in rows), done.stdout
    return ""


@pytest.mark.slow
def test_every_command_prints_what_stands_below_it(tmp_path):
    """`python tests/test_your_model.py` writes the outputs anew."""
    examples = commands(PAGE.read_text(), tmp_path)
    assert len(examples) >= 8
    assert [output for _, output in examples] == [example[2] for example, _ in examples]


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as scratch:
        text = PAGE.read_text()
        for example, output in reversed(commands(text, Path(scratch))):
            text = text[: example.start(2)] + output + text[example.end(2) :]
        PAGE.write_text(text)
