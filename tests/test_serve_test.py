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
        ({"rate": -1}, "rate=: got -1, expected a number above 0 and below 1e9"),
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
        (("--rate", "0"), "--rate: got '0', expected a number above 0 and below 1e9"),
        (("--rate", "nan"), "--rate: got 'nan', expected a number above 0 and below 1e9"),
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


NETS = """
import torch
from torch import nn


class Two(nn.Module):
    # Another product from 40 pixels up: code that depends on the size.
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.head = nn.Conv2d(3, 8, 3, 2, 1), nn.Linear(8, 4)

    def forward(self, x):
        x = self.conv(x)
        x = x.relu() if x.shape[-1] < 20 else x.sigmoid()
        return self.head(x.mean((2, 3)))


def free():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.GELU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))


def branching():
    return Two()


def own_weights(resolution):
    return nn.Sequential(nn.Conv2d(3, 4, 8, 8), nn.Flatten(), nn.Linear(4 * (resolution // 8) ** 2, 10))


class Flat(nn.Module):
    def __init__(self, side):
        super().__init__()
        self.side, self.conv = side, nn.Conv2d(3, 8, 1)

    def forward(self, x):
        return self.conv(x).reshape(x.shape[0], 8, self.side**2).mean(2)


def of_one_size(resolution):
    return Flat(resolution)
"""


def churned(tmp_path, monkeypatch, capsys, name, *options):
    """What one engine makes of a module of the user's at 32, 48 and 64 pixels."""
    (tmp_path / "serve_nets.py").write_text(NETS)
    monkeypatch.chdir(tmp_path)
    one = ("--scenario", "churn", "--engines", "one", "--resolutions", "32,48,64", "--queries", "12", "--json")
    assert main(["serve-test", f"serve_nets:{name}", "--devices", "cpu", *one, *options]) == 0
    return json.loads(capsys.readouterr().out)["served"]


def test_one_engine_takes_every_resolution(tmp_path, monkeypatch, capsys):
    """Outputs are compared with a module of each resolution; what is built is built once."""
    for served in churned(tmp_path, monkeypatch, capsys, "free", "--lowerings", "eager,onnxruntime,openvino"):
        assert served["status"] == "ok", served["reason"]
        builds = sorted(shape["build_s"] for shape in served["shapes"])
        assert len(builds) == 3
        assert served["case"]["lowering"] == "eager" or builds[1] < builds[2] / 5
        assert served["recompiles"] == 0


def test_what_cannot_be_one_engine_says_why(tmp_path, monkeypatch, capsys):
    (served,) = churned(tmp_path, monkeypatch, capsys, "own_weights")
    assert (served["status"], "its weights are of one resolution" in served["reason"]) == ("unsupported", True)
    (served,) = churned(tmp_path, monkeypatch, capsys, "of_one_size")
    assert "one engine does not run at" in served["reason"]


@pytest.mark.parametrize(
    ("model", "where", "reason"),
    [
        ("window_attention", ("--devices", "cpu"), "is built for one resolution"),
        ("convnext", ("--devices", "cuda:0", "--lowerings", "tensorrt_rtx"), "no engine of free height and width"),
    ],
)
def test_lowerings_and_models_of_fixed_sizes_are_refused(model, where, reason, capsys):
    one = ("--scenario", "churn", "--engines", "one", "--resolutions", "14,20", "--formulations", "usual", "--json")
    assert main(["serve-test", model, *where, *one]) == 0
    (served,) = json.loads(capsys.readouterr().out)["served"]
    assert (served["status"], reason in served["reason"]) == ("unsupported", True)


def test_what_one_compiled_engine_compiles_anew_is_counted(tmp_path, monkeypatch, capsys):
    (free,) = churned(tmp_path, monkeypatch, capsys, "free", "--lowerings", "compile")
    assert free["recompiles"] == 0
    (branching,) = churned(tmp_path, monkeypatch, capsys, "branching", "--lowerings", "compile")
    assert branching["recompiles"] == 1


def test_one_packaged_engine_takes_every_resolution(tmp_path, monkeypatch, capsys):
    (served,) = churned(tmp_path, monkeypatch, capsys, "free", "--lowerings", "aot")
    assert (served["status"], len(served["shapes"])) == ("ok", 3)
