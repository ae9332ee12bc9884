"""reports.charts.figures: what is drawn is what was measured."""

import dataclasses
import itertools
import xml.etree.ElementTree as ElementTree
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot
from matplotlib.text import Text
from PIL import Image

from mixprof import reports
from mixprof.data.manifest import Peaks
from mixprof.data.record import Record
from mixprof.data.run_folder import write_peaks
from mixprof.reports.answers import answers
from mixprof.reports.answers.slices import ranked_slices
from mixprof.reports.charts.figures import charts, figures, write_figures
from mixprof.reports.charts.style import SETTINGS, styles_of
from mixprof.reports.charts.ticks import round_numbers, spread
from synthetic_runs import LOWERINGS, MIXERS, case, ok, realistic, write_run


@pytest.fixture(scope="module")
def frame(tmp_path_factory):
    return reports.load(write_run(tmp_path_factory.mktemp("runs") / "run", realistic()))


@pytest.fixture(scope="module")
def drawn(frame):
    return dict(figures(frame))


def panels(figure):
    return [axes for axes in figure.axes if axes.get_label() != "<colorbar>"]


def curve(panel, model):
    """The x and y data of a model's line in a panel."""
    (bars,) = [bars for bars in panel.containers if bars.get_label() == model]
    return bars[0].get_xdata(), bars[0].get_ydata(), bars


def global_settings():
    return {name: matplotlib.rcParams[name] for name in matplotlib.rcParams if name != "backend"}  # read: resolved


def load(tmp_path, *records):
    return reports.load(write_run(tmp_path / "run", records))


def test_the_figures_of_a_full_run(drawn):
    curves = {
        f"{quantity}_{axis}_{kind}"
        for quantity in ("latency", "memory", "flops")
        for axis, kind in (("resolution", "mixers"), ("window", "mixers"))
    }
    curves |= {f"{q}_{axis}_networks" for q in ("latency", "memory", "flops") for axis in ("resolution", "batch")}
    pairs = ("window_attention_over_depthwise_conv", "swin_t_over_swin_t:mixer=depthwise_conv", "swin_t_over_dwnet_t")
    crossing = ("depthwise_conv_and_window_attention", "dynamic_depthwise_conv_and_window_attention")  # along window
    maps = {f"crossovers_resolution_window_{pair}" for pair in crossing}
    across = {"gain_mixers", "gain_networks", "throughput_accuracy"}
    assert set(drawn) == curves | maps | across | {f"speedup_{pair}" for pair in pairs}


def test_fitted_exponents_stand_beside_the_panels(tmp_path):
    frame = load(tmp_path, *(ok(case(resolution=(s, s)), (s**1.5, 1.01 * s**1.5)) for s in (7, 14, 28)))
    (panel,) = panels(dict(figures(frame))["latency_resolution_mixers"])
    assert [text.get_text() for text in panel.texts] == ["1.50"]


def test_latency_is_drawn_as_measured_on_logarithmic_axes_a_panel_a_lowering(frame, drawn):
    shown = panels(drawn["latency_resolution_mixers"])
    assert [panel.get_title() for panel in shown] == list(LOWERINGS)
    for panel in shown:
        assert (panel.get_xscale(), panel.get_yscale()) == ("log", "log")
        rows = frame[(frame["model"] == "depthwise_conv") & (frame["window"] == 7)]
        rows = rows[rows["lowering"] == panel.get_title()]
        x, y, bars = curve(panel, "depthwise_conv")
        assert list(x) == [14, 28, 56, 112, 224]
        assert list(y) == rows["latency_ms"].tolist()
        ends = np.array([segment[:, 1] for segment in bars[2][0].get_segments()])
        assert ends[:, 0] == pytest.approx(rows["latency_low_ms"].to_numpy())
        assert ends[:, 1] == pytest.approx(rows["latency_high_ms"].to_numpy())


def test_memory_and_counts_are_scaled_for_people(frame, drawn):
    rows = frame[(frame["model"] == "window_attention") & (frame["window"] == 7) & (frame["lowering"] == "eager")]
    _, memory, _ = curve(panels(drawn["memory_resolution_mixers"])[0], "window_attention")
    _, flops, _ = curve(panels(drawn["flops_resolution_mixers"])[0], "window_attention")
    assert memory == pytest.approx(rows["allocator_peak_bytes"].to_numpy(float) / 2**20)
    assert flops == pytest.approx(rows["flops"].to_numpy(float) / 1e9)
    assert len(panels(drawn["flops_resolution_mixers"])) == 1  # counts do not depend on the lowering


def test_the_slice_is_named_and_failures_are_counted(drawn):
    figure = drawn["latency_resolution_mixers"]
    assert figure.get_suptitle().split("\n") == [
        "Latency against resolution, mixers",
        "cpu, float32, channels_last, hot, 96 channels, batch 1, window 7",
    ]
    assert "1 case not shown: 1 oom." in figure.legends[0].get_title().get_text()
    assert "95 % t interval over launches" in figure.legends[0].get_title().get_text()
    assert len(curve(panels(figure)[0], "global_attention")[0]) == 4  # a model without a window is in; its oom is not


def test_ticks_are_the_measured_values_as_plain_numbers(drawn):
    panel = panels(drawn["latency_resolution_networks"])[0]
    assert [label.get_text() for label in panel.get_xticklabels()] == ["224", "256", "384", "512", "800x1333"]
    assert panel.get_xticks() == pytest.approx([224, 256, 384, 512, np.sqrt(800 * 1333)])
    ticks = [label.get_text().replace(",", "") for label in panel.get_yticklabels()]
    assert [float(tick) for tick in ticks] == pytest.approx(list(panel.get_yticks()))
    assert len(ticks) >= 4


def test_every_model_of_a_figure_has_its_own_colour_marker_and_line(drawn):
    bars = [bars[0] for bars in panels(drawn["latency_resolution_mixers"])[1].containers]
    assert len(bars) == len(MIXERS)
    for style in ("get_marker", "get_color", "get_linestyle"):
        assert len({getattr(line, style)() for line in bars}) == len(MIXERS)


def test_a_model_keeps_its_style_in_all_figures(drawn):
    styles: dict[str, set] = {}
    for name, figure in drawn.items():
        for panel in panels(figure) if not name.startswith("speedup") else ():
            for bars in panel.containers:
                styles.setdefault(bars.get_label(), set()).add((bars[0].get_color(), bars[0].get_marker()))
    assert {len(found) for found in styles.values()} == {1}


def test_styles_are_distinct_for_many_models(tmp_path):
    frame = load(tmp_path, *(ok(case(f"mixer_{n:02}"), [1.0]) for n in range(60)))
    styles = [style for name, style in styles_of(frame).items() if name.startswith("mixer_")]
    found = {(style["color"], style["marker"], str(style["linestyle"])) for style in styles}
    assert len(found) == 60


def test_the_anchor_is_in_no_figure(drawn):
    labels = {bars.get_label() for figure in drawn.values() for panel in panels(figure) for bars in panel.containers}
    assert "anchor_v1" not in labels


def test_the_heat_map_shows_the_ratios_centred_at_one(frame, drawn):
    figure = drawn["speedup_window_attention_over_depthwise_conv"]
    panel = panels(figure)[0]
    rows = frame[(frame["lowering"] == "eager") & (frame["kind"] == "mixer")]
    latency = rows.set_index(["model", "window", "resolution"])["latency_ms"].to_dict()
    sides, windows = ["14", "28", "56", "112", "224"], [3, 7, 11]
    expected = [[latency["window_attention", w, s] / latency["depthwise_conv", w, s] for s in sides] for w in windows]
    (image,) = panel.images
    assert 2 ** np.asarray(image.get_array()) == pytest.approx(np.array(expected))
    assert image.norm.vmin == -image.norm.vmax
    texts = [text.get_text().strip("()") for text in panel.texts]
    assert sorted(map(float, texts)) == pytest.approx(sorted(np.ravel(expected)), abs=0.006)
    assert any("(" in text.get_text() for text in panel.texts)  # undecided ones are in brackets


def test_a_heat_map_names_the_status_where_there_is_no_ratio(tmp_path):
    records = [ok(case(model, window=w), [1.0]) for model in ("window_attention", "depthwise_conv") for w in (3, 5)]
    records += [Record(case("window_attention"), "oom"), ok(case("depthwise_conv"), [1.0])]
    figure = dict(figures(load(tmp_path, *records)))["speedup_window_attention_over_depthwise_conv"]
    assert "oom" in [text.get_text() for text in panels(figure)[0].texts]
    assert "1 without a ratio: 1 oom." in figure.get_supxlabel().replace("\n", " ")


def test_runs_are_never_mixed_into_one_line(tmp_path):
    runs = [
        write_run(tmp_path / name, [ok(case(resolution=(s, s)), [ms * s]) for s in (14, 28)])
        for name, ms in (("old", 1.0), ("new", 2.0))
    ]
    shown = panels(dict(figures(reports.load(*runs)))["latency_resolution_mixers"])
    lines = {panel.get_title(): list(curve(panel, "depthwise_conv")[1]) for panel in shown}
    assert lines == {"new\neager": pytest.approx([28, 56]), "old\neager": pytest.approx([14, 28])}


def test_the_slice_with_the_most_cases_is_drawn(tmp_path):
    many = [case(dtype="float16", resolution=(s, s)) for s in (14, 28, 56)]
    few = [case(dtype="float32", resolution=(s, s)) for s in (14, 28)]
    chosen, _ = ranked_slices(load(tmp_path, *(ok(of, [1.0]) for of in few + many)), "resolution")
    assert chosen.fixed["dtype"] == "float16"
    assert len(chosen.rows) == 3


def test_an_axis_with_one_value_is_not_drawn(tmp_path):
    frame = load(tmp_path, ok(case(), [1.0]), ok(case("window_attention"), [2.0]))
    assert dict(figures(frame)) == {}


def test_without_an_ok_case_only_counts_are_drawn(tmp_path):
    failed = [Record(case(resolution=(s, s)), "oom", "no memory", flops=s) for s in (14, 28)]
    assert list(dict(figures(load(tmp_path, *failed)))) == ["flops_resolution_mixers"]


def test_files_are_valid_and_nothing_global_changes(tmp_path):
    frame = load(tmp_path, *(ok(case(resolution=(s, s)), [s, 1.1 * s]) for s in (14, 28)))
    settings = global_settings()
    known = answers(frame)
    written = write_figures(known, charts(known), tmp_path / "out")
    assert sorted(path.name for path in written) == ["latency_resolution_mixers.png", "latency_resolution_mixers.svg"]
    with Image.open(tmp_path / "out" / "latency_resolution_mixers.png") as image:
        image.verify()
    svg = tmp_path / "out" / "latency_resolution_mixers.svg"
    assert ElementTree.parse(svg).getroot().tag.endswith("svg")
    assert write_figures(known, charts(known), tmp_path / "again")[1].read_bytes() == svg.read_bytes()
    assert global_settings() == settings
    assert pyplot.get_fignums() == []


# Legible: every figure of a run with peaks, broken-down cases and crossovers


def with_traffic(record):
    traffic = 2**21 + (record.macs or 0) // 50
    return dataclasses.replace(record, min_bytes=traffic, matrix_macs=record.macs, vector_macs=0)


@pytest.fixture(scope="module")
def every_figure(tmp_path_factory):
    parts = [{"stage": 1, "role": role, "ms": 1.0, "macs": 30, "bytes": 10, "kernels": 2} for role in ("mixer", "mlp")]
    broken_down = [ok(case(batch=8, window=w), [1.0, 1.1], proof={"breakdown": parts}) for w in (3, 5)]
    run = write_run(tmp_path_factory.mktemp("runs") / "run", [*map(with_traffic, realistic()), *broken_down])
    rates: dict[str, Any] = {"matrix_flops_per_s": 1e11, "vector_flops_per_s": 2e10, "copy_bytes_per_s": 1e9}
    write_peaks(run, [Peaks("cpu", "float32", **rates)])
    with matplotlib.rc_context(SETTINGS):
        made = dict(figures(reports.load(run)))
        for figure in made.values():
            figure.canvas.draw()
        yield made


def test_a_logarithmic_axis_has_three_labels_a_decade(every_figure):
    assert {"roofline", "breakdown", "gain_mixers", "throughput_accuracy"} <= set(every_figure)
    checked = 0
    for name, figure in every_figure.items():
        for panel in panels(figure):
            for axis, scale in ((panel.xaxis, panel.get_xscale()), (panel.yaxis, panel.get_yscale())):
                low, high = axis.get_view_interval()
                places = axis.get_ticklocs()
                labels = axis.get_major_formatter().format_ticks(places)
                shown = [p for p, label in zip(places, labels, strict=True) if label and low <= p <= high]
                if scale == "log":
                    checked += 1
                    assert len(shown) >= max(2, 3 * int(np.log10(high / low))), (name, low, high, shown)
    assert checked > 50


def test_no_text_of_a_figure_stands_on_another_and_no_legend_on_data(every_figure):
    for name, figure in every_figure.items():
        boxes = [
            (text.get_text(), text.get_window_extent())
            for text in figure.findobj(Text)
            if text.get_visible() and text.get_text().strip() and text.get_rotation() in (0, 90)
        ]
        for (first, one), (second, other) in itertools.combinations(boxes, 2):
            width = min(one.x1, other.x1) - max(one.x0, other.x0)
            height = min(one.y1, other.y1) - max(one.y0, other.y0)
            assert width < 1 or height < 1, f"{name}: '{first}' stands on '{second}'"
        for legend in figure.legends:
            lowest = min(panel.get_window_extent().y0 for panel in figure.axes)
            assert legend.get_window_extent().y1 < lowest, name


def test_roofs_bear_their_names(every_figure):
    (panel, *_) = panels(every_figure["roofline"])
    assert {text.get_text().strip() for text in panel.texts} == {"copy 1 GB/s", "matrix\n100", "vector\n20"}


@pytest.mark.parametrize(("low", "high"), [(0.37, 0.41), (1, 9.9), (0.3, 24), (0.011, 700), (3e-5, 2e6)])
def test_round_numbers_are_three_a_decade_and_three_in_all(low, high):
    ticks = round_numbers(low, high)
    assert all(low <= tick <= high for tick in ticks)
    assert len(ticks) >= max(3, 3 * int(np.log10(high / low)))


def test_labels_that_are_near_are_moved_apart_and_stay_below_the_top():
    placed = spread([0.95, 0.96, 0.2, 0.21, 0.97], 0.1)
    assert np.diff(np.sort(placed)).min() >= 0.1 - 1e-9
    assert placed.max() <= 1
    assert np.argsort(placed).tolist() == [2, 3, 0, 1, 4]
