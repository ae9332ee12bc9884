"""Run folders: what was appended is read back, torn lines are set aside, foreign folders refused."""

import json

import pytest

from mixprof.data import run_folder
from mixprof.data.case import Case
from mixprof.data.errors import UsageError
from mixprof.data.launch import Counts, Launch, Memory, Samples
from mixprof.data.record import Record

CASE = Case("depthwise_conv", "eager", "cpu", "float32", "channels_last", "hot", 1, (56, 28), 7, 96)
LAUNCH = Launch("ok", host_ms=Samples((1.0, 2.5), 4), memory=Memory(weights_bytes=8), counts=Counts(macs=3))
RECORD = Record(CASE, "ok", launches=(LAUNCH,), macs=3, uncounted_ops=("aten.fft",))


def test_records_and_launches_come_back_as_they_were(tmp_path):
    run_folder.append_launch(tmp_path, CASE, LAUNCH)
    run_folder.append_record(tmp_path, RECORD)
    assert run_folder.read_launches(tmp_path) == [(CASE, LAUNCH)]
    assert run_folder.read_records(tmp_path) == [RECORD]


def test_a_record_line_has_the_fields_of_the_contract(tmp_path):
    run_folder.append_record(tmp_path, RECORD)
    line = json.loads((tmp_path / "records.jsonl").read_text())
    assert {
        "schema", "case", "status", "reason", "launches", "build_s", "build_cached", "artifact_bytes", "params", "macs",
        "flops", "uncounted_ops", "memory", "relative_error", "proof", "environment",
    } <= set(line)  # fmt: skip
    assert line["case"]["resolution"] == [56, 28]
    assert line["launches"][0]["host_ms"] == {"samples": [1.0, 2.5], "forwards_per_sample": 4}
    assert line["launches"][0]["gpu_ms"] is None
    assert line["build_s"] is None


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_torn_last_line_is_set_aside_and_the_rest_read(tmp_path, cut):
    run_folder.append_record(tmp_path, RECORD)
    run_folder.append_record(tmp_path, RECORD)
    path = tmp_path / "records.jsonl"
    content = path.read_bytes()
    path.write_bytes(content[:-cut])
    messages = run_folder.set_torn_lines_aside(tmp_path)
    assert len(messages) == 1
    assert run_folder.read_records(tmp_path) == [RECORD]
    torn = (tmp_path / "records.jsonl.torn").read_bytes()
    assert torn.rstrip(b"\n") == content[len(content) // 2 : -cut].rstrip(b"\n")
    assert run_folder.set_torn_lines_aside(tmp_path) == []


def test_a_last_line_torn_in_the_middle_of_a_block_of_zeros(tmp_path):
    run_folder.append_record(tmp_path, RECORD)
    with (tmp_path / "records.jsonl").open("ab") as file:
        file.write(b"\0" * 512)
    assert len(run_folder.set_torn_lines_aside(tmp_path)) == 1
    assert run_folder.read_records(tmp_path) == [RECORD]


def test_whole_files_are_left_alone(tmp_path):
    run_folder.append_record(tmp_path, RECORD)
    before = (tmp_path / "records.jsonl").read_bytes()
    assert run_folder.set_torn_lines_aside(tmp_path) == []
    assert (tmp_path / "records.jsonl").read_bytes() == before


@pytest.mark.parametrize("line", [b"{}\n", b"[1]\n", b'{"schema": 99}\n', b"not json\n"])
def test_a_foreign_line_in_the_middle_names_file_and_line(tmp_path, line):
    (tmp_path / "records.jsonl").write_bytes(line + b'{"schema": 1}\n')
    with pytest.raises(UsageError, match=r"records\.jsonl:1"):
        run_folder.read_records(tmp_path)


@pytest.mark.parametrize("content", [None, "", "[]", '{"schema": 3}', "not json"])
def test_a_foreign_manifest_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(UsageError, match="expected"):
        run_folder.read_manifest(tmp_path)
