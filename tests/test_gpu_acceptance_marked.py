"""scripts/acceptance/marked.py: what becomes of tests and of a sweep's records."""

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parents[1] / "scripts"))

from acceptance import marked
from acceptance.frame import Skipped

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


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "pyproject.toml").write_text('[tool.pytest.ini_options]\nmarkers = ["gpu: on a device"]\n')
    (tmp_path / "test_of_a_device.py").write_text(TESTS)
    (tmp_path / "test_of_none.py").write_text(UNMARKED)
    return tmp_path


def test_every_outcome_of_a_test_is_kept_with_its_reason(folder):
    seen = marked.outcomes_of_tests("cuda:0", str(folder))
    tests: dict[str, Any] = {name.rpartition("::")[2]: test for name, test in seen.raw.items()}
    assert {name: test["outcome"] for name, test in tests.items()} == {
        "test_holds": "passed",
        "test_fails[float16]": "failed",
        "test_is_skipped": "skipped",
        "test_has_a_broken_fixture": "failed",
        "test_fails_and_breaks": "failed",
        "test_breaks_afterwards": "failed",
    }
    assert seen.values == {"passed": 1, "skipped": 1, "failed": 4}
    assert len(seen.wrong) == 4
    assert tests["test_holds"]["message"] is None
    assert "the output differs" in tests["test_fails[float16]"]["message"]
    assert "no CUDA device here" in tests["test_is_skipped"]["message"]
    assert "no such driver" in tests["test_has_a_broken_fixture"]["message"]
    assert "first this" in tests["test_fails_and_breaks"]["message"]
    assert "the device is gone" in tests["test_breaks_afterwards"]["message"]


def test_tests_that_all_are_skipped_are_a_skip(folder):
    (folder / "test_of_a_device.py").write_text(
        "import pytest\n@pytest.mark.gpu\ndef test_waits():\n    pytest.skip('no CUDA device here')\n"
    )
    with pytest.raises(Skipped, match="no CUDA device here"):
        marked.outcomes_of_tests("cuda:0", str(folder))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("import no_such_module\n", "exit code 2"),
        ("def test_unmarked():\n    pass\n", "no test is marked gpu"),
        ("import os\nimport pytest\n@pytest.mark.gpu\ndef test_dies():\n    os.kill(os.getpid(), 9)\n", "exit code -9"),
    ],
)
def test_tests_that_do_not_run_are_a_failure_not_a_silence(folder, content, words):
    for file in folder.glob("test_*.py"):
        file.unlink()
    (folder / "test_it.py").write_text(content)
    assert any(words in each for each in marked.outcomes_of_tests("cuda:0", str(folder)).wrong)


@pytest.mark.parametrize(
    ("status", "outcome"),
    [("ok", "passed"), ("unavailable", "skipped"), ("unsupported", "skipped"), ("built", "failed"), ("oom", "failed"),
     ("inaccurate", "failed"), ("crashed", "failed"), ("timeout", "failed"), ("unstable", "failed")],
)  # fmt: skip
def test_a_record_passes_or_says_why_not(status, outcome):
    made = marked.of_record(status, None if status == "ok" else "its own words")
    assert made.outcome == outcome
    assert made.message == (None if status == "ok" else f"{status}: its own words")
