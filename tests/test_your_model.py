"""docs/your-model.md: its files are written down and its commands run; what they print is what stands there."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

TEXT = (Path(__file__).parents[1] / "docs" / "your-model.md").read_text()
FILES = dict(re.findall(r"^`(\w+\.py)`:\n\n```python\n(.*?)```", TEXT, re.M | re.S))
COMMANDS = re.findall(r"^```console\n\$ mixprof (.*?)\n(.*?)\n```", TEXT, re.M | re.S)


@pytest.mark.parametrize(("command", "shown"), COMMANDS, ids=[command for command, _ in COMMANDS])
def test_a_command_prints_what_the_page_shows(command, shown, tmp_path):
    for name, content in FILES.items():
        (tmp_path / name).write_text(content)
    run = [sys.executable, "-m", "mixprof", *command.split()]
    done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True)
    assert (done.stdout + done.stderr).rstrip() == shown


def test_the_page_has_files_and_commands():
    assert (len(FILES), len(COMMANDS)) == (2, 3)
