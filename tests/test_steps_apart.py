"""Inference and training steps in one run, in which the winner differs: no answer, figure or gate mixes the two."""

from dataclasses import replace

import pytest

from mixprof import reports
from mixprof.data.manifest import Environment
from mixprof.data.pairs import Measured, Paired
from mixprof.reports.answers import answers
from mixprof.reports.answers.fleet import standings
from mixprof.reports.answers.refine import next_cases
from mixprof.reports.charts.figures import all_figures, charts
from mixprof.reports.gate.check import axes_of
from mixprof.reports.gate.judge import Judge
from mixprof.reports.text.fleet import claim
from mixprof.reports.text.summary import summary
from synthetic_runs import MANIFEST, case, ok, write_run

ATTENTION, CONVOLUTION = "window_attention", "depthwise_conv"
SIDES = (14, 28, 56, 112)
EXPONENT = {"inference": 2, "train": 3}
RATIO = {"inference": 2.0, "train": 0.5}  # attention over convolution, everywhere
GAIN = {"inference": 1.25, "train": 2.0}  # of compile over eager
NOISE = (0.99, 1.0, 1.01)


def records():
    """The truth: no two swap places in any step, though they would if a line held places of both."""
    for step, power in EXPONENT.items():
        for model, scale in ((ATTENTION, RATIO[step]), (CONVOLUTION, 1.0)):
            noise = NOISE if model == ATTENTION else NOISE[::-1]  # no drift that the two share
            for side in SIDES:
                for lowering, gain in (("eager", 1.0), ("compile", GAIN[step])):
                    of = case(model, lowering=lowering, resolution=(side, side), step=step)
                    yield ok(of, [scale / gain * (side / 14) ** power * each for each in noise], flops=side**2)
        for mixer, scale in (("", 1.0), (":mixer=depthwise_conv", 1 / RATIO[step])):
            of = case(f"swin_t{mixer}", resolution=(224, 224), channels=None, step=step)
            yield ok(of, [scale * 100 * each for each in NOISE])


@pytest.fixture(scope="module")
def frame(tmp_path_factory):
    return reports.load(write_run(tmp_path_factory.mktemp("steps") / "run", records()))


@pytest.fixture(scope="module")
def known(frame):
    return answers(frame)


def test_each_step_has_its_own_ratios_and_no_crossover(known):
    (mixers,) = [rows for pair, rows in known.ratios.items() if pair.attention == ATTENTION]
    assert len(mixers) == 2 * 2 * len(SIDES)
    for step, rows in mixers.groupby("step"):
        assert rows["ratio"].tolist() == pytest.approx([RATIO[step]] * len(rows))
        assert set(rows["faster"]) == {CONVOLUTION if RATIO[step] > 1 else ATTENTION}
    assert known.crossovers.empty
    assert {tuple(row) for row in known.exchanges[["step", "ratio"]].round(6).to_numpy()} == {
        ("inference", 0.5),
        ("train", 2.0),
    }


def test_each_step_has_its_own_exponent_and_gain(known):
    rows = known.exponents[known.exponents["metric"] == "latency"]
    assert len(rows) == 2 * 2 * 2  # models, lowerings, steps
    assert rows["slope"].tolist() == pytest.approx([EXPONENT[step] for step in rows["step"]])
    compiled = known.cases[known.cases["lowering"] == "compile"]
    assert compiled["gain"].tolist() == pytest.approx([GAIN[step] for step in compiled["step"]])


def test_a_crossing_of_one_step_is_refined_in_that_step(tmp_path):
    times = {("inference", ATTENTION): (1, 1), ("inference", CONVOLUTION): (2, 2)}
    times |= {("train", ATTENTION): (1, 4), ("train", CONVOLUTION): (2, 2)}
    run = [
        ok(case(model, resolution=(side, side), step=step), [ms * each for each in NOISE])
        for (step, model), both in times.items()
        for side, ms in zip((14, 56), both, strict=True)
    ]
    frame = reports.load(write_run(tmp_path / "run", run))
    (crossing,) = answers(frame).crossovers.to_dict("records")
    assert (crossing["step"], crossing["place"]) == ("train", pytest.approx(28))
    assert {of.step for of in next_cases(frame)} == {"train"}
    text = summary(answers(frame), {"run": MANIFEST})
    assert (
        "training step" in text.split("swap places")[0].rpartition("\n")[2]
    )  # in the verdict's line of training alone


def test_charts_and_figures_show_one_step_each(known):
    drawn = charts(known)
    for chart in drawn:
        for view in chart.views:
            for panel in view.panels:
                assert known.cases.loc[[row for trace in panel.traces for row in trace.rows], "step"].nunique() <= 1
    figures = dict(all_figures(known, drawn))
    for step, suffix in (("inference", ""), ("train", "_train")):
        assert f"latency_resolution_mixers{suffix}" in figures
        panels = figures[f"speedup_{ATTENTION}_over_{CONVOLUTION}{suffix}"].axes
        cells = {text.get_text() for axes in panels for text in axes.texts}
        assert cells == {f"{RATIO[step]:.2f}"}


def test_claims_are_of_one_step_each(frame, tmp_path):
    for name in ("h100", "l4"):
        write_run(tmp_path / name, records(), replace(MANIFEST, environment=Environment({"gpus": [name]})))
    of_mixers = [
        by_run for by_run in standings(reports.load(tmp_path / "h100", tmp_path / "l4")) if len(by_run[0].rows) > 1
    ]
    assert {(one.step, one.winner, one.decided) for by_run in of_mixers for one in by_run} == {
        ("inference", CONVOLUTION, 8),
        ("train", ATTENTION, 8),
    }
    claims = [claim(one) for by_run in of_mixers for one in by_run]
    assert f"**{ATTENTION} over {CONVOLUTION}**, training step on l4: 8 of 8 settings, decided in 8." in claims


def test_families_of_a_gate_are_of_one_step_each():
    pairs = []
    for step, change in (("inference", 0.0), ("train", 0.1)):
        for batch in (1, 2):
            of = case(batch=batch, step=step)
            pairs.append(
                Paired(of, of, of, differences=[change + each for each in (0.001, -0.001, 0.0, 0.0005, -0.0005)])
            )
    outcome = Judge().conclude(Measured("base", "head", pairs))
    assert {each.name: each.verdict for each in outcome.families} == {
        f"{CONVOLUTION} eager": "same",
        f"{CONVOLUTION} eager train": "regressed",
    }


def test_an_alarm_is_confirmed_at_its_step():
    assert "--steps" not in axes_of([case()])
    assert "--steps inference,train" in axes_of([case(), case(step="train")])
