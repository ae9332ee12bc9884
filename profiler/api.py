"""The commands as functions: `import mixprof` offers what stands here, and loads it when it is asked for."""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import MISSING, Field, dataclass, fields
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from mixprof import models as registry
from mixprof.data.case import STEP, STEPS
from mixprof.data.errors import UsageError
from mixprof.data.files import new_folder
from mixprof.data.histories import is_url
from mixprof.gate import ab as gate
from mixprof.gate.ab import Spec
from mixprof.gate.grid import parse_overrides
from mixprof.gate.sides import HERE
from mixprof.models import build as build
from mixprof.models import load_published as load_published
from mixprof.plan import sweep_file
from mixprof.plan.files import Given
from mixprof.plan.load import SETTINGS, Load
from mixprof.plan.load import read as read_load
from mixprof.plan.place import Place
from mixprof.plan.settings import Axes, Measure
from mixprof.plan.shards import Shard
from mixprof.plan.values import one_of
from mixprof.reports.answers.refine import next_cases
from mixprof.reports.frame import load as load
from mixprof.reports.gate.exporters import write
from mixprof.reports.gate.judge import Judge
from mixprof.reports.gate.outcome import Outcome, Policy
from mixprof.run import counting
from mixprof.run.counting import Counted
from mixprof.run.progress import Unstopped
from mixprof.run.sweep import Sweep, carry_out, passing

VERDICTS = "ab.json"  # in the folder of a job
# Fields of Spec that are keywords of `ab`.
OF_A_JOB = ("base_set", "head_set", "prepare", "pythonpath", "exact_only", "budget_s", "out")


@dataclass(frozen=True)
class Elsewhere:
    """Keywords of `sweep` that send it, or a part of it, to other machines."""

    shard: str | None = None
    on: str | None = None
    accelerators: str | None = None


if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

Function = TypeVar("Function", bound=Callable[..., object])


def _with_settings(function: Function) -> Function:
    """The function, whose help lists every axis and setting that its keywords can be."""
    own = [
        declared
        for declared in inspect.signature(function).parameters.values()
        if declared.kind != declared.VAR_KEYWORD
    ]
    special: dict[str, list[Field[Any]]] = {
        "ab": [declared for declared in fields(Spec) if declared.name in OF_A_JOB],
        "sweep": list(fields(Elsewhere)),
        "serve_test": list(fields(Load)),
    }
    names = {declared.name for declared in own}
    settings = [*special.get(function.__name__, ()), *fields(Axes), *fields(Measure)]
    if function.__name__ == "serve_test":
        settings = [next(each for each in settings if each.name == name) for name in SETTINGS]
    more = [
        inspect.Parameter(
            declared.name, inspect.Parameter.KEYWORD_ONLY, default=_default(declared), annotation=declared.type
        )
        for declared in settings
        if declared.name not in names
    ]
    function.__signature__ = inspect.Signature([*own, *more])  # type: ignore[attr-defined]
    return function


def _default(declared: Field[object]) -> object:
    factory = declared.default_factory
    return declared.default if factory is MISSING else factory()


@_with_settings
def sweep(
    file: str | Path | None = None,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    refine: bool = False,
    given: Given | None = None,
    **settings: object,
) -> Path:
    """Run a sweep file, axes and settings by keywords, or both; without any, the default comparison. The run folder.

    out: a new folder, runs/<time> by default. refine: add cases where two models swap places. shard: "3/16", a part of
    it. on: "ray" or "ray://host:port". accelerators: "H100,L4", labels of its nodes. given: what files are fed with.
    Raises UsageError for what cannot be, NotTrusted for a run of another environment that is to go on.
    """
    elsewhere: dict[str, Any] = {key.name: settings.pop(key.name, None) for key in fields(Elsewhere)}
    shard = elsewhere.pop("shard")
    groups, measure = sweep_file.read(Path(file) if file else None, settings, "{}=".format)
    place = Place.parse(**elsewhere)
    place.refuse_beside(shard, refine)
    if out is not None and is_url(str(out)):
        raise UsageError(f"out=: got '{out}', a URL, expected a folder: `mixprof sweep --out` takes URLs")
    run = Path(out or new_folder())
    more = (lambda folder: next_cases(load(folder))) if refine else None
    asked = Sweep(groups, measure, given or Given(), Shard.parse(shard) if shard else None, place)
    carry_out(asked, run, registry, Unstopped(sys.stderr), resume, more)
    return run


@_with_settings
def time(*models: str, given: Given | None = None, **settings: object) -> pd.DataFrame:
    """Measure models now, and keep nothing: a row per case, as `load` gives it. Raises UsageError."""
    groups, measure = sweep_file.read(None, {**settings, "models": models}, "{}=".format)
    with passing(Sweep(groups, measure, given or Given()), registry, Unstopped(sys.stderr)) as run:
        return load(run)


@_with_settings
def serve_test(*models: str, given: Given | None = None, **settings: object) -> pd.DataFrame:
    """Put lowered models under load: a row for each case, scenario and launch; of churn, for each resolution.

    scenario: "single", "multi", "offline", "server" (with rate or limit_ms), or "churn". given: what files are fed.
    Raises UsageError.
    """
    from mixprof.reports.answers import served
    from mixprof.run import serving

    groups, measure, load = read_load({**settings, "models": models}, "{}=".format)
    return served.frame(serving.serve(Sweep(groups, measure, given or Given()), load, registry, _say))


def count(
    model: str,
    *,
    resolution: int | str | tuple[int, int] | None = None,
    batch: int | None = None,
    window: int | None = None,
    channels: int | None = None,
    step: str = STEP,
    given: Given | None = None,
) -> Counted:
    """Parameters, MACs and bytes of one forward, or a training step, counted without running it. Raises UsageError."""
    single: dict[str, object] = {"resolution": resolution, "batch": batch, "window": window, "channels": channels}
    axes = counting.axes_of(model, single, "{}=")
    return counting.count(axes, registry, given or Given(), step=one_of(*STEPS).parse(step, "step="))[1]


def figures(frame: pd.DataFrame) -> dict[str, Figure]:
    """Every figure that a frame, or any subset of its rows, has data for, by its name."""
    from mixprof.reports.charts import figures as charts

    return dict(charts.figures(frame))


def compare(
    spec: Spec, policy: Policy | None = None, *, isolated: bool = False, say: Callable[[str], None] | None = None
) -> Outcome:
    """Run an `ab` job; its verdicts, before what the policy makes of them, also in `ab.json` of spec.out.

    isolated: in a process of its own. say: takes lines of progress, which go to standard error by default.
    Raises UsageError where there is nothing to compare.
    """
    if isolated:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            return pool.submit(compare, spec, policy).result()
    outcome = gate.ab(spec, Judge(policy or Policy()), registry, say or _say)
    if spec.out is not None:
        write(spec.where / spec.out / VERDICTS, json.dumps(outcome.to_json(), indent=1) + "\n")
    return outcome


@_with_settings
def ab(base: str = HERE, head: str = HERE, *, isolated: bool = False, **settings: object) -> Outcome:
    """Compare two revisions, environments or settings, interleaved in one job; an outcome with a verdict per case.

    base, head: a revision, merge-base, python:PATH, or '.', the folder as it is. base_set, head_set: settings of one
    side, {"lowering": "compile"}. prepare: a command, run in each revision's work tree. pythonpath: folders of each
    side's packages, from the current one. out: a new folder for samples. isolated: in a process of its own.
    Raises UsageError.
    """
    job: dict[str, Any] = {name: settings.pop(name) for name in OF_A_JOB if name in settings}
    if job.get("out") is not None:
        job["out"] = Path(job["out"])
    job |= {name: _overrides(job[name], f"{name}=") for name in ("base_set", "head_set") if name in job}
    groups, measure = sweep_file.read(None, settings, "{}=".format)
    return compare(Spec(groups, base, head, measure, **job), isolated=isolated)


def _overrides(given: object, where: str) -> dict[str, str]:
    if not isinstance(given, Mapping):
        raise UsageError(f'{where}: got {given!r}, expected a mapping like {{"lowering": "compile"}}')
    return parse_overrides([f"{name}={value}" for name, value in given.items()], where)


def _say(line: str) -> None:
    print(f"mixprof: {line}", file=sys.stderr, flush=True)
