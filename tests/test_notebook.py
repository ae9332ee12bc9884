"""docs/notebook.md does what it says."""

import re
import subprocess
import sys
from pathlib import Path

from synthetic_runs import realistic, write_run

ROOT = Path(__file__).parents[1]


def test_every_example_runs_in_order_and_loads_no_torch(tmp_path):
    write_run(tmp_path / "runs" / "mine", realistic())
    examples = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "notebook.md").read_text(), re.S)
    checks = (
        "import sys, matplotlib.figure",
        "assert isinstance(drawn['latency_resolution_mixers'], matplotlib.figure.Figure)",
        "assert set(eager) < set(drawn)",
        "assert over_eager['gain'].notna().any() and ratios['ratio'].notna().any()",
        "assert 'torch' not in sys.modules",
    )
    (tmp_path / "notebook.py").write_text("\n".join([*examples, *checks]))
    environment = {"PYTHONPATH": str(ROOT / "src"), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    command = [sys.executable, "notebook.py"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "times as fast" in done.stdout
    assert (tmp_path / "latency.pdf").read_bytes().startswith(b"%PDF")
