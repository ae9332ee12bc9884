"""What a sweep would run: costs, predicted memory and a rough duration of each case. Runs nothing."""

import functools
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

from mixprof import lowerings
from mixprof.data.case import STEP, Case
from mixprof.data.messages import Counted, Machine
from mixprof.lowerings.steps import MIXED
from mixprof.plan.axes import Planned, Source
from mixprof.plan.settings import Measure
from mixprof.plan.sources import ANCHOR
from mixprof.symbolic.derive import Formulas, values_at
from mixprof.symbolic.formula import Point

# For a duration before anything was measured: orders of magnitude, and said to be so.
MACS_PER_S = {"cpu": 2e10, "cuda": 1e13, "sim": 2e10}  # per core, per device
START_S = 1.0
COUNTED = 64  # experiments at most that a plan counts one by one
Count = Callable[[Case, Source], Counted]
FormulasOf = Callable[[Source, str], tuple[Formulas | None, str | None]]
NO_MEMORY = f"memory is predicted in plans of at most {COUNTED} different experiments"


@dataclass(frozen=True)
class Expected:
    """One case of a plan."""

    case: Case
    runs: bool
    reason: str | None
    params: int | None
    macs: int | None
    min_bytes: int | None
    predicted_memory_bytes: int | None
    predicted_memory_reason: str | None
    likely_oom: bool | None
    estimated_s: float | None

    def to_json(self) -> dict[str, object]:
        return {**asdict(self), "case": self.case.to_json()}


@dataclass(frozen=True)
class Plan:
    """The cases of a sweep and what they come to."""

    cases: list[Expected]
    launches: int
    estimated_s: float
    notes: list[str]  # on models without a formula

    def to_json(self) -> dict[str, object]:
        return {**asdict(self), "cases": [row.to_json() for row in self.cases]}


def predict(planned: list[Planned], measure: Measure, count: Count, formulas: FormulasOf, machine: Machine) -> Plan:
    """Expect costs, memory and a rough duration of each case.

    A plan of few experiments counts each of them. A large one computes their costs from the models' formulas, which
    say nothing of memory, and counts where a model has none.
    """
    keys = [_experiment(entry.case) for entry in planned]
    is_large = len({key for key, entry in zip(keys, planned, strict=True) if entry.reason is None}) > COUNTED
    notes: dict[str, str] = {}
    by_formula = _by_formula(formulas, notes) if is_large else lambda entry: None
    costs: dict[Case, Counted] = {}
    missing = functools.cache(lowerings.missing)
    rows = []
    for key, entry in zip(keys, planned, strict=True):
        if entry.reason is None and key not in costs:
            costs[key] = by_formula(entry) or count(entry.case, entry.source)
        reason = entry.reason or missing(entry.case.lowering)
        rows.append(_row(entry, costs.get(key, Counted()), reason, measure, machine))
    seconds = sum(row.estimated_s or 0.0 for row in rows)
    return Plan(rows, len(rows) * measure.rounds, round(seconds, 1), list(notes.values()))


def _experiment(case: Case) -> Case:
    """What of a case its counts depend on: not how and where it is run."""
    lowering = "eager" if case.step == STEP else case.lowering  # whose options are a recipe's
    return replace(case, lowering=lowering, device="cpu", layout="contiguous", mode="hot")


def _by_formula(formulas: FormulasOf, notes: dict[str, str]) -> Callable[[Planned], Counted | None]:
    """The costs of a case by its model's formulas, which are looked up once; None, and a note, where it has none."""
    known: dict[tuple[str, str], Formulas | None] = {}

    def look_up(name: str, step: str, source: Source) -> None:
        has_none = source.artifact or source == ANCHOR
        known[name, step], reason = (None, None) if has_none else formulas(source, step)
        if reason is not None:
            notes[name] = f"{name}: {reason}; its cases were counted one by one"

    def costs(entry: Planned) -> Counted | None:
        case = entry.case
        if (case.model, case.step) not in known:
            look_up(case.model, case.step, entry.source)
        proven = known[case.model, case.step]
        if proven is None or case.dtype in MIXED:  # whose bytes are of two widths
            return None
        point = Point(case.batch, *case.resolution, case.window, case.channels)
        at = values_at(proven, point, case.dtype)
        return Counted(params=at["params"], macs=at["macs"], min_bytes=at["min_bytes"], memory_reason=NO_MEMORY)

    return costs


def _row(entry: Planned, counts: Counted, reason: str | None, measure: Measure, machine: Machine) -> Expected:
    peak = counts.peak_bytes
    memory = measure.max_memory or machine.informing["memory_bytes"]
    return Expected(
        case=entry.case,
        runs=entry.reason is None,
        reason=reason or counts.reason,
        params=counts.params,
        macs=counts.macs,
        min_bytes=counts.min_bytes,
        predicted_memory_bytes=peak,
        predicted_memory_reason=counts.memory_reason,
        likely_oom=None if peak is None or entry.case.device != "cpu" else peak > memory,
        estimated_s=None if entry.reason else _seconds(entry.case, counts, measure, machine),
    )


def _seconds(case: Case, counts: Counted, measure: Measure, machine: Machine) -> float | None:
    if counts.macs is None:
        return None
    kind = case.device.split(":")[0]
    rate = MACS_PER_S[kind] * (machine.testbed["threads"] if kind == "cpu" else 1)
    sampling = max(0.1 if measure.quick else 1.0, (16 if measure.quick else 40) * counts.macs / rate)
    return round(lowerings.entry_of(case.lowering).build_s + measure.rounds * (START_S + sampling), 1)


def as_text(plan: Plan) -> str:
    """The plan for a person."""
    lines = [f"{'case':64} {'GMACs':>9} {'MiB':>9} {'s':>7}"]
    for row in plan.cases:
        label = row.case.label()
        if not row.runs:
            lines.append(f"{label:64} unsupported: {row.reason}")
            continue
        macs = "?" if row.macs is None else f"{row.macs / 1e9:.3f}"
        mebibytes = "?" if row.predicted_memory_bytes is None else f"{row.predicted_memory_bytes / 2**20:.1f}"
        note = "  likely out of memory" if row.likely_oom else ""
        note += f"  {row.reason}" if row.reason else ""
        lines.append(f"{label:64} {macs:>9} {mebibytes:>9} {row.estimated_s or 0:>7.1f}{note}")
    reasons = dict.fromkeys(row.predicted_memory_reason for row in plan.cases)
    lines += [f"MiB ?: {reason}" for reason in reasons if reason is not None]
    lines += plan.notes
    lines.append(f"{len(plan.cases)} cases, {plan.launches} launches, very roughly {plan.estimated_s / 60:.0f} min")
    return "\n".join(lines)
