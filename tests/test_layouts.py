"""Layouts: a GPU gets both by default, and the report says which is faster."""

import pytest

from mixprof import reports
from mixprof.plan import settings
from mixprof.plan.axes import Source, expand
from mixprof.plan.settings import Axes
from mixprof.reports.answers import answers
from mixprof.reports.text.layouts import layouts
from synthetic_runs import case, ok, write_run

TOY = Source("toys:mixer", {}, ("resolution",), "mixer")


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        ("cpu", ["channels_last"]),
        ("cuda:0", ["channels_last", "contiguous"]),
        ("sim:0", ["channels_last", "contiguous"]),
    ],
)
def test_a_gpu_is_measured_in_both(device, expected):
    planned = expand([Axes(models=("toy",))], lambda _: TOY, ["cpu", device])
    assert [entry.case.layout for entry in planned] == expected
    assert all(entry.layout_is_default for entry in planned)
    of_two_revisions = expand([Axes(models=("toy",))], lambda _: TOY, ["cpu", device], one_layout=True)
    assert [entry.case.layout for entry in of_two_revisions] == ["channels_last"]
    asked = expand([Axes(models=("toy",), layouts=("contiguous",))], lambda _: TOY, ["cpu", device])
    assert [entry.case.layout for entry in asked] == ["contiguous"]
    assert list(settings.usual_layouts(device)) == expected


def test_a_graph_runtime_has_one_layout():
    axes = Axes(models=("toy",), lowerings=("onnxruntime",))
    assert [entry.case.layout for entry in expand([axes], lambda _: TOY, ["cuda:0"])] == ["channels_last"]


@pytest.mark.parametrize(
    ("last_ms", "contiguous_ms", "faster", "times"),
    [(2.0, 3.0, "channels_last over contiguous", "1.5"), (3.0, 2.0, "contiguous over channels_last", "1.5")],
)
def test_the_report_says_which_is_faster(tmp_path, last_ms, contiguous_ms, faster, times):
    noise = (0.99, 1.0, 1.01)
    records = [
        ok(case(layout="channels_last"), [last_ms * one for one in noise]),
        ok(case(layout="contiguous"), [contiguous_ms * one for one in noise[::-1]]),
        ok(case(layout="contiguous", batch=2), [1.0, 1.0, 1.1]),
    ]
    (section,) = layouts(answers(reports.load(write_run(tmp_path / "run", records))))
    ((row,),) = [table.rows for table in section.tables()]
    assert (row["faster"], row["decided"]) == (faster, "decided")
    assert row["times"].startswith(times)


def test_one_layout_alone_says_nothing(tmp_path):
    assert not layouts(answers(reports.load(write_run(tmp_path / "run", [ok(case(), [1.0, 1.0])]))))
