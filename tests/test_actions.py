"""The composite actions' steps as a shell runs them, and what the example workflows may do."""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import yaml
from markdown_it import MarkdownIt

from mixprof.reports.gate.outcome import Judged, Outcome
from outcomes import NASTY, every_verdict
from toy_repository import Repository, with_topic

pytestmark = pytest.mark.slow  # real processes, seconds each

ROOT = Path(__file__).parents[1]
ACTIONS = sorted((ROOT / ".github" / "actions").glob("*/action.yml"))
EXAMPLES = sorted((ROOT / "docs" / "examples").glob("*.yml"))
BASH = ("bash", "--noprofile", "--norc", "-e", "-o", "pipefail")  # as the runner calls it for `shell: bash`
EXPRESSION = re.compile(r"\$\{\{ *(.*?) *\}\}")


def load(path):
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def steps_of(document):
    if "runs" in document:
        return document["runs"]["steps"]
    return [step for job in document["jobs"].values() for step in job["steps"]]


@pytest.mark.parametrize("path", [*ACTIONS, *EXAMPLES], ids=lambda path: f"{path.parent.name}/{path.name}")
def test_no_expression_reaches_a_shell_and_every_action_is_pinned(path):
    for step in steps_of(load(path)):
        assert "${{" not in step.get("run", "")
        if "uses" in step:
            pinned = r"[\w-]+/[\w-]+@[0-9a-f]{40}|OWNER/mixprof/\.github/actions/mixprof-(gate|publish)@v\d+\.\d+\.\d+"
            assert re.fullmatch(pinned, step["uses"])
    for line in path.read_text().splitlines():
        assert not re.search(r"@[0-9a-f]{40}", line) or re.search(r"# v\d+\.\d+\.\d+$", line)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_what_runs_a_change_can_only_read_and_what_can_write_runs_no_change(path):
    document = load(path)
    events = document[True]  # YAML 1.1 reads `on` as a truth
    assert "secrets" not in path.read_text()
    assert "pull_request_target" not in events
    (job,) = document["jobs"].values()
    uses = [step.get("uses", "") for step in job["steps"]]
    if path.name == "gate-publish.yml":
        assert set(events) == {"workflow_run"}
        assert document["permissions"] == {}
        assert job["permissions"] == {"actions": "read", "pull-requests": "write"}
        assert [each.split("@")[0] for each in uses] == ["OWNER/mixprof/.github/actions/mixprof-publish"]
    else:
        assert set(events) == {"pull_request"}
        assert document["permissions"] == {"contents": "read"}
        assert "permissions" not in job
        (checkout,) = (step for step in job["steps"] if step.get("uses", "").startswith("actions/checkout@"))
        assert checkout["with"] == {"fetch-depth": 0, "persist-credentials": False}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples_give_inputs_that_the_actions_have(path):
    for step in steps_of(load(path)):
        if found := re.match(r"OWNER/mixprof/(\S+)@", step.get("uses", "")):
            inputs = load(ROOT / found[1] / "action.yml")["inputs"]
            assert set(step.get("with", {})) <= set(inputs)
            assert {name for name, each in inputs.items() if each.get("required")} <= set(step.get("with", {}))


@pytest.fixture(scope="module")
def action(tmp_path_factory):
    """This checkout's files as a runner fetches an action: without what git ignores."""
    folder = tmp_path_factory.mktemp("actions") / "mixprof"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name, follow_symlinks=False)
    return folder / ".github" / "actions" / "mixprof-gate"


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """A fresh environment that sees our dependencies, and not this checkout."""
    folder = tmp_path_factory.mktemp("environment") / "venv"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    packages = folder / Path(sysconfig.get_path("purelib")).relative_to(sys.prefix)
    seen = [sysconfig.get_path("purelib"), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    others = [each for each in seen if each and Path(each).resolve() != ROOT]
    (packages / "outer.pth").write_text("\n".join(others) + "\n")
    return folder


class Runner:
    """Runs a composite action's scripts as GitHub's runner does: inputs by `env`, files for outputs and summary."""

    def __init__(self, action, environment, folder, temporary):
        self.action, self.environment, self.folder, self.temporary = action, environment, folder, temporary
        temporary.mkdir()

    def run(self, variables=None, **inputs):
        """Every script until one fails: its exit code, outputs, and what all of them printed."""
        document = load(self.action / "action.yml")
        defaults = {name: each.get("default", "") for name, each in document["inputs"].items()}
        values = {f"inputs.{name}": each for name, each in {**defaults, **inputs}.items()}
        values["github.action_path"] = str(self.action)
        output, summary = self.temporary / "output", self.temporary / "summary"
        for file in (output, summary):
            file.write_text("")
        printed = ""
        for step in document["runs"]["steps"]:
            if "run" not in step or (
                step.get("if") == "inputs.install == 'true'" and values["inputs.install"] != "true"
            ):
                continue
            given = {name: self._filled(text, values) for name, text in step.get("env", {}).items()}
            done = self._script(step["run"], self._filled(step.get("working-directory", "."), values),
                                {**given, **(variables or {})})  # fmt: skip
            printed += done.stdout + done.stderr
            if done.returncode:
                break
        outputs = dict(line.split("=", 1) for line in output.read_text().splitlines())
        return done.returncode, outputs, printed

    def _filled(self, text, values):
        return EXPRESSION.sub(lambda found: values[found[1]], text)

    def _script(self, script, folder, variables):
        file = self.temporary / "script.sh"
        file.write_text(script)
        environment = {
            name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "GITHUB_BASE_REF")
        }
        environment |= {
            "PATH": f"{self.environment / 'bin'}{os.pathsep}{os.environ['PATH']}", "VIRTUAL_ENV": str(self.environment),
            "PIP_NO_DEPS": "1", "RUNNER_TEMP": str(self.temporary), "GITHUB_OUTPUT": str(self.temporary / "output"),
            "GITHUB_STEP_SUMMARY": str(self.temporary / "summary"), **variables,
        }  # fmt: skip
        command = [*BASH, str(file)]
        return subprocess.run(command, cwd=self.folder / folder, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """A clone of the toy repository with `origin/main`, its topic branch checked out at `two`."""
    origin = with_topic(tmp_path_factory.mktemp("origin") / "repository")
    origin.git("clone", "--quiet", origin.folder, origin.folder.parent / "clone")
    clone = Repository(origin.folder.parent / "clone")
    clone.git("checkout", "--quiet", "--detach", "two")
    return clone.folder


@pytest.fixture(scope="module")
def installed(action, environment, toy, tmp_path_factory):
    """A runner whose first job installed mixprof from the action's own files, and that job."""
    runner = Runner(action, environment, toy, tmp_path_factory.mktemp("runner") / "temp")
    job = runner.run(models="net:mixer", base="one", head="unrelated", **{"exact-only": "true", **AXES})
    return runner, job, (runner.temporary / "summary").read_text()


AXES = {"arguments": "--resolutions=7\n\n--channels\n32\n"}
EXACT = {"exact-only": "true", "install": "false", **AXES}


def test_the_action_installs_itself_and_passes_an_unrelated_commit(installed, environment):
    _, (code, outputs, printed), summary = installed
    assert code == 0, printed
    assert (outputs["verdict"], outputs["exit-code"]) == ("passed", "0")
    assert json.loads((Path(outputs["folder"]) / "job" / "ab.json").read_text())["exit_code"] == 0
    assert (Path(outputs["folder"]) / "junit.xml").exists()
    assert "| net:mixer eager cpu float32 b1 7x7 c32 | same |" in summary
    assert "1 same" in printed
    assert (environment / "bin" / "mixprof").exists()


@pytest.mark.parametrize(
    ("inputs", "code", "verdict"),
    [
        ({"base": "one", "head": "two"}, 1, "regressed"),
        ({"base": "one", "head": "broken"}, 1, "regressed"),  # a missing case is a regression, too
        ({"base": "two", "head": "one"}, 0, "passed"),
        ({"base": "none", "head": "two"}, 2, "failed"),
        ({"base": "one", "head": "two", "models": "net:none"}, 2, "failed"),
    ],
)
def test_exit_codes_and_outputs(installed, inputs, code, verdict):
    found, outputs, printed = installed[0].run(**{"models": "net:mixer", **EXACT, **inputs})
    assert (found, outputs["exit-code"], outputs["verdict"]) == (code, str(code), verdict), printed
    assert ("::error title=" in printed) == (code == 1)


def test_a_job_that_must_not_fail_still_says_what_it_found(installed):
    code, outputs, _ = installed[0].run(models="net:mixer", base="one", head="two", fail="false", **EXACT)
    assert (code, outputs["exit-code"], outputs["verdict"]) == (0, "1", "regressed")
    code, outputs, _ = installed[0].run(models="net:mixer", base="none", head="two", fail="false", **EXACT)
    assert (code, outputs["verdict"]) == (2, "failed")


def test_a_pull_request_is_compared_with_where_it_left_its_branch(installed):
    runner, *_ = installed
    code, outputs, printed = runner.run({"GITHUB_BASE_REF": "main"}, models="net:mixer", **EXACT)
    assert code == 1, printed
    stored = json.loads((Path(outputs["folder"]) / "job" / "ab.json").read_text())
    assert stored["base"].startswith(Repository(runner.folder).git("rev-parse", "unrelated"))
    code, outputs, printed = runner.run({"GITHUB_BASE_REF": "elsewhere"}, models="net:mixer", **EXACT)
    assert (code, outputs["verdict"]) == (2, "failed")
    assert "fetch-depth: 0" in printed


@pytest.mark.parametrize("name", ["models", "base", "head", "arguments"])
@pytest.mark.parametrize("text", ['x"; touch pwned; "', "$(touch pwned)", "`touch pwned`", "--out=pwned"])
def test_an_input_is_never_run(installed, name, text):
    runner, *_ = installed
    inputs = {"models": "net:mixer", "base": "one", "head": "two", **EXACT}
    code, outputs, printed = runner.run(**{**inputs, name: text})
    assert not (runner.folder / "pwned").exists()
    if name != "arguments" or not text.startswith("--"):
        assert (code, outputs["verdict"]) == (2, "failed"), printed


COMMENT = ROOT / ".github" / "actions" / "mixprof-publish" / "comment.py"


def comment(content, tmp_path):
    """Run as in the publishing job: without packages, environment or our own code."""
    (tmp_path / "ab.json").write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    command = [sys.executable, "-I", "-S", str(COMMENT), "ab.json"]
    return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, encoding="utf-8")


def stored(outcome, code=1):
    return {**outcome.to_json(), "exit_code": code}


def test_a_comment_shows_every_text_and_none_of_it_is_markdown(tmp_path):
    links = "@everyone #1 http://e.example www.e.example a@b.example ![i](http://e) \u202egnirts"
    outcome = every_verdict()
    outcome = Outcome(**{**outcome.__dict__, "cases": [*outcome.cases, Judged(links, "same")]})
    done = comment(stored(outcome), tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("<!-- mixprof-gate -->\n**mixprof gate: regressed**")
    tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(done.stdout)
    inline = [child for token in tokens for child in token.children or []]
    assert {child.content for child in inline if child.type == "html_inline"} == {"<code>", "</code>"}
    assert {child.type for child in inline} <= {"text", "html_inline", "strong_open", "strong_close"}
    assert sum(token.type == "td_open" for token in tokens) == 5 * (8 + 2)
    texts = ["".join(child.content for child in token.children or [] if child.type == "text") for token in tokens]
    assert " ".join(NASTY.split()).replace("\x1b", "\ufffd") in texts
    assert links.replace("\u202e", "\ufffd") in texts
    for mark in ("@", "http:", "www.", "<script"):  # what GitHub would make a mention, a link or a tag of
        assert mark not in done.stdout
    assert texts.index("regressed case") < texts.index("lost") < texts.index("faster") < texts.index("accepted")


def test_a_comment_of_many_cases_is_not_too_long_and_shows_the_worst(tmp_path):
    cases = [Judged(f"{number} {'|' * 500}", "same", reason="|" * 500) for number in range(500)]
    done = comment(stored(Outcome("ab", "a", "b", [*cases, Judged("the slow one", "regressed")])), tmp_path)
    assert len(done.stdout) < 65_536
    assert "the slow one" in done.stdout
    assert re.search(r"^\d+ more are in the artifact\.$", done.stdout, re.MULTILINE)


def changed(**fields):
    outcome = stored(Outcome("ab", "a", "b", [Judged("x", "same")]))
    return {**outcome, "cases": [{**outcome["cases"][0], **fields}]}


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\xff", b"[]", b"{}", b"[" * 100_000, b" " * 10_000_001,
        changed(verdict="<script>"), changed(verdict=["same"]), changed(name=3), changed(change="5"),
        changed(change=float("nan")), changed(change=10**400), changed(reason={}), changed(waived=[]),
        {**changed(), "exit_code": "0"}, {**changed(), "notes": [1]}, {**changed(), "head": None},
        {**changed(), "cases": {"a": 1}}, {**changed(), "grid": "all"},
    ],
    ids=lambda content: str(content)[:40],
)  # fmt: skip
def test_what_no_gate_wrote_is_refused_in_one_line(content, tmp_path):
    done = comment(content, tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("mixprof: got no verdicts that can be shown")


GH = """#!/bin/sh
# Stands for GitHub, which no test can reach: answers with what the filter of each question would leave.
printf '%s\\n' "$*" >> "$CALLS"
case "$*" in
  *--method\\ GET*) printf '%s' "$PULLS" ;;
  *--paginate*) printf '%s' "$COMMENTS" ;;
esac
"""


@pytest.mark.parametrize(
    ("pulls", "comments", "expected"),
    [
        ("", "", None),
        ("7\n", "", "--method POST repos/o/r/issues/7/comments"),
        ("7\n9\n", "41\n42\n", "--method PATCH repos/o/r/issues/comments/41"),
    ],
)
def test_one_comment_is_made_and_then_changed(tmp_path, pulls, comments, expected):
    step = load(COMMENT.with_name("action.yml"))["runs"]["steps"][-1]
    (tmp_path / "gh").write_text(GH)
    (tmp_path / "gh").chmod(0o755)
    branch = 'x"; touch pwned; $(touch pwned)'
    environment = {
        **os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "CALLS": str(tmp_path / "calls"), "PULLS": pulls,
        "COMMENTS": comments, "SHA": "0" * 40, "HEAD": f"somebody:{branch}", "GITHUB_REPOSITORY": "o/r",
        "RUNNER_TEMP": str(tmp_path), "GH_TOKEN": "none",
    }  # fmt: skip
    done = subprocess.run([*BASH, "-c", step["run"]], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "pwned").exists()
    written = [line for line in (tmp_path / "calls").read_text().splitlines() if "POST" in line or "PATCH" in line]
    assert [f"api {expected}" in line for line in written] == ([] if expected is None else [True])
