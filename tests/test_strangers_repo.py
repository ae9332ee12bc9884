"""A stranger's repository has a `models/` that cannot be imported, a `profiler.py` and a `reports/` of its own."""

import json
import os
import re
import subprocess
import sys

import pytest

from toy_repository import AXES, ROOT, Repository, environment, net

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

OWN = {"": None, "PYTHONPATH=.": "."}  # how a stranger's shell is set up
TESTS = """
def test_own_modules():
    import profiler, reports
    assert profiler.OWNER == reports.OWNER == "stranger"


def test_gate(latency_gate):
    latency_gate("net:mixer", exact_only=True, channels=32, resolutions=14, devices="cpu", threads=1)
"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def stranger(tmp_path_factory):
    """Two commits, the second with one matrix product more. Its `models` ends whatever imports it."""
    repository = Repository(tmp_path_factory.mktemp("stranger") / "repository")
    packages = {"models": "raise SystemExit('models of the stranger')\n", "reports": "OWNER = 'stranger'\n"}
    for package, text in packages.items():
        (repository.folder / package).mkdir()
        (repository.folder / package / "__init__.py").write_text(text)
    (repository.folder / "profiler.py").write_text("OWNER = 'stranger'\n")
    (repository.folder / ".gitignore").write_text("__pycache__/\n.pytest_cache/\nruns/\n")
    repository.commit("base", net=net(), test_own=TESTS)
    repository.git("checkout", "--quiet", "-b", "branch")
    repository.commit("doubled", net=net(products=2))
    return repository


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder with the entry points of an installation: pytest finds the plugin by them."""
    folder = tmp_path_factory.mktemp("site")
    names = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["pytest11"]
    information = folder / "mixprof-0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: mixprof\nVersion: 0\n")
    lines = "".join(f"{name} = {module}\n" for name, module in names.items())
    (information / "entry_points.txt").write_text(f"[pytest11]\n{lines}")
    return folder


@pytest.fixture(params=list(OWN.values()), ids=list(OWN.keys()))
def python(request, stranger, site):
    """Runs the interpreter in the stranger's repository: (exit code, standard output, standard error)."""
    ours = [str(ROOT / "src"), str(site)]
    path = os.pathsep.join(ours if request.param is None else [request.param, *ours])
    variables = {name: value for name, value in environment(PYTHONPATH=path).items() if not name.startswith("PYTEST_")}

    def run(*arguments):
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=stranger.folder,
            env=variables,
            capture_output=True,
            text=True,
            timeout=600,
        )
        return done.returncode, done.stdout, done.stderr

    return run


def test_what_runs_is_this_tree(python):
    code, out, err = python("-c", "import mixprof; print(mixprof.__file__)")
    assert (code, out.strip()) == (0, str(ROOT / "src" / "mixprof" / "__init__.py")), err


def test_models_profiler_and_reports_are_the_strangers(python):
    code, out, err = python(
        "-c", "import mixprof, profiler, reports; print(profiler.OWNER, reports.OWNER); import models"
    )
    assert (code, out.strip(), err.strip()) == (1, "stranger stranger", "models of the stranger")


def test_pytest_runs_and_a_gate_in_it_decides(python):
    code, out, err = python("-m", "pytest", "-q", "-p", "no:cacheprovider", "--latency-base=base")
    assert code == 1, out + err
    assert "1 failed, 1 passed" in out, out + err  # the gate finds the second product; nothing else fails
    assert re.search("net:mixer .*regressed", out), out + err


def test_time_measures(python):
    code, out, err = python("-m", "mixprof", "time", "depthwise_conv", "--quick", *AXES)
    assert (code, "Traceback" in err) == (0, False), out + err
    assert "depthwise_conv" in out


def test_ab_counts_and_says_what_regressed(python):
    code, out, err = python("-m", "mixprof", "ab", "base", "branch", "--models", "net:mixer", "--exact-only", *AXES)
    assert (code, "Traceback" in err) == (1, False), out + err
    assert "regressed" in out


def test_ab_times_a_registered_model(python):
    sides = ("--head-set", "layout=contiguous", "--budget", "8")
    code, out, err = python("-m", "mixprof", "ab", *sides, "--models", "depthwise_conv", "--json", *AXES)
    assert "Traceback" not in err
    assert code in (0, 1, 3, 4), err
    (case,) = json.loads(out)["cases"]
    # Of its time nothing is asked on a machine that tests share: a side that cannot import would be one of these two.
    assert case["verdict"] not in ("missing", "incomparable"), case["reason"]
