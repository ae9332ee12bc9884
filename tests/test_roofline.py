"""reports: roofline, mixer exchange and breakdown against numbers worked out by hand and by scipy."""

import json
import math
from typing import Any

import numpy as np
import pytest
import scipy.stats

from mixprof import reports
from mixprof.data.errors import UsageError
from mixprof.data.manifest import Peaks
from mixprof.data.record import Record
from mixprof.data.run_folder import read_peaks, write_peaks
from mixprof.reports.answers import answers
from mixprof.reports.answers.breakdown import breakdown as parts
from mixprof.reports.answers.exchanges import exchanges
from mixprof.reports.charts.breakdown import breakdown
from mixprof.reports.charts.figures import figures
from mixprof.reports.text.measurements import measurements
from mixprof.reports.text.mixer_exchange import mixer_exchange
from mixprof.reports.text.summary import summary
from mixprof.reports.text.verdict import every_ratio, verdict
from synthetic_runs import MANIFEST, case, ok, realistic, write_run

RATES: dict[str, Any] = {"matrix_flops_per_s": 1e11, "vector_flops_per_s": 2e10, "copy_bytes_per_s": 1e10}
PEAKS = [Peaks("cpu", "float32", **RATES)]
COUNTS: dict[str, Any] = {
    "macs": 600_000_000,
    "flops": 1_200_000_000,
    "matrix_macs": 500_000_000,
    "vector_macs": 100_000_000,
}
MEDIANS = [39.9, 40.0, 40.1]


def load(tmp_path, *records, peaks=PEAKS):
    run = write_run(tmp_path / "run", records)
    if peaks:
        write_peaks(run, peaks)
    return reports.load(run)


def test_attainable_is_the_longer_of_arithmetic_and_memory(tmp_path):
    frame = load(
        tmp_path,
        ok(case(), MEDIANS, min_bytes=100_000_000, **COUNTS),
        ok(case(batch=2), MEDIANS, min_bytes=300_000_000, **COUNTS),
        ok(case(dtype="bfloat16"), MEDIANS, min_bytes=100_000_000, **COUNTS),
        ok(case(batch=4), MEDIANS),
    ).set_index(["batch", "dtype"])
    # 1 GFLOP of matrix products at 100 GFLOP/s and 0.2 GFLOP of others at 20 GFLOP/s take 10 ms each; 0.1 GB take 10 ms
    first, second = frame.loc[(1, "float32")], frame.loc[(2, "float32")]
    assert (first["intensity"], first["bound"], first["attainable_ms"]) == (12.0, "compute", pytest.approx(20.0))
    assert first["attainable_share"] == pytest.approx(0.5, rel=1e-3)
    assert first["mfu"] == pytest.approx(0.3, rel=1e-3)  # 1.2 GFLOP in 40 ms at 100 GFLOP/s
    assert (second["intensity"], second["bound"], second["attainable_ms"]) == (4.0, "memory", pytest.approx(30.0))
    for missing in ((1, "bfloat16"), (4, "float32")):
        assert frame.loc[[missing], ["attainable_ms", "attainable_share", "bound"]].isna().all(axis=None)


def test_an_old_run_without_peaks_still_reports(tmp_path):
    frame = load(tmp_path, *realistic(), peaks=None)
    assert frame["attainable_share"].isna().all()
    assert "roofline" not in dict(figures(frame))
    text = summary(answers(frame), {"run": MANIFEST})
    assert "## Roofline" not in text
    assert "## Where the time goes" not in text


def test_peaks_that_cannot_be_read_are_one_line(tmp_path):
    run = write_run(tmp_path / "run", [ok(case(), MEDIANS)])
    (run / "peaks.json").write_text("{")
    with pytest.raises(UsageError, match=r"peaks\.json.*remove it"):
        reports.load(run)
    (run / "peaks.json").unlink()
    assert read_peaks(run) == []


def test_the_figure_shows_each_case_under_the_three_roofs(tmp_path):
    frame = load(
        tmp_path,
        ok(case(), MEDIANS, min_bytes=100_000_000, **COUNTS),
        ok(case("window_attention"), MEDIANS, min_bytes=300_000_000, **COUNTS),
        Record(case("conv"), "oom", min_bytes=300_000_000, **COUNTS),
    )
    figure = dict(figures(frame))["roofline"]
    (panel,) = figure.axes
    points = {bars.get_label(): bars[0].get_xydata().tolist() for bars in panel.containers}
    assert points == {
        "depthwise_conv": [[12.0, pytest.approx(30.0, rel=1e-3)]],  # 1.2 GFLOP in 40 ms
        "window_attention": [[4.0, pytest.approx(30.0, rel=1e-3)]],
    }
    copy, matrix, vector = (np.asarray(line.get_xydata()) for line in panel.lines if line.get_linestyle() != "None")
    assert copy[:, 1] == pytest.approx(10 * copy[:, 0])  # 10 GB/s, up to where it meets the highest roof
    assert (copy[-1, 0], matrix[0, 0], vector[0, 0]) == (pytest.approx(10), pytest.approx(10), pytest.approx(2))
    assert (set(matrix[:, 1]), set(vector[:, 1])) == ({100.0}, {20.0})
    assert {text.get_text().strip() for text in panel.texts} == {"copy 10 GB/s", "matrix\n100", "vector\n20"}


def test_the_table_says_how_far_each_case_is_from_its_roof(tmp_path):
    text = summary(answers(load(tmp_path, ok(case(), MEDIANS, min_bytes=100_000_000, **COUNTS))), {"run": MANIFEST})
    assert "1 cases: 1 bound by compute; they reach 50% to 50% of what is attainable." in text
    assert "matrix product 100, vector multiply-add 20 GFLOP/s, copy 10 GB/s" in text


# The mixer exchanged


def network(model, medians, **fields):
    return ok(case(model, channels=None, resolution=(224, 224)), medians, **fields)


def test_a_mixer_exchanged_is_compared_with_the_networks_own(tmp_path):
    own = network("swin_t", [100.0, 101.0, 99.0], params=28_288_354, macs=4_490_566_656)
    other = network("swin_t:mixer=depthwise_conv", [80.0, 81.0, 79.5], params=24_172_744, macs=3_726_862_848)
    reverse = network("dwnet_t:mixer=window_attention", [100.0, 101.0, 99.0])
    frame = load(tmp_path, own, other, reverse, network("dwnet_t", [70.0, 71.0, 72.0]), network("vit_s", [60.0] * 3))
    rows = exchanges(frame).set_index("network")
    assert dict(rows["other"]) == {"swin_t": "depthwise_conv", "dwnet_t": "window_attention"}
    swin = rows.loc["swin_t"]
    assert (swin["params"], swin["macs"]) == (24_172_744 - 28_288_354, 3_726_862_848 - 4_490_566_656)
    assert swin["ratio"] == pytest.approx(scipy.stats.gmean([80.0, 81.0, 79.5]) / scipy.stats.gmean([100, 101, 99]))
    assert math.isnan(swin["allocator_peak_bytes"])
    logs = scipy.stats.ttest_rel(np.log([80.0, 81.0, 79.5]), np.log([100, 101, 99]))
    low, high = np.exp(logs.confidence_interval(0.95))
    assert (swin["ratio_low"], swin["ratio_high"]) == pytest.approx((low, high))
    text = summary(answers(frame), {"run": MANIFEST})
    assert "| swin_t | depthwise_conv for window_attention |" in text
    assert text.index("## The mixer exchanged") < text.index("## Measurements")


def test_a_difference_has_the_t_interval_of_its_rounds(tmp_path):
    """In the limit of small spread the delta method is the t test of the times themselves."""
    random = np.random.default_rng(1)
    top, bottom = 50 * np.exp(0.001 * random.standard_normal(5)), 40 * np.exp(0.002 * random.standard_normal(5))
    row = exchanges(load(tmp_path, network("swin_t", bottom), network("swin_t:mixer=conv", top))).iloc[0]
    expected = scipy.stats.ttest_rel(top, bottom).confidence_interval(0.95)
    assert row["difference_ms"] == pytest.approx(top.mean() - bottom.mean(), abs=1e-3)
    found = row[["difference_low_ms", "difference_high_ms"]].tolist()
    assert found == pytest.approx([expected.low, expected.high], abs=2e-3)


def test_a_mixer_without_a_window_is_compared_at_every_window_and_a_failure_is_told(tmp_path):
    small, large = (ok(case("swin_t", channels=None, window=window), [10.0, 10.1]) for window in (7, 11))
    bare = ok(case("swin_t:mixer=pointwise_conv", channels=None, window=None), [5.0, 5.1])
    failed = Record(case("swin_t:mixer=spatial_mlp", channels=None, window=None), "oom", "no memory")
    rows = exchanges(load(tmp_path, small, large, bare, failed))
    found = {(row["other"], row["window"]): row["status"] for _, row in rows.iterrows()}
    assert found == {(name, w): s for w in (7, 11) for name, s in (("pointwise_conv", "ok"), ("spatial_mlp", "oom"))}
    assert rows.loc[rows["other"] == "spatial_mlp", "ratio"].isna().all()


def test_nothing_exchanged_no_table(tmp_path):
    frame = load(tmp_path, network("swin_t", [1.0, 2.0]), network("dwnet_t", [1.0, 2.0]))
    assert mixer_exchange(answers(frame)) == []
    assert mixer_exchange(answers(frame[:0])) == []


# The breakdown


def broken_down(model="swin_t", channels=None, **changes):
    rows = [
        {"stage": 1, "role": "mixer", "ms": 3.0, "macs": 30, "bytes": 10, "kernels": 2},
        {"stage": 1, "role": "reshape", "ms": 1.0, "macs": 0, "bytes": 30, "kernels": 2},
        {"stage": None, "role": "head", "ms": 1.0, "macs": 5, "bytes": 5, "kernels": 1},
    ]
    proof = {"breakdown": rows, "role_ms": {"mixer": 3.0, "reshape": 1.0, "head": 1.0}}
    counts = {name: changes.pop(name) for name in [*COUNTS, "min_bytes"] if name in changes}
    return ok(case(model, channels=channels, **changes), [4.0, 4.1], proof=proof, **counts)


def test_a_part_is_told_from_its_floor(tmp_path):
    """30 MACs of a mixer, of which 10 are vector ones; 2 FLOPs each, at 100 and 20 GFLOP/s; bytes at 10 GB/s."""
    record = broken_down(macs=35, flops=70, matrix_macs=25, vector_macs=10, min_bytes=20)
    floors_ns = (parts(load(tmp_path, record)).set_index("role")["floor_ms"] * 1e6).round(9).to_dict()
    assert floors_ns == {"mixer": max(20 * 2 / 100 + 10 * 2 / 20, 10 / 10), "reshape": 30 / 10, "head": 5 / 10}


def test_rows_say_how_near_their_floors_they_are_and_what_these_alone_would_say(tmp_path):
    """Attention is at 20 of 40 ms, on a plain implementation, the convolution at 30 of 50."""
    attention = case("window_attention")
    frame = load(
        tmp_path,
        ok(attention, MEDIANS, min_bytes=100_000_000, proof={"formulation": ["baddbmm+1x1"]}, **COUNTS),
        ok(case(), [50.0, 50.1, 49.9], min_bytes=300_000_000, **COUNTS),
    )
    found = answers(frame)
    (row,) = verdict(found)[0].tables()[0].rows
    assert row["who"].startswith("window_attention over depthwise_conv")
    assert row["decided"].endswith(
        "window_attention wins on a plain implementation: attention as two batched products around a softmax"
    )
    floors = "window_attention, 1.5 times as fast (depthwise_conv is at 60% of its floor, window_attention at 50%)"
    assert row["by the floors alone"] == floors
    (one,) = every_ratio(found)[0].tables()[0].rows
    assert (one["by the floors"], one["attention of floor"], one["convolution of floor"]) == ("0.667", "50%", "60%")
    (measured,) = measurements(found)[0].tables()
    assert [line["of floor"] for line in measured.rows] == ["60%", "50%"]


def test_a_breakdown_is_drawn_as_shares_of_each_stage(tmp_path):
    frame = load(tmp_path, broken_down(), ok(case("dwnet_t", channels=None), [3.0, 3.1]))
    assert (frame["role_mixer_ms"].max(), frame["role_reshape_ms"].max()) == (3.0, 1.0)
    rows = parts(frame)
    assert len(rows) == 3
    assert set(rows["model"]) == {"swin_t"}
    figure = dict(figures(frame))["breakdown"]
    time, macs, moved = figure.axes
    widths = {bars.get_label(): [bar.get_width() for bar in bars] for bars in time.containers}
    assert widths == {"mixer": [75.0, 0.0], "reshape": [25.0, 0.0], "head": [0.0, 100.0]}
    assert [label.get_text() for label in time.get_yticklabels()] == ["swin_t, stage 1", "swin_t, outside"]
    assert {bars.get_label(): bars[0].get_width() for bars in moved.containers}["reshape"] == 75.0
    assert macs.get_title() == "MACs"
    text = summary(answers(frame), {"run": MANIFEST})
    assert "## Where the time goes" in text
    assert "### Where an engine's time goes" not in text
    assert json.loads(frame["breakdown"].dropna().iloc[0])[0]["kernels"] == 2


def test_many_bars_are_several_views_of_which_the_first_is_drawn(tmp_path):
    records = [broken_down("depthwise_conv", 96, batch=batch) for batch in range(1, 30)]
    frame = load(tmp_path, *records)
    (chart,) = breakdown(answers(frame))
    assert [view.label for view in chart.views] == ["bars 1 to 16", "bars 17 to 29"]
    names = chart.views[1].panels[0].traces[0].x
    assert isinstance(names, list)
    assert names[-1] == "depthwise_conv, batch 29"
    figure = dict(figures(frame))["breakdown"]
    assert len(figure.axes[0].get_yticks()) == 16
