"""A CUDA driver that does not start is an error with its meaning, and a CPU in its place is said."""

import json

import pytest

from fake_driver import ask, run

NO_DEVICE = "from mixprof.machine import cuda_driver as d; a = d.no_device(); answer = a and [a.reason, a.failed]"
PLAN = ("-m", "mixprof", "plan", "--models", "depthwise_conv", "--json")


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (802, "fabric is not up): systemctl start nvidia-fabricmanager"),
        (803, "libcuda and the kernel's driver are of two versions): reboot"),
        (804, "forward compatibility"),
        (999, "nvidia-modprobe -u -c 0"),
        (304, "/dev/nvidia*"),
        (34, "stub of libcuda"),
        (777, "run nvidia-smi"),
    ],
)
def test_what_cuinit_returns_is_told_with_its_meaning(code, words):
    reason, failed = ask(NO_DEVICE, cuda_init=code)
    assert f"cuInit returned {code}" in reason
    assert words in reason
    assert failed
    assert "\n" not in reason


def test_no_gpu_is_no_failure_and_names_what_hides_it(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    reason, failed = ask(NO_DEVICE, cuda_init=100)
    assert (reason, failed) == ("the NVIDIA driver shows no GPU to this process: CUDA_VISIBLE_DEVICES is '7'", False)
    assert ask(NO_DEVICE, cuda_devices=0) == [reason, False]
    assert ask(NO_DEVICE) is None


@pytest.mark.parametrize("code", [802, 803, 999, 100])
def test_doctor_tells_why_and_fails_where_a_device_is_required(code):
    done = run("-m", "mixprof", "doctor", "--require-device", "--json", cuda_init=code)
    assert done.returncode == 4
    (line,) = done.stderr.splitlines()[-1:]
    assert line.startswith("mixprof: --require-device: the ")
    finding = json.loads(done.stdout)["cuda"]["driver and torch"]
    assert not finding["works"]
    assert finding["reason"] in line
    assert (f"cuInit returned {code}" in line) == (code != 100)


def test_a_sweeps_cases_do_not_move_to_the_cpu_unsaid():
    done = run(*PLAN, cuda_init=803)
    assert done.returncode == 0
    assert "no CUDA device, the default is the CPU: the CUDA driver does not start: cuInit returned 803" in done.stderr
    assert {row["case"]["device"] for row in json.loads(done.stdout)["cases"]} == {"cpu"}


def test_a_required_device_that_is_not_there_ends_a_command():
    done = run(*PLAN, "--require-device", cuda_init=802)
    assert (done.returncode, done.stdout) == (4, "")
    assert "--require-device: the CUDA driver does not start: cuInit returned 802" in done.stderr


def test_a_machine_that_shows_no_gpu_says_nothing_unasked():
    done = run(*PLAN, cuda_init=100)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_torch_without_cuda_beside_a_gpu_is_said():
    torch = pytest.importorskip("torch")
    if torch.backends.cuda.is_built():
        pytest.skip("this torch is built with CUDA")
    done = run(*PLAN, "--require-device")
    assert done.returncode == 4
    assert "is built without CUDA: install its CUDA build" in done.stderr
