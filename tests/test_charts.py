"""reports.page without a browser: charts of data that only some runs have, JSON, Markdown."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from mixprof import reports
from mixprof.data.manifest import Environment
from mixprof.reports.answers import answers, with_derived
from mixprof.reports.charts.figures import charts
from mixprof.reports.page.html import as_html, data, embedded, section_html
from mixprof.reports.text.markdown import Section, Table
from synthetic_runs import MANIFEST, case, ok, realistic, write_run

PEAKS = {"matrix_flops_per_s": 100e9, "vector_flops_per_s": 20e9, "copy_bytes_per_s": 10e9}


def load(tmp_path, *records):
    return reports.load(write_run(tmp_path / "run", records))


def by_name(frame):
    return {chart.name: chart for chart in charts(answers(frame))}


def test_every_curve_of_a_full_run_is_a_chart_with_all_its_settings(tmp_path):
    frame = load(tmp_path, *realistic())
    found = by_name(frame)
    assert {"latency_resolution_mixers", "memory_window_mixers", "flops_batch_networks"} <= set(found)
    assert {"gain_resolution_mixers", "throughput_accuracy"} <= set(found)
    views = found["latency_resolution_mixers"].views
    assert [view.label.rpartition("window ")[2] for view in views] == ["7", "3", "11"]
    for view in views:
        assert [panel.names for panel in view.panels] == [["eager"], ["compile:max-autotune"], ["onnxruntime"]]
        for trace in (trace for panel in view.panels for trace in panel.traces):
            rows = frame.loc[trace.rows]
            assert set(rows["model"]) == {trace.name}
            assert rows["height"].is_monotonic_increasing
            assert (rows["status"] == "ok").all()


def test_ratios_are_drawn_a_line_a_lowering(tmp_path):
    times = {"window_attention": 4.0, "depthwise_conv": 2.0}
    records = [
        ok(case(model, lowering=lowering, resolution=(s, s)), [ms * s] * 2)
        for model, ms in times.items()
        for lowering in ("eager", "compile")
        for s in (14, 28)
    ]
    chart = by_name(load(tmp_path, *records))["ratio_resolution_window_attention_over_depthwise_conv"]
    (panel,) = chart.views[0].panels
    assert [trace.name for trace in panel.traces] == ["eager", "compile"]
    assert [trace.y for trace in panel.traces] == [pytest.approx([2.0, 2.0])] * 2
    assert panel.traces[0].x == [14, 28]


def test_a_roofline_is_drawn_where_peaks_were_measured(tmp_path):
    frame = load(tmp_path, ok(case(), [2.0, 2.0], flops=10**7), ok(case(window=9), [4.0, 4.0], flops=10**7))
    assert "roofline" not in by_name(frame)
    frame = frame.assign(intensity=[1.0, 4.0], attainable_share=0.5, **PEAKS)
    (panel,) = by_name(frame)["roofline"].views[0].panels
    cloud, copy, vector = panel.traces  # the roof of matrix products begins at 10, beyond what is shown
    assert with_derived(frame)[cloud.y].tolist() == pytest.approx([5.0, 2.5])  # 10 MFLOP in 2 and 4 ms
    assert np.array(copy.y) == pytest.approx(10 * np.array(copy.x))
    assert (copy.x[-1], vector.x[0]) == (pytest.approx(8.0), pytest.approx(2.0))
    assert vector.y == [20.0, 20.0]


def test_a_breakdown_is_in_shares_of_a_stage(tmp_path):
    parts = [
        {"stage": 1, "role": "mixer", "ms": 3.0, "macs": 30, "bytes": 5, "kernels": 2},
        {"stage": 2, "role": "mlp", "ms": 1.0, "macs": 70, "bytes": 5, "kernels": 1},
        {"stage": None, "role": "head", "ms": 0.0, "macs": None, "bytes": 10, "kernels": 1},
    ]
    frame = load(tmp_path, ok(case("swin_t", channels=None), [2.0])).assign(breakdown=json.dumps(parts))
    (view,) = by_name(frame)["breakdown"].views
    shares = {panel.names[0]: {trace.name: trace.y for trace in panel.traces} for panel in view.panels}
    assert view.panels[0].traces[0].x == ["swin_t, stage 1", "swin_t, stage 2", "swin_t, outside"]
    assert shares["time"] == {"mixer": [100, 0, 0], "mlp": [0, 100, 0], "head": [0, 0, 0]}
    assert shares["bytes moved"]["head"] == [0, 0, 100]
    assert "breakdown" not in data(answers(frame), [])["columns"]


def test_the_pages_json_is_whole_and_cannot_end_its_element(tmp_path):
    frame = load(tmp_path, ok(case("</script><b>&amp;\u2028"), [1 / 3, 0.4]), ok(case(), [1.0]))
    text = embedded(data(answers(frame), []))
    assert not set("<>&\u2028\u2029") & set(text)
    columns = json.loads(text)["columns"]
    model = columns["model"]
    assert [model["values"][code] for code in model["codes"]] == frame["model"].tolist()
    assert columns["latency_ms"]["values"] == frame["latency_ms"].tolist()  # in full
    assert columns["latency_low_ms"]["values"][1] is None  # one launch, too few samples


def test_markdown_is_shown_and_never_a_link_or_a_tag():
    html = as_html("**bold** \\*plain\\* <b> [x](http://y) ![z](w) &lt; `c`")
    assert "<strong>bold</strong> *plain* &lt;b&gt; [x](http://y) ![z](w) &amp;lt; <code>c</code>" in html
    table = as_html(
        Table(({"a": "**1** | 2", "b": "<i>", "empty": ""}, {"a": "3", "b": "4", "empty": ""}), frozenset([1]))
    )
    assert "<td>**1** | 2</td><td>&lt;i&gt;</td></tr>" in table
    assert '<tr class="differs"><td>3 (differs)</td>' in table
    assert "empty" not in table


def test_a_long_section_is_folded_and_a_longer_one_only_named():
    def section(count):
        return section_html(Section("New", ("text", Table(({"a": "1"},) * count))), "new")

    assert section(3).startswith('<section id="new"><h2>New</h2><p>text</p>')
    assert "<details><summary>70 rows</summary><p>text</p>" in section(70)
    assert "it stands in <code>summary.md</code>" in section(5000)


def test_a_derived_frame_keeps_its_rows(tmp_path):
    frame = load(tmp_path, *realistic())
    derived = with_derived(frame)
    pd.testing.assert_frame_equal(derived[frame.columns.tolist()], frame)


def test_a_gain_over_the_first_run_is_of_one_testbed(tmp_path):
    """Two machines, two runs each: 2 and 4 times as fast as the first of the same machine, never as the other's."""
    runs = {"a1": ("A", 8.0), "b1": ("B", 1.0), "a2": ("A", 4.0), "b2": ("B", 0.25)}
    for name, (cpu, ms) in runs.items():
        manifest = replace(MANIFEST, environment=Environment({"cpu": cpu}), versions={"torch": name})
        write_run(tmp_path / name, [ok(case(), [ms, 1.01 * ms])], manifest)
    cases = with_derived(reports.load(*(tmp_path / name for name in runs)))
    assert cases.set_index("run")["run_gain"].dropna().to_dict() == pytest.approx({"a2": 2.0, "b2": 4.0})
    assert "run_gain" not in with_derived(reports.load(tmp_path / "a1", tmp_path / "b1"))
