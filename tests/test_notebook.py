"""docs/notebook.md does what it says, and its outputs are those of a real run (tests/data/run)."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "notebook.md"
MARK = "# next block"
BLOCK = re.compile(r"```python( measures)?\n(.*?)```\n(?:\n```text\n(.*?)```)?", re.S)


def run(code, folder):
    (folder / "notebook.py").write_text(code)
    environment = {"PYTHONPATH": str(ROOT / "src"), "PATH": "/usr/bin:/bin", "HOME": str(folder)}
    command = [sys.executable, "notebook.py"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_example_prints_what_stands_below_it_and_loads_no_torch(tmp_path):
    shutil.copytree(ROOT / "tests" / "data" / "run", tmp_path / "runs" / "mine")
    blocks = [(code, output) for measures, code, output in BLOCK.findall(PAGE.read_text()) if not measures]
    assert len(blocks) >= 3
    code = "".join(f"{code}print({MARK!r})\n" for code, _ in blocks)
    printed = run(code + "import sys\nassert 'torch' not in sys.modules\n", tmp_path)
    assert printed.split(f"{MARK}\n")[:-1] == [output for _, output in blocks]
    assert (tmp_path / "latency.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.slow
def test_what_measures_measures(tmp_path):
    code = "".join(code for measures, code, _ in BLOCK.findall(PAGE.read_text()) if measures)
    code = code.replace("seconds=0.05,", "seconds=0.05, launches=1, threads=1, max_lost_cpu=1,")
    code = code.replace("quick=True", "quick=True, threads=1, max_lost_cpu=1")
    check = "print(set(mixprof.load(run)['status']))"
    assert run(code + check, tmp_path) == "{'ok'}\n"
