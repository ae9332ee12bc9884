"""`mixprof calibrate`: work that is really injected, canaries of earlier jobs, and what is refused."""

import json
from pathlib import Path

import pytest

from mixprof import models
from mixprof.cli import main
from mixprof.data import calibrations
from mixprof.data.testbed import testbed_key as key_of
from mixprof.gate.itself import cases_against_themselves
from mixprof.gate.rounds import Entry, Rounds
from mixprof.gate.sides import HERE, Setup, side
from mixprof.machine.devices.cpu import Cpu
from mixprof.plan.settings import Axes, Measure
from mixprof.run.session import session
from mixprof.worker import extra_work

MEASURE = Measure(threads=1, max_lost_cpu=1.0)
GROUPS = [Axes(models=("depthwise_conv",), devices=("cpu",), resolutions=((14, 14),))]


def test_the_work_that_is_owed_is_done_over_several_forwards(monkeypatch):
    done = {"forwards": 0, "products": 0}
    took_ms = iter((10.0, 0.3))  # of a forward, of a product

    def product(on):
        return lambda: done.update(products=done["products"] + 1)

    monkeypatch.setattr(extra_work, "_product", product)
    monkeypatch.setattr(extra_work, "_typical_ms", lambda forward, device, before=None: next(took_ms))
    run = extra_work.slowed(lambda: done.update(forwards=done["forwards"] + 1), 0.05, Cpu())
    for _ in range(60):
        run()
    assert done["forwards"] == 60
    assert done["products"] == pytest.approx(60 * 10.0 * 0.05 / 0.3, abs=1)


@pytest.mark.slow
def test_a_doubled_forward_takes_about_twice_as_long(tmp_path):
    """Real processes, real work: the one effect that no noise of a busy machine hides."""
    with side(HERE, tmp_path / "side", Setup(), {}) as here:
        ((planned, key),) = cases_against_themselves(GROUPS, here, MEASURE, models)
        entry = Entry.itself(planned, key)
        Rounds((here, here), MEASURE, tmp_path, 1.0).run([entry], None, stop=lambda: False)
    (difference,) = entry.pair.differences
    assert 0.3 < difference < 1.2


@pytest.fixture(scope="module")
def testbed():
    with session(Measure(), models) as asked:
        return asked.machine().testbed


def job(folder: Path, key: str, differences: list[float]) -> str:
    folder.mkdir()
    (folder / "ab.json").write_text(json.dumps({"testbed_key": key, "canary_differences": differences}))
    return str(folder)


def test_canaries_of_earlier_jobs_stand_in_for_a_measurement(tmp_path, monkeypatch, capsys, testbed):
    monkeypatch.setenv("MIXPROF_CACHE", str(tmp_path / "cache"))
    key = key_of(testbed)
    folders = [job(tmp_path / f"job{k}", key, [0.01, -0.01, 0.02, -0.005, 0.0]) for k in range(4)]
    assert main.main(["calibrate", "--from", *folders, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["pairs"], found["cases"], found["power"]) == (20, 1, None)
    assert "20 A/A pairs" in calibrations.in_words(testbed)
    assert main.main(["calibrate", "--from", *folders[:3]]) == 2
    assert "got 15 canary rounds" in capsys.readouterr().err
    other = job(tmp_path / "other", "another", [0.0] * 50)
    assert main.main(["calibrate", "--from", other]) == 2
    assert main.main(["calibrate", "--from", str(tmp_path / "none")]) == 2
    assert "what `mixprof ab --out` writes" in capsys.readouterr().err


def test_too_few_pairs_are_refused(capsys):
    assert main.main(["calibrate", "--pairs", "5"]) == 2
    assert "--pairs: got 5, expected at least 20" in capsys.readouterr().err
