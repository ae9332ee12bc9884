"""A judge of an `ab` job: verdicts at each look, and the outcome of the whole."""

import datetime
import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mixprof.data.case import STEP, Case
from mixprof.data.pairs import Difference, Measured, Paired, Timed
from mixprof.reports.gate import times, verdicts
from mixprof.reports.gate.outcome import Judged, Outcome, Policy, counted, exact_words, not_counted
from mixprof.reports.gate.policy import refuse_unused_patterns, waived
from mixprof.reports.gate.verdicts import LOOKS, MORE_LOOKS, Verdict

IN_PROOFS = ("graph_breaks", "recompiles", "kernels")
CANARY = "canary"


@dataclass
class Judge:
    """Judges one job by a policy. A case that is decided stays so."""

    policy: Policy = field(default_factory=Policy)
    decided: dict[Timed, Verdict] = field(default_factory=dict)

    @property
    def looks(self) -> Sequence[int]:
        return (*LOOKS, *MORE_LOOKS) if self.policy.retries("inconclusive") else LOOKS

    @property
    def forgives_base(self) -> bool:
        return self.policy.retries("incomparable")

    def refuse(self, names: Sequence[str]) -> None:
        """Raise UsageError for a threshold or limit that fits none of these labels."""
        refuse_unused_patterns(self.policy, names)

    def decide(self, differences: Mapping[Timed, Sequence[float]]) -> Collection[Timed]:
        """Take a look; what is decided by now."""
        self.decided = {key: verdict for key, verdict in self.verdicts(differences).items() if not verdict.open}
        return self.decided

    def verdicts(self, differences: Mapping[Timed, Sequence[float]]) -> dict[Timed, Verdict]:
        """Judge times of at least two rounds, those that are decided as they were; the host's among themselves."""
        thresholds = {key: self._threshold(key.case) for key in differences}
        judged: dict[Timed, Verdict] = {}
        for time in dict.fromkeys(key.time for key in differences):
            judged |= verdicts.judge({key: each for key, each in differences.items() if key.time == time}, thresholds)
        return {**judged, **self.decided}

    def _threshold(self, case: Case) -> float:
        return self.policy.thresholds.of(case.label())

    def conclude(self, measured: Measured) -> Outcome:
        """Put a job together. Nothing of the policy but its thresholds is in it yet."""
        lost = [Judged.of_case(missing.case, "missing", reason=missing.reason) for missing in measured.missing]
        if not measured.timed:
            cases = [_by_counts(pair) for pair in measured.cases]
            return Outcome(
                "exact", measured.base, measured.head, [*cases, *lost], spent_s=measured.spent_s, notes=measured.notes
            )
        timed = {key: rounds for pair in measured.cases for key, rounds in pair.timed.items()}
        last = self.verdicts({key: rounds for key, rounds in timed.items() if len(rounds) >= 2})
        cases = [
            self._judged(pair, key, last.get(key), measured)
            for pair in measured.cases
            for key in pair.timed
            if not key.time or pair.failure is None
        ]
        return self._whole(measured, [*cases, *lost])

    def _whole(self, measured: Measured, cases: list[Judged]) -> Outcome:
        several = [pair for pair in measured.cases if len(pair.differences) >= LOOKS[0]]
        passing = waived(self.policy, datetime.date.today())  # accepted: not to fail many
        rounds = {pair.case: pair for pair in measured.cases if pair.differences and pair.case.label() not in passing}
        canary = measured.canary
        return Outcome(
            "ab", measured.base, measured.head, cases,
            families=[self._many(name, pairs) for name, pairs in _families(rounds.values()).items() if len(pairs) > 1],
            grid=self._many("all cases", list(rounds.values())) if len(rounds) > 1 else None,
            canary=Judged.of(CANARY, verdicts.judge({CANARY: canary})[CANARY]) if len(canary) >= 2 else None,
            spent_s=measured.spent_s,
            detectable=self._detectable(several),
            notes=(*measured.notes, *_other_formulations(measured.cases), *_fallen_back(measured.cases)),
            testbed_key=measured.testbed_key,
            canary_differences=canary,
        )  # fmt: skip

    def _detectable(self, pairs: Sequence[Paired]) -> float | None:
        """Return the slow-down that would have been found in the median case; None without cases."""
        if not pairs:
            return None
        deviation = statistics.median(statistics.stdev(pair.differences) for pair in pairs)
        threshold = statistics.median(self._threshold(pair.case) for pair in pairs)
        return verdicts.smallest_detectable(deviation, min(len(pair.differences) for pair in pairs), threshold)

    def _judged(self, pair: Paired, key: Timed, verdict: Verdict | None, measured: Measured) -> Judged:
        """Judge one time of a case. Counts and limits go with the latency."""
        details: dict[str, Any] = {"time": key.time or None, "host_bound": pair.host_bound}
        if not key.time:
            details |= {
                "exact": {**pair.exact, **_differing_proofs(pair)},
                "times": times.of_rounds(pair.head_ms, pair.head_repeats == 1, pair.head.device),
            }
        if pair.failure is not None:
            word = "missing" if pair.failure.side == "head" else "incomparable"
            reason = f"{pair.failure.side}: {pair.failure.status}: {pair.failure.reason}"
            return Judged.of_case(pair.case, word, base=pair.base, reason=reason, **details)
        if verdict is None:
            reason = (
                f"{counted(pair.disturbed, 'round')} lost too much CPU time to other processes"
                if pair.disturbed
                else "no time was left for the two rounds that a verdict takes"
            )
            return Judged.of_case(pair.case, "inconclusive", base=pair.base, reason=reason, **details)
        if verdict.open:
            details |= self._to_decide(key, pair.timed[key], verdict, measured)
        return Judged.of(key.label(), verdict, case=pair.base, **details)

    def _to_decide(self, key: Timed, rounds: Sequence[float], verdict: Verdict, measured: Measured) -> dict[str, Any]:
        """Say how many rounds and seconds more would decide an open verdict."""
        deviation = statistics.stdev(rounds)
        wanted = verdicts.rounds_to_decide(verdict, deviation, self._threshold(key.case))
        if wanted is None:
            return {"reason": "a thousand rounds would not decide it: it varies too much here"}
        round_s = measured.rounds_s / max(len(rounds), 1) / len(measured.cases)
        return {"more_rounds": wanted - verdict.rounds, "more_s": (wanted - verdict.rounds) * round_s}

    def _many(self, name: str, pairs: Sequence[Paired]) -> Judged:
        """Judge a family, or the grid: the mean over its cases in each round."""
        rounds = min(len(pair.differences) for pair in pairs)
        differences = verdicts.together({pair.case: pair.differences[:rounds] for pair in pairs})
        if len(differences) < 2:
            return Judged(name, "inconclusive", rounds=len(differences))
        threshold = self.policy.thresholds.of_family([pair.case.label() for pair in pairs])
        return Judged.of(name, verdicts.judge({name: differences}, threshold)[name])


def _by_counts(pair: Paired) -> Judged:
    """Judge by counts: more is a regression, less an improvement; one of each is a regression.

    What HEAD has and nobody can count may be more or less: without a regression elsewhere it is inconclusive.
    """
    if pair.uncounted is not None:
        word = "missing" if pair.uncounted.side == "head" else "incomparable"
        return Judged.of_case(pair.case, word, base=pair.base, reason=pair.uncounted.reason)
    worse = [name for name, (base, head) in pair.exact.items() if head > base]
    word = "regressed" if worse else "improved" if pair.exact else "same"
    word = "inconclusive" if pair.new_uncounted and not worse else word
    reason = "; ".join(filter(None, [exact_words(pair.exact), not_counted(pair.new_uncounted)])) or None
    return Judged.of_case(pair.case, word, base=pair.base, reason=reason, exact=pair.exact)


def _differing_proofs(pair: Paired) -> dict[str, Difference]:
    """Graph breaks, recompiles and kernels, where the sides differ."""
    if len(pair.proofs) != 2:
        return {}
    base, head = pair.proofs.values()
    both = {name: (base.get(name), head.get(name)) for name in IN_PROOFS}
    return {name: (a, b) for name, (a, b) in both.items() if a is not None and b is not None and a != b}


def _other_formulations(pairs: Sequence[Paired]) -> list[str]:
    """A note for each case whose sides ran different formulations of our models."""
    ran = {pair.case.label(): [proof.get("formulation") for proof in pair.proofs.values()] for pair in pairs}
    return [
        f"{label}: BASE ran {', '.join(both[0] or ['none'])}, HEAD {', '.join(both[1] or ['none'])}: each side's own "
        "choice by measurement; --formulations usual leaves it to a table"
        for label, both in ran.items()
        if len(both) == 2 and both[0] != both[1]
    ]


def _fallen_back(pairs: Sequence[Paired]) -> list[str]:
    """A note for each side of a case that did not run in the layout that its label has."""
    return [
        f"{pair.case.label()}: {side.upper()} ran in {proof['layout']}, for want of another: {proof['layout_reason']}"
        for pair in pairs
        for side, proof in pair.proofs.items()
        if proof.get("layout_reason")
    ]


def _families(pairs: Collection[Paired]) -> dict[str, list[Paired]]:
    """The cases of each model, lowering and step."""
    families: dict[str, list[Paired]] = {}
    for pair in pairs:
        step = "" if pair.base.step == STEP else f" {pair.base.step}"
        families.setdefault(f"{pair.base.model} {pair.base.lowering}{step}", []).append(pair)
    return families
