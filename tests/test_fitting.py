"""The largest batch that fits, against every batch tried in turn."""

from __future__ import annotations

import json

import pytest

from mixprof.cli.main import main
from mixprof.data.case import Case
from mixprof.data.messages import Counted
from mixprof.plan.axes import Planned
from mixprof.plan.sources import ANCHOR
from mixprof.run.fitting import MOST, as_text, fit, largest


@pytest.mark.parametrize(
    "peak",
    [
        lambda batch: 1000 + 37 * batch,
        lambda batch: 1000 + 37 * batch + 50 * (batch // 16),  # steps
        lambda batch: max(5000, 90 * batch),  # flat, as far as an update is the peak
        lambda batch: None if batch < 2 else 700 * batch,  # a batch norm wants two
        lambda batch: 10 * batch**2,
    ],
)
@pytest.mark.parametrize("limit", [1, 1399, 1400, 4999, 9000, 100_000])
def test_the_largest_batch_is_that_of_a_search_through_all(peak, limit):
    asked = []

    def noted(batch: int) -> int | None:
        asked.append(batch)
        return peak(batch)

    every = [batch for batch in range(1, 4000) if (size := peak(batch)) is not None and size <= limit]
    assert largest(noted, limit) == max(every, default=0)
    assert len(asked) == len(set(asked)) <= 16


def test_a_case_that_never_grows_ends_the_search():
    assert largest(lambda batch: 10, 100) == MOST
    planned = Planned(Case("net", "eager", "cpu", "float32", "contiguous", "hot", 1, (8, 8), None, None), ANCHOR, None)
    fits = fit(
        [planned], 100, lambda case, source: Counted("ok", predicted_peak_bytes=10, weights_bytes=0, input_bytes=0)
    )
    assert fits[0].batch == MOST
    assert "no more than 1,048,576 are looked for" in as_text(fits, 100)


def test_a_batch_beside_the_largest_one_is_refused(capfd):
    assert main(["plan", "--models", "pointwise_conv", "--fit", "1GiB", "--batches", "4"]) == 2
    assert "got --batches with --fit" in capfd.readouterr().err


@pytest.mark.slow
def test_fit_on_the_command_line(capfd):
    axes = ["plan", "--models", "pointwise_conv", "--resolutions", "14", "--steps", "train"]
    assert main([*axes, "--fit", "64MiB", "--json"]) == 0
    fitted = json.loads(capfd.readouterr().out)
    (case,) = fitted["cases"]
    limit = 64 << 20
    an_image = case["predicted_memory_bytes"] / case["batch"]
    assert fitted["fit_bytes"] == limit
    assert case["case"]["batch"] == case["batch"]
    assert limit - 2 * an_image < case["predicted_memory_bytes"] <= limit
    assert main([*axes, "--fit", "lots"]) == 2
    assert capfd.readouterr().err.count("\n") == 1
