"""Where a container or a batch job runs: no home, no name in passwd, folders that cannot be written or executed."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from toy_repository import ROOT, Repository, net

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        sys.platform != "linux" or os.geteuid() != 0, reason="only the superuser of Linux may become others and mount"
    ),
]
CASE = ("--channels", "32", "--resolutions", "14", "--devices", "cpu")
QUICK = ("--quick", "--threads", "1", "--max-lost-cpu", "1")
NOBODY = 54321  # no name in passwd
READER = "+dac_read_search"  # may read what this test's own interpreter lies in, and write nothing
PLACES = {
    "nobody": (
        f"chown {NOBODY} . && exec setpriv --reuid={NOBODY} --regid={NOBODY} --clear-groups"
        f' --inh-caps={READER} --ambient-caps={READER} "$@"'
    ),
    "homeless": 'HOME=/proc/nonexistent exec "$@"',
    "readonly": 'mount --bind . . && mount -o remount,bind,ro . && cd "$PWD" && exec "$@"',
    "noexec": 'mount -t tmpfs -o noexec none "$TMPDIR" && exec "$@"',
}


class Place:
    """Runs mixprof where not all is as it should be, in mounts of its own."""

    def __init__(self, name, folder):
        self.name, self.folder, self.out = name, folder / "work", folder / "out"
        self.temporary = folder / "temporary"
        for path in (self.folder, self.out, self.temporary):
            path.mkdir()
            path.chmod(0o777)
        for path in (folder, *folder.parents):
            path.chmod(path.stat().st_mode | 0o011)
        self.probe()

    def run(self, *command, **more):
        script = f"cd {shlex.quote(str(self.folder))} && {PLACES[self.name]}"
        variables = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "src"), "TMPDIR": str(self.temporary), **more}
        return subprocess.run(
            ["unshare", "--mount", "sh", "-c", script, "sh", *map(str, command)],
            env=variables, capture_output=True, text=True, timeout=600,
        )  # fmt: skip

    def mixprof(self, *arguments, **more):
        return self.run(sys.executable, "-m", "mixprof", *arguments, **more)

    def probe(self):
        """Skip where this sandbox does not let it be made."""
        done = self.run(sys.executable, "-c", "")
        if shutil.which("unshare") is None or done.returncode:
            pytest.skip(f"no such place can be made here: {done.stderr.strip()}")


@pytest.fixture(params=PLACES)
def place(request, tmp_path):
    return Place(request.param, tmp_path)


def works(done):
    """It did, and nobody sees what Python would say."""
    assert done.returncode == 0, (done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    return done


def one_line(done, code, *said):
    assert (done.returncode, done.stderr.count("\n")) == (code, 1), (done.stdout, done.stderr)
    assert [each for each in said if each not in done.stderr] == [], done.stderr


def test_a_place_is_what_it_says(place):
    """Else all below would show nothing."""
    probes = {
        "nobody": "import os, pwd; assert os.getuid() == 54321; pwd.getpwuid(54321)",
        "homeless": "import os; open(os.path.expanduser('~/a'), 'w')",
        "readonly": "open('a', 'w')",
        "noexec": "import os, shutil, subprocess as s; d = os.environ['TMPDIR']; s.run([shutil.copy('/bin/true', d)])",
    }
    errors = {"nobody": "KeyError", "homeless": "No such file", "readonly": "Read-only", "noexec": "Permission denied"}
    done = place.run(sys.executable, "-c", probes[place.name])
    assert errors[place.name] in done.stderr


def test_what_only_looks_works(place):
    assert "threads" in works(place.mixprof("doctor")).stdout
    assert (
        "708,736 MACs" in works(place.mixprof("count", "depthwise_conv", "--channels", 32, "--resolution", 14)).stdout
    )
    works(place.mixprof("plan", "--models", "depthwise_conv", *CASE))


def test_measuring_and_reporting_work(place):
    works(place.mixprof("time", "depthwise_conv", *CASE, *QUICK))
    works(
        place.mixprof("sweep", "--models", "depthwise_conv,window_attention", *CASE, *QUICK, "--out", place.out / "run")
    )
    works(place.mixprof("report", place.out / "run", "--out", place.out / "report"))
    assert (place.out / "report" / "summary.md").exists()


def test_two_settings_are_compared(place):
    sides = ("--base-set", "layout=contiguous", "--head-set", "layout=channels_last")
    done = place.mixprof("ab", *sides, "--models", "depthwise_conv", *CASE, "--exact-only")
    assert "1 same" in works(done).stdout
    if place.name == "readonly":  # without --exact-only it keeps its samples
        done = place.mixprof("ab", *sides, "--models", "depthwise_conv", *CASE, "--budget", 5)
        one_line(done, 74, "runs", "Read-only file system", "--out")


def test_a_sweep_that_cannot_write_here_is_one_line(tmp_path):
    place = Place("readonly", tmp_path)
    one_line(place.mixprof("sweep", "--models", "depthwise_conv", *CASE, *QUICK), 74, "Read-only file system", "--out")


def test_what_cannot_be_loaded_is_said_with_what_to_do(tmp_path):
    place = Place("noexec", tmp_path)
    done = place.mixprof("time", "depthwise_conv", *CASE, *QUICK, "--lowerings", "compile")
    assert "unavailable" in done.stdout
    assert "mounted noexec" in done.stdout
    assert "TMPDIR" in done.stdout
    works(place.mixprof("time", "depthwise_conv", *CASE, *QUICK, "--lowerings", "compile", TMPDIR=str(place.out)))


def test_revisions_are_compared_in_a_repository_that_cannot_be_written(tmp_path):
    """Git cannot note its work trees there: one line, whatever git says."""
    place = Place("readonly", tmp_path)
    repository = Repository(place.folder)
    repository.commit("one", net=net())
    repository.commit("two", net=net(products=2))
    done = place.mixprof("ab", "one", "two", "--models", "net:mixer", *CASE, "--exact-only")
    one_line(done, 2, "git worktree add", "Read-only file system")


def test_revisions_are_compared_by_a_user_without_a_name(tmp_path):
    place = Place("nobody", tmp_path)
    os.chown(place.folder, 0, 0)  # for git, until all is given away
    repository = Repository(place.folder)
    repository.commit("one", net=net())
    repository.commit("two", net=net(products=2))
    subprocess.run(["chown", "-R", str(NOBODY), place.folder], check=True)
    done = place.mixprof("ab", "one", "two", "--models", "net:mixer", *CASE, "--exact-only")
    assert done.returncode == 1, (done.stdout, done.stderr)
    assert "regressed" in done.stdout


def test_a_calibration_is_kept_without_a_home(tmp_path):
    place = Place("nobody", tmp_path)
    kept = place.run(sys.executable, "-c", "from mixprof.data.cache import folder; print(folder())")
    assert Path(kept.stdout.strip()) == place.temporary / f"mixprof-{NOBODY}"
