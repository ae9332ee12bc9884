"""One report over several testbeds with known latencies: verdicts each, agreement in words, claims, nothing pooled."""

from dataclasses import replace

import pytest

from mixprof.data.fleet import mark
from mixprof.data.manifest import Environment
from mixprof.reports.answers.fleet import standings
from mixprof.reports.answers.stability import stability
from mixprof.reports.export import write_report
from mixprof.reports.frame import load
from synthetic_runs import MANIFEST, case, ok, write_run

PAIR = ("window_attention", "depthwise_conv")
# How many times as long attention takes on each testbed, batch by batch; 1.0 is a draw within the noise.
TIMES = {
    "h100": {1: 2.0, 2: 2.0, 4: 2.0, 8: 2.0},
    "a100": {1: 3.0, 2: 3.0, 4: 1.0, 8: 3.0},
    "l4": {1: 0.5, 2: 0.5, 4: 0.5, 8: 2.0},
    "cpu": {1: 1.5, 2: 1.5, 4: 1.5, 8: 1.5},
}
NOISE = (0.99, 1.0, 1.01)


def records(times):
    for batch, ratio in times.items():
        for model, scale in zip(PAIR, (ratio, 1.0), strict=True):
            noise = NOISE if model == PAIR[0] else NOISE[::-1]  # no drift that the two share
            yield ok(case(model, batch=batch), [batch * scale * each for each in noise])


@pytest.fixture
def fleet(tmp_path):
    for name, times in TIMES.items():
        manifest = replace(MANIFEST, environment=Environment({"gpus": [name]}))
        write_run(tmp_path / "fleet" / name, list(records(times)), manifest)
    mark(tmp_path / "fleet")
    return tmp_path / "fleet"


def test_each_testbed_has_its_own_verdict(fleet):
    (by_run,) = standings(load(fleet))
    assert {one.run: (one.over, one.winner) for one in by_run} == {
        "h100": ("depthwise_conv", "depthwise_conv"),
        "a100": ("depthwise_conv", "depthwise_conv"),
        "l4": ("depthwise_conv", "window_attention"),
        "cpu": ("depthwise_conv", "depthwise_conv"),
    }
    counts = {one.run: (one.count(one.over), one.decided, len(one.rows)) for one in by_run}
    assert counts == {"h100": (4, 4, 4), "a100": (3, 3, 4), "l4": (1, 4, 4), "cpu": (4, 4, 4)}
    for one in by_run:
        truth = [TIMES[one.run][batch] for batch in one.rows["batch"]]
        assert one.rows["ratio"].tolist() == pytest.approx(truth)


def test_where_the_winner_changes_is_counted_axis_by_axis_and_testbed_by_testbed(fleet):
    (by_run,) = standings(load(fleet))
    counts = {(one.run, one.axis): (one.changes, one.groups) for one in stability(by_run)}
    # Batch 4 is a draw on the a100: of the four batches all have two testbeds or more that are decided.
    assert counts == {
        ("h100", "batch"): (0, 1),
        ("a100", "batch"): (0, 1),
        ("l4", "batch"): (1, 1),
        ("cpu", "batch"): (0, 1),
        (None, "testbed"): (3, 4),
    }
    (own,) = [one for one in stability(by_run) if one.run == "l4"]
    (over,) = [one for one in stability(by_run) if one.run is None]
    assert own.here is not None
    assert over.here is not None
    assert over.there is not None
    assert (own.here["batch"], own.here["ratio"]) == (8, pytest.approx(2.0))
    assert (over.here["run"], over.there["run"], over.here["ratio"]) == ("a100", "l4", pytest.approx(3.0))


def test_the_report_says_so_in_words(fleet, tmp_path):
    write_report([fleet], tmp_path / "report")
    text = (tmp_path / "report" / "summary.md").read_text()
    assert "same winner on 3 of 4 testbeds; on l4 window_attention." in text
    assert "| l4 | 8 of 8 | window_attention, in 3 of 4 |" in text
    lines = {line.split(" on ")[1].split(":")[0]: line for line in text.splitlines() if "settings, decided in" in line}
    assert "**depthwise_conv over window_attention** on h100: 4 of 4 settings, decided in 4." in lines["h100"]
    assert "3 of 4 settings, decided in 3; open in batch 4 (1 [" in lines["a100"]
    assert "1 of 4 settings, decided in 4; not in batch 1 (0.5 [" in lines["l4"]
    assert lines["l4"].count("(0.5 [") == 3
    changes = text.partition("## Where the winner changes")[2]
    assert "| depthwise_conv over window_attention | l4 | batch | 1 of 1 | batch 8 (2 [" in changes
    assert "|  | testbed | 3 of 4 | a100, batch" in changes
    growth = text.partition("testbed beside testbed")[2].splitlines()
    assert growth[2] == "| model | axis | a100 | cpu | h100 | l4 |"
    rising = next(line for line in growth if line.startswith("| depthwise_conv"))
    assert rising.count("| 1 [") == 4  # as long as the batch is large
    assert "| window_attention | depthwise_conv | batch | none | none | none | 5.66 [" in text  # sqrt(4 * 8)
    names = {path.name for path in (tmp_path / "report").iterdir()}
    assert "testbeds_window_attention_over_depthwise_conv.png" in names
    assert "The fleet" in (tmp_path / "report" / "index.html").read_text()


def test_runs_of_one_testbed_are_no_fleet(tmp_path):
    runs = [write_run(tmp_path / name, list(records(TIMES["h100"]))) for name in ("before", "after")]
    write_report(runs, tmp_path / "report")
    assert "The fleet" not in (tmp_path / "report" / "summary.md").read_text()


def test_an_order_of_models_does_not_turn_a_claim(tmp_path):
    backwards = write_run(tmp_path / "run", list(records(TIMES["l4"]))[::-1])
    (by_run,) = standings(load(backwards))
    assert [(one.over, one.winner) for one in by_run] == [("window_attention", "window_attention")]
    assert sorted(by_run[0].rows["ratio"]) == pytest.approx([0.5, 2, 2, 2])
