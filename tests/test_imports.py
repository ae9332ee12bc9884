"""One direction of data, and light imports."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_packages_import_in_one_direction():
    command = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert " 0 broken" in done.stdout


@pytest.mark.parametrize(
    "module",
    [
        "mixprof",
        "mixprof.cli.main",
        "mixprof.data.record",
        "mixprof.data.run_folder",
        "mixprof.plan.axes",
        "mixprof.sampling",
        "mixprof.lowerings",
        "mixprof.worker.server",
        "mixprof.run.executors.local",
        "mixprof.models",
        "mixprof.reports.frame",
    ],
)
def test_importing_loads_no_torch(module):
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_a_broken_direction_would_be_caught(tmp_path):
    shutil.copytree(ROOT / "profiler", tmp_path / "src" / "mixprof", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "pyproject.toml").write_bytes((ROOT / "pyproject.toml").read_bytes())
    with (tmp_path / "src" / "mixprof" / "data" / "record.py").open("a") as file:
        file.write("\nimport mixprof.reports.frame\n")
    command = Path(sys.executable).with_name("lint-imports")
    path = {**os.environ, "PYTHONPATH": str(tmp_path / "src")}
    done = subprocess.run([command], cwd=tmp_path, env=path, capture_output=True, text=True)
    assert done.returncode != 0
    assert "mixprof.data.record -> mixprof.reports.frame" in done.stdout
