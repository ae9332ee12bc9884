"""A gate as a test's fixture: BASE against the folder as it is, the verdict as the test's outcome."""

import os
import re
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import pytest

from mixprof.api import compare
from mixprof.cli import LATENCY_GATE as NAME
from mixprof.data.errors import UsageError
from mixprof.data.git import ask
from mixprof.data.parsing import nearest
from mixprof.gate.ab import MERGE_BASE, Spec
from mixprof.gate.git import merge_base, resolve, uncommitted
from mixprof.gate.sides import HERE
from mixprof.plan import sweep_file
from mixprof.plan.settings import AXES, MEASURE
from mixprof.reports.gate import limits, thresholds
from mixprof.reports.gate.outcome import Judged, Outcome, Policy, exit_code
from mixprof.reports.gate.outcome import in_words as outcome_words
from mixprof.reports.gate.policy import apply
from mixprof.reports.gate.tables import in_words
from mixprof.reports.gate.waivers import DEFAULT, read

SPEAKS_OF = {1: ("regressed", "missing"), 3: ("inconclusive",), 4: ("incomparable",)}  # an exit code -> verdicts
ACCEPT = "`mixprof accept '{name}' --reason WHY --until DATE` lets it pass for a time"
OTHERS = ("prepare", "pythonpath", "threshold", "limit")  # settings that are neither axes nor measuring
SETTINGS = (*(axis for axis in AXES if axis != "models"), *MEASURE, *OTHERS)
Value = str | int | float | bool | Sequence[str | int] | None
TO_DO = {
    "regressed": f"make it as fast as it was; `mixprof bisect` finds the commit, {ACCEPT}",
    "missing": f"mend it; {ACCEPT}",
    "incomparable": "name another BASE with base= or --latency-base",
    "inconclusive": "allow it more than budget={budget:g}",
}


class Nothing(Exception):
    """There are no two things to compare; the message says why."""


@dataclass(frozen=True)
class _Context:
    """What a report says besides verdicts."""

    base: str
    budget: float  # seconds
    kept: Path  # folder of samples


class Gate:
    """Called with a model, it lets the test pass, fails or skips it, by the verdict of `mixprof ab`."""

    def __init__(self, item: pytest.Item, temporary: pytest.TempPathFactory):
        self._item, self._temporary = item, temporary

    def __call__(
        self, model: str, *, base: str | None = None, folder: str = HERE, budget: float = 60.0,
        exact_only: bool = False, **settings: Value,
    ) -> Outcome:  # fmt: skip
        """Gate a model, or a function as "call:package.module:function"; its outcome.

        base: a revision, merge-base or python:PATH; default: --latency-base. folder: below the root of the test run;
        both sides import from it, or from its like in BASE. budget: seconds. exact_only: counts alone, without time.
        settings: axes and measuring settings by their names with underscores, like resolutions="56,112"; prepare,
        pythonpath, threshold and limit as options of `ab`.
        """
        __tracebackhide__ = True
        if _in_parallel() and not exact_only:
            self._undecided(f"not measured: {_in_parallel()}", measured=False)
        base = base if base is not None else self._item.config.getoption("--latency-base")
        kept = self._temporary.mktemp(NAME) / "ab"
        try:
            where = self._where(folder)
            spec, policy = _job(model, settings, where)
            commit = _commit(base, where)
            spec = replace(spec, base=commit or base, exact_only=exact_only, budget_s=budget, out=kept)
            outcome = apply(compare(spec, policy), policy, date.today())
        except Nothing as error:
            self._say(f"nothing to compare: {error}")
            pytest.skip(f"{NAME}: {error}")
        except UsageError as error:
            self._say(str(error))
            pytest.fail(f"{NAME}: {error}", pytrace=False)
        words = f"{base} ({commit[:10]})" if commit else base
        self._conclude(outcome, exit_code(outcome, policy), _Context(words, budget, self._keep(kept)))
        return outcome

    def _where(self, folder: str) -> Path:
        where = self._item.config.rootpath / folder
        if not where.is_dir():
            raise UsageError(f"got folder='{folder}', expected one below {self._item.config.rootpath}")
        return where

    def _keep(self, folder: Path) -> Path:
        """Where samples and verdicts stay: pytest's cache, if there is one. Weights and compile caches are not kept."""
        cache = getattr(self._item.config, "cache", None)
        if cache is None:
            return folder
        name = re.sub(r"\W+", "-", self._item.name).strip("-")[:60]
        kept = Path(cache.mkdir(NAME)) / f"{time.strftime('%Y%m%d-%H%M%S')}-{name}"
        kept.mkdir(exist_ok=True)
        for file in folder.glob("*.json*"):
            shutil.copy2(file, kept)
        return kept

    def _conclude(self, outcome: Outcome, code: int, context: _Context) -> None:
        """Say every verdict; the policy's exit code is the test's outcome."""
        __tracebackhide__ = True
        lines = [_in_words(judged) for judged in outcome.judged]
        more = [outcome_words(outcome, code).strip(), f"samples and verdicts: {context.kept}"]
        self._item.add_report_section("call", NAME, "\n".join([*lines, *outcome.notes, *more]) + "\n")
        self._say("; ".join(lines) + f" against {context.base}")
        if code == 0:
            return
        line = _line(outcome, [judged for judged in outcome.judged if judged.verdict in SPEAKS_OF[code]], context)
        if code == 3:
            self._undecided(line, measured=True)
        else:
            pytest.fail(f"{NAME}: {line}", pytrace=False)

    def _undecided(self, line: str, measured: bool) -> None:
        """No verdict. A gate that has not measured passes in no case."""
        __tracebackhide__ = True
        if not measured:
            self._say(line)
        choice = self._item.config.getoption("--latency-inconclusive")
        if choice == "fail":
            pytest.fail(f"{NAME}: {line}", pytrace=False)
        if choice == "skip" or not measured:
            pytest.skip(f"{NAME}: {line}")

    def _say(self, line: str) -> None:
        """For JUnit XML and the summary at the end; it also comes home from a worker of xdist."""
        self._item.user_properties.append((NAME, line))


def _in_parallel() -> str | None:
    """Why nothing can be timed here, if nothing can: other tests run on this machine at the same time."""
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if workers == 1:
        return None
    return f"{workers} workers of pytest-xdist would disturb it; measure by `pytest -n 0 -m {NAME}`"


def _job(model: str, settings: Mapping[str, Value], where: Path) -> tuple[Spec, Policy]:
    """The spec, with HEAD the folder as it is, and the policy. UsageError for a setting that it has not."""
    if not isinstance(model, str):
        raise UsageError(
            f"got {model!r}, expected a name, like 'package.module:factory' or 'call:package.module:function': "
            "each side imports its own"
        )
    given = {name: value for name, value in settings.items() if name not in OTHERS}
    if "models" in settings or (unknown := [name for name in given if name not in SETTINGS]):
        name = "models" if "models" in settings else unknown[0]
        raise UsageError(f"got {name}=, expected {nearest(name, SETTINGS)}")
    groups, measure = sweep_file.read(None, {"models": model, **given}, "{}=".format)
    texts = {name: _texts(settings.get(name)) for name in ("threshold", "limit", "pythonpath")}
    waivers = read(where / DEFAULT) if (where / DEFAULT).exists() else ()
    policy = Policy(
        thresholds=thresholds.parse(texts["threshold"]), limits=limits.parse(texts["limit"]), waivers=waivers
    )
    prepare = settings.get("prepare")
    prepare = None if prepare is None else str(prepare)
    return Spec(groups, measure=measure, prepare=prepare, pythonpath=texts["pythonpath"], where=where), policy


def _texts(value: Value) -> list[str]:
    """One value or several, as the options of `ab` would be written."""
    if value is None:
        return []
    return [str(text) for text in value] if isinstance(value, (list, tuple)) else [str(value)]


def _commit(base: str, folder: Path) -> str | None:
    """The commit of BASE; None where it is no revision. Nothing without git, or where no line has changed since."""
    if base == HERE or base.startswith("python:"):
        return None
    if shutil.which("git") is None:
        raise Nothing("git is not installed, and BASE is a revision")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)  # the one that git is asked about
        if "not a git repository" in ask("rev-parse", "--git-dir").stderr:
            raise Nothing(f"'{folder}' is in no git repository, and BASE is a revision")
        commit = merge_base("HEAD") if base == MERGE_BASE else resolve(base)
        if commit == resolve("HEAD") and not uncommitted():
            raise Nothing(f"BASE, {base}, is the commit that is checked out, and nothing is uncommitted")
    return commit


def _in_words(judged: Judged) -> str:
    waived = f", waived: {judged.waived}" if judged.waived else ""
    return f"{judged.name}: {in_words(judged)}{waived}"


def _line(outcome: Outcome, failing: Sequence[Judged], context: _Context) -> str:
    """What made a gate fail, and what to do, in one line."""
    if outcome.flagged and outcome.canary is not None:
        canary = in_words(outcome.canary)
        to_do = "nothing here is to be trusted, measure on a machine at rest"
        return f"BASE against itself, {context.base}, is {canary}: {to_do}"
    failing = [judged for judged in failing if not judged.waived]
    verdicts = "; ".join(_in_words(judged) for judged in failing)
    to_do = TO_DO[failing[0].verdict].format(name=failing[0].name, budget=context.budget)
    if seconds := max((judged.more_s or 0 for judged in failing), default=0):
        to_do += f": about {seconds:.0f} s more would decide it"
    return f"{verdicts} against {context.base}: {to_do}"
