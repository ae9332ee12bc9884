"""docs/notebook.md does what it says, and its outputs are those of a real run (tests/data/run)."""

import re
import shutil
import subprocess
import sys
import tempfile
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


def printed(folder):
    """What each example that measures nothing prints, beside what the page has below it."""
    shutil.copytree(ROOT / "tests" / "data" / "run", folder / "runs" / "mine")
    blocks = [block for block in BLOCK.finditer(PAGE.read_text()) if not block[1]]
    code = "".join(f"{block[2]}print({MARK!r})\n" for block in blocks)
    output = run(f"{code}import sys\nassert 'torch' not in sys.modules\n", folder)
    return list(zip(blocks, output.split(f"{MARK}\n")[:-1], strict=True))


def test_every_example_prints_what_stands_below_it_and_loads_no_torch(tmp_path):
    """`python tests/test_notebook.py` writes the outputs anew."""
    examples = printed(tmp_path)
    assert len(examples) >= 4
    assert [output for _, output in examples] == [block[3] for block, _ in examples]
    assert (tmp_path / "latency.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.slow
def test_what_measures_measures(tmp_path):
    code = "".join(code for measures, code, _ in BLOCK.findall(PAGE.read_text()) if measures)
    code = code.replace("seconds=0.05,", "seconds=0.05, launches=1, threads=1, max_lost_cpu=1,")
    code = code.replace("quick=True", "quick=True, threads=1, max_lost_cpu=1")
    check = "print(set(mixprof.load(run)['status']))"
    assert run(code + check, tmp_path) == "{'ok'}\n"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        text = PAGE.read_text()
        for block, output in reversed(printed(Path(scratch))):
            text = text[: block.start(3)] + output + text[block.end(3) :]
        PAGE.write_text(text)
