"""One direction of data, and light imports."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_packages_import_in_one_direction():
    command = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert "3 kept, 0 broken" in done.stdout


@pytest.mark.parametrize(
    "module", ["profiler", "profiler.cli", "profiler.types", "profiler.sweep", "profiler.store", "profiler.sampling",
               "profiler.lowerings", "profiler.worker", "profiler.executors.local", "models", "reports.frame"],
)  # fmt: skip
def test_importing_loads_no_torch(module):
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_a_broken_direction_would_be_caught(tmp_path):
    for package in ("models", "profiler", "reports"):
        for file in (ROOT / package).rglob("*.py"):
            copy = tmp_path / file.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(file.read_bytes())
    (tmp_path / "pyproject.toml").write_bytes((ROOT / "pyproject.toml").read_bytes())
    with (tmp_path / "profiler" / "sweep.py").open("a") as file:
        file.write("\nimport reports.frame\n")
    command = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([command], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode != 0
    assert "profiler.sweep -> reports.frame" in done.stdout
