"""CONTRIBUTING's promise: a mixer, a lowering and a metric are one new file and one new line each, and are swept."""

import json
from pathlib import Path

import pytest

from package_copy import PackageCopy

pytestmark = pytest.mark.slow  # real processes, seconds each

MIXER = '''
from torch import nn


class Toy(nn.Module):
    """Every position times a matrix. (B, H, W, C) -> (B, H, W, C)."""

    formulation = "product"

    def __init__(self, dim, resolution, window, heads, *, stage=0, shifted=False):
        super().__init__()
        self.product = nn.Linear(dim, dim, bias=False)

    def forward(self, x):
        return self.product(x)
'''
LOWERING = '''
import time

from mixprof.lowerings import Lowered
from mixprof.lowerings.eager import place


def lower(module, inputs, target):
    """Run the module as it is, twice as often where the option says so."""
    module, inputs = place(module, inputs, target)
    start, times = time.perf_counter(), 2 if "twice" in target.options else 1

    def run():
        for _ in range(times):
            output = module(*inputs)
        return output

    return Lowered(run, lambda: run().cpu(), time.perf_counter() - start, proof={"times": times})
'''
METRIC = '''
def measure(subject):
    """How many values the output has."""
    return subject.lowered.read().numel()
'''


@pytest.fixture(scope="module")
def package(tmp_path_factory) -> PackageCopy:
    copy = PackageCopy(tmp_path_factory.mktemp("toys"))
    copy.write("models/mixers/toy.py", MIXER)
    copy.replace(
        "models/registry.py",
        "MODELS: dict[str, Entry] = {\n",
        'MODELS: dict[str, Entry] = {\n    "toy": Entry("mixer", "mixprof.models.mixers.toy:Toy", window=False),\n',
    )
    copy.write("lowerings/toy.py", LOWERING)
    copy.replace(
        "lowerings/__init__.py",
        "LOWERINGS: dict[str, Entry] = {\n",
        'LOWERINGS: dict[str, Entry] = {\n    "toy": Entry("mixprof.lowerings.toy", ("torch",), "pip install torch",'
        ' {"twice": ()}, form="eager"),\n',
    )
    copy.write("metrics/toy.py", METRIC)
    copy.replace(
        "metrics/__init__.py",
        "METRICS: dict[str, Metric] = {\n",
        'METRICS: dict[str, Metric] = {\n    "toy": Metric("mixprof.metrics.toy"),\n',
    )
    return copy


@pytest.fixture(scope="module")
def records(package) -> dict[tuple[str, str], dict]:
    done = package.run(
        "sweep", "--models", "toy,depthwise_conv,swin_t:mixer=toy", "--lowerings", "eager,toy,toy:twice",
        "--resolutions", "32", "--windows", "3", "--out", "run", "--quick", "--threads", "1", "--max-lost-cpu", "1",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = (package.folder / "work" / "run" / "records.jsonl").read_text().splitlines()
    rows = map(json.loads, lines)
    return {(row["case"]["model"], row["case"]["lowering"]): row for row in rows}


def test_both_are_listed(package):
    assert "toy" in package.run("models").stdout
    assert '"toy"' in package.run("doctor", "--json").stdout


@pytest.mark.parametrize("lowering", ["eager", "toy", "toy:twice"])
@pytest.mark.parametrize("model", ["toy", "depthwise_conv", "swin_t:mixer=toy"])
def test_every_pair_is_measured_and_right(records, model, lowering):
    record = records[model, lowering]
    assert record["status"] == "ok", record["reason"]
    assert record["relative_error"] < 1e-4


def test_the_mixer_is_counted_by_the_closed_form(records):
    assert records["toy", "eager"]["macs"] == 32 * 32 * 96 * 96
    assert records["toy", "eager"]["params"] == 96 * 96


def test_the_lowering_says_what_ran(records):
    assert records["toy", "toy:twice"]["proof"]["times"] == 2
    assert records["toy", "toy"]["proof"]["times"] == 1


def test_the_metric_is_in_every_launch(records):
    for record in records.values():
        (launch,) = record["launches"]
        channels = record["case"]["channels"] or 96
        outputs = 1000 if record["case"]["model"].startswith("swin") else channels * 32 * 32
        outputs = channels * 56 * 56 if record["case"]["model"] == "anchor_v1" else outputs
        assert launch["metrics"]["toy"] == outputs


def test_their_facts_are_in_the_manifest(package, records):
    manifest = json.loads((package.folder / "work" / "run" / "manifest.json").read_text())
    assert manifest["lowerings"]["toy"] == {"fuses": False, "engine": False, "layouts": [], "layers": None}
    assert manifest["models"]["toy"]["kind"] == "mixer"
    network = manifest["models"]["swin_t:mixer=toy"]
    assert (network["own_mixer"], network["mixer"], network["published"]) == ("window_attention", "toy", None)


def test_an_option_that_the_line_does_not_have_is_refused(package):
    done = package.run("plan", "--models", "toy", "--lowerings", "toy:thrice")
    assert (done.returncode, done.stdout) == (2, "")
    assert "expected twice" in done.stderr


def test_contributing_names_the_files():
    text = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text()
    for path in ("models/mixers/", "models/registry.py", "profiler/lowerings/", "profiler/metrics/"):
        assert path in text
