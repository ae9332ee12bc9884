"""The three peaks: how a rate is found, what is kept for the next run, what a run gets of it."""

import json
from dataclasses import replace

import pytest
import torch

from mixprof.data import cache
from mixprof.data.errors import UsageError
from mixprof.data.json import to_builtins
from mixprof.data.messages import Machine
from mixprof.metrics import peaks
from mixprof.plan.axes import Planned, Source
from mixprof.run import peaks as machine_peaks
from synthetic_runs import case

MACHINE = Machine(("cpu",), {"torch": "2"}, {"cpu": "one"})
PEAKS = {"device": "cpu", "dtype": "float32", **dict.fromkeys(machine_peaks.RATES, 1.0)}


class Counting:
    """Answers like a session, and counts how often it is asked."""

    def __init__(self, error=None):
        self.asked, self.error = [], error

    def ask(self, job, **request):
        if self.error:
            raise UsageError(self.error)
        self.asked.append((job, request["device"], request["dtype"]))
        return {"status": "ok", "peaks": {**PEAKS, **request}}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MIXPROF_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def size(result):
    return result.numel()


def planned(*cases):
    return [Planned(each, Source("", {}, (), "mixer")) for each in cases]


def test_the_best_candidate_counts_and_a_slow_one_is_the_last(monkeypatch):
    seconds = {"slow": 2.0, "fast": 0.1, "never": 0.001}
    monkeypatch.setattr(peaks, "least_s", lambda run, synchronize: seconds[run()])
    candidates = [("fast", lambda: "fast", 1.0), ("slow", lambda: "slow", 5.0), ("never", lambda: "never", 1e9)]
    assert peaks._best(iter(candidates), lambda: None) == ("fast", 10.0)


def test_a_real_measurement_is_whole(monkeypatch):
    for name, value in {"LOOK_S": 0.01, "SIDES": {"cpu": (64,)}, "COPY_BYTES": {"cpu": 1 << 20}}.items():
        monkeypatch.setattr(peaks, name, value)
    monkeypatch.setattr(peaks, "DEPTHWISE", ((32, 14, 7),))
    measured = peaks.measure("cpu", "float32")
    assert all(getattr(measured, name) > 0 for name in machine_peaks.RATES)
    assert measured.best is not None
    names = ("mm 64", "1x1 convolution 64", "C++ product 64", "convolution 7x7, 28x28x96")
    assert measured.best["matrix"] in names
    json.dumps(to_builtins(measured))


def test_the_matrix_products_and_the_convolutions_are_those_that_their_work_says():
    for name, run, work in peaks._matrix("cpu", "cpu", torch.float64):
        side = int(name.split()[-1])
        if side > 512:
            break
        assert size(run()) == side**2
        assert work == 2 * side**3
    (name, run, work), *_ = peaks._vector("cpu", "cpu", torch.float32)
    assert size(run()) * 49 * 2 == work
    ((_, run, work),) = peaks._copy("cpu", 4096)
    assert work == 2 * size(run()) * 4


def test_peaks_are_measured_once_for_each_device_dtype_and_testbed(own_cache):
    asked = Counting()
    cases = planned(case(), case("window_attention"), case(dtype="bfloat16"), case(device="cuda:0"))
    first = machine_peaks.of_cases(cases, asked, MACHINE)
    assert asked.asked == [("peaks", "cpu", "bfloat16"), ("peaks", "cpu", "float32")]  # no device, no peaks
    assert machine_peaks.of_cases(cases, asked, MACHINE) == first
    assert len(asked.asked) == 2
    machine_peaks.of_cases(cases, asked, replace(MACHINE, testbed={"cpu": "another"}))
    assert len(asked.asked) == 4


def test_peaks_of_a_busy_machine_are_measured_again_and_never_kept(own_cache, capsys):
    class Busy(Counting):
        """Others take CPU time from the first `tries` measurements, which are the slower for it."""

        def __init__(self, tries):
            super().__init__()
            self.tries = tries

        def ask(self, job, **request):
            found = super().ask(job, **request)["peaks"]
            busy = len(self.asked) <= self.tries
            rate = len(self.asked) if busy else 10.0
            return {"peaks": {**found, "matrix_flops_per_s": rate, "lost_cpu_share": 0.5 if busy else 0.01}}

    always = Busy(3)
    assert machine_peaks.of("cpu", "float32", always, MACHINE).matrix_flops_per_s == 3  # the fastest of three
    assert len(always.asked) == 3
    assert "too low, and not kept" in capsys.readouterr().err
    for _ in range(2):
        once = Busy(1)
        assert machine_peaks.of("cpu", "float32", once, MACHINE).matrix_flops_per_s == 10
    assert once.asked == []  # kept by the first


def test_what_is_damaged_is_measured_anew(own_cache):
    asked = Counting()
    machine_peaks.of("cpu", "float32", asked, MACHINE)
    (kept,) = (own_cache / "peaks").iterdir()
    for content in ("{", "[]", json.dumps({**PEAKS, "copy_bytes_per_s": None})):
        kept.write_text(content)
        assert machine_peaks.of("cpu", "float32", asked, MACHINE).copy_bytes_per_s == 1.0
    assert len(asked.asked) == 4


def test_a_folder_that_others_can_write_is_not_trusted(own_cache, capsys):
    asked = Counting()
    machine_peaks.of("cpu", "float32", asked, MACHINE)
    (own_cache / "peaks").chmod(0o777)
    assert machine_peaks.of("cpu", "float32", asked, MACHINE).copy_bytes_per_s == 1.0
    assert len(asked.asked) == 2
    assert "not kept" in capsys.readouterr().err


def test_without_peaks_a_sweep_goes_on(capsys):
    assert machine_peaks.of_cases(planned(case()), Counting("no such device"), MACHINE) == []
    assert "no roofline: no such device" in capsys.readouterr().err
    assert cache.folder().name == "cache"


def test_the_cache_of_a_cpu_is_told_or_unknown():
    found = peaks.cache_bytes("cpu")
    assert found is None or found > 2**15


def test_other_candidates_are_measured_anew(tmp_path, monkeypatch):
    for name in ("metrics", "models/kernels/cpu"):
        (tmp_path / name).mkdir(parents=True)
    for number, name in enumerate(("metrics/peaks.py", "models/kernels/cpu/linear.cpp", "notes.md"), start=1):
        (tmp_path / name).write_text("candidates")
        monkeypatch.setattr(machine_peaks, "PACKAGE", tmp_path)
        session = Counting()
        for _ in range(2):
            machine_peaks.of("cpu", "float32", session, MACHINE)
        assert len(session.asked) == (number < 3)
    monkeypatch.setattr(machine_peaks.lowerings, "missing", lambda name: "no C++ compiler")
    machine_peaks.of("cpu", "float32", session := Counting(), MACHINE)
    assert session.asked
