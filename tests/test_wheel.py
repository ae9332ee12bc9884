"""A wheel in an environment of its own, used from a folder with `models`, `profiler` and `reports` of its own."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OURS = ("models", "profiler", "reports", "src", "pyproject.toml", "README.md", "LICENSE")
FAILS = "raise RuntimeError('the wrong module was imported')\n"

pytestmark = pytest.mark.slow


def run(*command, cwd, **variables):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [*map(str, command)], cwd=cwd, env={**environment, **variables}, capture_output=True, text=True, timeout=600
    )


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """The interpreter of an environment with a wheel of this tree; what others provide comes from ours."""
    folder = tmp_path_factory.mktemp("wheel")
    (folder / "tree").mkdir()
    for name in OURS:
        run("cp", "-R", "-P", ROOT / name, folder / "tree", cwd=folder)
    wheel = run(sys.executable, "-m", "pip", "wheel", "--no-deps", "-q", "-w", folder, folder / "tree", cwd=folder)
    assert wheel.returncode == 0, wheel.stderr
    run(sys.executable, "-m", "venv", folder / "environment", cwd=folder)
    interpreter = folder / "environment" / "bin" / "python"
    (wheel_file,) = folder.glob("mixprof-*.whl")
    done = run(interpreter, "-m", "pip", "install", "-q", "--no-deps", wheel_file, cwd=folder)
    assert done.returncode == 0, done.stderr
    (site,) = (folder / "environment" / "lib").glob("python*/site-packages")
    names = {path.name for path in site.iterdir()} - {"pip", "setuptools", "_distutils_hack", "pkg_resources"}
    assert {name for name in names if not name.endswith((".dist-info", ".pth"))} == {"mixprof"}
    (site / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return interpreter


@pytest.fixture(params=[{}, {"PYTHONPATH": "."}], ids=["", "PYTHONPATH=."])
def variables(request):
    return request.param


@pytest.fixture
def stranger(tmp_path):
    """A folder whose own modules end whatever imports them."""
    for name in ("models", "reports"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(FAILS)
    (tmp_path / "profiler.py").write_text(FAILS)
    (tmp_path / "test_own.py").write_text("def test_own():\n    pass\n")
    return tmp_path


@pytest.mark.parametrize("name", ["models", "profiler", "reports"])
def test_none_of_our_folders_is_a_name_of_its_own(python, name, tmp_path):
    done = run(python, "-c", f"import {name}", cwd=tmp_path)
    assert done.returncode == 1
    assert "ModuleNotFoundError" in done.stderr


def test_time_measures_beside_modules_of_these_names(python, stranger, variables):
    options = ("--quick", "--threads", "1", "--max-lost-cpu", "1")
    done = run(python.with_name("mixprof"), "time", "depthwise_conv", *options, cwd=stranger, **variables)
    assert done.returncode == 0, done.stderr
    assert "depthwise_conv" in done.stdout
    assert "ok" in done.stdout


def test_a_report_has_its_page(python, tmp_path):
    shutil.copytree(ROOT / "tests" / "data" / "run", tmp_path / "run")
    done = run(python.with_name("mixprof"), "report", "run", "--out", "report", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "report" / "index.html").stat().st_size > 100_000


def test_pytest_runs_beside_modules_of_these_names(python, stranger, variables):
    done = run(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=stranger, **variables)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout
