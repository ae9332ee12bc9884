"""reports.text.verdict, gains and published: the sentences on top of the page, and the ratios that they rest on."""

import dataclasses
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from mixprof import reports
from mixprof.data.manifest import Sweep
from mixprof.data.record import Record
from mixprof.reports.answers import answers
from mixprof.reports.answers.ratios import gains
from mixprof.reports.charts.figures import figures
from mixprof.reports.text import missing
from mixprof.reports.text.verdict import verdict
from synthetic_runs import MANIFEST, case, ok, realistic, write_run

ATTENTION, CONVOLUTION = "window_attention", "depthwise_conv"


def load(tmp_path, *records):
    return reports.load(write_run(tmp_path / "run", records))


def lines(frame, crossings=None):
    """The rows of the verdict's table."""
    known = answers(frame)
    if crossings is not None:
        known = dataclasses.replace(known, crossovers=crossings)
    (section,) = verdict(known)
    return section.tables()[0].rows


def not_measured(frame, manifests):
    (section,) = missing.not_measured(answers(frame), manifests)
    return section.markdown().split("\n")


def test_the_verdict_is_a_small_table(tmp_path):
    frame = load(tmp_path, ok(case(ATTENTION), (4.0, 4.2, 4.4)), ok(case(CONVOLUTION), (2.0, 2.2, 2.1)))
    (row,) = lines(frame)
    assert list(row) == ["who", "how much", "where", "decided", "in all settings"]
    assert row["in all settings"].count(". ") == 0  # one sentence


def test_the_faster_one_comes_first(tmp_path):
    frame = load(tmp_path, ok(case(ATTENTION), (2.0, 2.2, 2.1)), ok(case(CONVOLUTION), (4.0, 4.2, 4.4)))
    (row,) = lines(frame)
    assert row["who"].startswith("window_attention over depthwise_conv")
    assert row["how much"] == "2 [1.78, 2.25] times as fast"


def test_two_that_cannot_be_told_apart_are_not_decided(tmp_path):
    frame = load(tmp_path, ok(case(ATTENTION), (2.0, 2.2, 2.1)), ok(case(CONVOLUTION), (2.1, 2.1, 2.1)))
    assert lines(frame)[0]["decided"] == "not decided"


def test_the_most_usual_setting_is_shown_and_all_are_counted(tmp_path):
    models = ((ATTENTION, 2.0), (CONVOLUTION, 1.0))
    records = [
        ok(case(model, resolution=(s, s)), [ms * s, 1.01 * ms * s]) for model, ms in models for s in (14, 56, 224)
    ]
    (row,) = lines(load(tmp_path, *records))
    assert row["where"].endswith("56x56, batch 1, window 7, 96 channels")
    assert row["in all settings"].startswith("depthwise_conv is faster in 3 of 3 settings")


def test_without_a_pair_the_verdict_says_so(tmp_path):
    (section,) = verdict(answers(load(tmp_path, ok(case(), [1.0]))))
    assert "No pair" in section.markdown()


def test_what_was_not_measured_is_said(tmp_path):
    records = [
        ok(case("neighborhood_attention"), [1.0], proof={"formulation": ["explicit"]}, uncounted_ops=("aten::x",)),
        ok(case(lowering="compile"), [1.0], proof={"formulation": ["shift"]}),
        *(Record(case(window=w), "oom", "no | memory") for w in (9, 11)),
    ]
    text = "\n".join(not_measured(load(tmp_path, *records), {"run": replace(MANIFEST, sweep=Sweep(9))}))
    assert "2 of 4 cases are **oom**: no \\| memory (2)." in text
    assert "**onnxruntime, tensorrt, tensorrt_rtx**" in text
    assert "**No GPU** was measured" in text
    assert "neighborhood_attention under eager: attention as two products around a softmax" in text
    assert "shift" not in text  # the compiler fuses it
    assert "not finished**: 5 of its cases" in text
    assert "aten::x" in text


def test_a_choice_that_failed_is_said(tmp_path):
    frame = load(tmp_path, ok(case("swin_t"), [1.0], proof={"choice_failed": "crashed: no room"}))
    assert any(
        "**No formulation was chosen** by measurement for swin_t, which ran the usual one: crashed: no room." in line
        for line in not_measured(frame, {})
    )


def test_gpu_cases_that_were_only_built_are_no_gpu_measurement(tmp_path):
    frame = load(tmp_path, Record(case(device="cuda:0", lowering="tensorrt"), "built", "no device"))
    assert any("none of them ran on one" in said for said in not_measured(frame, {}))


def test_runs_that_differ_say_in_what(tmp_path):
    frame = load(tmp_path, ok(case(), [1.0]))
    said = not_measured(frame, {"a": MANIFEST, "b": replace(MANIFEST, versions={"torch": "2.6.0"})})
    assert any("**differ** in versions.torch:" in each for each in said)


def test_a_gain_is_a_ratio_of_latencies_with_the_same_interval(tmp_path):
    eager, fast = (4.0, 4.3, 4.1), (2.0, 2.3, 2.2)
    frame = load(tmp_path, ok(case(), eager), ok(case(lowering="compile"), fast), ok(case(window=9), [1.0]))
    found = gains(frame, "lowering", "eager")
    row = frame.index[frame["lowering"] == "compile"][0]
    logs = stats.ttest_rel(np.log(eager), np.log(fast)).confidence_interval(0.95)
    assert found.loc[row, "gain"] == pytest.approx(stats.gmean(eager) / stats.gmean(fast))
    assert found.loc[row, ["gain_low", "gain_high"]].tolist() == pytest.approx(np.exp(list(logs)).tolist())
    assert found.drop(row).isna().all(axis=None)  # of eager itself, and of what eager was not measured for


def test_a_gain_over_another_run_is_of_the_same_case(tmp_path):
    runs = [write_run(tmp_path / name, [ok(case(), [ms, ms])]) for name, ms in (("old", 3.0), ("new", 2.0))]
    frame = reports.load(*runs)
    found = gains(frame, "run", "old")["gain"]
    assert found[frame["run"] == "new"].tolist() == [pytest.approx(1.5)]
    assert found[frame["run"] == "old"].isna().all()


def network(model, **changes):
    return case(model, channels=None, resolution=(224, 224), **changes)


def test_throughput_stands_at_the_published_accuracy(tmp_path):
    records = [
        ok(network("swin_t"), [20.0, 20.0]),
        ok(network("dwnet_t"), [10.0, 10.0]),
        ok(network("swin_t:mixer=depthwise_conv"), [15.0, 15.0]),
        ok(network("swin_b", window=12), [15.0, 15.0]),
    ]
    frame = load(tmp_path, *records)
    top1 = answers(frame).cases["top1_percent"]
    assert top1.fillna(0).tolist() == [81.3, 81.2, 0, 0]  # what was changed has no published accuracy
    figure = dict(figures(frame))["throughput_accuracy"]
    points = {bars.get_label(): tuple(bars[0].get_xydata()[0]) for bars in figure.axes[0].containers}
    assert points == {"swin_t": pytest.approx((81.3, 50.0)), "dwnet_t": pytest.approx((81.2, 100.0))}


def test_the_gain_figure_shows_a_mark_for_each_model_and_lowering(tmp_path):
    frame = load(tmp_path, *realistic())
    figure = dict(figures(frame))["gain_mixers"]
    panel = figure.axes[0]
    latency = frame[(frame["resolution"] == "56") & (frame["batch"] == 1) & (frame["channels"] == 96)]
    latency = latency[latency["window"].isna() | (latency["window"] == 7)].set_index(["model", "lowering"])[
        "latency_ms"
    ]
    models = [label.get_text() for label in panel.get_xticklabels()]
    assert models == ["depthwise_conv", "dynamic_depthwise_conv", "global_attention", "window_attention"]
    for bars in panel.containers:
        expected = [latency[model, "eager"] / latency[model, bars.get_label()] for model in models]
        assert bars[0].get_ydata() == pytest.approx(np.array(expected))
    assert {bars.get_label() for bars in panel.containers} == {"compile:max-autotune", "onnxruntime"}


def test_where_they_swap_places_is_said(tmp_path):
    records = [
        ok(case(model, resolution=(s, s)), [ms, 1.01 * ms])
        for model, times in ((ATTENTION, (1.0, 4.0)), (CONVOLUTION, (2.0, 2.0)))
        for s, ms in zip((14, 56), times, strict=True)
    ]
    frame = load(tmp_path, *records)
    crossing = {
        **{"first": ATTENTION, "second": CONVOLUTION, "axis": "resolution", "place": 24.1, "low": 22.9, "high": 25.6},
        **{"run": "run", "lowering": "eager", "device": "cpu", "dtype": "float32", "layout": "channels_last"},
        **{"mode": "hot", "step": "inference", "kind": "mixer"},
        **{"channels": 96, "resolution": None, "batch": 1, "window": 7},
    }
    (row,) = lines(frame, pd.DataFrame([crossing]))
    assert row["in all settings"].endswith(
        "they swap places at resolution 24.1 [22.9, 25.6] (batch 1, window 7), window_attention faster below."
    )
    elsewhere = pd.DataFrame([{**crossing, "lowering": "compile"}])
    assert "swap" not in lines(frame, elsewhere)[0]["in all settings"]


def test_a_line_without_a_ratio_comes_last(tmp_path):
    records = [
        *(Record(case(model), "oom") for model in (ATTENTION, CONVOLUTION)),
        *(ok(case(model, lowering="onnxruntime"), [1.0, 1.1]) for model in (ATTENTION, CONVOLUTION)),
    ]
    known, unknown = lines(load(tmp_path, *records))
    assert "onnxruntime" in known["where"]
    assert (unknown["decided"], unknown["in all settings"]) == ("no ratio", "1 without a ratio (oom).")


def test_a_plain_implementation_is_said_once_however_it_is_called(tmp_path):
    forms = (("eager", "shift"), ("eager", "shift_flat"))
    records = [
        ok(case("local_mlp", lowering=lowering, window=3 + 2 * n), [1.0], proof={"formulation": [form]})
        for n, (lowering, form) in enumerate(forms)
    ]
    said = [each for each in not_measured(load(tmp_path, *records), {}) if "Plain" in each]
    assert len(said) == 1
    assert "local_mlp under eager: position-wise kernels as shifts and multiply-adds" in said[0]
