"""What one forward or training step of one model costs, counted on the `meta` device; and its formulas."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mixprof.data.case import STEP
from mixprof.data.errors import UsageError
from mixprof.plan.axes import expand
from mixprof.plan.files import Given
from mixprof.plan.settings import AXES, Axes, Measure, parse_axis
from mixprof.plan.sources import Registry
from mixprof.run.session import refuse_unused, session
from mixprof.symbolic.derive import Formulas

# One value of an axis, by the name that it has where only one makes sense.
SINGLE = {"resolution": "resolutions", "batch": "batches", "window": "windows", "channels": "channels"}


@dataclass(frozen=True)
class Counted:
    """The costs of one step, its batch included."""

    model: str
    step: str  # "inference", "forward", "backward" or "train"
    params: int | None  # None: a function has none that can be told
    macs: int
    flops: int
    macs_by_op: dict[str, int]
    backward_macs: int | None  # of the MACs; None but of "backward" and "train"
    min_bytes: int | None  # operands and results of what multiplies and accumulates, each once; an update's with it
    optimizer_bytes: int | None  # of these, those of AdamW's update; None but of "train"
    uncounted_ops: list[str]  # operators that no formula covers: the counts are then "at least"
    tree: Sequence[Mapping[str, Any]] | None = None  # by module, if asked for: `metrics.module_tree.Branch`
    counted_on: str | None = None  # "meta", "fake" tensors or, for code that looks at values, "cpu"; None: of a file


def axes_of(model: str, single: dict[str, object], where: str) -> Axes:
    """The axes of one case. single: a value for each name of `SINGLE`, None for the default; where: "--{}", say."""
    parsed = {}
    for name, axis in SINGLE.items():
        value = single.get(name)
        values = value.split(",") if isinstance(value, str) else [value]
        if value is not None and len(values) > 1:
            raise UsageError(
                f"{where.format(name)}: got {len(values)} values, expected one: `mixprof plan` counts many cases"
            )
        if value is not None:
            parsed[axis] = (AXES[axis].kind.parse(values[0], where.format(name)),)
    return Axes(models=parse_axis("models", [model], where.format("model")), devices=("cpu",), **parsed)


def count(axes: Axes, registry: Registry, given: Given, *, tree: bool = False, step: str = STEP) -> tuple[str, Counted]:
    """The label of the one case and the costs of its step, by module, too, with a tree.

    UsageError where it cannot be built or counted.
    """
    with session(Measure(), registry, given) as asked:
        entry = expand([axes], asked.describe, ["cpu"])[0]
        refuse_unused(asked.given, [entry])
        if step != STEP and (entry.source.artifact is not None or entry.source.kind == "call"):
            raise UsageError(f"got '{entry.case.model}' with --step {step}, expected a module, which has gradients")
        case = replace(entry.case, step=step)
        counts = asked.count(case, entry.source, tree=tree)
    if tree and counts.status == "ok" and counts.tree is None:
        raise UsageError(f"got '{entry.case.model}' with --tree, expected a model that is made of modules")
    if counts.status != "ok":
        raise UsageError(counts.reason)
    names = ("params", "macs", "flops", "backward_macs", "min_bytes", "optimizer_bytes", "tree", "counted_on")
    same = {name: getattr(counts, name) for name in names}
    by_op, uncounted = counts.macs_by_op or {}, list(counts.uncounted_ops or ())
    return case.label(), Counted(case.model, step, macs_by_op=by_op, uncounted_ops=uncounted, **same)


def formulas(model: str, registry: Registry, given: Given, step: str = STEP) -> Formulas:
    """A model's exact costs in its sizes. UsageError where none was proven."""
    with session(Measure(), registry, given) as asked:
        source = asked.describe(model)
        if source.artifact is not None:
            raise UsageError(
                f"got '{model}' with --symbolic, expected a model that is built for each size: a file has its own; "
                "count it without --symbolic"
            )
        proven, reason = asked.formulas(source, step)
    if proven is None:
        raise UsageError(f"{model}: {reason}; count single cases without --symbolic")
    return proven
