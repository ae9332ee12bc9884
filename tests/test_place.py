"""Where a sweep runs: what is asked for in words, and the lock that keeps timings apart."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

import mixprof
from mixprof.cli import main
from mixprof.data.errors import UsageError
from mixprof.plan.place import Place

TESTS = Path(__file__).parent


def test_a_place_is_read():
    assert Place.parse(None) == Place("local")
    assert Place.parse("ray") == Place("ray")
    assert Place.parse("ray://10.0.0.1:6379", "H100, L4") == Place("ray", "10.0.0.1:6379", ("H100", "L4"))


@pytest.mark.parametrize(
    ("on", "accelerators", "message"),
    [
        ("rya", None, "--on: got 'rya', expected ray"),
        ("local://here", None, "expected no address with local"),
        (None, "H100", "expected --on ray with it"),
        ("ray", "H100,,L4", "expected labels like H100,L4"),
        ("ray", "L4,L4", "each once"),
    ],
)
def test_a_bad_place_is_one_line(on, accelerators, message):
    with pytest.raises(UsageError, match=message) as error:
        Place.parse(on, accelerators)
    assert "\n" not in str(error.value)


def test_a_shard_and_refinement_do_not_go_with_an_engine(capsys):
    assert main.main(["sweep", "--shard", "1/2", "--on", "ray"]) == 2
    assert main.main(["sweep", "--refine", "crossover", "--on", "ray"]) == 2
    assert capsys.readouterr().err.count("\n") == 2


def test_a_function_refuses_what_the_command_refuses(tmp_path):
    for settings, message in (
        ({"out": "s3://bucket/run"}, "a URL, expected a folder"),
        ({"on": "slurm"}, "--shards: got none"),
        ({"shard": "1/2", "refine": True}, "--refine with --shard"),
        ({"shard": "1/2", "on": "ray"}, "--shard with --on"),
    ):
        with pytest.raises(UsageError, match=message):
            mixprof.sweep(models="depthwise_conv", **{"out": tmp_path / "run", **settings})
    assert not (tmp_path / "run").exists()


def test_without_ray_one_line_says_how_to_install_it(tmp_path, monkeypatch, capsys):
    (tmp_path / "ray.py").write_text("raise ImportError('none')\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == "ray"]:
        monkeypatch.delitem(sys.modules, name)
    assert main.main(["sweep", "--on", "ray", "--out", str(tmp_path / "run")]) == 2
    assert capsys.readouterr().err == "mixprof: --on ray: Ray is not installed: pip install 'mixprof[ray]'\n"


HOLD = """
import sys, time
from mixprof.run.node_lock import timing
with timing(sys.argv[1]):
    print(time.time(), flush=True)
    time.sleep(float(sys.argv[2]))
    print(time.time(), flush=True)
"""


def hold(folder, device, seconds="0.5", visible=""):
    environment = {
        "PYTHONPATH": str(TESTS.parent / "src"), "TMPDIR": str(folder), "CUDA_VISIBLE_DEVICES": visible,
    }  # fmt: skip
    return subprocess.Popen([sys.executable, "-c", HOLD, device, seconds], env=environment, stdout=subprocess.PIPE)


def interval(process):
    began, ended = map(float, process.communicate(timeout=60)[0].split())
    return began, ended


@pytest.mark.parametrize(
    ("first", "second", "apart"),
    [
        (("cpu", "0"), ("cpu", "0"), True),
        (("cpu", ""), ("cuda:0", "0"), True),
        (("cuda:0", "0"), ("cuda:0", "0"), True),
        (("cuda:0", "0"), ("cuda:0", "1"), False),
    ],
)
def test_timings_of_two_processes_do_not_share_a_device_or_a_cpu_node(tmp_path, first, second, apart):
    one = hold(tmp_path, first[0], "60" if not apart else "1", first[1])
    began = float(one.stdout.readline())
    two = hold(tmp_path, second[0], "0", second[1])
    if apart:
        assert float(one.stdout.readline()) <= interval(two)[0]
        one.wait()
    else:
        assert interval(two)[0] > began  # while the other still holds its own GPU
        one.kill()
        one.wait()


def test_the_kernel_lets_go_of_a_device_whose_holder_was_killed(tmp_path):
    one = hold(tmp_path, "cpu", "60")
    one.stdout.readline()
    one.kill()
    one.wait()
    start = time.time()
    assert interval(hold(tmp_path, "cpu", "0"))[0] >= start
