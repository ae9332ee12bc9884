"""Runs at URLs: parts that no writer changes, whatever is killed when; report, check and merge read them."""

import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import fsspec
import pytest

from mixprof.cli import main
from mixprof.data import claims, run_folder
from mixprof.data.errors import UsageError
from mixprof.data.remote import RemoteRun, local_copy
from mixprof.run.remote import Sending, working_copy
from synthetic_runs import case, ok, write_run
from test_cli import QUICK, TESTS, mixprof


@pytest.fixture
def url(tmp_path):
    """A URL of a store in memory, of this test alone."""
    return f"memory://bucket/{tmp_path.name}/run"


def content(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def test_a_run_comes_back_as_it_was_and_only_what_is_new_is_sent(tmp_path, url):
    run = write_run(tmp_path / "run", [ok(case(), [1.0])])
    remote = RemoteRun(url)
    for batch in (2, 3):
        remote.push(run)
        run_folder.append_record(run, ok(case(batch=batch), [2.0]))
    remote.push(run)
    remote.push(run)
    files = fsspec.filesystem("memory")
    names = [path.rpartition("/")[2] for path in files.find(f"/bucket/{tmp_path.name}/run")]
    assert len(names) == 4  # the manifest, and three parts
    assert content(local_copy(url, tmp_path / "copy")) == content(run)
    again = RemoteRun(url)  # goes on from a copy, as a sweep that is resumed
    (tmp_path / "resumed").mkdir()
    assert again.pull(tmp_path / "resumed") == []
    run_folder.append_record(tmp_path / "resumed", ok(case(batch=4), [2.0]))
    again.push(tmp_path / "resumed")
    assert len(run_folder.read_records(local_copy(url, tmp_path / "copied"))) == 4


def test_half_a_line_waits_for_its_end(tmp_path, url):
    run, remote = write_run(tmp_path / "run", [ok(case(), [1.0])]), RemoteRun(url)
    whole = (run / "records.jsonl").read_bytes()
    (run / "records.jsonl").write_bytes(whole + whole[:9])
    remote.push(run)
    (run / "records.jsonl").write_bytes(whole + whole)
    remote.push(run)
    assert (local_copy(url, tmp_path / "copy") / "records.jsonl").read_bytes() == whole + whole


def test_a_torn_part_is_set_aside_and_said(tmp_path):
    store = tmp_path / "store"
    run, remote = write_run(tmp_path / "run", [ok(case(), [1.0])]), RemoteRun(f"file://{store}")
    remote.push(run)
    run_folder.append_record(run, ok(case(batch=2), [1.0]))
    remote.push(run)
    torn = max(store.glob("records.jsonl.parts/*"))
    torn.write_bytes(torn.read_bytes()[:40])  # as a write that was killed leaves it where writes are not atomic
    (tmp_path / "copy").mkdir()
    (message,) = RemoteRun(f"file://{store}").pull(tmp_path / "copy")
    assert "torn part of 40 bytes was moved" in message
    assert [record.case.batch for record in run_folder.read_records(tmp_path / "copy")] == [1]
    (tmp_path / "again").mkdir()
    assert RemoteRun(f"file://{store}").pull(tmp_path / "again") == []


def test_writers_never_touch_a_part_of_one_another(tmp_path, url):
    runs = [write_run(tmp_path / name, [ok(case(batch=batch), [1.0])]) for name, batch in (("a", 1), ("b", 2))]
    for writer, run in [(RemoteRun(url), run) for run in runs]:
        writer.push(run)
    records = run_folder.read_records(local_copy(url, tmp_path / "copy"))
    assert sorted(record.case.batch for record in records) == [1, 2]


def test_a_report_and_a_merge_read_urls(tmp_path, url):
    RemoteRun(url).push(write_run(tmp_path / "run", [ok(case(), [1.0, 1.1])]))
    assert main.main(["report", url, "--out", str(tmp_path / "report")]) == 0
    assert "# mixprof: run" in (tmp_path / "report" / "summary.md").read_text()
    assert main.main(["merge", url, "--out", str(tmp_path / "merged")]) == 0
    assert len(run_folder.read_records(tmp_path / "merged")) == 1


def test_what_cannot_be_is_one_line(tmp_path, url):
    for bad, message in (("nosuch://bucket/run", "cannot be opened"), (url, "where nothing is")):
        with pytest.raises(UsageError, match=message) as error:
            local_copy(bad, tmp_path / "copy")
        assert "\n" not in str(error.value)


class Watching:
    """A watch, and the progress that it gives."""

    @contextlib.contextmanager
    def over(self, launches):
        yield self

    def stop(self):
        return False

    def begin(self, case, round):
        pass

    def end(self, case, launch):
        pass


def sent_in_vain(store, capsys):
    """A sweep, as far as its folder goes, whose store becomes a file after its first launch."""
    with working_copy(f"file://{store}", resume=False) as (folder, remote, claim):
        write_run(folder / "run", [ok(case(), [1.0])])
        with Sending(Watching(), remote, folder, claim).over(1) as progress:
            assert len(list(store.rglob("*.parts/*"))) == 1  # a part that arrived
            store.rename(store.with_name("gone"))
            store.write_text("a file in the way of the folder")
            run_folder.append_record(folder / "run", ok(case(batch=2), [1.0]))
            progress.end(case(), ok(case(), [1.0]).launches[0])
            assert "not sent yet, with the next launch again" in capsys.readouterr().err


def test_what_cannot_be_sent_waits_and_is_kept(tmp_path, capsys):
    with pytest.raises(OSError, match="what was measured lies in") as error:
        sent_in_vain(tmp_path / "store", capsys)
    kept = Path(str(error.value.strerror).partition("lies in ")[2])
    assert len(run_folder.read_records(kept / "run")) == 2
    shutil.rmtree(kept)


def test_a_store_that_does_not_answer_is_one_line(tmp_path, monkeypatch):
    pytest.importorskip("s3fs")
    for name, value in (
        ("ENDPOINT_URL", "http://127.0.0.1:9"),
        ("ACCESS_KEY_ID", "none"),
        ("SECRET_ACCESS_KEY", "none"),
    ):
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(UsageError, match="which cannot be read: ") as error:
        local_copy("s3://bucket/run", tmp_path / "copy")
    assert "\n" not in str(error.value)


@pytest.fixture(scope="module")
def bucket():
    """The URL of a bucket of a real server for S3 on the loopback, and what a client needs to reach it."""
    pytest.importorskip("s3fs")
    server = pytest.importorskip("moto.server").ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    host, port = server.get_host_and_port()
    environment = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_ACCESS_KEY_ID": "none", "AWS_SECRET_ACCESS_KEY": "none",
        "AWS_DEFAULT_REGION": "us-east-1",
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as patched:
        for name, value in environment.items():
            patched.setenv(name, value)
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        fsspec.filesystem("s3").mkdir("runs")
        yield "s3://runs"
    server.stop()


def of_another_machine(url, name, **fields):
    """Put up the claim of a sweep elsewhere."""
    files, root = fsspec.core.url_to_fs(url)
    files.makedirs(f"{root}/writers", exist_ok=True)
    content = json.dumps({"host": "elsewhere", "pid": 7, "state": "runs", **fields})
    files.pipe_file(f"{root}/writers/{name}.json", content.encode())
    return files, f"{root}/writers"


PLACES = ["memory", "file", "s3"]


@pytest.fixture(params=PLACES)
def place(request, tmp_path, url):
    """A URL in each kind of store."""
    if request.param == "s3":
        return f"{request.getfixturevalue('bucket')}/{tmp_path.name}"
    return url if request.param == "memory" else f"file://{tmp_path / 'store'}"


def test_of_many_sweeps_that_begin_at_once_one_writes(place, monkeypatch):
    """All put up their claims before any looks, which no order of theirs can make worse."""
    monkeypatch.setattr(claims, "LOOK_S", 0.02)
    together, won, refused = threading.Barrier(6), [], []
    put = claims.Claim._put

    def begin():
        with contextlib.ExitStack() as stack:
            try:
                won.append(stack.enter_context(RemoteRun(place).claim().keeping()))
            except UsageError as error:
                refused.append(str(error))
            together.wait(30)  # the winner still writes when the last has looked

    def put_and_wait(claim):
        put(claim)
        if claim.state == "waits":
            together.wait(30)

    monkeypatch.setattr(claims.Claim, "_put", put_and_wait)
    threads = [threading.Thread(target=begin) for _ in range(6)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(60)
    assert (len(won), len(refused)) == (1, 5)
    assert all("where another sweep writes" in message and "\n" not in message for message in refused)
    assert RemoteRun(place).exists() is False  # all claims are taken down


def test_a_claim_elsewhere_is_left_while_it_is_renewed_and_dead_after_its_lease(url, monkeypatch):
    monkeypatch.setattr(claims, "LOOK_S", 0.01)
    monkeypatch.setattr(claims, "LEASE_S", 0.3)
    files, folder = of_another_machine(url, "0", renewals=1)
    with RemoteRun(url).claim().keeping():
        assert len(files.ls(folder)) == 1  # the dead one was taken down
    monkeypatch.setattr(claims, "LEASE_S", 60)
    of_another_machine(url, "0", renewals=1)
    renewal = threading.Timer(0.2, of_another_machine, (url, "0"), {"renewals": 2})
    renewal.start()
    with pytest.raises(UsageError, match="where another sweep writes \\(on elsewhere, process 7\\)"):
        RemoteRun(url).claim().keeping().__enter__()
    assert len(files.ls(folder)) == 1


def taken_for_dead(url):
    """A sweep whose claim others take down between two launches."""
    with working_copy(url, resume=False) as (folder, remote, claim):
        write_run(folder / "run", [ok(case(), [1.0])])
        sending = Sending(Watching(), remote, folder, claim)
        with sending.over(1) as progress:
            remote.files.rm(f"{remote.root}/writers", recursive=True)
            run_folder.append_record(folder / "run", ok(case(batch=2), [1.0]))
            progress.end(case(), ok(case(), [1.0]).launches[0])
            assert sending.stop()


def test_a_sweep_that_was_taken_for_dead_sends_nothing_more(tmp_path, url, capsys):
    with pytest.raises(OSError, match="another sweep took this one for dead") as error:
        taken_for_dead(url)
    kept = Path(str(error.value.strerror).partition("lies in ")[2])
    assert len(run_folder.read_records(kept / "run")) == 2
    assert len(run_folder.read_records(local_copy(url, tmp_path / "copy") / "run")) == 1
    assert "nothing more is sent" in capsys.readouterr().err
    shutil.rmtree(kept)


@pytest.mark.slow
def test_a_sweep_into_s3_is_killed_resumed_and_reported(bucket, tmp_path):
    axes = ("--models", "depthwise_conv", "--resolutions", "7", "--batches", "1,2,3", "--channels", "32", *QUICK)
    sweep = ("sweep", *axes, "--out", f"{bucket}/mine")
    environment = {**os.environ, "PYTHONPATH": str(TESTS.parent / "src")}
    driver = subprocess.Popen([sys.executable, "-m", "mixprof", *sweep], cwd=TESTS, env=environment)
    number = itertools.count()

    def launches():
        remote = RemoteRun(f"{bucket}/mine")
        return run_folder.read_launches(local_copy(remote.url, tmp_path / f"{next(number)}")) if remote.exists() else []

    while len(launches()) < 2:
        assert driver.poll() is None
        time.sleep(0.3)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    before = launches()
    refused = mixprof(*sweep)
    assert (refused.returncode, "where a run is" in refused.stderr) == (2, True)
    two = [
        subprocess.Popen([sys.executable, "-m", "mixprof", *sweep, "--resume"], cwd=TESTS, env=environment, text=True,
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(2)
    ]  # fmt: skip
    said = sorted((one.communicate()[1], one.returncode) for one in two)
    assert sorted(code for _, code in said) == [0, 2], said
    assert next(text for text, code in said if code == 2).count("\n") == 1
    done = mixprof(*sweep, "--resume")
    assert done.returncode == 0, done.stderr
    after = launches()
    assert after[: len(before)] == before
    assert sorted(of.batch for of, _ in after) == [1, 1, 2, 3]  # the anchor's is 1
    assert main.main(["report", f"{bucket}/mine", "--out", str(tmp_path / "report")]) == 0
