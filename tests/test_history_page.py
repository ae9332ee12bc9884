"""`mixprof history` on stored runs with planted changes: page, issue, hostile names, errors, a real browser."""

import math
import os
import shlex
import subprocess
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import numpy as np
import pytest

from chromium import MISSING, Chromium, Page, program
from mixprof.cli import main
from mixprof.data.git import Commit, checked_out
from mixprof.data.histories import History
from mixprof.data.pairs import Timed
from mixprof.reports.gate.stored import DATE, Kept, Stored, of_run
from mixprof.reports.gate.trends import by_testbed
from synthetic_runs import MANIFEST, case, ok, write_run

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)> | [x](javascript:alert(3)) `b` ${2}"
START = datetime(2026, 1, 1, 12, tzinfo=timezone.utc)
CONV, ATTENTION = case(), case("window_attention")
QUICK, SLOW = {"cpu": "A cpu", "threads": 2}, {"cpu": "<b>B</b>", "threads": 1}


def stored(day, testbed, conv, commit, macs=100, status="ok", torch="2.13.0"):
    """A run whose two cases take so many times as long as the anchor."""
    kept = {
        Timed(CONV): Kept(Timed(CONV), "ok", None, {"macs": macs}, math.log(conv), 0.004, 3),
        Timed(ATTENTION): Kept(Timed(ATTENTION), status, None, {}, math.log(0.9) if status == "ok" else None, 0.004, 3),
    }
    created = (START + timedelta(days=day)).strftime(DATE)
    return Stored(created, testbed, {"torch": torch}, {}, kept, commit)


def hash_of(day):
    return f"{day:040x}"


def planted(folder, hostile=HOSTILE):
    """30 runs on each of two testbeds: conv is 8 % slower from day 20 on the first, 50 % slower throughout on the
    second, where macs grow on day 9 and attention dies on day 25."""
    history, random = History(str(folder)), np.random.default_rng(3)
    for day in range(30):
        commit = Commit(hash_of(day), hostile if day == 20 else f"Change {day}")
        noise = np.exp(random.normal(0, 0.005, 2))
        runs = [
            stored(day, QUICK, 0.5 * noise[0] * (1.08 if day >= 20 else 1), commit),
            stored(day, SLOW, 0.75 * noise[1], commit, 100 + (day >= 9), "oom" if day >= 25 else "ok"),
        ]
        for one in runs:
            history.add(one.key, one.time, one.to_json())
    return folder


@pytest.fixture(scope="module")
def history(tmp_path_factory):
    return planted(tmp_path_factory.mktemp("history"))


def commit_of(run):
    return run.commit.hash


def command(*arguments):
    return main.main(["history", *map(str, arguments)])


def test_changes_are_found_testbed_by_testbed_with_the_commits_around_them(history):
    place = History(str(history))
    beds = by_testbed([Stored.from_json(place.read(file)) for file in place.files()])
    assert [len(bed.runs) for bed in beds] == [30, 30]
    (time,) = [change for bed in beds for change in bed.changes if change.time]
    assert (time.timed.case, commit_of(time.before), commit_of(time.after)) == (CONV, hash_of(19), hash_of(20))
    assert time.time
    assert time.time.low < math.log(1.08) < time.time.high
    rest = [change for bed in beds for change in bed.changes if not change.time]
    assert [(commit_of(change.after), change.exact, change.status) for change in rest] == [
        (hash_of(25), None, ("ok", "oom")),
        (hash_of(9), {"macs": (100, 101)}, None),
    ]


def test_the_page_and_the_issue_escape_what_commits_say(history, tmp_path, capsys):
    url, issue = "https://host/me/it/commit/", tmp_path / "issue.md"
    assert command(history, "--out", tmp_path / "page", "--commit-url", url, "--markdown", issue) == 0
    page = (tmp_path / "page" / "index.html").read_text()
    assert f'href="{url}{hash_of(20)}"' in page
    assert "&lt;script&gt;alert(1)" in page
    assert "<script" not in page
    assert "<img" not in page
    assert "<b>" not in page
    text = issue.read_text()
    assert "3 changes for the worse, 0 for the better" in text
    assert f"[2026-01-21 {hash_of(20)[:10]}]({url}{hash_of(20)})" in text
    assert "](javascript:alert(3))" not in text.replace("\\]", "")
    (line,) = [line for line in text.splitlines() if "mixprof bisect" in line and "exact-only" not in line]
    words = shlex.split(line)
    assert words[:4] == ["mixprof", "bisect", hash_of(19), hash_of(20)]
    assert main.parser().parse_args(words[1:]).models == "depthwise_conv"
    assert f"mixprof bisect {hash_of(8)} {hash_of(9)}" in text
    assert "+8." in capsys.readouterr().out


def test_an_issue_is_written_for_changes_alone_and_from_a_day_on(history, tmp_path, capsys):
    issue = tmp_path / "issue.md"
    assert command(history, "--out", tmp_path / "page", "--markdown", issue, "--since", "2026-01-28") == 0
    assert not issue.exists()
    assert "no change" in capsys.readouterr().err
    assert command(history, "--out", tmp_path / "page", "--markdown", issue, "--since", "2026-01-26") == 0
    assert "window" in issue.read_text()
    assert "depthwise" not in issue.read_text()


def test_software_that_changed_too_is_said_and_no_commit_is_blamed(tmp_path):
    history, random = History(str(tmp_path / "history")), np.random.default_rng(4)
    for day in range(16):
        torch, slower = ("2.14.1", 1.1) if day >= 8 else ("2.13.0", 1.0)
        one = stored(day, QUICK, 0.5 * slower * math.exp(random.normal(0, 0.004)), Commit(hash_of(day)), torch=torch)
        history.add(one.key, one.time, one.to_json())
    assert command(tmp_path / "history", "--out", tmp_path / "page", "--markdown", tmp_path / "issue.md") == 0
    text = (tmp_path / "issue.md").read_text()
    assert "software changed with it (torch 2.13.0 -> 2.14.1)" in text
    assert "bisect" not in text


def test_what_cannot_be_is_one_line(history, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    torn = tmp_path / "torn"
    torn.mkdir()
    first = sorted(history.iterdir())[0]
    (torn / first.name).write_bytes(first.read_bytes()[:50])
    out = ("--out", tmp_path / "page")
    for arguments, words in (
        ((tmp_path / "none", *out), "which is not there, expected a history"),
        ((tmp_path / "file", *out), "which is a file, expected a history"),
        ((tmp_path / "empty", *out), "in which no run is kept"),
        ((torn, *out), "torn, or edited"),
        ((history, "--out", tmp_path / "file"), "which is a file, expected a folder"),
        ((history, *out, "--commit-url", "javascript:alert(1)"), "--commit-url: got"),
        ((history, *out, "--since", "yesterday"), "expected a day"),
        (("nosuch://bucket/history", *out), "expected a folder or a URL"),
    ):
        assert command(*arguments) == 2, words
        message = capsys.readouterr().err
        assert words in message
        assert message.count("\n") == 1
    if os.getuid():
        torn.chmod(0)
        assert command(torn, *out) in (2, 74)


def test_a_hash_that_is_none_is_refused(tmp_path, capsys):
    one = stored(0, QUICK, 0.5, Commit("../../x"))
    History(str(tmp_path / "history")).add(one.key, one.time, one.to_json())
    assert command(tmp_path / "history", "--out", tmp_path / "page") == 2
    assert "commit '../../x'" in capsys.readouterr().err


def test_a_run_keeps_the_commit_that_was_checked_out(tmp_path, monkeypatch):
    def git(*arguments):
        names = ("-c", "user.name=a", "-c", "user.email=a@b")
        subprocess.run(["git", *names, *arguments], check=True, cwd=tmp_path, capture_output=True)

    monkeypatch.chdir(tmp_path)
    assert checked_out() is None
    git("init")
    assert checked_out() is None  # before a first commit
    (tmp_path / "a.py").write_text("1")
    git("add", "a.py")
    git("commit", "-m", "A first one\n\nwith more")
    commit = checked_out()
    assert commit
    assert (len(commit.hash), commit.subject, commit.dirty) == (40, "A first one", False)
    (tmp_path / "a.py").write_text("2")
    assert checked_out() == replace(commit, dirty=True)
    made = replace(MANIFEST, created="2026-01-31T12:00:00+0000", commit=commit)
    run = write_run(tmp_path / "run", [ok(case("anchor_v1"), [1.0]), ok(CONV, [0.5])], made)
    kept = of_run(run)
    assert kept.commit == commit
    assert Stored.from_json(kept.to_json()) == kept
    assert "commit" not in replace(kept, commit=None).to_json()


def test_the_page_is_drawn_and_silent_in_a_real_browser(history, tmp_path):
    path = program()
    if path is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(MISSING)
    assert command(history, "--out", tmp_path / "page", "--commit-url", "https://host/me/it/commit/") == 0
    browser = Chromium(path, tmp_path / "profile")
    try:
        page = Page(browser)
        page.open(tmp_path / "page" / "index.html")
        assert page.evaluate("document.querySelectorAll('svg circle').length") == 30 + 30 + 30 + 25
        widths = page.evaluate("[...document.querySelectorAll('svg')].map(e => e.getBoundingClientRect().width)")
        assert min(width for width in widths if width) > 300
        assert page.errors() == []
        assert len(page.requests()) == 1
        folder = os.environ.get("MIXPROF_SCREENSHOTS")
        shot = page.screenshot((tmp_path if folder is None else type(tmp_path)(folder)) / "history.png")
        assert shot.stat().st_size > 10_000
    finally:
        browser.close()
