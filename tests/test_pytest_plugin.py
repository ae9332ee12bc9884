"""The pytest plugin as a user meets it: real runs of pytest in a repository with gates in its test suite."""

import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass

import pytest

from toy_repository import ROOT, Repository, environment, net

pytestmark = pytest.mark.slow  # real processes, seconds each

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

CASE = "channels=32, resolutions=14, devices='cpu', threads=1"
EXACT = f"exact_only=True, {CASE}"
MACS = 14 * 14 * 32 * 32  # of one product of the mixer
WORK = """
def work():
    return sum(number * number for number in range({numbers}))


def needs(something):
    return something


def product():
    import torch
    return torch.ones(20, 30) @ torch.ones(30, {columns})
"""
GONE = "\n\ndef gone(channels):\n    return Mixer(channels)\n"
RAISES = "\n\nclass Raises(Mixer):\n    def forward(self, x):\n        raise IndexError('beyond the edge')\n"
MENDED = "\n\nclass Raises(Mixer):\n    pass\n"
FACTORY = "\n\ndef mended(channels):\n    return Raises(channels)\n"


@dataclass(frozen=True)
class Case:
    """What JUnit XML says of a test."""

    outcome: str  # passed, failure, error, skipped
    message: str
    said: list[str]  # its properties named latency_gate


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    cases: dict[str, Case]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder that says of this project what an installation says: pytest finds its plugins by entry points."""
    found = tmp_path_factory.mktemp("site")
    names = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["pytest11"]
    (found / "mixprof-0.dist-info").mkdir()
    (found / "mixprof-0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: mixprof\nVersion: 0\n")
    lines = "".join(f"{name} = {module}\n" for name, module in names.items())
    (found / "mixprof-0.dist-info" / "entry_points.txt").write_text(f"[pytest11]\n{lines}")
    return found


@pytest.fixture(scope="module")
def run(site, tmp_path_factory):
    """Runs pytest on a file of tests that it writes into a folder."""

    def go(folder, text, *arguments, **more):
        (folder / "test_gate.py").write_text(text)
        xml = tmp_path_factory.mktemp("junit") / "junit.xml"
        variables = environment(PYTHONPATH=f"{ROOT}/src:{site}", **more)
        variables = {name: value for name, value in variables.items() if not name.startswith("PYTEST_")}
        command = [sys.executable, "-m", "pytest", "-rA", "--strict-markers", f"--junit-xml={xml}", *arguments]
        done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, timeout=600)
        found = {each.get("name", ""): _case(each) for each in ElementTree.parse(xml).iter("testcase")}
        return Ran(done.returncode, done.stdout + done.stderr, found)

    return go


def _case(element):
    said = [each.get("value") for each in element.iter("property") if each.get("name") == "latency_gate"]
    for outcome in ("failure", "error", "skipped"):
        if (found := element.find(outcome)) is not None:
            return Case(outcome, found.get("message", ""), said)
    return Case("passed", "", said)


def gates(**calls):
    """A file of tests, one gate each."""
    return "\n\n".join(
        f"def test_{name}(latency_gate):\n    latency_gate({arguments})\n" for name, arguments in calls.items()
    )


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """On a branch whose one commit doubles the products of a mixer, and more."""
    found = Repository(tmp_path_factory.mktemp("suite") / "repository")
    (found.folder / ".gitignore").write_text("__pycache__/\ntest_gate.py\n")
    found.commit("tripled", net=net(products=3), work=WORK.format(numbers=2000, columns=40))
    found.commit("base", net=net() + GONE + RAISES + FACTORY)
    found.git("checkout", "--quiet", "-b", "branch")
    found.commit("doubled", net=net(products=2) + MENDED + FACTORY, work=WORK.format(numbers=2000, columns=80))
    return found


@pytest.fixture(scope="module")
def counted(repository, run):
    """Every verdict that needs no time, in one run of pytest."""
    before = repository.state()
    text = gates(
        regressed=f"'net:mixer', {EXACT}",
        same=f"'net:steady', {EXACT}",
        improved=f"'net:mixer', base='tripled', {EXACT}",
        missing=f"'net:gone', {EXACT}",
        incomparable=f"'net:mended', {EXACT}",
        one_commit=f"'net:mixer', base='HEAD', {EXACT}",
        function="'call:work:product', exact_only=True",
        uncounted="'call:work:work', exact_only=True",
    )
    found = run(repository.folder, text)
    assert repository.state() == before
    return found


@pytest.mark.parametrize(
    ("name", "outcome", "said"),
    [
        ("regressed", "failure", f"regressed (macs {MACS:,} -> {2 * MACS:,} (+100.0%)"),
        ("same", "passed", "net:steady eager cpu float32 b1 14x14 c32: same"),
        ("improved", "passed", f"improved (macs {3 * MACS:,} -> {2 * MACS:,} (-33.3%)"),
        ("missing", "failure", "net:gone eager cpu float32 b1 14x14 c32: missing"),
        ("incomparable", "failure", "beyond the edge"),
        ("one_commit", "skipped", "HEAD, is the commit that is checked out"),
        ("function", "failure", f"regressed (macs {20 * 30 * 40:,} -> {20 * 30 * 80:,} (+100.0%)"),
        ("uncounted", "failure", "there is nothing to count"),
    ],
)
def test_a_verdict_is_the_outcome_of_a_test(counted, name, outcome, said):
    case = counted.cases[f"test_{name}"]
    assert case.outcome == outcome, counted.out
    assert [said in each for each in case.said] == [True], case.said
    if outcome != "passed":
        assert said in case.message
        assert "\n" not in case.message  # no traceback
    assert counted.code == 1


def test_a_failure_says_against_what_and_what_to_do(counted, repository):
    message = counted.cases["test_regressed"].message
    assert f"against merge-base ({repository.git('rev-parse', 'base')[:10]})" in message
    assert "mixprof accept 'net:mixer eager cpu float32 b1 14x14 c32'" in message
    assert "mixprof bisect" in message


def test_what_passed_is_said_too(counted):
    """In the section of the report that -rA shows, and in a line at the end that needs no option."""
    assert "Captured latency_gate call" in counted.out
    assert "test_gate.py::test_same: net:steady eager cpu float32 b1 14x14 c32: same against merge-base" in counted.out


def test_uncommitted_changes_are_part_of_what_is_gated(run, tmp_path):
    found = Repository(tmp_path / "repository")
    (found.folder / ".gitignore").write_text("__pycache__/\ntest_gate.py\n")
    found.commit("base", net=net())
    (found.folder / "net.py").write_text(net(products=2))
    ran = run(found.folder, gates(mixer=f"'net:mixer', {EXACT}"), "--latency-base", "HEAD")
    assert ran.cases["test_mixer"].outcome == "failure"
    assert f"macs {MACS:,} -> {2 * MACS:,}" in ran.cases["test_mixer"].message


@pytest.mark.long
@pytest.mark.slow
def test_real_work_in_a_function_fails_its_test(run, tmp_path):
    """Time alone tells. Noise may make the baseline differ from itself: that fails, too, and says so."""
    found = Repository(tmp_path / "repository")
    (found.folder / ".gitignore").write_text("__pycache__/\ntest_gate.py\n")
    found.commit("base", work=WORK.format(numbers=2000, columns=40))
    found.commit("slower", work=WORK.format(numbers=20000, columns=40))
    before = found.state()
    ran = run(found.folder, gates(function="'call:work:work', max_lost_cpu=1, budget=120"), "--latency-base", "base")
    case = ran.cases["test_function"]
    assert case.outcome == "failure", ran.out
    assert "regressed +" in case.said[0], ran.out
    assert "regressed +" in case.message or "nothing here is to be trusted" in case.message
    assert found.state() == before  # what was measured is kept where git does not see it
    kept = sorted(
        each.name for each in (found.folder / ".pytest_cache" / "d" / "latency_gate").glob("*test_function/*")
    )
    assert kept == ["ab.json", "pairs.jsonl"]


@pytest.mark.parametrize(("choice", "outcome"), [(None, "skipped"), ("fail", "failure"), ("pass", "passed")])
def test_without_a_verdict_the_option_decides(repository, run, choice, outcome):
    """A budget that is over before the first round."""
    options = () if choice is None else (f"--latency-inconclusive={choice}",)
    ran = run(repository.folder, gates(mixer=f"'net:steady', budget=0.01, {CASE}"), *options)
    case = ran.cases["test_mixer"]
    assert case.outcome == outcome, ran.out
    assert "inconclusive (no time was left for the two rounds that a verdict takes)" in case.said[0]
    if choice != "pass":
        assert "allow it more than budget=0.01" in case.message


@pytest.mark.parametrize(("options", "outcome"), [((), "skipped"), (("--latency-inconclusive=fail",), "failure")])
def test_nothing_is_timed_beside_other_tests(repository, run, options, outcome):
    """Counts are not disturbed by them."""
    text = gates(timed=f"'net:steady', {CASE}", counted=f"'net:steady', {EXACT}")
    ran = run(repository.folder, text, "-n", "2", *options)
    case = ran.cases["test_timed"]
    assert case.outcome == outcome, ran.out
    assert "2 workers of pytest-xdist would disturb it; measure by `pytest -n 0 -m latency_gate`" in case.message
    assert ran.cases["test_counted"].outcome == "passed"
    assert "test_gate.py::test_timed: not measured: 2 workers" in ran.out


def test_one_worker_may_measure(repository, run):
    ran = run(repository.folder, gates(timed=f"'net:steady', budget=0.01, {CASE}"), "-n", "1")
    assert "no time was left for the two rounds" in ran.cases["test_timed"].said[0]


ORDINARY = """
import sys


def test_ordinary():
    heavy = {"torch", "numpy", "scipy", "pandas", "mixprof.cli.latency_gate", "mixprof.gate"}
    assert sorted(heavy & set(sys.modules)) == []
    assert ("mixprof.cli.pytest_plugin" in sys.modules) == PLUGIN
"""


@pytest.mark.parametrize(("options", "plugin"), [((), True), (("-p", "no:mixprof"), False)])
def test_a_suite_without_gates_is_left_alone(run, tmp_path, options, plugin):
    ran = run(tmp_path, ORDINARY.replace("PLUGIN", str(plugin)), *options)
    assert ran.code == 0, ran.out
    assert "latency" not in ran.out


def test_without_the_plugin_there_is_no_such_fixture(repository, run):
    ran = run(repository.folder, gates(mixer=f"'net:mixer', {EXACT}"), "-p", "no:mixprof")
    assert ran.cases["test_mixer"].outcome == "error"
    assert "fixture 'latency_gate' not found" in ran.out


def test_the_marker_selects_what_uses_the_fixture(run, tmp_path):
    text = gates(gate=f"'net:mixer', {EXACT}") + "\n\ndef test_other():\n    pass\n"
    assert set(run(tmp_path, text, "-m", "latency_gate", "--collect-only").out.split()) >= {"1/2"}
    ran = run(tmp_path, text, "-m", "not latency_gate")
    assert {name: case.outcome for name, case in ran.cases.items()} == {"test_other": "passed"}


@pytest.mark.parametrize(
    ("variable", "said"),
    [("PATH", "git is not installed"), ("GIT_CEILING_DIRECTORIES", "is in no git repository")],
)
def test_without_git_there_is_nothing_to_compare_with(run, tmp_path, variable, said):
    folder = tmp_path / "suite"
    folder.mkdir()
    (folder / "net.py").write_text(net())
    ran = run(folder, gates(mixer=f"'net:mixer', {EXACT}"), **{variable: str(tmp_path)})
    assert ran.cases["test_mixer"].outcome == "skipped", ran.out
    assert said in ran.cases["test_mixer"].message


BAD = {
    "option": ("'net:mixer', resolution=14", "got resolution=, expected resolutions"),
    "value": ("'net:mixer', resolutions='x'", "resolutions=: got 'x', expected a side like 224"),
    "budget": ("'net:mixer', budget=0", "--budget: got 0, expected seconds above 0"),
    "revision": (f"'net:mixer', base='nowhere', {EXACT}", "got revision 'nowhere', which does not exist here"),
    "model": (f"'net:nothing', {EXACT}", "cannot be imported"),
    "object": (f"print, {EXACT}", "expected a name, like 'package.module:factory'"),
    "folder": (f"'net:mixer', folder='nowhere', {EXACT}", "got folder='nowhere'"),
    "call": ("'call:work', exact_only=True", "expected call:package.module:function"),
    "arguments": ("'call:work:needs', exact_only=True", "expected a function that takes no arguments"),
}


@pytest.fixture(scope="module")
def refused(repository, run):
    return run(repository.folder, gates(**{name: call for name, (call, _) in BAD.items()}))


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line(refused, name):
    case = refused.cases[f"test_{name}"]
    assert case.outcome == "failure"
    assert BAD[name][1] in case.message, case.message
    assert case.message.startswith("Failed: latency_gate: ")
    assert "\n" not in case.message
