"""Faults provoked for real: processes killed, disks full, clocks set back. The finished cases survive each."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mixprof.data import run_folder

pytestmark = pytest.mark.slow  # real processes, seconds each

TESTS = Path(__file__).parent
COMMON = ("--resolutions", "3", "--channels", "32", "--quick", "--threads", "1", "--max-lost-cpu", "1")
ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="needs the right to mount and to make control groups")


def start(*arguments, environment=None, **settings):
    command = [sys.executable, "-m", "mixprof", *map(str, arguments)]
    env = {**os.environ, "PYTHONPATH": str(TESTS.parent / "src"), **(environment or {})}
    return subprocess.Popen(command, cwd=TESTS, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            **settings)  # fmt: skip


def sweep(run, *models, more=(), **settings):
    process = start("sweep", "--models", ",".join(models), *COMMON, "--out", run, *more, **settings)
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def wait_for(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition never came true"
        time.sleep(0.02)


def launches(run):
    path = run / "launches.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def workers(run):
    """Processes that belong to a run: its servers and their jobs know its scratch folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if str(run / "scratch").encode() in (entry / "environ").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def statuses(run):
    return {record.case.model: record.status for record in run_folder.read_records(run)}


@pytest.mark.slow
def test_a_job_that_closes_its_pipes_leaves_children_or_never_settles(tmp_path):
    run = tmp_path / "run"
    shared = set(os.listdir("/dev/shm")) if Path("/dev/shm").is_dir() else set()
    names = ("toys:closes_every_descriptor", "toys:leaves_children", "toys:slower_and_slower", "toys:good")
    code, _, err = sweep(run, *names)
    assert code == 0, err
    found = statuses(run)
    assert found["toys:good"] == "ok"
    assert found["toys:closes_every_descriptor"] in ("ok", "crashed")
    assert found["toys:slower_and_slower"] == "unstable"
    assert len(found) == 5
    wait_for(lambda: workers(run) == [], 5)
    assert (set(os.listdir("/dev/shm")) if Path("/dev/shm").is_dir() else set()) == shared


def test_killing_the_parent_ends_its_workers_within_a_second(tmp_path):
    run = tmp_path / "run"
    process = start("sweep", "--models", "toys:hangs", *COMMON, "--out", run)
    wait_for(lambda: launches(run) >= 1)  # the anchor is done, or the case that hangs has begun
    wait_for(lambda: len(workers(run)) >= 2)
    process.kill()
    process.communicate()
    time.sleep(1.0)
    assert workers(run) == []


@pytest.mark.slow
def test_a_run_killed_at_any_moment_goes_on_without_repeating_or_losing_a_case(tmp_path):
    run = tmp_path / "run"
    axes = ("--batches", "1,2,3,4,5,6,7,8")
    generator = random.Random(7)
    for _ in range(4):
        resume = ("--resume",) if (run / "manifest.json").exists() else ()
        process = start("sweep", "--models", "toys:good", *COMMON, *axes, "--out", run, *resume)
        before = launches(run)
        wait_for(lambda before=before, process=process: launches(run) > before or process.poll() is not None)
        time.sleep(generator.random())
        process.kill()
        process.communicate()
    code, _, err = sweep(run, "toys:good", more=(*axes, "--resume"))
    assert code == 0, err
    cases = [case for case, _ in run_folder.read_launches(run)]
    assert len(cases) == len(set(cases)) == 9
    assert {record.case for record in run_folder.read_records(run)} == set(cases)


@pytest.mark.slow
def test_a_second_sweep_on_the_folder_is_refused_until_the_first_is_dead(tmp_path):
    run = tmp_path / "run"
    first = start("sweep", "--models", "toys:hangs", *COMMON, "--out", run)
    wait_for(lambda: launches(run) >= 1)
    code, _, err = sweep(run, "toys:hangs", more=("--resume",))
    assert code == 2
    assert "another sweep is writing" in err
    first.kill()
    first.communicate()
    second = start("sweep", "--models", "toys:hangs", *COMMON, "--out", run, "--resume", "--timeout", "2")
    _, err = second.communicate(timeout=120)
    assert second.returncode == 0, err
    assert statuses(run)["toys:hangs"] == "timeout"


@pytest.mark.parametrize(("signals", "code"), [((signal.SIGINT, signal.SIGINT), 130), ((signal.SIGTERM,), 143)])
def test_a_second_interrupt_or_sigterm_stops_now(tmp_path, signals, code):
    run = tmp_path / "run"
    process = start("sweep", "--models", "toys:hangs", *COMMON, "--out", run)
    wait_for(lambda: launches(run) >= 1)
    wait_for(lambda: len(workers(run)) >= 2)
    for number in signals:
        process.send_signal(number)
        time.sleep(0.5)
    process.communicate(timeout=10)
    assert process.returncode == code
    wait_for(lambda: workers(run) == [], 2)
    assert statuses(run) == {"anchor_v1": "ok"}


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 300 KiB, mounted for this test."""
    mounted = tmp_path / "small"
    mounted.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", mounted], capture_output=True)
    if done.returncode:
        pytest.skip("this machine does not let us mount a file system")
    yield mounted
    subprocess.run(["umount", "-l", mounted], check=True)


@ROOT_ONLY
def test_a_full_disk_is_74_and_keeps_what_is_finished(small_disk):
    run = small_disk / "run"
    code, _, err = sweep(run, "toys:good", more=("--batches", ",".join(map(str, range(1, 40)))))
    assert code == 74, err
    assert err.strip().splitlines()[-1].startswith("mixprof: ")
    assert "No space left" in err
    records = run_folder.read_records(run)
    assert {record.case for record in records} <= {case for case, _ in run_folder.read_launches(run)}
    assert {record.status for record in records} <= {"ok"}


@ROOT_ONLY
def test_a_read_only_folder_is_74(small_disk):
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    code, out, err = sweep(small_disk / "run", "toys:good")
    assert (code, out) == (74, "")
    assert "Read-only" in err


@pytest.fixture
def memory_group():
    """A control group of 900 MiB, version 1 or 2."""
    first, second = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")
    parent, bound = (first, "memory.limit_in_bytes") if first.is_dir() else (second, "memory.max")
    group = parent / f"mixprof-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / bound).write_text(str(900 << 20))
    except OSError:
        if group.is_dir():
            group.rmdir()
        pytest.skip("this machine does not let us make a memory control group")
    yield group
    wait_for(lambda: not (group / "cgroup.procs").read_text().strip(), 20)
    group.rmdir()


@ROOT_ONLY
def test_the_kernels_out_of_memory_killer_is_oom_and_the_sweep_goes_on(tmp_path, memory_group):
    def enter():
        (memory_group / "cgroup.procs").write_text(str(os.getpid()))

    code, _, err = sweep(tmp_path / "run", "toys:fills_memory", "toys:good", preexec_fn=enter)
    assert code == 0, err
    assert statuses(tmp_path / "run") == {"anchor_v1": "ok", "toys:fills_memory": "oom", "toys:good": "ok"}


@pytest.mark.slow
def test_max_memory_bounds_what_a_case_may_use(tmp_path):
    run = tmp_path / "run"
    code, _, err = sweep(run, "toys:good", "toys:fills_memory", more=("--max-memory", "200MiB"))
    assert code == 0, err
    assert statuses(run) == {"anchor_v1": "ok", "toys:good": "ok", "toys:fills_memory": "oom"}
    run = tmp_path / "large"
    code, _, err = sweep(run, "toys:good", more=("--max-memory", "64MiB", "--batches", "1,1000000"))
    assert code == 0, err
    reasons = {record.case.batch: record.reason or "" for record in run_folder.read_records(run)}
    assert reasons[1] == ""
    assert "not started: predicted to need" in reasons[1000000]
    assert "--max-memory" in reasons[1000000]


KILLER = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
/* kill -9, right after the $KILL_AFTER-th change to what is in $KILL_IN, its scratch folder aside. */
static void after(const char *path) {
    static int changes;
    const char *folder = getenv("KILL_IN");
    if (folder && path && !strncmp(path, folder, strlen(folder)) && !strstr(path, "/scratch"))
        if (++changes == atoi(getenv("KILL_AFTER"))) kill(getpid(), SIGKILL);
}
static void after_descriptor(int descriptor) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length > 0) { path[length] = 0; after(path); }
}
#define REAL(name) __typeof__(name) *real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)
ssize_t write(int d, const void *p, size_t n) { REAL(write); ssize_t r = real(d, p, n); after_descriptor(d); return r; }
int fsync(int d) { REAL(fsync); int r = real(d); after_descriptor(d); return r; }
int rename(const char *a, const char *b) { REAL(rename); int r = real(a, b); after(b); return r; }
int mkdir(const char *a, mode_t m) { REAL(mkdir); int r = real(a, m); if (!r) after(a); return r; }
"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_a_sweep_killed_after_each_single_write_goes_on_every_time(tmp_path):
    """Restarts end one, three or four writes, syncs, renames or new folders further than the one before."""
    (tmp_path / "killer.c").write_text(KILLER)
    library, run, ran = tmp_path / "killer.so", tmp_path / "run", tmp_path / "ran"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, tmp_path / "killer.c", "-ldl"], check=True)
    environment = {"LD_PRELOAD": str(library), "KILL_IN": str(run), "MIXPROF_LAUNCHES": str(ran)}
    codes: list[int] = []
    while not codes or codes[-1] == -signal.SIGKILL:
        resume = ("--resume",) if codes else ()
        environment["KILL_AFTER"] = str((1, 3, 4)[len(codes) % 3])
        code, _, err = sweep(run, "toys:counted", more=("--batches", "2", *resume), environment=environment)
        codes.append(code)
        assert code in (0, -signal.SIGKILL), err
        assert len(codes) < 30
    # The folder; its manifest written, synced, renamed, synced; two launches and two records, each written and synced.
    assert codes.count(-signal.SIGKILL) >= 5
    cases = [case for case, _ in run_folder.read_launches(run)]
    assert len(cases) == len(set(cases)) == 2
    assert {record.case for record in run_folder.read_records(run)} == set(cases)
    assert ran.read_text() == "2\n"  # no kill here falls into a launch: it was run once


CLOCK = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <sys/time.h>
#include <time.h>
/* The calendar runs backwards, one hour at each look; the monotonic clock is left alone. */
static long looks;
static long back(void) { return 3600 * __atomic_add_fetch(&looks, 1, __ATOMIC_SEQ_CST); }
int clock_gettime(clockid_t id, struct timespec *t) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(id, t);
    if (id == CLOCK_REALTIME) t->tv_sec -= back();
    return result;
}
time_t time(time_t *t) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (t) *t = now.tv_sec;
    return now.tv_sec;
}
int gettimeofday(struct timeval *t, void *zone) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    t->tv_sec = now.tv_sec;
    t->tv_usec = now.tv_nsec / 1000;
    return 0;
}
"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_a_calendar_that_is_set_back_harms_nothing(tmp_path):
    (tmp_path / "clock.c").write_text(CLOCK)
    library = tmp_path / "clock.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, tmp_path / "clock.c", "-ldl"], check=True)
    probe = "import time; print(time.time() > time.time())"
    back = {"LD_PRELOAD": str(library)}
    assert (
        subprocess.run([sys.executable, "-c", probe], env={**os.environ, **back}, capture_output=True).stdout
        == b"True\n"
    )
    run = tmp_path / "run"
    code, _, err = sweep(run, "toys:slow", environment=back)
    assert code == 0, err
    (record,) = [record for record in run_folder.read_records(run) if record.case.model == "toys:slow"]
    assert record.status == "ok"
    assert record.launches[0].host_ms is not None
    assert all(50.0 <= sample < 5000.0 for sample in record.launches[0].host_ms.samples)
