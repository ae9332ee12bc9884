"""A run folder that the last mixprof of schema 1 wrote: everything that reads a run still reads it.

It is a real sweep of ten cases, two of them unsupported, with the first nine samples of each launch; the names of its
kernel and host were taken out.
"""

import json
import shutil
from pathlib import Path

import pytest

from mixprof import reports
from mixprof.data import run_folder
from mixprof.data.case import Case
from mixprof.data.errors import NotTrusted, UsageError
from mixprof.data.json import decode, to_builtins
from mixprof.data.launch import LaunchEnvironment
from mixprof.data.manifest import Manifest
from mixprof.reports.gate import stored
from mixprof.run.session import refuse_other
from onnx_files import mixprof

RUN = Path(__file__).parent / "data" / "run_schema_1"
DIGEST = "ad7ff09c96447037"  # of its cases, as its manifest has it


@pytest.fixture
def run(tmp_path):
    return Path(shutil.copytree(RUN, tmp_path / "run"))


def kept(value):
    """JSON values without the keys that hold nothing, and without the schema."""
    if isinstance(value, dict):
        return {name: kept(one) for name, one in value.items() if name != "schema" and kept(one) not in (None, {})}
    return [kept(one) for one in value] if isinstance(value, list) else value


def test_its_records_and_launches_are_read_as_they_were_written():
    records, launches = run_folder.read_records(RUN), run_folder.read_launches(RUN)
    lines = [json.loads(line) for line in (RUN / "records.jsonl").read_text().splitlines()]
    assert [record.status for record in records] == [line["status"] for line in lines]
    for record, line in zip(records, lines, strict=True):
        assert kept(line) == kept(json.loads(json.dumps(record.to_json())))
    (refused,) = [one for one in records if one.case.model == "depthwise_conv" and one.case.lowering == "eager"
                  and one.case.window == 6]  # fmt: skip
    assert refused.environment == LaunchEnvironment()
    assert refused.memory is None
    assert len(launches) == sum(len(record.launches) for record in records) == 18


def test_its_cases_keep_their_keys_and_labels():
    cases = [record.case for record in run_folder.read_records(RUN)]
    assert {case.step for case in cases} == {"inference"}
    first = Case("depthwise_conv", "eager", "cpu", "float32", "channels_last", "hot", 1, (14, 14), 6, 32)
    assert first in cases
    assert first.key == "3b364bab4bb452f7"
    assert first.label() == "depthwise_conv eager cpu float32 b1 14x14 k6 c32"


def test_its_frame_and_its_stored_form(run):
    frame = reports.load(run)
    assert dict(frame["status"].value_counts()) == {"ok": 8, "unsupported": 2}
    assert frame.loc[frame["status"] == "ok", ["latency_ms", "anchor_ratio", "weights_bytes"]].notna().all(axis=None)
    assert set(frame["matrix_flops_per_s"]) == {111273408491.07545}
    whole = stored.of_run(run)
    assert len(whole.cases) == 8  # without the anchors
    assert whole.testbed["cpu"] == "AMD EPYC"


@pytest.mark.slow
def test_it_is_reported_and_checked_against_itself(run, tmp_path):
    done = mixprof("report", run, "--out", tmp_path / "report")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "report" / "index.html").exists()
    done = mixprof("baseline", run, "--out", tmp_path / "baseline.csv")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("part", "change", "error"),
    [
        ("versions", {"torch": "1.0"}, NotTrusted),
        ("sweep", {"cases": 9, "digest": DIGEST}, UsageError),
        ("measure", {"launches": 3}, UsageError),
    ],
)
def test_another_sweep_does_not_go_on_with_it(part, change, error):
    before = run_folder.read_manifest(RUN)
    assert before.sweep.digest == DIGEST
    refuse_other(RUN, before, before)
    fields = to_builtins(before)
    other = decode({**fields, part: {**fields[part], **change}}, Manifest)
    with pytest.raises(error):
        refuse_other(RUN, before, other)


def test_a_line_with_an_unknown_key_or_a_wrong_type_is_no_line_of_a_run(run):
    path = run / "records.jsonl"
    line = json.loads(path.read_text().splitlines()[-1])
    for name, value in (("latency", 1.0), ("macs", "many"), ("status", "fine")):
        path.write_text(json.dumps({**line, name: value}) + "\n")
        with pytest.raises(UsageError, match=r"records\.jsonl:1"):
            run_folder.read_records(run)
