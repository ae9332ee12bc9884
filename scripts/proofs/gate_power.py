"""How often the gate blames a change that is none, and finds one that is: on real launches, beside other rules.

    python scripts/proofs/gate_power.py [--rounds 24] [--slower 12] [--jobs 400]

Records a pool of pairs of a stage-1 depth-wise block (56x56, 96 channels, window 7, eager): twelve copies of it a
round, each with a pair of processes of its own that take samples in turn, under servers executed afresh for each
round and side, as `mixprof ab` does. First against itself, then with 2, 5 and 10 % of extra real work on one side
(small matrix products, injected as `mixprof calibrate` does). Then plays jobs of twelve cases: round k of a job
is a recorded round, drawn without replacement, its twelve pairs given to the cases at random; looks, moderated
variance and Benjamini-Hochberg are the real rule of reports/gate.py. An A/A job draws from the first pool alone; an
A/B job one case from a slower pool and eleven from the first.

The other rules get what they would get in CI: all samples of BASE in one pair and all of HEAD in another one, two
processes at two times; "interleaved" rows give them both sides of one pair. pytest-benchmark: mean (or min) of HEAD
over that of BASE above 1.05 or 1.10. Welch and Mann-Whitney: one-sided p < 0.01 on the samples. asv: ratio of medians
above 1.1 and p < 0.002 of Mann-Whitney (its `compare`).

Ends with 1 if more than 1 % of at least 400 comparisons are false alarms, or power at 5 % is below 95 %, at 10 %
below 99 %. With --burn, jobs of the block against itself on a busy machine instead. `--pool FILE` keeps the pools as
JSON, and reads them if they are there.
"""

import argparse
import json
import math
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from scipy.stats import mannwhitneyu, ttest_ind

from mixprof import models
from mixprof.data.case import Case
from mixprof.gate.rounds import JOURNAL, Entry, Rounds
from mixprof.gate.sides import Side
from mixprof.machine.process import default_threads
from mixprof.plan.axes import expand
from mixprof.plan.settings import Axes, Measure
from mixprof.reports.gate import verdicts as gate
from mixprof.reports.statistics import wilson
from mixprof.run.session import session

COPIES = 12
BURN = "import time\nwhile True:\n    end = time.time() + 0.1\n    while time.time() < end: pass\n    time.sleep(0.2)"
SLOWER = (0.02, 0.05, 0.10)
Samples = tuple[list[float], list[float]]  # of BASE and HEAD in one pair, milliseconds
PairSamples = tuple[float, Samples]  # its difference and its samples
Pool = list[list[PairSamples | None]]  # recorded rounds, each of twelve pairs; None: given up


def record(share: float, rounds: int, threads: int, *, most_lost: float = 1.0) -> tuple[Pool, float]:
    """Rounds of the block against itself with extra work, and the seconds that they took.

    A pair that lost more of its CPU time than `most_lost` in each of three tries is None.
    """
    with session(Measure(), models) as asked:
        (planned,) = expand([Axes(models=("depthwise_conv",))], asked.describe, ["cpu"])
    copies = [replace(planned, case=replace(planned.case, model=f"copy {number}")) for number in range(COPIES)]
    entries = [Entry.itself(copy, copy.case) for copy in copies]
    side = Side("here", Path(__file__).parent, sys.executable)
    start, pool = time.monotonic(), Pool()
    with tempfile.TemporaryDirectory(prefix="mixprof-power-") as folder:
        measure = Measure(seed=round(1000 * share), max_lost_cpu=most_lost, threads=threads)
        job = Rounds((side, side), measure, Path(folder), share)
        for number in range(rounds):
            before = {entry.pair.case: len(entry.pair.differences) for entry in entries}
            job.run(entries, None, lambda: False)
            lines = [json.loads(line) for line in (Path(folder) / JOURNAL).read_text().splitlines()]
            samples = [(flat(line["base_ms"]), flat(line["head_ms"])) for line in lines]
            both = zip(lines, samples, strict=True)
            last = {Case.from_json(line["base"]): (line["difference"], taken) for line, taken in both}
            counts = [len(pair.differences) > before[pair.case] for pair in (entry.pair for entry in entries)]
            pool.append([last[e.pair.case] if counted else None for e, counted in zip(entries, counts, strict=True)])
            print(f"{number + 1} of {rounds} rounds", file=sys.stderr)
    return pool, time.monotonic() - start


def differences_of(pool: Pool) -> list[float]:
    return [pair[0] for pairs in pool for pair in pairs if pair]


def flat(blocks: Sequence[Sequence[float]]) -> list[float]:
    return [sample for block in blocks for sample in block]


def play(same: Pool, slower: Pool | None, generator: random.Random) -> list[str]:
    """The verdicts of a job of twelve cases. With `slower`, the first case draws from that pool."""
    rounds_of_job = [generator.sample(each, COPIES) for each in drawn(same, generator)]
    differences = [[pairs[case] for pairs in rounds_of_job] for case in range(COPIES)]
    if slower is not None:
        differences[0] = [generator.choice(each) for each in drawn(slower, generator)]
    decided: dict[int, str] = {}
    rounds = [gate.LOOKS[0]] * COPIES  # a case that is decided gets no more
    for look in gate.LOOKS:
        rounds = [number if case in decided else look for case, number in enumerate(rounds)]
        known = {case: [pair[0] for pair in pairs[: rounds[case]] if pair] for case, pairs in enumerate(differences)}
        enough = {case: values for case, values in known.items() if len(values) >= gate.LOOKS[0]}
        judged = gate.judge(enough) if enough else {}
        decided = {case: verdict.verdict for case, verdict in judged.items() if not verdict.open} | decided
    return [decided.get(case, "inconclusive") for case in range(COPIES)]


def drawn(pool: Pool, generator: random.Random) -> list[list[PairSamples | None]]:
    """Recorded rounds for all of a job's: each once, again from the start only when there are no more."""
    order = generator.sample(pool, len(pool))
    return [order[number % len(order)] for number in range(gate.LOOKS[-1])]


def one(pool: Pool, generator: random.Random) -> Samples:
    """Both sides' samples in one recorded pair."""
    return generator.choice([pair for pairs in pool for pair in pairs if pair])[1]


def alarms(base: Sequence[float], head: Sequence[float]) -> dict[str, bool]:
    """Which of the other rules call HEAD slower."""
    mean, least = statistics.fmean(head) / statistics.fmean(base), min(head) / min(base)
    greater = mannwhitneyu(head, base, alternative="greater").pvalue
    return {
        "pytest-benchmark, mean +5 %": mean > 1.05,
        "pytest-benchmark, mean +10 %": mean > 1.10,
        "pytest-benchmark, min +5 %": least > 1.05,
        "pytest-benchmark, min +10 %": least > 1.10,
        "Welch, p < 0.01": bool(ttest_ind(head, base, equal_var=False, alternative="greater").pvalue < 0.01),
        "Mann-Whitney, p < 0.01": bool(greater < 0.01),
        "asv compare": statistics.median(head) / statistics.median(base) > 1.1 and bool(greater < 0.002),
    }


def others(base: Pool, head: Pool, generator: random.Random, count: int, *, interleaved: bool) -> dict[str, float]:
    """The rate of alarms of each other rule, over pairs of processes."""
    totals: dict[str, int] = {}
    for _ in range(count):
        if interleaved:
            pair = one(head, generator)
        else:
            first, second = one(base, generator), one(head, generator)
            pair = (first[0], second[1])
        for name, alarm in alarms(*pair).items():
            totals[name] = totals.get(name, 0) + alarm
    return {name: total / count for name, total in totals.items()}


def in_words(successes: int, trials: int) -> str:
    low, high = wilson(successes, trials)
    return f"{successes / trials:.1%} [{low:.1%}, {high:.1%}]"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=24, help="of the block against itself")
    parser.add_argument("--slower", type=int, default=12, help="for each slow-down")
    parser.add_argument("--jobs", type=int, default=400, help="of each kind")
    parser.add_argument("--pool", type=Path, help="keep the pools here")
    parser.add_argument("--burn", action="store_true", help="another process burns a core for a third of the time")
    options = parser.parse_args()
    if options.burn:
        return burned(options.rounds)
    pools, spent = recorded(options, default_threads())
    describe(pools, spent)
    same, generator = pools["0"], random.Random(0)
    verdicts = [verdict for _ in range(options.jobs) for verdict in play(same, None, generator)]
    false = verdicts.count("regressed")
    counts = [
        sum(play(same, pools[str(share)], generator)[0] == "regressed" for _ in range(options.jobs)) for share in SLOWER
    ]
    print(
        f"\n| rule | false alarms | {' | '.join(f'found at {share:.0%}' for share in SLOWER)} |\n|---|---|---|---|---|"
    )
    cells = " | ".join(in_words(each, options.jobs) for each in counts)
    print(f"| mixprof ab, jobs of {COPIES} cases | {in_words(false, len(verdicts))} | {cells} |")
    for interleaved in (False, True):
        rates = [others(same, pools[key], generator, 1000, interleaved=interleaved) for key in ("0", *map(str, SLOWER))]
        for name in rates[0]:
            how = ", interleaved" if interleaved else ""
            print(f"| {name}{how} | " + " | ".join(f"{rate[name]:.1%}" for rate in rates) + " |")
    failed = len(verdicts) < 400 or false > 0.01 * len(verdicts)
    failed |= counts[1] < 0.95 * options.jobs or counts[2] < 0.99 * options.jobs
    return int(failed)


def burned(rounds: int) -> int:
    """A/A jobs beside a process that burns a core for a third of the time; 1 if over one in a hundred regressed."""
    burner = subprocess.Popen([sys.executable, "-c", BURN])
    try:
        pool, _ = record(0, rounds, default_threads(), most_lost=Measure().max_lost_cpu)
    finally:
        burner.kill()
        burner.wait()
    jobs = [play(pool, None, random.Random(seed)) for seed in range(1000)]
    given_up = sum(pair is None for pairs in pool for pair in pairs) / (COPIES * len(pool))
    blamed = sum("regressed" in verdicts for verdicts in jobs)
    open_ones = sum(verdicts.count("inconclusive") for verdicts in jobs) / (COPIES * len(jobs))
    print(f"{given_up:.0%} of {COPIES * len(pool)} pairs given up: too much of their CPU time was lost to others")
    print(f"{blamed} of {len(jobs)} jobs of {COPIES} cases called one regressed; ", end="")
    print(f"{open_ones:.0%} of verdicts inconclusive")
    return int(blamed > len(jobs) / 100)


def describe(pools: dict[str, Pool], spent_s: float) -> None:
    """What the pools hold."""
    deviation = statistics.stdev(differences_of(pools["0"]))
    last = gate.LOOKS[-1]
    print(f"{len(pools['0'])} rounds of the block against itself, {len(pools[str(SLOWER[0])])} for each slow-down")
    print(f"recorded in {spent_s:.0f} s; standard deviation of a difference {deviation:.2%}")
    print(f"smallest slow-down found with 80 % power in {last} rounds: {gate.smallest_detectable(deviation, last):.1%}")
    for share in SLOWER:
        slower = math.expm1(statistics.fmean(differences_of(pools[str(share)])))
        print(f"asked for {share:.0%} more work, measured {slower:+.1%}")


def recorded(options: argparse.Namespace, threads: int) -> tuple[dict[str, Pool], float]:
    """The pools by slow-down, and the seconds that recording took; read from --pool if they are there."""
    if options.pool and options.pool.exists():
        stored = json.loads(options.pool.read_text())
        return stored["pools"], stored["spent_s"]
    pools, spent = {}, 0.0
    for share in (0.0, *SLOWER):
        pool, seconds = record(share, options.slower if share else options.rounds, threads)
        pools[f"{share:g}"], spent = pool, spent + seconds
        if options.pool:
            options.pool.write_text(json.dumps({"pools": pools, "spent_s": spent}))
    return pools, spent


if __name__ == "__main__":
    sys.exit(main())
