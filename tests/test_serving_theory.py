"""The load generator, the queue and the percentiles on a virtual clock, against queueing theory."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from mixprof.metrics.serving import percentiles, queue, rate
from mixprof.metrics.serving.queue import Policy

MEAN_S = 0.010
ONE_BY_ONE = Policy()


class Virtual:
    """A service whose clock moves by what it does: batches take times of their own, whatever their size."""

    def __init__(self, times):
        self.now, self.times = 0.0, iter(times)

    def clock(self):
        return self.now

    def wait(self, seconds):
        self.now += seconds

    def run(self, queries):
        self.now += next(self.times)


def deterministic():
    return Virtual(itertools.repeat(MEAN_S))


def exponential(seed):
    generator = np.random.default_rng(seed)
    return Virtual(generator.exponential(MEAN_S) for _ in itertools.count())


def loaded(service, utilization, seed, queries=4000):
    """A load of so many queries, without its beginning."""
    per_second = utilization / MEAN_S
    arrivals = queue.poisson(per_second, queries / per_second, seed)
    return queue.open_loop(arrivals, service, ONE_BY_ONE, rate=per_second).after(0.1)


def of_mm1(share, utilization):
    """The sojourn time in M/M/1 is exponential."""
    return -math.log(1 - share) * MEAN_S / (1 - utilization)


def waits_at_most(seconds, utilization):
    """Erlang's distribution of the waiting time in M/D/1, in exact rationals: its terms alternate."""
    from fractions import Fraction

    units = Fraction(seconds) / Fraction(MEAN_S)
    total = 0.0
    for k in range(math.floor(units) + 1):
        away = Fraction(k) - units
        total += float((Fraction(utilization) * away) ** k / math.factorial(k)) * math.exp(-utilization * float(away))
    return (1 - utilization) * total


def of_md1(share, utilization):
    low, high = 0.0, 60 * MEAN_S
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if waits_at_most(middle, utilization) < share else (low, middle)
    return MEAN_S + high


def coverage(make, theory, serve=loaded, utilization=0.7, loads=40):
    """For each percentile the share of loads whose bounds hold what theory says."""
    inside = dict.fromkeys(percentiles.SHARES, 0)
    for seed in range(loads):
        load = serve(make(seed), utilization, 1000 + seed)
        for share in inside:
            found = percentiles.percentile(load.latencies_s, share, load.cycles)
            low, high = found.low_ms or 0.0, found.high_ms or math.inf
            inside[share] += low <= 1e3 * theory(share, utilization) <= high
    return {share: count / loads for share, count in inside.items()}


QUEUES = {"M/M/1": (exponential, of_mm1), "M/D/1": (lambda seed: deterministic(), of_md1)}


@pytest.mark.parametrize("kind", QUEUES)
def test_percentiles_of_a_queue_cover_theory(kind):
    """Of 40 loads 95 % are expected inside; fewer than 33 has a chance of 1 % even at 92 %."""
    assert min(coverage(*QUEUES[kind]).values()) >= 33 / 40


def test_theory_itself():
    """Erlang's formula against the mean wait of Pollaczek and Khinchine."""
    steps = np.linspace(0, 40 * MEAN_S, 800)
    mean = np.trapezoid([1 - waits_at_most(float(step), 0.5) for step in steps], steps)
    assert mean == pytest.approx(0.5 * MEAN_S / (2 * (1 - 0.5)), rel=1e-3)


def waiting(service, utilization, seed, queries=2000):
    """Planted: a generator that sends a query when the one before is answered, late or not, and times from there."""
    arrivals = queue.poisson(utilization / MEAN_S, queries * MEAN_S / utilization, seed)
    sent, answered = [], []
    for arrival in arrivals:
        service.wait(max(0.0, arrival - service.clock()))
        sent.append(service.clock())
        service.run(1)
        answered.append(service.clock())
    return queue.Answered(np.array(sent), np.array(answered))


@pytest.mark.parametrize("kind", QUEUES)
def test_a_generator_that_waits_for_its_answers_is_caught_by_theory(kind):
    """Coordinated omission: each query waits for no other, so that the queue is not seen."""
    covered = coverage(*QUEUES[kind], serve=waiting, loads=10)
    assert covered[0.9] == covered[0.99] == 0


def test_a_generator_that_waits_for_its_answers_is_refused():
    """One that begins to count to its next query when the last is answered offers less than its rate."""
    per_second = 0.7 / MEAN_S
    gaps = np.diff(queue.poisson(per_second, 30, 0), prepend=0.0)
    with pytest.raises(ValueError, match="queries must not wait for answers"):
        queue.open_loop(np.cumsum(gaps + MEAN_S), deterministic(), ONE_BY_ONE, rate=per_second)


def test_arrivals_are_poisson():
    """Gaps against the exponential distribution, counts in windows against Poisson's mean and variance."""
    arrivals = queue.poisson(100.0, 200.0, 7)
    assert stats.kstest(np.diff(arrivals), "expon", args=(0, 0.01)).pvalue > 0.01
    counts = np.histogram(arrivals, np.arange(0, arrivals[-1]))[0]
    assert counts.mean() == pytest.approx(100, rel=0.03)
    assert counts.var() == pytest.approx(100, rel=0.25)


def test_the_largest_rate_is_the_theory_s():
    limit_s = 0.05
    make, theory = QUEUES["M/D/1"]
    low, high = 0.05, 0.999
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if theory(0.99, middle) < limit_s else (low, middle)

    def load(per_second):
        arrivals = queue.poisson(per_second, 15000 / per_second, int(per_second * 1e6))
        return queue.open_loop(arrivals, make(int(per_second)), ONE_BY_ONE, limit_s, per_second)

    found = rate.search(load, limit_s, 1 / MEAN_S)
    assert found.keeps is not None
    assert found.breaks is not None
    assert found.keeps < low / MEAN_S < found.breaks
    assert found.breaks / found.keeps < 1.4


def test_a_limit_that_no_rate_keeps():
    def load(per_second):
        return queue.open_loop(queue.poisson(per_second, 900 / per_second, 1), deterministic(), ONE_BY_ONE, 0.005)

    found = rate.search(load, 0.005, 1 / MEAN_S)
    assert found.keeps is None
    assert found.breaks is not None
    assert found.breaks < 1.0


@pytest.mark.parametrize("share", percentiles.SHARES)
@pytest.mark.parametrize("trials", [20, 100, 459, 5000])
def test_ranks_are_the_binomial_s(trials, share):
    """P(low <= X < high) of a binomial is 95 %, by scipy's own, and no narrower pair has it on either side."""
    low, high = percentiles.bounds(trials, share)
    binomial = stats.binom(trials, share)
    if low is not None:
        assert binomial.cdf(low - 1) <= 0.025 < binomial.cdf(low)
    if high is None:
        assert binomial.cdf(trials - 1) < 0.975
    else:
        assert binomial.cdf(high - 1) >= 0.975 > binomial.cdf(high - 2)


def test_early_stopping_is_mlperf_s():
    """Its published least numbers of queries: 64 for p90, 662 for p99; 459 answered in time prove a p99."""
    assert percentiles.stopped_early([1.0] * 63, 0.9) == (None, 64)
    assert percentiles.stopped_early(np.arange(64.0), 0.9) == (63000.0, 64)
    assert percentiles.stopped_early([1.0] * 661, 0.99) == (None, 662)
    assert percentiles.least_under(0, 0.99) == 459
    over = 5
    under = percentiles.least_under(over, 0.99)
    assert stats.binom.cdf(over, under + over, 0.01) <= 0.01 < stats.binom.cdf(over, under + over - 1, 0.01)


def test_too_few_queries_have_no_upper_bound():
    found = percentiles.percentile(np.arange(100.0), 0.99, np.arange(100))
    assert found.high_ms is None
    assert found.low_ms is not None


def test_batches_fill_or_wait_no_longer_than_they_may():
    """By hand: three arrive within the wait and fill a batch, one waits its 4 ms alone, two more find it busy."""
    arrivals = np.array([0.0, 0.001, 0.002, 0.020, 0.030, 0.031])
    policy = Policy(max_batch=3, max_wait_s=0.004)
    answered = queue.open_loop(arrivals, Virtual(itertools.repeat(0.010)), policy)
    assert answered.batches == (3, 1, 2)
    assert answered.answered_s == pytest.approx([0.012, 0.012, 0.012, 0.034, 0.044, 0.044])
    assert list(answered.cycles) == [1, 1, 1, 2, 2, 2]


def test_what_comes_together_is_answered_together_without_waiting():
    answered = queue.open_loop(np.zeros(5), Virtual(itertools.repeat(0.010)), Policy(max_batch=4))
    assert answered.batches == (4, 1)


def test_a_hopeless_load_is_given_up_and_its_rest_is_late():
    arrivals = queue.poisson(1000.0, 100.0, 3)
    answered = queue.open_loop(arrivals, deterministic(), ONE_BY_ONE, limit_s=0.010)
    assert len(answered.batches) < 2000
    assert np.isinf(answered.answered_s[-1])
    assert rate.judge(answered, 0.010) == "breaks"
    assert percentiles.percentile(answered.latencies_s, 0.99, answered.cycles).ms is None


def test_closed_loops_and_offline():
    """Single and multi stream wait for every answer, by definition; offline has all samples at the start."""
    single = queue.closed_loop(5, 0.045, 1, deterministic(), 1)
    assert single.latencies_s == pytest.approx([MEAN_S] * 5)
    multi = queue.closed_loop(2, 0.095, 8, deterministic(), 4)
    assert multi.latencies_s == pytest.approx([2 * MEAN_S] * 5)  # eight samples in two batches, for 0.1 s
    few = queue.closed_loop(1000, 0.009, 1, deterministic(), 1)  # more queries than it has time for
    assert len(few.latencies_s) == 5
    assert queue.offline(0.095, deterministic(), 4) == (40, pytest.approx(0.1))
