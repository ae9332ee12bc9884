"""`mixprof ab` in a user's repository: real commits, real work trees, real processes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import pytest

from toy_repository import AXES, BROKEN, MANY, Repository, environment, mixprof, net, start

EXACT = ("--exact-only", "--json", "--models", "net:mixer", *AXES)


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    found = Repository(tmp_path_factory.mktemp("toy") / "repository")
    found.commit("base", net=net(lighter=MANY))
    found.commit("unrelated", net=net(lighter=MANY) + "# a comment\n", other="x = 1\n")
    found.commit("slower", net=net(waste=MANY))
    found.commit("doubled", net=net(waste=MANY, products=2))
    found.commit("broken", net=BROKEN)
    return found


@pytest.fixture
def clone(repository, tmp_path):
    """A copy that a test may change."""
    shutil.copytree(repository.folder, tmp_path / "copy")
    found = Repository(tmp_path / "copy")
    found.git("checkout", "--quiet", "-B", "main", "unrelated")
    return found


def verdicts(done):
    return {judged["case"]["model"]: judged["verdict"] for judged in json.loads(done.stdout)["cases"]}


@pytest.mark.slow
def test_real_work_in_a_commit_is_found_in_time_alone(repository):
    """One job shows both: the commit slows one mixer down and speeds the other one up."""
    before = repository.state()
    done = mixprof(
        repository.folder, "ab", "unrelated", "slower", "--models", "net:mixer,net:lighter", "--json",
        "--max-lost-cpu", "1", "--budget", "300", *AXES,
    )  # fmt: skip
    found = verdicts(done)
    assert found["net:mixer"] == "regressed", done.stdout
    assert found["net:lighter"] == "improved", done.stdout
    # Where the baseline differs from itself, which noise may bring about, the job says so instead.
    flagged = (json.loads(done.stdout)["canary"] or {}).get("verdict") in ("regressed", "improved")
    assert done.returncode == (4 if flagged else 1)
    mixer = next(each for each in json.loads(done.stdout)["cases"] if each["case"]["model"] == "net:mixer")
    assert mixer["change"] > 1.0
    assert mixer["exact"] == {}  # no count sees it
    assert repository.state() == before


@pytest.mark.parametrize(
    ("base", "head", "verdict", "code"),
    [
        ("base", "unrelated", "same", 0),
        ("slower", "doubled", "regressed", 1),
        ("doubled", "slower", "improved", 0),
        ("base", "broken", "missing", 1),
    ],
)
def test_exact_metrics_need_no_time(repository, base, head, verdict, code):
    done = mixprof(repository.folder, "ab", base, head, *EXACT)
    assert verdicts(done) == {"net:mixer": verdict}
    assert done.returncode == code
    (judged,) = json.loads(done.stdout)["cases"]
    if "doubled" in (base, head):
        macs = {"slower": 14 * 14 * 32 * 32, "doubled": 2 * 14 * 14 * 32 * 32}
        assert judged["exact"]["macs"] == [macs[base], macs[head]]
    if head == "broken":
        assert "a_module_that_nobody_has" in judged["reason"]


def test_hot_and_cold_are_two_cases(repository):
    done = mixprof(repository.folder, "ab", "slower", "doubled", *EXACT, "--modes", "hot,cold")
    hot, cold = json.loads(done.stdout)["cases"]
    assert (hot["case"]["mode"], cold["case"]["mode"]) == ("hot", "cold")
    assert cold["name"] == f"{hot['name']} cold"
    assert {hot["verdict"], cold["verdict"]} == {"regressed"}


def test_a_forward_that_cannot_be_counted_any_more_is_missing(clone):
    clone.commit("raises", net=net().replace("y = self.linear(x)", "raise IndexError('beyond the edge')"))
    done = mixprof(clone.folder, "ab", "base", "raises", *EXACT)
    assert (done.returncode, verdicts(done)) == (1, {"net:mixer": "missing"})
    assert "beyond the edge" in done.stdout
    done = mixprof(clone.folder, "ab", "raises", "base", *EXACT)
    assert (done.returncode, verdicts(done)) == (4, {"net:mixer": "incomparable"})


def test_a_dirty_work_tree_is_said_and_what_is_compared(clone):
    (clone.folder / "net.py").write_text(net(products=3))
    done = mixprof(clone.folder, "ab", "unrelated", *EXACT)
    assert (done.returncode, verdicts(done)) == (1, {"net:mixer": "regressed"})
    assert "'.' is compared as it is, with uncommitted changes in 1 file (net.py)" in done.stderr
    done = mixprof(clone.folder, "ab", "base", "unrelated", *EXACT)
    assert (done.returncode, verdicts(done)) == (0, {"net:mixer": "same"})
    assert "uncommitted changes in 1 file (net.py) are not compared" in done.stderr


def test_merge_base_is_where_the_branch_left_main(clone):
    clone.git("checkout", "--quiet", "-b", "branch", "slower")
    clone.commit("heavier", net=net(waste=MANY, products=3))
    clone.git("branch", "--quiet", "--force", "main", "slower")
    done = mixprof(clone.folder, "ab", "merge-base", *EXACT)
    assert verdicts(done) == {"net:mixer": "regressed"}
    (judged,) = json.loads(done.stdout)["cases"]
    assert judged["exact"]["macs"] == [14 * 14 * 32 * 32, 3 * 14 * 14 * 32 * 32]  # not those of main's later commits


def test_a_folder_of_a_repository_is_compared_with_itself_in_a_revision(clone):
    (clone.folder / "below").mkdir()
    (clone.folder / "below" / "deep.py").write_text(net())
    clone.commit("below")
    (clone.folder / "below" / "deep.py").write_text(net(products=2))
    clone.commit("heavier")
    axes = ("--exact-only", "--json", "--models", "deep:mixer", *AXES)
    done = mixprof(clone.folder / "below", "ab", "below", "heavier", *axes)
    assert (done.returncode, verdicts(done)) == (1, {"deep:mixer": "regressed"})
    done = mixprof(clone.folder / "below", "ab", "base", "heavier", *axes)  # BASE has no such folder
    assert done.returncode == 2
    assert "BASE can run no case" in done.stderr


def with_products_of(module):
    """The mixer, the number of its products taken from another module."""
    text = net().replace("import torch\n", f"import torch\nfrom {module} import PRODUCTS\n", 1)
    return text.replace("waste=0, products=1)\n\n\ndef lighter", "products=PRODUCTS)\n\n\ndef lighter")


def one_line(done, code, *said):
    assert done.returncode == code, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stdout == ""
    assert [each for each in said if each not in done.stderr] == [], done.stderr


@pytest.mark.parametrize(
    ("sides", "said"),
    [
        (("no-such-revision",), "got revision 'no-such-revision', which does not exist here"),
        (("base", "deadbeef"), "got revision 'deadbeef', which does not exist here"),
        (("base", "base"), "expected a difference"),
        (("merge-base", "main"), "got 'merge-base' and 'main', which are one commit"),
        (("python:/nowhere", "python:/nowhere/else"), "expected an environment's folder or its interpreter"),
        (("python:/bin/true", "."), "which is no Python"),
        (("base", ".", "--budget", "0"), "--budget"),
        (("base", ".", "--budget", "nan"), "--budget"),
        (("base", ".", "--prepare", "echo no such tool; exit 3"), "--prepare ended with exit code 3 for base"),
        ((f"python:{sys.prefix}", ".", "--prepare", "true"), "got --prepare and no revision"),
    ],
)
def test_bad_input_is_one_line(repository, sides, said):
    one_line(mixprof(repository.folder, "ab", *sides, *EXACT), 2, said)
    assert len(repository.work_trees()) == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--exact-only", *AXES), "got no model, expected --models"),
        ((*EXACT, "--models", "net:mixer,net:mixr"), "model 'net:mixr' cannot be imported"),
        ((*EXACT, "--lowerings", "eagr"), "got lowering 'eagr'"),
        ((*EXACT, "--out", "."), "got --out '.', which exists"),
        ((*EXACT, "--launches", "8"), "unrecognized arguments: --launches 8"),  # of a sweep: here rounds are looked at
    ],
)
def test_what_a_gate_cannot_use_is_one_line_and_leaves_nothing(repository, options, said):
    before = repository.state()
    one_line(mixprof(repository.folder, "ab", "base", "unrelated", *options), 2, said)
    assert repository.state() == before


def test_counts_alone_leave_a_folder_only_where_one_is_asked_for(repository, tmp_path):
    before = sorted(repository.folder.rglob("*.json"))  # of timed jobs of other tests
    assert mixprof(repository.folder, "ab", "base", "unrelated", *EXACT).returncode == 0
    assert sorted(repository.folder.rglob("*.json")) == before
    assert mixprof(repository.folder, "ab", "base", "unrelated", *EXACT, "--out", tmp_path / "job").returncode == 0
    assert [path.name for path in (tmp_path / "job").iterdir()] == ["ab.json"]


@pytest.mark.parametrize("more", [(), ("--no-single-branch",)])
def test_a_shallow_clone_is_one_line_with_the_fix(clone, tmp_path, more):
    clone.git("branch", "branch", "doubled")
    source = ("--branch", "branch", f"file://{clone.folder}", tmp_path / "shallow")
    subprocess.run(["git", "clone", "--quiet", "--depth", "1", *more, *source], env=environment(), check=True)
    done = mixprof(tmp_path / "shallow", "ab", "merge-base", *EXACT)
    one_line(done, 2, "shallow clone", "git fetch --unshallow", "fetch-depth: 0")
    done = mixprof(tmp_path / "shallow", "ab", "HEAD~1", *EXACT)
    one_line(done, 2, "got revision 'HEAD~1'", "git fetch --unshallow")


def test_a_repository_of_another_user_is_one_line_with_the_fix(clone):
    """Git compares owners; this variable, which its own tests use, lets it see another one without a chown."""
    done = mixprof(clone.folder, "ab", "base", *EXACT, GIT_TEST_ASSUME_DIFFERENT_OWNER="1")
    one_line(done, 2, f"git config --global --add safe.directory {clone.folder}")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only the superuser may give files away")
def test_a_repository_of_another_uid_is_one_line_with_the_fix(clone):
    for path in (clone.folder, clone.folder / ".git"):
        os.chown(path, 12345, 12345)
    done = mixprof(clone.folder, "ab", "base", *EXACT)
    one_line(done, 2, f"git config --global --add safe.directory {clone.folder}")


def test_outside_a_repository_it_says_so(tmp_path):
    one_line(mixprof(tmp_path, "ab", "HEAD~1", *EXACT, GIT_CEILING_DIRECTORIES=str(tmp_path.parent)), 2, "repository")


@pytest.mark.slow
def test_prepare_runs_in_each_work_tree_in_an_environment_of_its_own(clone):
    generate = "import os, pathlib, sys; assert sys.prefix == os.environ['VIRTUAL_ENV']; {}"
    write = "pathlib.Path('generated.py').write_text(pathlib.Path('width.txt').read_text())"
    (clone.folder / "prepare.py").write_text(generate.format(write))
    text = with_products_of("generated")
    for products in (1, 2):
        (clone.folder / "width.txt").write_text(f"PRODUCTS = {products}\n")
        clone.commit(f"generated-{products}", net=text)
    sides = ("generated-1", "generated-2")
    done = mixprof(clone.folder, "ab", *sides, "--prepare", "python prepare.py", *EXACT)
    assert (done.returncode, verdicts(done)) == (1, {"net:mixer": "regressed"}), done.stderr
    assert not (clone.folder / "generated.py").exists()
    done = mixprof(clone.folder, "ab", *sides, *EXACT)  # without it neither can be imported
    assert done.returncode == 2
    assert "generated" in done.stderr


@pytest.fixture
def environments(tmp_path):
    """Two environments that differ in one package, which says how many products the mixer has."""
    found = []
    for products in (1, 2):
        folder = tmp_path / f"environment-{products}"
        subprocess.run([sys.executable, "-m", "venv", "--system-site-packages", folder], check=True)
        packages = folder / Path(sysconfig.get_path("purelib")).relative_to(sys.prefix)
        (packages / "outer.pth").write_text(sysconfig.get_path("purelib") + "\n")  # torch is installed there
        (packages / "knob.py").write_text(f"PRODUCTS = {products}\n")
        found.append(folder)
    return found


def test_two_environments_are_compared(environments, tmp_path):
    (tmp_path / "net.py").write_text(with_products_of("knob"))
    done = mixprof(tmp_path, "ab", *(f"python:{each}" for each in environments), *EXACT)
    assert (done.returncode, verdicts(done)) == (1, {"net:mixer": "regressed"}), done.stderr
    done = mixprof(tmp_path, "ab", *(f"python:{each}/bin/python" for each in environments[::-1]), *EXACT)
    assert (done.returncode, verdicts(done)) == (0, {"net:mixer": "improved"}), done.stderr


def test_an_environment_without_torch_is_one_line(tmp_path):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    done = mixprof(tmp_path, "ab", f"python:{tmp_path / 'bare'}", ".", *EXACT)
    one_line(done, 2, "which lacks torch, numpy")


def wait_for_work_trees(repository, process, number, timeout=120):
    deadline = time.monotonic() + timeout
    while len(repository.work_trees()) < number and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_work_trees_are_gone_after_an_interrupt(clone, tmp_path, number, code):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    process = start(clone.folder, "ab", "base", "slower", *EXACT, TMPDIR=str(temporary))
    wait_for_work_trees(clone, process, 3)
    process.send_signal(number)
    process.communicate(timeout=120)
    assert process.returncode == code
    assert clone.work_trees() == [clone.folder]
    assert list(temporary.iterdir()) == []


def test_the_next_gate_removes_the_work_trees_of_one_that_was_killed(clone, tmp_path):
    """`kill -9` leaves them, in git's list and on the disk: nobody is there to remove them until the next `ab`."""
    process = start(clone.folder, "ab", "base", "slower", *EXACT)
    wait_for_work_trees(clone, process, 3)
    process.kill()
    process.communicate(timeout=120)
    left = clone.work_trees()[1:]
    assert len(left) == 2
    mine = tmp_path / "mine" / "tree"  # the user's own stays, whatever its name
    clone.git("worktree", "add", "--quiet", "--detach", mine, "base")
    done = mixprof(clone.folder, "ab", "base", "unrelated", *EXACT)
    assert done.returncode == 0, done.stderr
    assert clone.work_trees() == [clone.folder, mine]
    assert not any(tree.exists() for tree in left)
    shutil.rmtree(left[0].parents[1], ignore_errors=True)


@pytest.mark.slow
def test_of_two_gates_at_once_the_second_waits(repository, tmp_path):
    timed = ("--models", "net:steady", "--max-lost-cpu", "1", "--budget", "5", *AXES)
    variables = {"TMPDIR": str(tmp_path)}  # where the lock is: no gate of somebody else's on this machine is met
    first = start(repository.folder, "ab", "base", "unrelated", *timed, **variables)
    wait_for_work_trees(repository, first, 3)
    second = mixprof(repository.folder, "ab", "base", "unrelated", *timed, **variables)
    out, err = first.communicate(timeout=300)
    assert "waiting for it" in second.stderr
    assert "waiting for it" not in err
    for code, said in ((first.returncode, out), (second.returncode, second.stdout)):
        # Five seconds decide little, and never against HEAD.
        assert code in (0, 3, 4), (said, err, second.stderr)
        assert "net:steady" in said
    assert len(repository.work_trees()) == 1
