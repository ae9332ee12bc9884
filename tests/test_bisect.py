"""`mixprof bisect` finds a commit among others, in a repository of a test's own."""

import json

import pytest

from mixprof.cli.bisect import Step, Steps
from mixprof.gate.ab import Spec
from mixprof.reports.gate.outcome import Judged, Policy
from toy_repository import AXES, BROKEN, MANY, Repository, mixprof, net

MIXER = ("--models", "net:mixer", *AXES)
EXACT = ("--exact-only", *MIXER)


@pytest.fixture(scope="module")
def eight(tmp_path_factory):
    """GOOD and eight commits, of which the sixth doubles the products and the fourth cannot be imported."""
    found = Repository(tmp_path_factory.mktemp("eight") / "repository")
    found.commit("good", net=net())
    for number in range(1, 9):
        text = BROKEN if number == 4 else net(products=2 if number >= 6 else 1) + f"# {number}\n"
        found.commit(f"commit-{number}", net=text)
    found.git("tag", "culprit", "commit-6")
    return found


@pytest.mark.slow
def test_the_right_commit_among_eight(eight):
    eight.git("bisect", "start", "HEAD", "good")  # a bisect of the user's own goes on as it was
    (eight.folder / "mine.txt").write_text("not committed\n")
    before = (eight.state(), eight.git("bisect", "log"))
    done = mixprof(eight.folder, "bisect", "good", "commit-8", "--json", *EXACT)
    assert (eight.state(), eight.git("bisect", "log")) == before
    eight.git("bisect", "reset")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["found"]["commit"] == eight.git("rev-parse", "culprit")
    assert found["found"]["subject"] == "toy: commit-6"
    assert found["found"]["judged"]["verdict"] == "regressed"
    assert found["found"]["judged"]["exact"]["macs"] == [14 * 14 * 32 * 32, 2 * 14 * 14 * 32 * 32]
    said = {step["subject"]: step["said"] for step in found["steps"]}
    assert said.pop("toy: commit-4") == "skip"  # halfway: git asks for it first
    assert all(word == ("bad" if subject >= "toy: commit-6" else "good") for subject, word in said.items())
    assert len(found["steps"]) <= 6  # BAD itself, the broken one, and about log2(8)


@pytest.mark.slow
def test_only_skipped_commits_left_is_3_and_names_them(tmp_path):
    found = Repository(tmp_path / "repository")
    found.commit("good", net=net())
    suspects = [found.commit(f"broken-{number}", net=BROKEN + f"# {number}\n") for number in (1, 2)]
    suspects.append(found.commit("bad", net=net(products=2)))
    done = mixprof(found.folder, "bisect", "good", "bad", *EXACT)
    assert done.returncode == 3, done.stderr
    said, *lines = done.stdout.splitlines()
    assert "only skipped commits are left" in said
    assert {line.split()[0] for line in lines} == set(suspects)
    assert "toy: broken-1: missing" in done.stderr


@pytest.mark.long
@pytest.mark.slow
def test_time_convicts_where_no_count_does(tmp_path):
    found = Repository(tmp_path / "repository")
    found.commit("good", net=net())
    culprit = found.commit("bad", net=net(waste=MANY))
    done = mixprof(found.folder, "bisect", "good", "bad", "--max-lost-cpu", "1", *MIXER)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{culprit} toy: bad\n")
    assert "regressed +" in done.stdout
    assert found.git("status", "--porcelain") == ""  # the samples of each step are kept where git does not see them
    assert len(list((found.folder / "runs").glob("bisect-*/*/pairs.jsonl"))) >= 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("commit-8", "good", *EXACT), "no ancestor of BAD"),
        (("good", "good", *EXACT), "one commit"),
        (("good", "commit-2", *EXACT), "do not differ as they should in parameters, MACs or predicted memory (same)"),
        (("good", "nowhere", *EXACT), "got revision 'nowhere'"),
        (("good", "commit-8", *EXACT, "--batches", "1,2"), "2 cases, expected one"),
        (("commit-4", "commit-8", *EXACT), "BASE can run no case"),
        (("good", "commit-4", *EXACT), "BAD cannot be compared with GOOD"),
        (("good", "commit-8", *EXACT, "--retries", "x"), "--retries: got 'x'"),
        (("good", "commit-8", "--exact-only"), "expected"),
        (("good",), "BAD"),
    ],
)
def test_bad_input_is_exit_code_2_and_its_last_line(eight, arguments, said):
    before = eight.state()
    done = mixprof(eight.folder, "bisect", *arguments)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr.splitlines()[-1]
    assert done.stdout == ""
    assert eight.state() == before


@pytest.mark.parametrize(
    ("latency", "host", "followed"),
    [("regressed", "same", None), ("same", "regressed", "host"), ("same", "same", None)],
)
def test_of_a_gpus_two_times_the_one_in_which_bad_is_slower_is_followed(tmp_path, latency, host, followed):
    steps = Steps(Spec([]), Policy(), 1, tmp_path, [])
    two = [Judged("net", latency), Judged("net host", host, time="host")]
    assert steps._of_one_time(two).time == followed
    steps.done.append(Step("c0ffee", "bad", "bad", two[0]))
    later = [Judged("net", "same"), Judged("net host", "regressed", time="host")]
    assert steps._of_one_time(later).verdict == ("regressed" if followed else "same")
    assert steps._of_one_time([Judged("net", "missing")]).verdict == "missing"
