"""Merging: a semilattice of runs. In any order, in any steps, twice: the same bytes; what does not fit is one line."""

import itertools
import json
import random
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from mixprof.cli import main
from mixprof.data import run_folder
from mixprof.data.errors import UsageError
from mixprof.data.fleet import runs_in
from mixprof.data.manifest import Content, Environment, Peaks, Sweep
from mixprof.reports.frame import load
from mixprof.run.merging import merge
from synthetic_runs import MANIFEST, case, ok
from test_cli import QUICK, mixprof

ANCHOR = case("anchor_v1", window=None, channels=None)
CASES = [case(batch=batch) for batch in range(1, 9)]
ALL = replace(MANIFEST, measure={"launches": 3, "timeout": 600.0})


def shard(folder, index, of=4, manifest=ALL, scale=1.0, records=None, created="2026-01-31T12:00:00+0000"):
    """A finished shard of nine cases, the anchor's and every fourth."""
    mine = CASES[index - 1 :: of]
    records = records or [
        ok(one, [scale * index + k / 10 for k in range(3)], params=8, macs=9) for one in (ANCHOR, *mine)
    ]
    folder.mkdir(parents=True)
    environment = replace(manifest.environment, informing={"governor": None, "hostname_hash": f"{index}"})
    sweep = Sweep(9, "digest", (f"{index}/{of}",))
    run_folder.write_manifest(
        folder, replace(manifest, sweep=sweep, environment=environment, created=f"{created}{index}")
    )
    for record in records:
        for launch in record.launches:
            run_folder.append_launch(folder, record.case, launch)
        run_folder.append_record(folder, record)
    run_folder.write_peaks(folder, [Peaks("cpu", "float32", 1e9 * index, 1e9, 1e9)])
    return folder


def content(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


@pytest.fixture
def shards(tmp_path):
    return [shard(tmp_path / f"shard-{index}", index) for index in (1, 2, 3, 4)]


def test_every_order_gives_the_same_bytes(shards, tmp_path):
    results = []
    for number, order in enumerate(itertools.permutations(shards)):
        assert merge(order, tmp_path / f"out-{number}") == []
        results.append(content(tmp_path / f"out-{number}"))
    assert all(result == results[0] for result in results)
    records = run_folder.read_records(tmp_path / "out-0")
    assert {record.case for record in records} == {ANCHOR, *CASES}
    assert len(records) == 9
    assert [record.status for record in records] == ["ok"] * 9


def test_merging_is_associative_and_idempotent(shards, tmp_path):
    first, second, third, fourth = shards
    merge(shards, tmp_path / "at-once")
    merge([first, third], tmp_path / "left")
    merge([fourth, second], tmp_path / "right")
    merge([tmp_path / "right", tmp_path / "left", first], tmp_path / "in-steps")
    merge([tmp_path / "in-steps"], tmp_path / "again")
    assert content(tmp_path / "in-steps") == content(tmp_path / "at-once") == content(tmp_path / "again")


def test_the_anchors_of_shards_stand_together_with_where_each_was(shards, tmp_path):
    merge(shards, tmp_path / "out")
    (anchor,) = [record for record in run_folder.read_records(tmp_path / "out") if record.case == ANCHOR]
    assert sorted(launch.host_ms.samples[1] for launch in anchor.launches if launch.host_ms) == sorted(
        index + k / 10 for index in (1, 2, 3, 4) for k in range(3)
    )
    assert len({launch.environment.origin for launch in anchor.launches}) == 4
    manifest = run_folder.read_manifest(tmp_path / "out")
    assert manifest.sweep == Sweep(9, "digest")
    assert {one.informing["hostname_hash"] for one in (manifest.origins or {}).values()} == {"1", "2", "3", "4"}
    assert manifest.environment.informing == {"governor": None}
    frame = load(tmp_path / "out")
    assert frame[frame["model"] != "anchor_v1"]["launches"].eq(3).all()
    assert frame[frame["model"] != "anchor_v1"]["rounds"].nunique() == 4  # a shard's rounds are its own


def test_a_missing_shard_is_named(shards, tmp_path):
    (message,) = merge(shards[1:3], tmp_path / "out")
    assert "shard 1/4, 4/4 is missing" in message
    assert run_folder.read_manifest(tmp_path / "out").sweep.shards == ("2/4", "3/4")
    assert main.main(["merge", str(shards[0]), "--out", str(tmp_path / "strict"), "--strict"]) == 4


def test_a_case_without_a_record_is_counted(shards, tmp_path):
    lines = (shards[0] / "records.jsonl").read_bytes().splitlines(keepends=True)
    (shards[0] / "records.jsonl").write_bytes(b"".join(lines[:-1]))
    (message,) = merge(shards, tmp_path / "out")
    assert "1 of 9 cases have no record" in message


def test_a_case_that_was_begun_is_counted_beside_a_missing_shard(shards, tmp_path, capsys):
    lines = (shards[0] / "records.jsonl").read_bytes().splitlines(keepends=True)
    (shards[0] / "records.jsonl").write_bytes(b"".join(lines[:-1]))
    _, message = merge(shards[:2], tmp_path / "out")
    assert "1 with launches and no record, as " in message
    main.main(["merge", str(shards[0]), "--out", str(tmp_path / "my runs")])
    command = shlex.split(capsys.readouterr().out.splitlines()[-1].removeprefix("next: "))
    assert command == ["mixprof", "report", f"{tmp_path}/my runs", "--out", f"{tmp_path}/my runs/report"]


def test_the_same_launch_counts_once_and_another_of_its_case_is_a_conflict(shards, tmp_path):
    copy = shutil.copytree(shards[0], tmp_path / "copy")
    assert merge([*shards, copy], tmp_path / "with-copy") == []
    merge(shards, tmp_path / "without")
    assert content(tmp_path / "with-copy") == content(tmp_path / "without")
    again = shard(tmp_path / "again", 1, scale=1.5)
    (message,) = merge([*shards, again], tmp_path / "twice")
    assert "conflict: 2 cases were timed by several runs, as depthwise_conv" in message
    by_case = {record.case: record for record in run_folder.read_records(tmp_path / "twice")}
    assert len(by_case[CASES[0]].launches) == 6
    assert sorted(each.round for each in by_case[CASES[0]].launches) == [0, 0, 1, 1, 2, 2]
    merge([again, shards[2]], tmp_path / "step")
    merge([tmp_path / "step", *shards[::-1]], tmp_path / "twice-in-steps")
    assert content(tmp_path / "twice-in-steps") == content(tmp_path / "twice")


def test_one_failed_launch_among_two_runs_of_a_case_is_the_cases_status(shards, tmp_path):
    failed = replace(ok(CASES[0], [1.0]), status="crashed", reason="SIGSEGV")
    failed = replace(
        failed, launches=tuple(replace(one, status="crashed", reason="SIGSEGV") for one in failed.launches)
    )
    merge([*shards, shard(tmp_path / "failed", 1, records=[failed])], tmp_path / "out")
    by_case = {record.case: record for record in run_folder.read_records(tmp_path / "out")}
    assert (by_case[CASES[0]].status, by_case[CASES[0]].reason) == ("crashed", "SIGSEGV")


def test_testbeds_and_versions_never_mix(shards, tmp_path):
    other = replace(ALL, environment=Environment({"gpus": ["H100"]}))
    newer = replace(ALL, versions={"torch": "9.9"})
    more = [shard(tmp_path / "gpu", 1, manifest=other), shard(tmp_path / "newer", 2, manifest=newer)]
    messages = merge([*shards, *more], tmp_path / "fleet")
    assert len(messages) == 2  # shards 2, 3, 4 of one and 1, 3, 4 of the other are missing
    runs = runs_in(tmp_path / "fleet")
    assert len(runs) == 3
    assert any(run.name.startswith("h100-") for run in runs)
    merge([more[0], shards[1]], tmp_path / "a")
    merge([more[1], tmp_path / "a", shards[0], *shards[2:]], tmp_path / "b")
    assert content(tmp_path / "b") == content(tmp_path / "fleet")
    assert main.main(["report", str(tmp_path / "fleet"), "--out", str(tmp_path / "report")]) == 0


def refused(*runs, tmp_path):
    with pytest.raises(UsageError) as error:
        merge(runs, tmp_path / "refused")
    assert "\n" not in str(error.value)
    assert not list(tmp_path.glob("*refused*"))
    return str(error.value)


def test_what_does_not_go_together_is_one_line(shards, tmp_path):
    def other(name, **changes):
        return shard(tmp_path / name, 2, manifest=replace(ALL, **changes))

    assert "launches = 8, expected 3" in refused(shards[0], other("m", measure={"launches": 8}), tmp_path=tmp_path)
    files = [{"net.onnx": Content(sha256, None, {})} for sha256 in ("one", "two")]
    edited = [other(f"e{index}", artifacts=each) for index, each in enumerate(files)]
    assert "measured with another 'net.onnx'" in refused(*edited, tmp_path=tmp_path)
    counted = shard(tmp_path / "c", 1, records=[ok(CASES[0], [1.0], params=8, macs=10)])
    assert "got macs = 9, 10 of depthwise_conv" in refused(shards[0], counted, tmp_path=tmp_path)
    wider = shard(tmp_path / "w", 1)
    manifest = run_folder.read_manifest(wider)
    run_folder.write_manifest(wider, replace(manifest, sweep=Sweep(10, "other")))
    assert "a sweep of 10 cases, expected the 9" in refused(shards[0], wider, tmp_path=tmp_path)
    assert "schema 1, expected 2" in refused(Path(__file__).parent / "data" / "run_schema_1", tmp_path=tmp_path)
    assert "no manifest.json" in refused(tmp_path / "nowhere", tmp_path=tmp_path)
    (tmp_path / "there").mkdir()
    with pytest.raises(UsageError, match="exists, expected a new folder"):
        merge(shards, tmp_path / "there")


AXES = ("--models", "depthwise_conv,window_attention", "--resolutions", "7,14", "--windows", "3,4", "--channels", "32")


@pytest.mark.long
@pytest.mark.slow
def test_eight_shards_in_a_random_order_are_the_sweep(tmp_path):
    for index in range(1, 9):
        done = mixprof("sweep", *AXES, "--shard", f"{index}/8", "--out", tmp_path / f"{index}", *QUICK)
        assert done.returncode == 0, done.stderr
    whole = mixprof("sweep", *AXES, "--out", tmp_path / "whole", *QUICK)
    assert whole.returncode == 0, whole.stderr
    order = random.Random(16).sample(range(1, 9), 8)
    assert merge([tmp_path / str(index) for index in order], tmp_path / "merged") == []
    cases = [[record.case for record in run_folder.read_records(tmp_path / name)] for name in ("merged", "whole")]
    assert len(cases[0]) == len(cases[1]) == 9
    assert set(cases[0]) == set(cases[1])
    manifests = [json.loads((tmp_path / name / "manifest.json").read_text()) for name in ("merged", "whole")]
    assert manifests[0]["sweep"] == manifests[1]["sweep"]
    merge([tmp_path / str(index) for index in range(1, 9)], tmp_path / "in-order")
    assert content(tmp_path / "in-order") == content(tmp_path / "merged")
    resumed = mixprof("sweep", *AXES, "--shard", "2/8", "--out", tmp_path / "1", "--resume", *QUICK)
    assert resumed.returncode == 2
    assert "shard" in resumed.stderr


def test_a_bad_shard_is_one_line_and_exit_code_2(tmp_path):
    done = mixprof("sweep", "--shard", "9/8", "--out", tmp_path / "run")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "mixprof: --shard: got '9/8', expected a shard like 3/16, from 1 up to the number of shards\n"
