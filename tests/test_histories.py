"""data.histories: immutable run files that many writers add to, in folders and behind URLs."""

import json
import multiprocessing
from datetime import datetime, timedelta, timezone

import pytest

from mixprof.data.errors import UsageError
from mixprof.data.histories import NAME, History, content_hash

KEY = "0123456789abcdef"
NOON = datetime(2026, 1, 31, 12, tzinfo=timezone.utc)


def test_a_run_is_one_file_whose_name_tells_key_time_and_content(tmp_path):
    history = History(str(tmp_path / "history"))
    assert history.files() == []
    path, is_new = history.add(KEY, NOON.astimezone(timezone(timedelta(hours=2))), {"a": 1})
    assert is_new
    (file,) = history.files()
    assert file.path == path
    assert (file.key, file.time, file.hash) == (KEY, "20260131T120000Z", content_hash({"a": 1}))
    assert history.read(file) == {"a": 1}


def test_adding_the_same_run_again_changes_nothing(tmp_path):
    history = History(str(tmp_path))
    path, _ = history.add(KEY, NOON, {"a": 1, "b": 2})
    before = (tmp_path / path).stat().st_mtime_ns
    assert history.add(KEY, NOON, {"b": 2, "a": 1}) == (path, False)
    assert (tmp_path / path).stat().st_mtime_ns == before


def test_runs_are_listed_oldest_first_and_other_files_are_left_alone(tmp_path):
    history = History(str(tmp_path))
    for day in (3, 1, 2):
        history.add(KEY, NOON + timedelta(days=day), {"day": day})
    (tmp_path / "README.md").write_text("ours")
    (tmp_path / f".{KEY}-20260131T120000Z-{KEY}.json.7.tmp").write_text("half a run")
    assert [history.read(file)["day"] for file in history.files()] == [1, 2, 3]


def test_any_fsspec_url_is_a_history():
    history = History("memory://test-histories/runs")
    path, _ = history.add(KEY, NOON, {"a": 1})
    assert NAME.fullmatch(path.rpartition("/")[2])
    again = History("memory://test-histories/runs")
    assert [again.read(file) for file in again.files()] == [{"a": 1}]


def test_a_file_that_was_torn_or_edited_is_named(tmp_path):
    history = History(str(tmp_path))
    path, _ = history.add(KEY, NOON, {"a": 1})
    content = (tmp_path / path).read_text()
    for changed in (content[:-3], content.replace("1", "2")):
        (tmp_path / path).write_text(changed)
        with pytest.raises(UsageError, match="not the one that its name stands for"):
            history.read(history.files()[0])


def test_a_url_that_nothing_opens_is_one_line():
    with pytest.raises(UsageError, match="nosuch"):
        History("nosuch://bucket/runs")


def add_many(folder, writer):
    for number in range(25):
        History(folder).add(KEY, NOON, {"writer": writer, "number": number})
        History(folder).add(KEY, NOON, {"by": "all", "number": number})


def test_many_writers_lose_nothing(tmp_path):
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=add_many, args=(str(tmp_path), writer)) for writer in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    history = History(str(tmp_path))
    found = [json.dumps(history.read(file), sort_keys=True) for file in history.files()]
    assert len(found) == len(set(found)) == 4 * 25 + 25
    assert not list(tmp_path.glob(".*"))
