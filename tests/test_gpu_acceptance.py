"""scripts/gpu_acceptance.py: its file of results under kills, time-outs and deadlines, and a machine without a GPU."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mixprof.machine import cuda_driver

sys.path.append(str(Path(__file__).parents[1] / "scripts"))

import fake_driver
from acceptance import checks, predictions, probes, tools
from acceptance.frame import NEEDS, Journal, Result, Seen, Usage, chosen

TESTS = Path(__file__).parent
SCRIPT = TESTS.parent / "scripts" / "gpu_acceptance.py"
TOYS = TESTS / "acceptance_toys.py"


def start(tmp_path, *arguments, script=TOYS, device="sim:0"):
    own = [str(tmp_path)] if script == TOYS else []
    command = [sys.executable, str(script), *own, "--device", device, "--out", str(tmp_path / "out"), *arguments]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}  # it finds its way alone
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def finish(tmp_path, *arguments, seconds=300, **more):
    process = start(tmp_path, *arguments, **more)
    printed, errors = process.communicate(timeout=seconds)
    return process.returncode, printed, errors


def lines(tmp_path):
    file = tmp_path / "out" / "checks.jsonl"
    whole = file.read_bytes().rpartition(b"\n")[0] if file.exists() else b""
    return [json.loads(line) for line in whole.splitlines()]


def events(tmp_path, what):
    file = tmp_path / "events"
    entries = [line.split() for line in file.read_text().splitlines()] if file.exists() else []
    return [name for kind, name, _ in entries if kind == what]


def alive(process):
    try:
        return "Z" not in Path(f"/proc/{process}/stat").read_text().rpartition(")")[2][:3]
    except FileNotFoundError:
        return False


def gone(process, seconds=20):
    end = time.monotonic() + seconds
    while alive(process) and time.monotonic() < end:
        time.sleep(0.05)
    return not alive(process)


# Killed, and gone on with


@pytest.mark.parametrize("seed", range(2))
def test_killed_at_five_random_moments_it_keeps_what_ended_and_repeats_none_of_it(tmp_path, seed):
    moments = random.Random(seed)
    for _ in range(5):
        kept = {line["name"] for line in lines(tmp_path)}
        before = len(events(tmp_path, "begins"))
        process = start(tmp_path, "--only", "many", "--resume")
        while len(events(tmp_path, "begins")) == before and process.poll() is None:
            time.sleep(0.01)
        time.sleep(moments.uniform(0.0, 0.5))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        again = {f"many.{name}" for name in events(tmp_path, "begins")[before:]}
        assert not kept & again, "a check that was in the file was run again"
        written = {line["name"] for line in lines(tmp_path)}
        ended = {f"many.{name}" for name in events(tmp_path, "ends")}
        assert len(ended - written) <= 1, "more than the check that was being written down is missing"
        assert kept <= written
    code, _, errors = finish(tmp_path, "--only", "many", "--resume")
    assert code == 0, errors
    names = [line["name"] for line in lines(tmp_path)]
    assert sorted(names) == [f"many.{name}" for name in "abcdefgh"]
    assert all(line["outcome"] == "passed" for line in lines(tmp_path))


def test_a_probe_ends_with_the_script_that_was_killed(tmp_path):
    process = start(tmp_path, "--only", "long.slow")
    while not events(tmp_path, "begins"):
        time.sleep(0.02)
    (probe,) = (int(line.split()[2]) for line in (tmp_path / "events").read_text().splitlines())
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert gone(probe)
    assert lines(tmp_path) == []


def test_a_torn_last_line_is_cut_off_and_its_check_made_again(tmp_path):
    assert finish(tmp_path, "--only", "many.a,many.c")[0] == 0
    file = tmp_path / "out" / "checks.jsonl"
    content = file.read_bytes()
    file.write_bytes(content[:-30])
    code, printed, _ = finish(tmp_path, "--only", "many.a,many.c", "--resume")
    assert code == 0
    assert "torn off" in printed
    assert [line["name"] for line in lines(tmp_path)] == ["many.a", "many.c"]
    assert events(tmp_path, "begins") == ["a", "c", "c"]


def test_results_of_an_earlier_run_or_another_device_are_not_overwritten(tmp_path):
    assert finish(tmp_path, "--only", "many.a")[0] == 0
    code, _, errors = finish(tmp_path, "--only", "many.a")
    assert code == 2
    assert "--resume" in errors
    with pytest.raises(Usage, match="is of 'sim:0', not of 'cuda:0'"):
        Journal(tmp_path / "out" / "checks.jsonl", device="cuda:0", resume=True)


# Outcomes, time-outs and deadlines


def test_each_probe_ends_alone_and_says_what_became_of_it(tmp_path):
    code, printed, _ = finish(tmp_path, "--only", "odd,many.a")
    assert code == 1
    outcomes = {line["name"]: (line["outcome"], line["message"]) for line in lines(tmp_path)}
    assert outcomes["many.a"] == ("passed", None)
    assert outcomes["odd.wrong"] == ("failed", "the rate is 1.0, not 2.0")
    assert outcomes["odd.skips"] == ("skipped", "pynvml is not installed")
    assert outcomes["odd.raises"] == ("failed", "OSError: no such driver")
    assert outcomes["odd.crashes"][0] == "failed"
    assert "ended with -11" in outcomes["odd.crashes"][1]
    assert "absent" in outcomes["odd.absent"][1]
    assert outcomes["odd.real"] == ("skipped", "only a real GPU can show it, and 'sim:0' is simulated")
    assert all(line["simulated"] for line in lines(tmp_path))
    assert "2 passed" not in printed
    assert lines(tmp_path)[0]["seen"]["samples"] == {"waits_s": [0.05] * 50}, "raw samples are kept"
    summary = json.loads((tmp_path / "out" / "gpu_acceptance.json").read_text())
    assert summary["summary"] == {"passed": 1, "skipped": 2, "failed": 4, "left": 0}
    assert (summary["device"], summary["simulated"]) == (False, True)
    assert "simulated: nothing here was measured" in (tmp_path / "out" / "summary.md").read_text()
    assert len(list((tmp_path / "out").iterdir())) <= 6


def test_a_probe_that_hangs_is_ended_with_all_it_began(tmp_path):
    code, _, _ = finish(tmp_path, "--only", "hangs")
    assert code == 1
    assert [line["outcome"] for line in lines(tmp_path)] == ["failed", "failed"]
    assert lines(tmp_path)[0]["message"].startswith("not done after ")
    assert gone(int((tmp_path / "other").read_text()))


def test_what_the_deadline_leaves_is_named_and_done_by_resume(tmp_path):
    code, printed, _ = finish(tmp_path, "--only", "long.one,many.a", "--deadline", "15")
    assert code == 3
    assert "1 left" in printed
    assert [line["name"] for line in lines(tmp_path)] == ["many.a"], "a check that usually takes 20 s was begun"
    assert json.loads((tmp_path / "out" / "gpu_acceptance.json").read_text())["left"] == ["long.one"]
    code, _, _ = finish(tmp_path, "--only", "long.one,many.a", "--resume")
    assert code == 0
    assert events(tmp_path, "begins") == ["a", "long"]


def test_a_check_that_the_deadline_cuts_off_has_not_failed(tmp_path):
    code, _, _ = finish(tmp_path, "--only", "long.slow", "--deadline", "10")
    assert code == 3
    assert lines(tmp_path) == []
    assert events(tmp_path, "ends") == []


# Its own checks and predictions


def test_every_check_has_a_name_of_its_own_a_probe_and_a_claim():
    assert len({check.name for check in checks.CHECKS}) == len(checks.CHECKS)
    for check in checks.CHECKS:
        assert callable(probes.resolve(check.probe)), check.name
        assert check.decides
        assert check.needs in NEEDS
        assert check.usual_s < check.limit_s


def test_only_takes_blocks_and_checks_and_refuses_other_names():
    assert {check.block for check in chosen(checks.CHECKS, "fork")} == {"fork"}
    assert [check.name for check in chosen(checks.CHECKS, "fork.child")] == ["fork.child"]
    with pytest.raises(Usage, match="expected a block"):
        chosen(checks.CHECKS, "frok")


def test_predictions_speak_of_checks_there_are():
    names = {check.name for check in checks.CHECKS}
    for entry in predictions.load():
        assert entry["check"] in names, entry
        assert entry["why"]
        assert set(entry) <= {"check", "value", "expected", "on", "why"}


@pytest.mark.parametrize(
    ("seen", "expected", "verdict"),
    [(3.0, {"from": 2, "to": 4}, True), (5.0, {"from": 2, "to": 4}, False), (None, {"from": 2, "to": 4}, False),
     ("flash", ["flash", "cudnn"], True), ("math", ["flash", "cudnn"], False), (True, True, True), (3, 4, False)],
)  # fmt: skip
def test_a_prediction_holds_or_does_not(seen, expected, verdict):
    assert predictions.holds(seen, expected) is verdict


def test_a_prediction_is_of_the_device_it_names(monkeypatch):
    entries = [
        {"check": "a.b", "value": "rate", "expected": 3, "on": ["H100"], "why": "-"},
        {"check": "a.b", "value": "rate", "expected": 2, "why": "-"},
    ]
    monkeypatch.setattr(predictions, "load", lambda: entries)
    result = Result("a.b", "passed", seen=Seen({"rate": 3}))
    verdicts = {name: predictions.compared(result, name).predicted for name in ("NVIDIA H100", "NVIDIA L4", "sim:0")}
    assert [each["holds"] for each in verdicts["NVIDIA H100"]] == [True]
    assert [each["holds"] for each in verdicts["NVIDIA L4"]] == [False]
    assert verdicts["sim:0"] == ()


# Without a device


def no_device():
    if cuda_driver.device_count():
        pytest.skip("this machine has a CUDA device")


def test_the_script_says_that_there_is_no_device_and_ends_well(tmp_path):
    no_device()
    for _ in range(2):  # a second time, too
        code, printed, errors = finish(tmp_path, script=SCRIPT, device="cuda:0")
        assert code == 0, errors
        assert "no CUDA device, nothing was run on one: " in printed
    summary = json.loads((tmp_path / "out" / "gpu_acceptance.json").read_text())
    assert summary["device"] is False
    assert {line["outcome"] for line in lines(tmp_path) if line["name"] != "provenance.source"} == {"skipped"}
    assert all(line["message"] for line in lines(tmp_path) if line["outcome"] == "skipped")
    assert len(list((tmp_path / "out").iterdir())) <= 6


def test_a_device_that_is_required_and_absent_is_a_failure(tmp_path):
    no_device()
    assert finish(tmp_path, "--require-device", script=SCRIPT, device="cuda:0")[0] == 1


@pytest.mark.parametrize(("options", "words"), [(("--only", "frok"), "expected a block"), (("--ony", "x"), "--ony")])
def test_wrong_usage_is_2_and_names_what_is_right(tmp_path, options, words):
    code, _, errors = finish(tmp_path, *options, script=SCRIPT)
    assert code == 2
    assert words in errors


def test_a_folder_that_can_not_be_made_is_wrong_usage(tmp_path):
    code, _, errors = finish(tmp_path / "absent", script=SCRIPT)
    assert code == 2
    assert "expected a folder" in errors


@pytest.mark.parametrize("file", ["test_gpu.py", "test_gpu_engines.py"])
def test_every_test_of_a_gpu_is_marked_and_none_runs_without_a_device(file):
    no_device()
    command = [sys.executable, "-m", "pytest", str(TESTS / file), "-p", "no:cacheprovider"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=TESTS.parent)
    marked = subprocess.run([*command, "-m", "not gpu"], capture_output=True, text=True, cwd=TESTS.parent)
    assert done.returncode == 0
    assert " passed" not in done.stdout
    assert " skipped" in done.stdout
    assert marked.returncode == 5, "a test lacks the mark gpu"


# On a driver that is there, and on a simulated device


@pytest.mark.parametrize(("code", "words"), [(802, "fabric"), (803, "two versions"), (999, "nvidia_uvm")])
def test_a_driver_that_does_not_start_is_a_failure_with_its_meaning_and_never_no_device(tmp_path, code, words):
    done = fake_driver.run(str(SCRIPT), "--only", "fork", "--out", str(tmp_path / "out"), cuda_init=code)
    assert done.returncode == 1
    assert f"cuInit returned {code}" in done.stderr
    assert words in done.stderr
    assert lines(tmp_path) == []


def test_a_device_of_the_driver_is_known_by_its_name_and_asked_through_nvml(tmp_path):
    done = fake_driver.run(str(SCRIPT), "--only", "provenance.nvml", "--out", str(tmp_path / "out"))
    assert done.returncode == 0, done.stdout + done.stderr
    (line,) = lines(tmp_path)
    assert (line["outcome"], line["device"], line["simulated"]) == ("passed", "cuda:0", False)
    assert line["seen"]["values"]["uuid"] == fake_driver.UUID.format(0)
    assert line["seen"]["raw"]["MaxClockSM"] > 0


def test_on_a_simulated_gpu_times_and_rates_are_its_truth(tmp_path):
    code, printed, _ = finish(tmp_path, "--only", "timing,peaks", script=SCRIPT)
    assert code == 0, printed
    values = {line["name"]: line["seen"]["values"] for line in lines(tmp_path) if line["outcome"] == "passed"}
    assert values["timing.gated"]["slope_x260"] == pytest.approx(1, abs=0.01)
    assert values["timing.gated"]["added_us_x260"] == pytest.approx(0, abs=0.1)
    assert values["timing.ungated"]["ungated_over_gated"] == pytest.approx(6 / 2.5, rel=0.05), "the gate is for this"
    assert values["timing.queue"]["depth"] == 1000
    assert values["peaks.copies"]["copy_gb_s"] == pytest.approx(1500, rel=0.02)
    assert values["peaks.copies"]["knee_of_l2"] == 1
    assert values["peaks.products"]["float16_tflops"] == pytest.approx(200, rel=0.02)
    assert values["peaks.flush"]["control_over_hot"] == pytest.approx(1, abs=0.02)
    assert all(line["simulated"] for line in lines(tmp_path))
    assert all(each["holds"] for line in lines(tmp_path) for each in line["predicted"])
    assert sum(line["seen"]["virtual_s"] or 0 for line in lines(tmp_path)) < 540


@pytest.mark.long
@pytest.mark.slow
def test_all_of_it_on_a_simulated_gpu_killed_at_five_random_moments(tmp_path):
    moments = random.Random(13)
    for _ in range(5):
        kept = [line["name"] for line in lines(tmp_path)]
        process = start(tmp_path, "--resume", "--deadline", "540", script=SCRIPT)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(moments.uniform(2, 15))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert [line["name"] for line in lines(tmp_path)][: len(kept)] == kept
    code, printed, errors = finish(tmp_path, "--resume", "--deadline", "540", script=SCRIPT, seconds=600)
    assert code == 0, f"{printed}\n{errors}"  # 3, were it not done within nine minutes
    names = [line["name"] for line in lines(tmp_path)]
    assert sorted(names) == sorted(check.name for check in checks.CHECKS)
    skipped = {line["name"] for line in lines(tmp_path) if line["outcome"] == "skipped"}
    assert skipped == {check.name for check in checks.CHECKS if check.needs == "gpu"}


def test_bytes_are_read_from_the_table_of_ncu():
    text = (
        "==PROF== Connected to process 1\n"
        '"ID","Process ID","Kernel Name","Metric Name","Metric Unit","Metric Value"\n'
        '"0","1","gemm","dram__bytes_read.sum","Mbyte","1,024.5"\n'
        '"0","1","gemm","dram__bytes_write.sum","Kbyte","12"\n'
        '"1","1","relu","dram__bytes_read.sum","byte","7"\n'
    )
    assert tools.read_bytes(text) == {"0 gemm": 1024.5e6 + 12e3, "1 relu": 7.0}
