"""A judge of an `ab` job: verdicts at each look, and the outcome of the whole."""

import datetime
import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mixprof.data.case import Case
from mixprof.data.pairs import Difference, Measured, Paired
from mixprof.reports.gate import times, verdicts
from mixprof.reports.gate.outcome import Judged, Outcome, Policy, counted, exact_words
from mixprof.reports.gate.policy import refuse_unused_patterns, waived
from mixprof.reports.gate.verdicts import LOOKS, MORE_LOOKS, Verdict

IN_PROOFS = ("graph_breaks", "recompiles", "kernels")
CANARY = "canary"


@dataclass
class Judge:
    """Judges one job by a policy. A case that is decided stays so."""

    policy: Policy = field(default_factory=Policy)
    decided: dict[Case, Verdict] = field(default_factory=dict)

    @property
    def looks(self) -> Sequence[int]:
        return (*LOOKS, *MORE_LOOKS) if self.policy.retries("inconclusive") else LOOKS

    @property
    def forgives_base(self) -> bool:
        return self.policy.retries("incomparable")

    def refuse(self, names: Sequence[str]) -> None:
        """Raise UsageError for a threshold or limit that fits none of these labels."""
        refuse_unused_patterns(self.policy, names)

    def decide(self, differences: Mapping[Case, Sequence[float]]) -> Collection[Case]:
        """Take a look; the cases that are decided by now."""
        self.decided = {case: verdict for case, verdict in self.verdicts(differences).items() if not verdict.open}
        return self.decided

    def verdicts(self, differences: Mapping[Case, Sequence[float]]) -> dict[Case, Verdict]:
        """Judge cases of at least two rounds, those that are decided as they were."""
        thresholds = {case: self._threshold(case) for case in differences}
        return {**(verdicts.judge(differences, thresholds) if differences else {}), **self.decided}

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
        enough = {pair.case: pair.differences for pair in measured.cases if len(pair.differences) >= 2}
        last = self.verdicts(enough)
        cases = [self._judged(pair, last.get(pair.case), measured) for pair in measured.cases]
        return self._whole(measured, [*cases, *lost])

    def _whole(self, measured: Measured, cases: list[Judged]) -> Outcome:
        several = [pair for pair in measured.cases if len(pair.differences) >= LOOKS[0]]
        deviations = [statistics.stdev(pair.differences) for pair in several]
        passing = waived(self.policy, datetime.date.today())  # accepted: not to fail many
        rounds = {pair.case: pair for pair in measured.cases if pair.differences and pair.case.label() not in passing}
        canary = measured.canary
        return Outcome(
            "ab", measured.base, measured.head, cases,
            families=[self._many(name, pairs) for name, pairs in _families(rounds.values()).items() if len(pairs) > 1],
            grid=self._many("all cases", list(rounds.values())) if len(rounds) > 1 else None,
            canary=Judged.of(CANARY, verdicts.judge({CANARY: canary})[CANARY]) if len(canary) >= 2 else None,
            spent_s=measured.spent_s,
            detectable=verdicts.smallest_detectable(
                statistics.median(deviations), min(len(pair.differences) for pair in several)
            )
            if several
            else None,
            notes=measured.notes,
            testbed_key=measured.testbed_key,
            canary_differences=canary,
        )  # fmt: skip

    def _judged(self, pair: Paired, verdict: Verdict | None, measured: Measured) -> Judged:
        """Judge one case that was timed."""
        details: dict[str, Any] = {
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
            details |= self._to_decide(pair, verdict, measured)
        return Judged.of(pair.case.label(), verdict, case=pair.base, **details)

    def _to_decide(self, pair: Paired, verdict: Verdict, measured: Measured) -> dict[str, Any]:
        """Say how many rounds and seconds more would decide an open verdict."""
        deviation = statistics.stdev(pair.differences)
        wanted = verdicts.rounds_to_decide(verdict, deviation, self._threshold(pair.case))
        if wanted is None:
            return {"reason": "a thousand rounds would not decide it: it varies too much here"}
        round_s = measured.rounds_s / max(len(pair.differences), 1) / len(measured.cases)
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
    """Judge by counts: more is a regression, less an improvement; one of each is a regression."""
    if pair.uncounted is not None:
        word = "missing" if pair.uncounted.side == "head" else "incomparable"
        return Judged.of_case(pair.case, word, base=pair.base, reason=pair.uncounted.reason)
    worse = [name for name, (base, head) in pair.exact.items() if head > base]
    word = "regressed" if worse else "improved" if pair.exact else "same"
    reason = exact_words(pair.exact) or None
    return Judged.of_case(pair.case, word, base=pair.base, reason=reason, exact=pair.exact)


def _differing_proofs(pair: Paired) -> dict[str, Difference]:
    """Graph breaks, recompiles and kernels, where the sides differ."""
    if len(pair.proofs) != 2:
        return {}
    base, head = pair.proofs.values()
    both = {name: (base.get(name), head.get(name)) for name in IN_PROOFS}
    return {name: (a, b) for name, (a, b) in both.items() if a is not None and b is not None and a != b}


def _families(pairs: Collection[Paired]) -> dict[str, list[Paired]]:
    """The cases of each model and lowering."""
    families: dict[str, list[Paired]] = {}
    for pair in pairs:
        families.setdefault(f"{pair.base.model} {pair.base.lowering}", []).append(pair)
    return families
