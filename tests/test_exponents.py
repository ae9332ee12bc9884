"""exponents: slopes against closed forms and scipy, breaks where they are, and what is kept out of a fit."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from mixprof import reports
from mixprof.data.launch import Launch, Memory, Samples
from mixprof.data.record import Record
from mixprof.reports.answers import answers
from mixprof.reports.answers.exponents import exponents
from mixprof.reports.answers.segments import fit
from mixprof.reports.statistics import Points
from mixprof.reports.text.growth import growth
from synthetic_runs import case, launch, ok, write_run

SIDES = (7, 10, 14, 20, 28, 40, 56, 80)
SPREAD = np.exp([-0.01, 0.0, 0.01])  # three launches, symmetric in log units


def table(tmp_path, *records):
    return exponents(reports.load(write_run(tmp_path / "run", records)))


def along(sides, cost, **changes):
    return [ok(case(resolution=(s, s), **changes), cost(s) * np.roll(SPREAD, i)) for i, s in enumerate(sides)]


def only(found, **values):
    for name, value in values.items():
        found = found[found[name] == value]
    (row,) = (row for _, row in found.iterrows())
    return row


@pytest.mark.parametrize("power", [0.0, 1.0, 2.0, 3.7])
def test_the_exponent_of_a_power_law_is_its_power(tmp_path, power):
    row = only(table(tmp_path, *along(SIDES, lambda s: 0.01 * s**power)), metric="latency")
    assert row["slope"] == pytest.approx(power, abs=1e-9)
    assert row["low"] < power < row["high"]
    assert np.isnan(row["breakpoint"])
    assert not row["curved"]
    assert (row["points"], row["excluded"], row["start"], row["end"]) == (8, 0, 7, 80)


def test_each_axis_is_fitted_with_all_else_held(tmp_path):
    records = along((14, 28, 56), lambda s: s**2)
    records += [ok(case(batch=b), 56**2 * b**0.5 * SPREAD) for b in (2, 4)]
    records += [ok(case(window=w), 56**2 * (w / 7) ** 1.5 * SPREAD) for w in (3, 11)]
    found = table(tmp_path, *records)
    slopes = {row["axis"]: row["slope"] for _, row in found.iterrows()}
    assert slopes == pytest.approx({"resolution": 2.0, "batch": 0.5, "window": 1.5})
    assert only(found, axis="batch")[["resolution", "window"]].tolist() == ["56", 7]
    assert found.loc[found["axis"] == "batch", "batch"].isna().all()


def test_the_slope_is_that_of_least_squares(tmp_path):
    rng = np.random.default_rng(0)
    medians = [[s**1.9 * np.exp(0.05 * rng.standard_normal()) for _ in range(3)] for s in SIDES]
    row = only(table(tmp_path, *(ok(case(resolution=(s, s)), m) for s, m in zip(SIDES, medians, strict=True))))
    assert row["slope"] == pytest.approx(np.polyfit(np.log(SIDES), np.log(medians).mean(1), 1)[0])


def test_the_interval_of_two_points_is_that_of_a_ratio_of_rounds(tmp_path):
    one, other = np.array([1.0, 1.02, 1.04]), 3 * np.array([1.0, 1.03, 1.02])
    row = only(table(tmp_path, ok(case(batch=1), one), ok(case(batch=2), other)))
    bounds = stats.ttest_rel(np.log(other), np.log(one)).confidence_interval(0.95)
    assert row["slope"] == pytest.approx(np.log2(other / one).mean())
    assert (row["low"], row["high"]) == pytest.approx((bounds.low / np.log(2), bounds.high / np.log(2)))


@pytest.mark.parametrize("at", [17.0, 20.0, 33.0])
def test_a_flat_part_is_told_from_the_power_law_beyond_it(tmp_path, at):
    row = only(table(tmp_path, *along(SIDES, lambda s: max(1.0, (s / at) ** 2))), metric="latency")
    assert row["breakpoint"] == pytest.approx(at, rel=0.03)
    assert row["slope"] == pytest.approx(2.0, abs=1e-6)
    assert row["left_slope"] == pytest.approx(0.0, abs=0.03)
    assert row["points"] == sum(s >= at for s in SIDES)


def test_a_line_that_bends_without_a_flat_part_is_one_segment_and_said_to_be_curved(tmp_path):
    row = only(table(tmp_path, *along(SIDES, lambda s: s**2 + s**4 / 500)), metric="latency")
    assert np.isnan(row["breakpoint"])
    assert row["curved"]
    assert 2 < row["slope"] < 4


def test_a_slope_that_falls_is_no_flat_part(tmp_path):
    row = only(table(tmp_path, *along(SIDES, lambda s: min(s**2, 28.0 * s))), metric="latency")
    assert np.isnan(row["breakpoint"])


def test_what_is_not_ok_is_left_out_and_counted(tmp_path):
    records = along(SIDES[:5], lambda s: s**2) + [Record(case(resolution=(s, s)), "oom", "too big") for s in (40, 56)]
    row = only(table(tmp_path, *records))
    assert (row["points"], row["excluded"]) == (5, 2)
    assert row["slope"] == pytest.approx(2.0)


def on_gpu(side, gpu_ms, enqueue_ms):
    samples = [(Samples((g,) * 3, 1), Samples((enqueue_ms,) * 3, 1)) for g in gpu_ms * SPREAD]
    launches = tuple(Launch("ok", gpu_ms=g, enqueue_ms=e) for g, e in samples)
    return Record(case(device="cuda:0", resolution=(side, side)), "ok", None, launches)


def test_points_bound_by_the_host_are_left_out_and_counted(tmp_path):
    records = [on_gpu(s, max(s**2 / 400, 1.0), 0.98) for s in SIDES]
    row = only(table(tmp_path, *records))
    assert row["excluded"] == row["host_bound"] == sum(s <= 20 for s in SIDES)
    assert row["slope"] == pytest.approx(2.0)
    assert np.isnan(row["breakpoint"])


def test_flops_and_memory_stand_beside_latency(tmp_path):
    records = [
        replace(
            ok(case(resolution=(s, s)), s**1.5 * SPREAD), flops=100 * s**2,
            memory=Memory(allocator_peak_bytes=400 * s**2, predicted_peak_bytes=300 * s**2),
        )
        for s in SIDES
    ]  # fmt: skip
    found = table(tmp_path, *records)
    assert only(found, metric="latency")["expected"] == pytest.approx(2.0)
    for metric in ("memory", "flops"):
        row = only(found, metric=metric)
        assert (row["slope"], row["low"], row["high"], row["expected"]) == pytest.approx((2.0,) * 4)
    (section,) = growth(answers(reports.load(tmp_path / "run")))
    text = section.markdown()
    assert "### Exponents along resolution" in text
    assert "| -0.50 |" in text


def test_the_expected_exponent_is_that_of_the_part_the_slope_was_taken_from(tmp_path):
    records = [
        replace(ok(case(resolution=(s, s)), max(1.0, (s / 22) ** 2) * SPREAD), flops=10**6 * s ** (1 if s < 22 else 3))
        for s in SIDES
    ]
    assert only(table(tmp_path, *records), metric="latency")["expected"] == pytest.approx(3.0)


def test_one_launch_has_the_interval_within_it_and_too_few_samples_none(tmp_path):
    rng = np.random.default_rng(1)
    samples = {s: s**2 * np.exp(0.02 * rng.standard_normal(40)) for s in (14, 28, 56)}
    many = [Record(case(resolution=(s, s)), "ok", None, (launch(x),)) for s, x in samples.items()]
    few = [Record(case("global_attention", resolution=(s, s), window=None), "ok", None, (launch(x[:3]),))
           for s, x in samples.items()]  # fmt: skip
    found = table(tmp_path, *many, *few)
    row = only(found, model="depthwise_conv")
    assert row["low"] < 2.0 < row["high"]
    assert np.isnan(only(found, model="global_attention")["low"])


def test_nothing_is_fitted_to_one_place(tmp_path):
    assert table(tmp_path, ok(case(), SPREAD)).empty
    assert growth(answers(reports.load(tmp_path / "run"))) == []


def test_many_lines_are_fitted_as_each_alone():
    rng = np.random.default_rng(2)
    where = np.log(SIDES)
    logs = np.maximum(0, 2 * (where - np.log([[10], [20], [1]]))) + 0.01 * rng.standard_normal((3, 8))
    points = Points.independent(logs, np.full((3, 8), 0.01), np.full((3, 8), 2.0))
    together = fit(where, points)
    for each in range(3):
        alone = fit(where, Points.independent(logs[each], points.errors[each], points.freedoms[each]))
        assert (alone.slope, alone.low) == pytest.approx((together.slope[each], together.low[each]))
        assert alone.used.tolist() == together.used[each].tolist()
