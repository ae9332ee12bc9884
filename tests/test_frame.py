"""reports.frame and reports.answers.ratios: statistics against numpy and scipy, and what is missing stays missing."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from mixprof import reports
from mixprof.data.errors import UsageError
from mixprof.data.launch import Launch, Memory
from mixprof.data.manifest import Checked, CrossCheck
from mixprof.data.record import Record
from mixprof.data.run_folder import write_crosscheck
from mixprof.reports.answers.ratios import Pair, pairs, ratios
from mixprof.reports.frame import COLUMNS
from synthetic_runs import MANIFEST, case, launch, ok, write_run

MEDIANS = (2.0, 2.2, 1.9)
MIXERS = Pair("window_attention", "depthwise_conv", "the two mixers by themselves")


def load_one(tmp_path, *records):
    return reports.load(write_run(tmp_path / "run", records))


def test_the_estimate_is_the_geometric_mean_of_the_medians_with_a_t_interval_in_log_units(tmp_path):
    row = load_one(tmp_path, ok(case(batch=4), MEDIANS)).iloc[0]
    logs = np.log(MEDIANS)
    expected = np.exp(scipy.stats.t.interval(0.95, 2, loc=logs.mean(), scale=scipy.stats.sem(logs)))
    assert row["latency_ms"] == pytest.approx(scipy.stats.gmean(MEDIANS))
    assert (row["latency_low_ms"], row["latency_high_ms"]) == pytest.approx(tuple(expected))
    assert (row["interval"], row["launches"], row["time"]) == ("launches", 3, "host_ms")
    assert row["images_per_s"] == pytest.approx(4000 / scipy.stats.gmean(MEDIANS))


def test_one_launch_has_the_interval_within_it_and_says_so(tmp_path):
    samples = tuple(np.random.default_rng(0).normal(5, 0.1, 160))
    row = load_one(tmp_path, Record(case(), "ok", launches=(launch(samples),))).iloc[0]
    assert row["latency_ms"] == np.median(samples)
    assert row["latency_low_ms"] < row["latency_ms"] < row["latency_high_ms"]
    assert row["interval"] == "within-launch"


def test_one_launch_with_too_few_samples_has_no_interval(tmp_path):
    row = load_one(tmp_path, ok(case(), [2.0])).iloc[0]
    assert row["latency_ms"] == 2.0
    assert row[["latency_low_ms", "latency_high_ms", "interval"]].isna().all()


def test_the_time_is_gpu_ms_on_cuda(tmp_path):
    both = Launch("ok", gpu_ms=launch([3.0]).host_ms, enqueue_ms=launch([1.5]).host_ms, host_ms=launch([9.0]).host_ms)
    row = load_one(tmp_path, Record(case(device="cuda:0"), "ok", launches=(both,))).iloc[0]
    assert (row["time"], row["latency_ms"], row["enqueue_ms"], row["host_p50_ms"]) == ("gpu_ms", 3.0, 1.5, 9.0)


def test_host_times_do_not_stand_in_for_missing_gpu_times(tmp_path):
    row = load_one(tmp_path, ok(case(device="cuda:0"), MEDIANS)).iloc[0]
    assert row["time"] == "gpu_ms"
    assert row[["latency_ms", "interval", "images_per_s"]].isna().all()


@pytest.mark.parametrize(("count", "has_99"), [(999, False), (1000, True)])
def test_the_99th_percentile_needs_a_thousand_samples(tmp_path, count, has_99):
    samples = np.random.default_rng(1).lognormal(size=count)
    row = load_one(tmp_path, Record(case(), "ok", launches=(launch(samples),))).iloc[0]
    assert row["host_p50_ms"] == pytest.approx(np.percentile(samples, 50))
    assert row["host_p95_ms"] == pytest.approx(np.percentile(samples, 95))
    assert pd.notna(row["host_p99_ms"]) == has_99


def test_there_are_no_percentiles_of_requests_where_a_sample_is_a_block_of_forwards(tmp_path):
    row = load_one(tmp_path, Record(case(), "ok", launches=(launch([1.0] * 20, forwards=8),))).iloc[0]
    assert row["latency_ms"] == 1.0
    assert row[["host_p50_ms", "host_p95_ms"]].isna().all()


@pytest.mark.parametrize("status", ["oom", "inaccurate", "unstable", "built"])
def test_only_ok_has_a_latency_but_every_case_has_its_row_and_reason(tmp_path, status):
    failed = Record(case(), status, "too | much", (launch([1.0] * 40), Launch(status)), flops=8, macs=4)
    row = load_one(tmp_path, failed).iloc[0]
    assert (row["status"], row["reason"], row["launches"], row["flops"]) == (status, "too | much", 2, 8)
    assert row[["latency_ms", "latency_low_ms", "interval", "host_p50_ms", "images_per_s"]].isna().all()


def test_fields_of_the_case_counts_and_memory_are_flattened(tmp_path):
    big = 2**60 + 1  # not a float
    record = ok(
        case("swin_t", resolution=(800, 1333), channels=None, batch=2),
        MEDIANS,
        macs=big,
        flops=2 * big,
        params=7,
        uncounted_ops=("aten::a", "aten::b"),
        memory=Memory(allocator_peak_bytes=5, cuda_graph_pool_bytes=3),
        metrics={"watts": 4.5, "params": 8.0},
        relative_error=1e-6,
        proof={"graph_breaks": 0, "recompiles": 2},
    )
    row = load_one(tmp_path, record).iloc[0]
    assert (row["kind"], row["resolution"], row["height"], row["width"]) == ("network", "800x1333", 800, 1333)
    assert (row["macs"], row["flops"], row["allocator_peak_bytes"]) == (big, 2 * big, 5)
    assert (row["counts_exact"], row["uncounted_ops"]) == (False, "aten::a, aten::b")
    assert (row["graph_breaks"], row["recompiles"]) == (0, 2)
    assert (row["watts"], row["params"], row["step"]) == (4.5, 7, "inference")  # a metric overwrites no field
    assert row[["process_peak_bytes", "weights_bytes", "build_s", "channels"]].isna().all()


def test_what_an_engine_proves_has_its_columns_and_is_missing_elsewhere(tmp_path):
    proof = {
        "flavour": "tensorrt_rtx",
        "kernels": 5,
        "attentions": 2,
        "fused_attentions": [["a", "b"]],
        "product_dtypes": ["Half", "Int8"],
        "weights_bytes": 10,
        "engine_bytes": 30,
        "onnx_relative_error": 4e-4,
        "role_ms": {"mixer": 0.5},
    }
    engine = Record(case(lowering="tensorrt_rtx"), "built", proof=proof, memory=Memory(weights_bytes=20))
    row, other = (each for _, each in load_one(tmp_path, engine, ok(case(), MEDIANS)).iterrows())
    assert (row["flavour"], row["kernels"], row["attentions"], row["fused_attentions"]) == ("tensorrt_rtx", 5, 2, 1)
    assert (row["product_dtypes"], row["onnx_relative_error"]) == ("Half, Int8", 4e-4)
    assert (row["engine_weights_bytes"], row["weights_bytes"], row["engine_bytes"]) == (10, 20, 30)
    assert (row["role_mixer_ms"], pd.isna(row["role_mlp_ms"]), pd.isna(row["crosscheck"])) == (0.5, True, True)
    columns = ["flavour", "kernels", "fused_attentions", "product_dtypes", "engine_bytes", "role_mixer_ms"]
    assert other[columns].isna().all()


@pytest.mark.parametrize(("sha256", "mark"), [("a", "agreed"), ("b", None)])
def test_a_mark_of_crosscheck_is_of_the_engine_that_it_timed(tmp_path, sha256, mark):
    record = Record(case(lowering="tensorrt"), "ok", proof={"engine_sha256": "a"})
    run = write_run(tmp_path / "run", [record, ok(case(), MEDIANS)])
    entry = Checked(record.case, "agreed", ratio=1.01, engine_sha256=sha256)
    write_crosscheck(run, CrossCheck((entry,)))
    frame = reports.load(run)
    assert [None if pd.isna(each) else each for each in frame["crosscheck"]] == [mark, None]
    assert frame["crosscheck_ratio"].notna().sum() == (mark is not None)


def test_a_mixer_without_counts_has_missing_values_and_never_zeros(tmp_path):
    row = load_one(tmp_path, ok(case(window=None), MEDIANS)).iloc[0]
    assert (row["kind"], row["resolution"]) == ("mixer", "56")
    assert row[["window", "macs", "counts_exact", "uncounted_ops", "graph_breaks", "relative_error"]].isna().all()


def test_the_anchor_of_the_same_run_lowering_device_and_dtype_divides(tmp_path):
    anchor, other = case("anchor_v1", channels=None, window=None), case("anchor_v1", dtype="float16", channels=None)
    records = [ok(anchor, [4.0] * 3), ok(other, [8.0] * 3), ok(case(), [2.0] * 3), ok(case(lowering="compile"), [1.0])]
    frame = load_one(tmp_path, *records)
    assert frame["anchor_ratio"][:3].tolist() == pytest.approx([1, 1, 0.5])
    assert pd.isna(frame["anchor_ratio"][3])


def test_an_anchor_that_is_not_ok_divides_nothing(tmp_path):
    frame = load_one(tmp_path, Record(case("anchor_v1", channels=None), "crashed"), ok(case(), MEDIANS))
    assert frame["anchor_ratio"].isna().all()


def test_columns_and_types_are_the_same_for_an_empty_run(tmp_path):
    empty, full = load_one(tmp_path), reports.load(write_run(tmp_path / "full", [ok(case(), MEDIANS)]))
    assert len(empty) == 0
    assert list(empty.columns) == list(COLUMNS)
    assert empty.dtypes.to_dict() == full.dtypes.to_dict()


def test_several_runs_keep_their_names_and_their_anchors(tmp_path):
    anchor = case("anchor_v1", channels=None)
    runs = [write_run(tmp_path / name, [ok(anchor, [ms]), ok(case(), [2.0])]) for name, ms in (("a", 1.0), ("b", 4.0))]
    frame = reports.load(*runs)
    assert frame["run"].tolist() == ["a", "a", "b", "b"]
    assert frame["anchor_ratio"].tolist() == pytest.approx([1, 2, 1, 0.5])


def test_folders_of_one_name_are_told_apart(tmp_path):
    frame = reports.load(*(write_run(tmp_path / part / "run", [ok(case(), [2.0])]) for part in "ab"))
    assert frame["run"].tolist() == [str(tmp_path / part / "run") for part in "ab"]


def test_a_folder_that_is_no_run_a_run_named_twice_and_a_case_recorded_twice_are_errors(tmp_path):
    run = write_run(tmp_path / "run", [ok(case(), [2.0])])
    twice = write_run(tmp_path / "twice", [ok(case(), [2.0]), ok(case(), [3.0])])
    with pytest.raises(UsageError, match=r"no manifest\.json"):
        reports.load(tmp_path)
    with pytest.raises(UsageError, match="twice"):
        reports.load(run, str(run))
    with pytest.raises(UsageError, match="got 2 records of depthwise_conv"):
        reports.load(twice)


def test_a_ratio_of_few_cases_has_the_t_interval_of_its_rounds(tmp_path):
    top, bottom = (5.0, 5.5, 4.7, 5.1), (2.0, 2.6, 2.2, 2.1)
    frame = load_one(tmp_path, ok(case("window_attention"), top), ok(case("depthwise_conv"), bottom))
    row = ratios(frame, MIXERS).iloc[0]
    paired = scipy.stats.ttest_rel(np.log(top), np.log(bottom)).confidence_interval(0.95)
    assert row["ratio"] == pytest.approx(scipy.stats.gmean(top) / scipy.stats.gmean(bottom))
    assert (row["ratio_low"], row["ratio_high"]) == pytest.approx((np.exp(paired.low), np.exp(paired.high)))
    assert (row["faster"], row["interval"]) == ("depthwise_conv", "launches")


@pytest.mark.parametrize(
    ("top", "bottom", "faster"),
    [((1.0, 1.01, 0.99), (2.0, 2.02, 1.98), "window_attention"), ((1.0, 1.2, 0.8), (1.1, 0.9, 1.0), "undecided")],
)
def test_who_is_faster(tmp_path, top, bottom, faster):
    frame = load_one(tmp_path, ok(case("window_attention"), top), ok(case("depthwise_conv"), bottom))
    assert ratios(frame, MIXERS)["faster"].tolist() == [faster]


def test_a_ratio_of_medians_without_spread_is_exact(tmp_path):
    frame = load_one(tmp_path, ok(case("window_attention"), [4.0] * 3), ok(case("depthwise_conv"), [2.0] * 3))
    assert ratios(frame, MIXERS).loc[0, ["ratio", "ratio_low", "ratio_high"]].tolist() == pytest.approx([2.0] * 3)


def test_pairs_are_formed_within_one_setting_only_and_name_the_status_that_leaves_no_ratio(tmp_path):
    records = [
        ok(case("window_attention"), MEDIANS),
        Record(case("depthwise_conv"), "oom", "no memory"),
        ok(case("window_attention", window=9), MEDIANS),
        ok(case("depthwise_conv", window=11), MEDIANS),
        ok(case("window_attention", dtype="float16"), MEDIANS),
        ok(case("depthwise_conv", dtype="float16", layout="contiguous"), MEDIANS),
    ]
    rows = ratios(load_one(tmp_path, *records), MIXERS)
    assert rows["status"].tolist() == ["oom"]
    assert rows[["ratio", "ratio_low", "faster"]].isna().all(axis=None)


def test_networks_are_paired_though_they_have_no_channels(tmp_path):
    networks = [ok(case(name, channels=None), [ms]) for name, ms in (("swin_t", 3.0), ("dwnet_t", 2.0))]
    pair = Pair("swin_t", "dwnet_t", "two networks as published")
    assert ratios(load_one(tmp_path, *networks), pair)["ratio"].tolist() == [1.5]


def test_importing_all_reports_loads_no_torch_and_touches_no_backend():
    absent = "{'torch', 'mixprof.models'}"
    code = f"import sys, mixprof.reports.export; assert not {absent} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


FACTS = {
    "mine:mixer=a": {"kind": "network", "own_mixer": "b", "mixer": "a", "compared_with": {"mine": "the mixer alone"}},
    "mine": {"kind": "network", "own_mixer": "b", "mixer": "b", "published": {"top1_percent": 80.5}},
    "own": {"kind": "mixer", "plain_formulations": {"loop": "a loop, in Python"}},
}


def test_facts_of_models_come_from_the_manifest(tmp_path):
    networks = [ok(case(name, resolution=(224, 224), channels=None), [1.0]) for name in ("mine", "mine:mixer=a")]
    plain = [ok(case("own", lowering=low), [1.0], proof={"formulation": ["loop"]}) for low in ("eager", "fast:x=1")]
    lowerings = {"eager": {"fuses": False}, "fast": {"fuses": True}}
    manifest = replace(MANIFEST, models=FACTS, lowerings=lowerings)
    frame = reports.load(write_run(tmp_path / "run", [*networks, *plain], manifest))
    assert pairs(frame) == [Pair("mine:mixer=a", "mine", "the mixer alone")]
    assert frame["top1_percent"].dropna().tolist() == [80.5]
    assert frame["plain"].tolist() == [None, None, "a loop, in Python", None]
    assert frame.loc[1, ["own_mixer", "mixer"]].tolist() == ["b", "a"]


def test_a_run_from_before_manifests_had_facts_has_those_of_its_time(tmp_path):
    names = ("swin_t", "swin_t:mixer=depthwise_conv", "dwnet_b:mixer=window_attention", "swin_s:mixer=conv")
    frame = reports.load(write_run(tmp_path / "run", [ok(case(name, channels=None), [1.0]) for name in names]))
    assert frame["mixer"].tolist() == ["window_attention", "depthwise_conv", "window_attention", "conv"]
    assert {(pair.attention, pair.convolution) for pair in pairs(frame)} == {
        ("swin_t", "dwnet_t"),
        ("swin_t", "swin_t:mixer=depthwise_conv"),
        ("dwnet_b:mixer=window_attention", "dwnet_b"),
    }
