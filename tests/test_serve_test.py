"""`mixprof serve-test` as people run it: real worker processes, on the simulated GPU whose clock is virtual."""

import inspect
import json

import pytest

import mixprof
from mixprof.cli.main import main
from mixprof.data.errors import UsageError
from mixprof.data.json import decode
from mixprof.data.served import Served
from mixprof.plan.load import SETTINGS, read
from mixprof.reports.answers.served import frame
from mixprof.run import serving

MODEL = ("serve-test", "depthwise_conv", "--resolutions", "14", "--formulations", "usual")


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """Two launches of a simulated service, as --out writes them."""
    out = tmp_path_factory.mktemp("served") / "served.json"
    options = ("--devices", "sim:0", "--layouts", "contiguous", "--seconds", "0.2", "--launches", "2")
    scenarios = ("--scenario", "single,multi,offline,server", "--rate", "1000", "--limit-ms", "1")
    assert main([*MODEL, *options, *scenarios, "--out", str(out)]) == 0
    return json.loads(out.read_text())["served"]


def test_every_scenario_of_every_launch_is_there(loaded):
    assert [(each["launch"], each["scenario"]) for each in loaded] == [
        (launch, name) for launch in (0, 1) for name in ("single", "multi", "offline", "server")
    ]
    assert all(each["status"] == "ok" and each["simulated"] for each in loaded)


def test_scenarios_agree_with_one_another(loaded):
    """A stream of eight takes eight forwards; offline nobody waits; a server that is mostly idle answers as single."""
    single, multi, offline, server = loaded[:4]
    median = single["percentiles"][0]["ms"]
    assert multi["percentiles"][0]["ms"] == pytest.approx(8 * median, rel=0.02)
    assert offline["per_second"] == pytest.approx(1e3 / median, rel=0.05)
    assert server["percentiles"][0]["ms"] == pytest.approx(median, rel=0.05)
    assert server["per_second"] == pytest.approx(1000, rel=0.15)
    assert server["keeps"] < offline["per_second"] < 1.2 * server["breaks"]


def test_bounds_hold_their_percentile_and_launches_differ(loaded):
    for each in loaded:
        for found in each["percentiles"]:
            assert (found["low_ms"] or 0) <= found["ms"] <= (found["high_ms"] or float("inf"))
    assert loaded[3]["percentiles"] != loaded[7]["percentiles"]


def test_python_gets_a_row_for_each_as_a_frame(loaded):
    rows = frame(decode(each, Served) for each in loaded)
    assert list(rows["scenario"]) == [each["scenario"] for each in loaded]
    server = rows.iloc[3]
    assert (server["p50_ms"], server["rate"]) == (loaded[3]["percentiles"][0]["ms"], 1000)
    assert (server["height"], server["launch"], rows["launch"].max()) == (14, 0, 1)
    assert rows["p99_ms"].isna().tolist() == [each["scenario"] == "offline" for each in loaded]


def test_command_line_and_python_are_read_by_one_table():
    typed = read({"models": "swin_t", "scenario": "single,server", "rate": "5", "quick": True}, "--{}".format)
    called = read({"models": ("swin_t",), "scenario": ["single", "server"], "rate": 5.0, "quick": True}, "{}=".format)
    assert typed == called
    assert typed[2].seconds == 1
    assert set(inspect.signature(mixprof.serve_test).parameters) == {*SETTINGS, "given"}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "got scenario= server without rate= and limit_ms=, expected one"),
        ({"rate": -1}, "rate=: got -1, expected a number above 0"),
        ({"scenarios": "single"}, "got scenarios=, expected scenario"),
        ({"scenario": []}, "scenario=: got None, expected one of single"),
        ({"batches": 4, "scenario": "single"}, "got batches="),
    ],
)
def test_a_wrong_keyword_is_one_line(given, words):
    with pytest.raises(UsageError) as error:
        mixprof.serve_test("depthwise_conv", **given)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_resolutions_that_change_are_built_once_each(capsys):
    options = ("--devices", "sim:0", "--layouts", "contiguous", "--scenario", "churn", "--json")
    assert main([*MODEL, *options, "--resolutions", "14,20,28"]) == 0
    (served,) = json.loads(capsys.readouterr().out)["served"]
    assert [shape["resolution"] for shape in served["shapes"]] == [[14, 14], [20, 20], [28, 28]]
    assert sum(shape["queries"] for shape in served["shapes"]) == served["queries"] == 50
    assert served["recompiles"] == 0


@pytest.mark.slow
def test_a_compiled_model_recompiles_for_no_resolution_it_has_seen(capsys):
    options = ("--devices", "cpu", "--lowerings", "compile", "--scenario", "churn", "--json")
    assert main([*MODEL, *options, "--resolutions", "14,20"]) == 0
    (served,) = json.loads(capsys.readouterr().out)["served"]
    assert served["recompiles"] == 0
    assert all(shape["build_s"] > shape["first_ms"] / 1e3 for shape in served["shapes"])


@pytest.mark.slow
def test_a_service_on_the_cpu_batches_what_waits(capsys):
    """More queries than single forwards could answer are answered in batches, lowered for sizes 1, 2 and 3."""
    options = ("--devices", "cpu", "--scenario", "server", "--rate", "20000", "--max-batch", "3", "--seconds", "0.02")
    assert main([*MODEL, *options, "--json"]) == 0
    (served,) = json.loads(capsys.readouterr().out)["served"]
    assert served["status"] == "ok"
    assert served["mean_batch"] > 2
    assert 0 <= served["padded_share"] < 0.2


def test_sizes_are_powers_of_two_and_the_largest():
    assert serving.sizes(1) == [1]
    assert serving.sizes(8) == [1, 2, 4, 8]
    assert serving.sizes(6) == [1, 2, 4, 6]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "expected one: queries a second, or the p99"),
        (("--rate", "0"), "--rate: got '0', expected a number above 0"),
        (("--rate", "nan"), "--rate: got 'nan', expected a number above 0"),
        (("--scenario", "fast"), "--scenario: got 'fast', expected one of single, multi, offline, server, churn"),
        (("--scenario", "single,single"), "--scenario: got single,single, expected each once"),
        (("--scenario", "single", "--engines", "one"), "got --engines one, which is of --scenario churn"),
        (("--scenario", "churn", "--engines", "two"), "--engines: got 'two', expected one of each, one"),
        (("--rate", "5", "--launches", "0"), "--launches: got '0', expected a whole number from 1 up"),
        (("--rate", "5", "--steps", "train"), "--steps"),
        (("--scenario", "single", "--rate", "5"), "which are of --scenario server"),
        (("--rate", "5", "--max-batch", "0"), "--max-batch: got '0'"),
        (("--rate", "5", "--max-wait-ms", "3"), "expected --max-batch from 2 up"),
        (("--rate", "5", "--seconds", "0"), "--seconds: got '0'"),
        (("--scenario", "churn,single"), "expected it alone"),
        (("--scenario", "single", "--lowerings", "nope"), "got lowering 'nope'"),
    ],
)
def test_bad_input_is_one_line(arguments, words, capsys):
    assert main([*MODEL, *arguments]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
