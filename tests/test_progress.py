"""What a person sees of a sweep: plain lines into a file, a bar on a terminal."""

import io
import os
import pty
import re
import select

from mixprof.data.launch import Launch, Samples
from mixprof.run.progress import shown
from synthetic_runs import case

CASES = [case("depthwise_conv"), case("window_attention"), case("swin_t")]
ENDS = [
    Launch("ok", host_ms=Samples((2.0, 1.0, 9.0), 1)),
    Launch("oom", "killed"),
    Launch("ok", host_ms=Samples((7.0,), 1)),
]


def show(stream):
    with shown(stream, len(CASES)) as progress:
        for one, launch in zip(CASES, ENDS, strict=True):
            progress.begin(one, 0)
            progress.end(one, launch)


def test_a_file_gets_a_line_for_each_launch():
    stream = io.StringIO()
    show(stream)
    first, second, third = stream.getvalue().splitlines()
    assert re.fullmatch(r"\[1/3\] elapsed 0:00, 0:00 left  depthwise_conv .*  ok  2 ms", first)
    assert second.endswith("oom: killed")
    assert third.startswith("[3/3]")
    assert "\x1b" not in stream.getvalue()


def test_a_terminal_gets_counts_the_slowest_case_and_the_failures(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    reader, writer = pty.openpty()
    with os.fdopen(writer, "w") as stream, os.fdopen(reader, "rb", buffering=0) as terminal:
        show(stream)
        chunks = []
        while select.select([terminal], [], [], 0)[0]:
            chunks.append(terminal.read(1 << 16))
    said = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", b"".join(chunks).decode())
    assert "3/3" in said
    assert "2 ok, 1 oom" in said
    assert re.search(r"slowest  swin_t .*  7 ms", said)
    assert re.search(r"\n?window_attention .*oom: killed", said)


def test_another_layout_and_a_random_forward_are_said_once():
    stream = io.StringIO()
    proof = {
        "layout": "contiguous",
        "layout_reason": "RuntimeError: view",
        "reference": "random: two references differ",
    }
    with shown(stream, 3) as progress:
        for _ in range(3):
            progress.end(CASES[0], Launch("ok", proof=proof))
    assert stream.getvalue().count("depthwise_conv runs in contiguous, not in channels_last: RuntimeError: view") == 1
    assert stream.getvalue().count("depthwise_conv is random: two references differ") == 1
