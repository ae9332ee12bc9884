"""The cases of an `ab` job: what each side can do of the same axes, and what is exactly known of them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from mixprof import lowerings
from mixprof.data.case import Case
from mixprof.data.errors import UsageError
from mixprof.data.imports import Imports
from mixprof.data.pairs import Failure, Missing, Paired
from mixprof.gate.causes import explain
from mixprof.gate.rounds import Entry
from mixprof.gate.sides import Side
from mixprof.plan import sources
from mixprof.plan.axes import Planned, expand, plan_case, refuse_mixture
from mixprof.plan.settings import Axes, parse_axis
from mixprof.run.session import Session

AXIS_OF = {name: f"{name}s" for name in ("lowering", "device", "dtype", "layout", "mode", "step", "model")}
EXACT = ("params", "macs", "predicted_peak_bytes")  # of the counts; more of them is worse


def parse_overrides(text: Iterable[str], option: str) -> dict[str, str]:
    """["lowering=compile"] -> {"lowering": "compile"}. UsageError for a setting that a side cannot have of its own."""
    overrides = {}
    for setting in text:
        name, equals, value = setting.partition("=")
        if name not in AXIS_OF or not equals:
            raise UsageError(
                f"{option}: got '{setting}', expected one of {', '.join(AXIS_OF)} and its value, like lowering=eager"
            )
        (overrides[name],) = parse_axis(AXIS_OF[name], [value], option)
        if name == "lowering":
            lowerings.parse(value)
    return overrides


def of_side(
    groups: Sequence[Axes], side: Side, asked: Session, lacks: Callable[[Imports], bool] = lambda imports: False
) -> dict[Case, Planned]:
    """Plan what a side would run, by the case before its own settings: the other side's are looked up there.

    lacks: whether the side's tree has no file of a model that could be imported, from elsewhere.
    """
    for name in (name for group in groups for name in group.lowerings or ()):
        lowerings.parse(name)
    devices = asked.machine().devices
    planned: dict[Case, Planned] = {}
    for group, model in [(axes, name) for axes in groups for name in axes.models]:
        try:
            known = set(asked.server.imports)
            entries = expand([replace(group, models=(model,))], asked.describe, devices, one_layout=True)
            source = asked.describe(side.overrides.get("model", model))
            if lost := set(filter(lacks, asked.server.imports - known)):
                asked.server.imports -= lost
                raise UsageError(f"{side.words} has no module '{lost.pop().model}'")
        except UsageError as error:
            lowering = (group.lowerings or ("eager",))[0]
            case = Case(model, lowering, "cpu", "float32", "channels_last", "hot", 1, (0, 0), None, None)
            planned[case] = Planned(case, sources.ANCHOR, explain(side, str(error)))
            continue
        for entry in entries:
            case = replace(entry.case, **side.overrides)  # type: ignore[arg-type]
            planned[entry.case] = plan_case(case, source, layout_is_default=entry.layout_is_default)
    return planned


@dataclass(frozen=True)
class Grid:
    """The pairs of cases, what HEAD lacks of BASE, and a note for everything else."""

    entries: list[Entry]
    missing: list[Missing]
    notes: list[str]


def match(
    base: Mapping[Case, Planned], head: Mapping[Case, Planned], is_new: Callable[[str], bool] = lambda model: True
) -> Grid:
    """Pair the cases of both sides. UsageError for a model that neither has.

    is_new: whether a model that BASE cannot build is not in BASE's tree. One that is fails there, and does not pass.
    """
    grid = Grid([], [], [])
    broken = {case.model: entry.reason for case, entry in head.items() if case.resolution == (0, 0)}
    lacking = {case.model: entry.reason or "" for case, entry in base.items() if case.resolution == (0, 0)}
    for model in broken:
        if model in lacking:  # a typing error more often than a model that is broken on both sides
            raise UsageError(broken[model] or model)
    for case, planned in base.items():
        if planned.reason is not None:
            if case.model not in lacking:
                grid.notes.append(f"{case.label()} is not compared: BASE cannot run it ({planned.reason})")
            continue
        other = head.get(case)
        if other is None or other.reason is not None:
            reason = (other.reason if other else None) or broken.get(case.model) or "HEAD has no such case"
            grid.missing.append(Missing(case, reason))
        else:
            refuse_mixture({planned.case.device, other.case.device})
            grid.entries.append(Entry(Paired(case, planned.case, other.case), planned, other))
    new = {model for model in lacking if is_new(model)}
    grid.notes.extend(
        f"{model} is not in BASE ({lacking[model]}): new, and compared with nothing" for model in sorted(new)
    )
    for case, planned in head.items():
        if case in base or planned.reason is not None:
            continue
        if case.model not in lacking:
            grid.notes.append(f"{case.label()} is in HEAD alone: new, and compared with nothing")
        elif case.model not in new:
            grid.entries.append(Entry.itself(planned, case, Failure("base", "crashed", lacking[case.model])))
    return grid


def count(entry: Entry, both: tuple[Side, Side], base: Session, head: Session) -> None:
    """Note the exact metrics in which the sides differ, without noise and without a device."""
    if entry.pair.uncounted is not None:
        return
    counts = [asked.count(planned.case, planned.source) for asked, planned in ((base, entry.base), (head, entry.head))]
    for name, side, counted in zip(("base", "head"), both, counts, strict=True):
        if counted.status != "ok":
            reason = f"{name} cannot be counted: {explain(side, str(counted.reason))}"
            entry.pair.uncounted = Failure(name, counted.status, reason)
            return
    known, unknown = (set(counted.uncounted_ops or ()) for counted in counts)
    entry.pair.new_uncounted = sorted(unknown - known)
    pairs = {name: (getattr(counts[0], name), getattr(counts[1], name)) for name in EXACT}
    entry.pair.exact = {name: (a, b) for name, (a, b) in pairs.items() if a is not None and b is not None and a != b}
