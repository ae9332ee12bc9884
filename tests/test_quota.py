"""Threads are those of the control group's quota: by the kernel's files, and in a real group where one can be made."""

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mixprof.machine import quota
from toy_repository import environment

CPU = Path("/sys/fs/cgroup/cpu")  # of version 1
UNIFIED = Path("/sys/fs/cgroup")  # of version 2


def written(folder, groups, mounts, **files):
    """A folder like /proc/self, and the files of groups by their paths."""
    (folder / "cgroup").write_text("\n".join(groups) + "\n")
    lines = [
        f"31 23 0:28 {top} {folder / place} rw - {kind} {kind} rw,{options}" for top, place, kind, options in mounts
    ]
    (folder / "mountinfo").write_text("22 1 0:1 / / rw - ext4 /dev/vda rw\n" + "\n".join(lines) + "\n")
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    return folder


TWO = [("/", "unified", "cgroup2", "nsdelegate")]
ONE = [("/", "cpu", "cgroup", "cpu,cpuacct"), ("/", "memory", "cgroup", "memory")]


@pytest.mark.parametrize(
    ("groups", "mounts", "files", "cpus"),
    [
        (["0::/job"], TWO, {"unified/job/cpu.max": "200000 100000\n"}, 2.0),
        (["0::/job"], TWO, {"unified/job/cpu.max": "max 100000\n"}, None),
        (["0::/a/b"], TWO, {"unified/a/cpu.max": "150000 100000\n", "unified/a/b/cpu.max": "max 100000\n"}, 1.5),
        (["0::/a/b"], TWO, {"unified/a/cpu.max": "400000 100000\n", "unified/a/b/cpu.max": "50000 25000\n"}, 2.0),
        (["0::/"], TWO, {"unified/cpu.max": "300000 100000\n"}, 3.0),  # a container that sees its own group as the top
        (["0::/docker/1"], [("/docker/1", "unified", "cgroup2", "")], {"unified/cpu.max": "300000 100000\n"}, 3.0),
        (["0::/elsewhere"], [("/docker/1", "unified", "cgroup2", "")], {"unified/cpu.max": "300000 100000\n"}, 3.0),
        (
            ["4:cpu,cpuacct:/job", "3:memory:/other"], ONE,
            {"cpu/job/cpu.cfs_quota_us": "250000\n", "cpu/job/cpu.cfs_period_us": "100000\n"}, 2.5,
        ),
        (["4:cpu,cpuacct:/"], ONE, {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        (
            ["4:cpu,cpuacct:/job", "0::/job"], [*ONE, *TWO],
            {"cpu/job/cpu.cfs_quota_us": "400000\n", "cpu/job/cpu.cfs_period_us": "100000\n",
             "unified/job/cpu.max": "100000 100000\n"}, 1.0,
        ),
        (["0::/job"], TWO, {"unified/job/cpu.max": "what is this\n"}, None),
        (["0::/job"], [], {}, None),
    ],
)  # fmt: skip
def test_the_least_quota_of_the_groups_around_it(tmp_path, groups, mounts, files, cpus):
    assert quota.cpus(written(tmp_path, groups, mounts, **files)) == cpus


def test_elsewhere_than_on_linux_there_is_none(tmp_path):
    assert quota.cpus(tmp_path) is None


@pytest.fixture
def group():
    """Bounds a new group of the kernel's to CPUs; the folder to write a process's id into."""
    place = CPU if CPU.is_dir() else UNIFIED
    folder = place / f"mixprof-test-{os.getpid()}"

    def bound(cpus):
        if place is CPU:
            (folder / "cpu.cfs_quota_us").write_text(str(int(cpus * 100_000)))
        else:
            (folder / "cpu.max").write_text(f"{int(cpus * 100_000)} 100000")
        return folder

    try:
        folder.mkdir()
        bound(1)
        probe = subprocess.run(
            ["sh", "-c", f"echo $$ > {folder}/cgroup.procs && cat /proc/self/cgroup"], capture_output=True
        )
        if folder.name.encode() not in probe.stdout:
            raise OSError(probe.stderr.decode())
    except OSError as error:
        with contextlib.suppress(OSError):
            folder.rmdir()
        pytest.skip(f"no control group can be made here: {error}")
    yield bound
    folder.rmdir()


@pytest.mark.parametrize(("cpus", "threads"), [(1.0, 1), (1.9, 1), (0.5, 1)])
def test_a_process_in_a_real_group_takes_as_many_threads_as_it_has_cpus(group, cpus, threads):
    ask = (
        "import os; from mixprof.machine.process import default_threads as n; print(n(), len(os.sched_getaffinity(0)))"
    )
    command = f"echo $$ > {group(cpus)}/cgroup.procs && exec {sys.executable} -c '{ask}'"
    done = subprocess.run(["sh", "-c", command], env=environment(), capture_output=True, text=True, check=True)
    mine, allowed = map(int, done.stdout.split())
    assert mine == min(threads, allowed)


@pytest.mark.slow
def test_doctor_says_it(group):
    command = f"echo $$ > {group(1.5)}/cgroup.procs && exec {sys.executable} -m mixprof doctor"
    for more in ("", " --json"):
        done = subprocess.run(
            ["sh", "-c", command + more], env=environment(), capture_output=True, text=True, check=True
        )
        if more:
            threads = json.loads(done.stdout)["threads"]
            assert threads == {"default": 1, "allowed": len(os.sched_getaffinity(0)), "quota": 1.5}
        else:
            assert "threads      1 by default" in done.stdout
            assert "1.5 of the control group's quota" in done.stdout
