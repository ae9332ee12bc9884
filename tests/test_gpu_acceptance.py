"""scripts/gpu_acceptance.py: what becomes of tests, of a sweep's records, and of a machine without a GPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mixprof.data.case import Case
from mixprof.data.record import Record
from mixprof.machine import cuda_driver

sys.path.append(str(Path(__file__).parents[1] / "scripts"))

import gpu_acceptance
from gpu_acceptance import Check

SCRIPTS = Path(gpu_acceptance.__file__).parent

TESTS = """
import pytest

pytestmark = pytest.mark.gpu

@pytest.fixture
def broken():
    raise OSError("no such driver")

@pytest.fixture
def broken_afterwards():
    yield
    raise OSError("the device is gone")

def test_holds():
    pass

@pytest.mark.parametrize("dtype", ["float16"])
def test_fails(dtype):
    assert 1 == 2, "the output differs"

def test_is_skipped():
    pytest.skip("no CUDA device here")

def test_has_a_broken_fixture(broken):
    pass

def test_fails_and_breaks(broken_afterwards):
    assert False, "first this"

def test_breaks_afterwards(broken_afterwards):
    pass
"""
UNMARKED = """
def test_needs_no_device():
    raise AssertionError("only tests marked gpu are run")
"""
CASE = Case("depthwise_conv", "tensorrt", "cuda:0", "float16", "channels_last", "hot", 2, (14, 14), 7, 64)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "pyproject.toml").write_text('[tool.pytest.ini_options]\nmarkers = ["gpu: on a device"]\n')
    (tmp_path / "test_of_a_device.py").write_text(TESTS)
    (tmp_path / "test_of_none.py").write_text(UNMARKED)
    return tmp_path


def by_name(checks):
    return {check.name.rpartition("::")[2]: check for check in checks}


def test_every_outcome_of_a_test_is_told_with_its_reason(folder):
    checks = by_name(gpu_acceptance.run_tests(folder))
    assert {name: check.outcome for name, check in checks.items()} == {
        "test_holds": "passed",
        "test_fails[float16]": "failed",
        "test_is_skipped": "skipped",
        "test_has_a_broken_fixture": "failed",
        "test_fails_and_breaks": "failed",
        "test_breaks_afterwards": "failed",
    }
    assert checks["test_holds"].message is None
    assert "the output differs" in (checks["test_fails[float16]"].message or "")
    assert "no CUDA device here" in (checks["test_is_skipped"].message or "")
    assert "no such driver" in (checks["test_has_a_broken_fixture"].message or "")
    assert "first this" in (checks["test_fails_and_breaks"].message or "")
    assert "the device is gone" in (checks["test_breaks_afterwards"].message or "")
    assert all((check.seconds or 0) >= 0 for check in checks.values())


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("import no_such_module\n", "exit code 2"),
        ("def test_unmarked():\n    pass\n", "no test is marked gpu"),
        ("import os\nimport pytest\n@pytest.mark.gpu\ndef test_dies():\n    os.kill(os.getpid(), 9)\n", "exit code -9"),
    ],
)
def test_tests_that_do_not_run_are_a_failure_not_a_silence(folder, content, said):
    for file in folder.glob("test_*.py"):
        file.unlink()
    (folder / "test_it.py").write_text(content)
    failed = [check for check in gpu_acceptance.run_tests(folder) if check.outcome == "failed"]
    assert any(said in (check.message or "") for check in failed)


@pytest.mark.parametrize(
    ("status", "outcome"),
    [("ok", "passed"), ("unavailable", "skipped"), ("unsupported", "skipped"), ("built", "failed"), ("oom", "failed"),
     ("inaccurate", "failed"), ("crashed", "failed"), ("timeout", "failed"), ("unstable", "failed")],
)  # fmt: skip
def test_a_record_is_a_check(status, outcome):
    check = gpu_acceptance.check_of(Record(CASE, status, None if status == "ok" else "its own words"))
    assert (check.outcome, check.name) == (outcome, f"sweep: {CASE.label()}")
    assert check.message == (None if status == "ok" else f"{status}: its own words")


def test_what_passes_without_a_device_has_failed():
    checks = [Check("proves", "passed"), Check("waits", "skipped", "no device")]
    here, elsewhere = (gpu_acceptance.assemble(checks, {}, device=device) for device in (True, False))
    assert here["summary"] == {"passed": 1, "failed": 0, "skipped": 1}
    assert here["reason"] is None
    assert elsewhere["summary"] == {"passed": 0, "failed": 1, "skipped": 1}
    assert "nothing was run" in elsewhere["reason"]


def run_script(*arguments):
    environment = {**os.environ, "PYTHONPATH": str(SCRIPTS.parent / "src")}
    command = [sys.executable, str(SCRIPTS / "gpu_acceptance.py"), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)


def test_the_script_says_that_there_is_no_device_and_ends_well(folder):
    if cuda_driver.device_count():
        pytest.skip("this machine has a CUDA device")
    (folder / "test_of_a_device.py").write_text(
        "import pytest\n@pytest.mark.gpu\ndef test_waits():\n    pytest.skip('no CUDA device here')\n"
    )
    out = folder / "gpu_acceptance.json"
    out.write_text("of an earlier run")
    done = run_script("--tests", str(folder), "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert "nothing was run on one" in done.stdout
    found = json.loads(out.read_text())
    assert found["device"] is False
    assert found["summary"] == {"passed": 0, "failed": 0, "skipped": 2}
    assert {check["outcome"] for check in found["checks"]} == {"skipped"}
    assert all(check["message"] for check in found["checks"])
    assert found["environment"]["cuda_devices"] == 0
    assert found["environment"]["versions"]["torch"]
    assert sorted(path.name for path in folder.iterdir() if path.name.startswith(".gpu")) == []


def test_a_failure_ends_with_1_and_is_printed(folder):
    out = folder / "gpu_acceptance.json"
    done = run_script("--tests", str(folder), "--out", str(out))
    assert done.returncode == 1
    assert "failed: test_of_a_device::test_fails[float16]: " in done.stdout
    assert json.loads(out.read_text())["summary"]["failed"] >= 4


def test_a_folder_that_does_not_exist_is_wrong_usage(tmp_path):
    done = run_script("--out", str(tmp_path / "absent" / "file.json"))
    assert done.returncode == 2
    assert "expected a file in a folder that exists" in done.stderr


@pytest.mark.parametrize("file", ["test_gpu.py", "test_gpu_engines.py"])
def test_every_test_of_a_gpu_is_marked_and_none_runs_without_a_device(file):
    if cuda_driver.device_count():
        pytest.skip("this machine has a CUDA device")
    command = [sys.executable, "-m", "pytest", str(Path(__file__).with_name(file)), "-p", "no:cacheprovider"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=SCRIPTS.parent)
    marked = subprocess.run([*command, "-m", "not gpu"], capture_output=True, text=True, cwd=SCRIPTS.parent)
    assert done.returncode == 0
    assert " passed" not in done.stdout
    assert " skipped" in done.stdout
    assert marked.returncode == 5, "a test lacks the mark gpu"
