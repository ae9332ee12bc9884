"""One run, one error model: what one place of a report says of two models, every other place says."""

import numpy as np
import pytest

from mixprof import reports
from mixprof.reports.answers.crossovers import comparable, crossovers, pairings
from mixprof.reports.answers.exchanges import exchanges
from mixprof.reports.answers.ratios import Pair, gains, ratios
from mixprof.reports.statistics import FIRST_OVER_SECOND, contrast, half_width
from synthetic_runs import case, ok, write_run

OWN, OTHER = "swin_t", "swin_t:mixer=depthwise_conv"
PAIR = Pair(OWN, OTHER, "only the mixer differs")
SIDES = (160, 192, 224, 256, 320, 384, 448, 512)
PLACE = 300.0  # where the two are equally fast
BOUNDS = ["ratio", "ratio_low", "ratio_high"]


def drifting_frame(folder, drift=0.08, own=0.01):
    """Two models along the resolution, three rounds whose machine is by 8 % another each time."""
    random = np.random.default_rng(0)
    rounds = drift * np.array([-1.0, 1.0, 0.0])
    records = []
    for side in SIDES:
        for model, power in ((OWN, 2.0), (OTHER, 1.5)):
            logs = power * np.log(side / PLACE) + rounds + own * random.standard_normal(3)
            records.append(ok(case(model, channels=None, resolution=(side, side)), 30 * np.exp(logs)))
    return reports.load(write_run(folder / "run", records))


@pytest.fixture
def frame(tmp_path):
    return drifting_frame(tmp_path)


def test_where_a_crossover_is_decided_the_headline_tells_the_two_apart(frame):
    (crossing,) = (row for _, row in crossovers(frame).iterrows())
    assert crossing["low"] < PLACE < crossing["high"]
    told = ratios(frame, PAIR).set_index("height")["faster"]
    assert told[crossing["below"]] == OWN
    assert told[crossing["beyond"]] == OTHER


def test_every_place_has_the_same_interval_for_the_same_pair(frame):
    headline = ratios(frame, PAIR).set_index("resolution")[BOUNDS]
    exchanged = exchanges(frame).set_index("resolution")[BOUNDS]
    gained = frame.join(gains(frame, "model", OWN)).query("model == @OTHER").set_index("resolution")
    (pairing,) = (each for each in pairings(comparable(frame)) if each.axis == "resolution")
    crossed = np.exp(half_width(*contrast(FIRST_OVER_SECOND, pairing.points)))
    assert (headline["ratio_high"] / headline["ratio"]).tolist() == pytest.approx(crossed)
    assert len(headline) == len(SIDES)
    for side in headline.index:
        expected = pytest.approx(headline.loc[side].tolist())
        assert (1 / exchanged.loc[side, ["ratio", "ratio_high", "ratio_low"]]).tolist() == expected
        assert gained.loc[side, ["gain", "gain_low", "gain_high"]].tolist() == expected
