"""reports.page without a browser: charts of data that only some runs have, JSON, Markdown."""

import json

import numpy as np
import pandas as pd
import pytest

from mixprof import reports
from mixprof.reports.page.charts import charts, with_derived
from mixprof.reports.page.html import data, embedded, markdown, sections
from synthetic_runs import case, ok, realistic, write_run

PEAKS = {"matrix_flops_per_s": 100e9, "vector_flops_per_s": 20e9, "copy_bytes_per_s": 10e9}


def load(tmp_path, *records):
    return reports.load(write_run(tmp_path / "run", records))


def by_name(frame):
    return {chart.name: chart for chart in charts(with_derived(frame))}


def test_every_curve_of_a_full_run_is_a_chart_with_all_its_settings(tmp_path):
    frame = load(tmp_path, *realistic())
    found = by_name(frame)
    assert {"latency_resolution_mixers", "memory_window_mixers", "flops_batch_networks"} <= set(found)
    assert {"gain_resolution_mixers", "throughput_accuracy"} <= set(found)
    views = found["latency_resolution_mixers"].views
    assert [view.label.rpartition("window ")[2] for view in views] == ["7", "3", "11"]
    for view in views:
        assert [panel.title for panel in view.panels] == ["eager", "compile:max-autotune", "onnxruntime"]
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
    cloud, matrix, vector = panel.traces
    assert with_derived(frame)[cloud.y].tolist() == pytest.approx([5.0, 2.5])  # 10 MFLOP in 2 and 4 ms
    assert np.array(matrix.y) == pytest.approx(np.minimum(10 * np.array(matrix.x), 100))
    assert np.array(vector.y) == pytest.approx(np.minimum(10 * np.array(vector.x), 20))


def test_a_breakdown_is_in_shares_of_the_forward(tmp_path):
    parts = [
        {"stage": 1, "role": "mixer", "ms": 3.0, "macs": 30, "bytes": 5, "kernels": 2},
        {"stage": 2, "role": "mlp", "ms": 1.0, "macs": 70, "bytes": 5, "kernels": 1},
        {"stage": None, "role": "head", "ms": 0.0, "macs": None, "bytes": 10, "kernels": 1},
    ]
    frame = load(tmp_path, ok(case(), [2.0])).assign(breakdown=json.dumps(parts))
    (view,) = by_name(frame)["breakdown"].views
    assert view.label == "depthwise_conv, eager, 56x56, batch 1, window 7"
    shares = {panel.title: {trace.name: trace.y for trace in panel.traces} for panel in view.panels}
    assert shares["time"] == {"mixer": [75, 0, 0], "mlp": [0, 25, 0], "head": [0, 0, 0]}
    assert shares["bytes moved"]["head"] == [0, 0, 50]
    assert "breakdown" not in data(frame)["columns"]


def test_the_pages_json_is_whole_and_cannot_end_its_element(tmp_path):
    frame = load(tmp_path, ok(case("</script><b>&amp;\u2028"), [1 / 3, 0.4]), ok(case(), [1.0]))
    text = embedded(data(frame))
    assert not set("<>&\u2028\u2029") & set(text)
    columns = json.loads(text)["columns"]
    model = columns["model"]
    assert [model["values"][code] for code in model["codes"]] == frame["model"].tolist()
    assert columns["latency_ms"]["values"] == frame["latency_ms"].tolist()  # in full
    assert columns["latency_low_ms"]["values"][1] is None  # one launch, too few samples


def test_markdown_is_shown_and_never_a_link_or_a_tag():
    html = markdown(
        ["**bold** \\*plain\\* <b> [x](http://y) ![z](w) &lt;", "| a | b |\n| --- | --- |\n| 1 \\| 2 | `c` |"]
    )
    assert "<strong>bold</strong> *plain* &lt;b&gt; [x](http://y) ![z](w) &amp;lt;" in html
    assert "<td>1 | 2</td>" in html
    assert "<code>c</code>" in html
    assert "<a" not in html
    assert "<img" not in html


def test_the_page_has_every_section_that_it_does_not_replace():
    headings = ("Who is faster", "The mixer exchanged, all else equal", "Measurements", "New")
    text = "# t\n\nx\n\n" + "".join(f"## {name}\n\n{word}\n\n" for name, word in zip(headings, "abcd", strict=True))
    first, rest = sections(text)
    assert "The mixer exchanged" in first
    assert "<p>b</p>" in first
    assert "<h2>New</h2>" in rest
    assert not {"<p>a</p>", "<p>c</p>", "<p>b</p>"} & set(rest.split("\n"))
    long = "## Long\n\n| a |\n| --- |\n" + "| 1 |\n" * 5000
    assert "it stands in <code>summary.md</code>" in sections("# t\n" + long)[1]


def test_a_derived_frame_keeps_its_rows(tmp_path):
    frame = load(tmp_path, *realistic())
    derived = with_derived(frame)
    pd.testing.assert_frame_equal(derived[frame.columns.tolist()], frame)
