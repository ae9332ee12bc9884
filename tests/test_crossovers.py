"""crossovers and refine: places against closed forms, and bisection that ends where it should."""

import numpy as np
import pytest

from mixprof import reports
from mixprof.data.record import Record
from mixprof.data.run_folder import append_record
from mixprof.reports.answers import answers
from mixprof.reports.answers.crossovers import crossovers
from mixprof.reports.answers.refine import middle, next_cases
from mixprof.reports.charts.figures import figures
from mixprof.reports.text.growth import crossings
from synthetic_runs import case, ok, realistic, write_run

SIDES = (14, 28, 56, 112)
SPREAD = np.exp([-0.01, 0.0, 0.01])


def attention(s):
    return 0.02 * s**2


def convolution(s, at=40.0):
    return 0.02 * at**2 * (s / at)


def runs(tmp_path, *records):
    return reports.load(write_run(tmp_path / "run", records))


def side(model, cost, sides=SIDES, spread=SPREAD, **changes):
    return [ok(case(model, resolution=(s, s), **changes), cost(s) * np.roll(spread, i)) for i, s in enumerate(sides)]


def test_the_place_is_where_the_laws_are_equal(tmp_path):
    frame = runs(tmp_path, *side("window_attention", attention), *side("depthwise_conv", convolution))
    (row,) = (row for _, row in crossovers(frame).iterrows())
    assert (row["first"], row["second"], row["axis"]) == ("window_attention", "depthwise_conv", "resolution")
    assert row["place"] == pytest.approx(40.0)
    assert row["low"] < 40.0 < row["high"]
    assert (row["below"], row["beyond"]) == (28, 56)
    assert "40 [" in crossings(answers(frame))[0].markdown()


@pytest.mark.parametrize("factor", [1.0, 1.3])
def test_models_that_keep_their_order_or_are_equal_have_none(tmp_path, factor):
    rng = np.random.default_rng(0)
    noisy = [
        ok(case(model, resolution=(s, s)), cost * s**2 * np.exp(0.02 * rng.standard_normal(3)))
        for model, cost in (("window_attention", 1.0), ("depthwise_conv", factor))
        for s in SIDES
    ]
    frame = runs(tmp_path, *noisy)
    assert crossovers(frame).empty
    assert "No two models swap places" in crossings(answers(frame))[0].markdown()


def test_what_is_not_ok_holds_no_crossover(tmp_path):
    records = side("window_attention", attention, SIDES[:2])
    records += [Record(case("window_attention", resolution=(s, s)), "oom") for s in SIDES[2:]]
    assert crossovers(runs(tmp_path, *records, *side("depthwise_conv", convolution))).empty


def test_a_model_without_a_window_is_compared_at_every_window(tmp_path):
    records = side("global_attention", attention, window=None)
    records += side("pointwise_conv", lambda s: convolution(s, 20.0), window=None)
    for window in (3, 7):
        records += side("depthwise_conv", lambda s, w=window: convolution(s, 8.0 * w), window=window)
    found = crossovers(runs(tmp_path, *records))
    places = {
        (row["first"], row["second"], None if np.isnan(float(row["window"] or np.nan)) else row["window"]): row["place"]
        for _, row in found.iterrows()
    }
    assert places == pytest.approx({
        ("global_attention", "depthwise_conv", 3): 24.0,
        ("global_attention", "depthwise_conv", 7): 56.0,
        ("global_attention", "pointwise_conv", None): 20.0,
    })  # fmt: skip


def test_along_window_and_batch(tmp_path):
    records = [ok(case("window_attention", window=w), 3.0 * SPREAD) for w in (3, 5, 7, 9)]
    records += [ok(case("depthwise_conv", window=w), 3.0 * (w / 6) ** 2 * SPREAD) for w in (3, 5, 7, 9)]
    records += [ok(case("window_attention", window=11, batch=b), 2.0 * b * SPREAD) for b in (1, 2, 4, 8)]
    records += [ok(case("depthwise_conv", window=11, batch=b), 3.0 * b**0.5 * SPREAD) for b in (1, 2, 4, 8)]
    found = crossovers(runs(tmp_path, *records)).set_index("axis")
    assert found.loc["window", "place"] == pytest.approx(6.0)
    assert found.loc["window", "second"] == "window_attention"
    assert found.loc["batch", "place"] == pytest.approx(2.25)


def test_a_map_shows_both_axes(tmp_path):
    drawn = dict(figures(runs(tmp_path, *realistic())))
    maps = [name for name in drawn if name.startswith("crossovers_resolution_window")]
    assert maps
    (panel, *_) = drawn[maps[0]].axes
    assert panel.get_xscale() == panel.get_yscale() == "log"
    assert {"crossover", "window_attention"} <= {bars.get_label() for bars in panel.containers}


@pytest.mark.parametrize(
    ("low", "high", "step", "expected"),
    [(14, 56, 1, 28), (3, 7, 2, 5), (3, 5, 2, None), (40, 42, 1, None), (40, 41, 1, None), (1, 2, 1, None)],
)
def test_the_middle_is_a_whole_number_or_there_is_none(low, high, step, expected):
    assert middle(low, high, step) == expected


def refined(tmp_path, at, spread):
    """A run refined until nothing is asked for, each case answered by its law; the frame and how often it was asked."""
    rng = np.random.default_rng(3)
    laws = {"window_attention": attention, "depthwise_conv": lambda s: convolution(s, at)}
    noise = lambda: np.exp(spread * rng.standard_normal(3))  # noqa: E731
    records = [r for model, law in laws.items() for r in side(model, law, spread=noise())]
    run = write_run(tmp_path / "run", records)
    for asked in range(20):
        cases = next_cases(reports.load(run))
        if not cases:
            return reports.load(run), asked
        assert {each.model for each in cases} == set(laws)
        for each in cases:
            append_record(run, ok(each, laws[each.model](each.resolution[0]) * noise()))
    raise AssertionError("bisection did not end")


def test_bisection_ends_with_a_bracket_of_five_per_cent(tmp_path):
    frame, asked = refined(tmp_path, 43.7, 1e-5)
    (row,) = (row for _, row in crossovers(frame).iterrows())
    assert row["below"] < 43.7 < row["beyond"] <= 1.05 * row["below"]
    assert asked == 4  # 28..56 is a factor of 2: four halvings of its logarithm


def test_bisection_ends_where_the_noise_hides_which_is_faster(tmp_path):
    frame, asked = refined(tmp_path, 40.0, 0.1)
    assert asked <= 2
    assert len(frame) <= 2 * len(SIDES) + 4


def test_a_middle_that_failed_is_not_asked_for_again(tmp_path):
    records = [*side("window_attention", attention), *side("depthwise_conv", convolution)]
    run = write_run(tmp_path / "run", records)
    (one, other) = next_cases(reports.load(run))
    assert {one.model, other.model} == {"window_attention", "depthwise_conv"}
    assert one.resolution == other.resolution == (40, 40)
    append_record(run, Record(one, "crashed", "no luck"))
    assert next_cases(reports.load(run)) == [other]
    append_record(run, ok(other, SPREAD))
    assert next_cases(reports.load(run)) == []
