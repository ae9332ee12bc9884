"""reports.text.summary and reports.export: what summary.md says, and files that read back whole."""

import re
from dataclasses import replace

import pandas as pd
import pytest

from mixprof import reports
from mixprof.data.errors import UsageError
from mixprof.data.manifest import Checked, CrossCheck, Sweep
from mixprof.data.record import Record
from mixprof.data.run_folder import write_crosscheck
from mixprof.reports.answers import answers
from mixprof.reports.export import write_report
from mixprof.reports.frame import COLUMNS
from mixprof.reports.text.markdown import cell, number
from mixprof.reports.text.roofline import predicted_memory
from mixprof.reports.text.summary import short, summary
from synthetic_runs import LOWERINGS, MANIFEST, case, launch, ok, realistic, write_run

ATTENTION, CONVOLUTION = "window_attention", "depthwise_conv"


def summarise(tmp_path, *records):
    return summary(answers(reports.load(write_run(tmp_path / "run", records))), {"run": MANIFEST})


def table_after(text, heading):
    """The rows of the first table after a heading, as dicts; splits cells where Markdown does."""
    lines = iter(text[text.index(heading) :].split("\n"))
    found = []
    for line in lines:
        if line.startswith("|"):
            found.append([c.strip() for c in re.split(r"(?<!\\)\|", line)[1:-1]])
        elif found:
            break
    header, rule, *rows = found
    assert set(rule) == {"---"}
    return [dict(zip(header, row, strict=True)) for row in rows]


def test_one_setting_is_a_line_with_its_ratio_and_interval(tmp_path):
    text = summarise(tmp_path, ok(case(ATTENTION), (4.0, 4.2, 4.4)), ok(case(CONVOLUTION), (2.0, 2.2, 2.1)))
    (row,) = table_after(text, "## Who is faster")
    # scipy.stats.ttest_rel of the logs gives 2 x/÷ exp(0.11556)
    assert row == {
        "who": "depthwise_conv over window_attention (the two mixers by themselves)",
        "how much": "2 [1.78, 2.25] times as fast",
        "where": "float32, eager, cpu, 56x56, batch 1, window 7, 96 channels",
        "decided": "decided",
        "in all settings": "measured in this setting alone.",
    }
    assert "empirical Bayes" in text


def test_many_settings_are_counted_with_both_ends_of_the_range(tmp_path):
    pairs = {3: (1.0, 4.0), 5: (2.0, 2.0), 7: (9.0, 3.0), 9: (8.0, 2.0)}
    spread = (0.98, 1.0, 1.02)
    records = [ok(case(ATTENTION, window=w), [a * s for s in spread]) for w, (a, _) in pairs.items()]
    records += [ok(case(CONVOLUTION, window=w), [c * s for s in spread]) for w, (_, c) in pairs.items()]
    records += [Record(case(ATTENTION, window=11), "oom"), ok(case(CONVOLUTION, window=11), spread)]
    text = summarise(tmp_path, *records)
    (row,) = table_after(text, "## Who is faster")
    assert row["in all settings"].startswith(
        "depthwise_conv is faster in 2 of 4 settings, window_attention in 1, 1 undecided (0.25 to 4 times); "
        "1 without a ratio (oom); they swap places at window "
    )
    assert row["how much"].startswith("3 [")
    rows = table_after(text, "## Attention over convolution")
    assert [(row["window"], row["faster"]) for row in rows] == [
        ("3", "window_attention"),
        ("5", "undecided"),
        ("7", "depthwise_conv"),
        ("9", "depthwise_conv"),
        ("11", ""),
    ]
    assert rows[-1]["ratio"] == "oom"


def test_a_winner_after_one_launch_is_provisional(tmp_path):
    times = {ATTENTION: launch([3, 3.03] * 20), CONVOLUTION: launch([1, 1.01] * 20)}
    records = [Record(case(model), "ok", launches=(only,)) for model, only in times.items()]
    text = summarise(tmp_path, *records)
    assert table_after(text, "## Who is faster")[0]["decided"] == "decided, provisional: one launch"
    assert "within the only launch" in text


def test_measurements_are_in_units_for_people(tmp_path):
    fields = {"flops": 3 * 10**9, "uncounted_ops": ("aten::x",), "relative_error": 2.5e-6}
    text = summarise(tmp_path, ok(case(batch=2), (2.0, 2.0), memory={"allocator_peak_bytes": 3 * 2**19}, **fields))
    (row,) = table_after(text, "### eager")
    assert row == {
        "model": "depthwise_conv",
        "lowering": "eager",
        "dtype": "float32",
        "batch": "2",
        "resolution": "56",
        "window": "7",
        "channels": "96",
        "latency (ms)": "2 [2, 2]",
        "launches": "2",
        "images/s": "1,000",
        "GFLOPs": "≥ 3",
        "peak (MiB)": "1.5",
        "relative error": "2.5e-06",
    }
    assert "All of these: cpu, channels_last, hot." in text
    assert "`aten::x`" in text


def test_every_case_is_in_exactly_one_table(tmp_path):
    records = realistic()
    text = summarise(tmp_path, *records)
    failed = table_after(text, "## Cases that are not ok")
    measured = [row for name in LOWERINGS for row in table_after(text, f"### {name}")]
    assert len(measured) == sum(record.status == "ok" for record in records)
    assert len(failed) == sum(record.status != "ok" for record in records)
    assert all(row["reason"] for row in failed)


def test_a_reason_cannot_break_its_table(tmp_path):
    text = summarise(
        tmp_path, Record(case(), "crashed", "a | b\n\n| --- |\nexpected <float32>"), ok(case(window=3), [1.0])
    )
    (row,) = table_after(text, "## Cases that are not ok")
    assert row["reason"] == r"a \| b \| --- \| expected \<float32>"


def test_the_environment_and_the_way_of_measuring_are_told(tmp_path):
    text = summarise(tmp_path, ok(case(), (1.0, 1.1, 1.2)))
    settings = {row["setting"]: row["run"] for row in table_after(text, "## Environment")}
    assert settings["environment.testbed.cpu.model"] == r"A \| B \<cpu>"
    assert (settings["environment.informing.governor"], settings["versions.torch"]) == ("unknown", "2.13.0")
    assert "Launches (processes) per case: 3." in text
    assert table_after(text, "## How it was measured") == [{"setting": "measure.launches", "run": "3"}]


def test_cases_without_a_record_are_not_forgotten(tmp_path):
    known = answers(reports.load(write_run(tmp_path / "run", [ok(case(), [1.0])])))
    assert "**run is not finished**: 2 of its cases were not run." in summary(
        known, {"run": replace(MANIFEST, sweep=Sweep(3))}
    )
    assert "not finished" not in summary(known, {"run": replace(MANIFEST, sweep=Sweep(1))})


def test_the_short_table_has_a_line_a_case(tmp_path):
    records = [ok(case(), (2.0, 2.0)), Record(case(ATTENTION, window=None), "oom", "no\nmemory")]
    header, *lines = short(write_run(tmp_path / "run", records)).split("\n")
    names = ["model", "lowering", "device", "dtype", "batch", "resolution", "window", "channels"]
    assert re.split(r"  +", header) == [*names, "latency (ms)", "images/s", "status"]
    setting = ["depthwise_conv", "eager", "cpu", "float32", "1", "56", "7", "96"]
    assert re.split(r"  +", lines[0]) == [*setting, "2 [2, 2]", "500", "ok"]
    assert lines[1].index("oom: no memory") == header.index("status")


def test_runs_stand_side_by_side_and_differences_are_marked(tmp_path):
    known = answers(reports.load(*(write_run(tmp_path / name, [ok(case(), [1.0])]) for name in "ab")))
    text = summary(known, {"a": MANIFEST, "b": replace(MANIFEST, versions={"torch": "9"})})
    rows = {row["setting"]: (row["a"], row["b"]) for row in table_after(text, "## Environment")}
    assert rows["versions.torch (differs)"] == ("2.13.0", "9")
    assert "environment.testbed.cpu.threads" in rows
    assert "### eager, run b" in text


def test_a_run_of_failures_only_is_reported_and_says_so(tmp_path):
    run = write_run(tmp_path / "run", [Record(case(), "unavailable", "pip install x")])
    names = {path.name for path in write_report([run], tmp_path / "out")}
    assert names == {"index.html", "summary.md", "results.csv", "results.parquet"}
    text = (tmp_path / "out" / "summary.md").read_text()
    assert "**Nothing was ok**" in text
    assert "1 unavailable" in text
    assert table_after(text, "## Cases that are not ok")[0]["reason"] == "pip install x"


def engine(status="built", model=CONVOLUTION, lowering="tensorrt_rtx", **proof):
    """A record of an engine as a sweep writes it; "built" where there is no device."""
    of = case(model, lowering=lowering, device="cuda:0", dtype="float16")
    common = {
        "flavour": lowering.split(":")[0],
        "tensorrt_version": "1.7.1",
        "kernels": 6,
        "attentions": 0,
        "fused_attentions": [],
        "product_dtypes": ["Half"],
        "intermediate_bytes": 3 * 2**20,
        "activation_bytes": 4 * 2**20,
        "scratch_bytes": 2**20,
        "weights_bytes": 2**19,
        "engine_bytes": 2**21,
        "engine_build_s": 2.5,
        "onnx_relative_error": 4e-4,
    }
    launches = (launch([1.0] * 3, "gpu_ms"),) if status == "ok" else ()
    reason = None if status == "ok" else "cuda:0 is not there: built only"
    return Record(of, status, reason, launches, build_cached=False, proof={**common, **proof})


def test_a_run_of_engines_that_were_only_built_reads_as_that(tmp_path):
    text = summarise(tmp_path, engine(), engine(model=ATTENTION, attentions=1, fused_attentions=[["a"]]))
    assert "**Engines were built and none was run**, so there is no latency to show. 2 cases: 2 built." in text
    assert "Nothing was ok" not in text
    assert "Engines were built and none was run: nothing is known of which is faster." in text
    assert "- 2 cases: cuda:0 is not there: built only." in text
    assert "## Cases that are not ok" not in text
    assert "## Attention over convolution" not in text
    assert len(table_after(text, "### Engines")) == 2


def test_the_proof_of_lowering_is_in_units_for_people(tmp_path):
    (row,) = table_after(summarise(tmp_path, engine(attentions=12, fused_attentions=[[]] * 6)), "### Engines")
    assert row == {
        "flavour": "TensorRT-RTX",
        "version": "1.7.1",
        "lowering": "tensorrt_rtx",
        "dtype": "float16",
        "model": "depthwise_conv",
        "batch": "1",
        "resolution": "56",
        "window": "7",
        "channels": "96",
        "status": "built",
        "kernels": "6",
        "attentions fused": "6 of 12",
        "precision": "Half",
        "intermediate (MiB)": "3",
        "activation (MiB)": "4",
        "scratch (MiB)": "1",
        "weights (MiB)": "0.5",
        "engine (MiB)": "2",
        "build (s)": "2.5",
        "from": "built",
        "graph's error": "4.0e-04",
    }


def test_the_two_flavours_have_two_names_and_a_mark_stands_in_their_row(tmp_path):
    records = [
        engine("ok", lowering="tensorrt", onnx_relative_error=None, engine_sha256="a"),
        engine("ok", lowering="tensorrt_rtx:graph=on", onnx_relative_error=None, onnx_unchecked="no bfloat16"),
    ]
    run = write_run(tmp_path / "run", records)
    entry = Checked(records[0].case, "disagreed", ratio=1.05, engine_sha256="a")
    write_crosscheck(run, CrossCheck((entry,)))
    text = summary(answers(reports.load(run)), {"run": MANIFEST})
    assert "Engines were built and none was run" not in text
    rows = {row["flavour"]: row for row in table_after(text, "### Engines")}
    assert set(rows) == {"TensorRT", "TensorRT-RTX"}
    assert rows["TensorRT"]["crosscheck"] == "disagreed (1.050)"
    assert rows["TensorRT-RTX"]["crosscheck"] == ""
    assert rows["TensorRT-RTX"]["graph's error"] == "refused"


def test_compiled_graphs_and_times_by_role_have_tables_of_their_own(tmp_path):
    compiled = {"graph_breaks": 1, "recompiles": 0, "kernels": None}
    text = summarise(
        tmp_path,
        ok(case(lowering="compile:max-autotune"), (1.0, 1.0), proof=compiled),
        engine("ok", role_ms={"mixer": 0.5, "reshape": 0.125}),
    )
    (row,) = table_after(text, "### Compiled graphs")
    assert (row["graph breaks"], row["recompiles"], row["kernels"]) == ("1", "0", "from the cache")
    (row,) = table_after(text, "### Where an engine's time goes")
    assert (row["mixer (ms)"], row["reshape (ms)"]) == ("0.5", "0.125")
    assert "mlp (ms)" not in row


def test_a_run_without_engines_or_compiled_graphs_has_no_proof_of_lowering(tmp_path):
    assert "Proof of lowering" not in summarise(tmp_path, ok(case(), (1.0, 1.0)))


def test_an_empty_run_is_reported(tmp_path):
    write_report([write_run(tmp_path / "run", [])], tmp_path / "out")
    assert "nothing was measured" in (tmp_path / "out" / "summary.md").read_text()
    assert len(pd.read_parquet(tmp_path / "out" / "results.parquet")) == 0


def test_a_folder_that_is_no_run_writes_nothing(tmp_path):
    with pytest.raises(UsageError):
        write_report([tmp_path], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_csv_and_parquet_read_back_what_was_loaded(tmp_path):
    records = [ok(case(), (1 / 3, 0.1, 0.7), macs=2**53 + 1, uncounted_ops=("a", "b")), Record(case(window=9), "oom")]
    run = write_run(tmp_path / "run", records)
    write_report([run], tmp_path / "out")
    frame = reports.load(run)
    parquet = pd.read_parquet(tmp_path / "out" / "results.parquet")
    pd.testing.assert_frame_equal(*(f.astype(object).where(f.notna(), None) for f in (parquet, frame)))
    csv = pd.read_csv(tmp_path / "out" / "results.csv", dtype={"macs": "Int64", "latency_ms": "object"})
    assert list(csv.columns) == list(frame.columns)
    assert float(csv["latency_ms"][0]) == frame["latency_ms"][0]
    assert csv["macs"][0] == 2**53 + 1
    assert csv["uncounted_ops"][0] == "a, b"
    assert pd.isna(csv["latency_ms"][1])


@pytest.mark.parametrize(
    ("value", "expected"),
    [(None, ""), (float("nan"), ""), (1.23456e-4, "0.0001235"), (12.3456, "12.35"), (1234.5, "1,234")],
)
def test_numbers_for_people(value, expected):
    assert number(value) == expected


def test_a_cell_escapes_what_markdown_would_take_for_its_own():
    assert cell("a\\|b `c` *d* __init__ e_f\r\ng") == r"a\\\|b \`c\` \*d\* \_\_init\_\_ e_f g"


def test_predicted_memory_is_set_beside_the_measured_with_the_cause_of_a_miss():
    common = {"run": "r", "lowering": "eager", "device": "cpu", "status": "ok", "batch": 1, "resolution": "56"}
    rows = [
        {**common, "model": "exact", "dtype": "float32", "predicted_peak_bytes": 2**22, "allocator_peak_bytes": 2**22},
        {**common, "model": "tiny", "dtype": "float32", "predicted_peak_bytes": 800, "allocator_peak_bytes": 1000},
        {**common, "model": "odd", "dtype": "float32", "predicted_peak_bytes": 2**22, "allocator_peak_bytes": 2**23},
        {**common, "model": "gpu", "device": "cuda:0", "predicted_peak_bytes": 1, "allocator_peak_bytes": 9},
    ]
    frame = pd.DataFrame({name: pd.Series([row.get(name) for row in rows], dtype=COLUMNS[name]) for name in COLUMNS})
    (section,) = predicted_memory(answers(frame))
    assert section.parts[0] == "1 of 3 within 10%, ratios 0.500 to 1.000."
    cells = {row["model"]: row for row in section.tables()[0].rows}
    assert set(cells) == {"exact", "tiny", "odd"}
    assert cells["tiny"]["predicted / measured"] == "0.800"
    assert "oneDNN" in cells["tiny"]["cause"]
    assert cells["odd"]["cause"] == "unexplained"
    assert predicted_memory(answers(frame.iloc[3:])) == []
