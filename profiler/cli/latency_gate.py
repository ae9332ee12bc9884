"""What the `latency_gate` fixture hands to a test: `mixprof ab` of BASE and the folder as it is, for its outcome."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from mixprof.cli.pytest_plugin import NAME
from mixprof.data.errors import UsageError
from mixprof.data.parsing import nearest
from mixprof.gate import job
from mixprof.gate.git import ask, merge_base, resolve, uncommitted
from mixprof.gate.sides import HERE

SETTINGS = [name for name in job.OPTIONS if name not in ("models", "budget", "exact_only")]
SPEAKS_OF = {1: ("regressed", "missing"), 3: ("inconclusive",), 4: ("incomparable",)}  # an exit code -> verdicts
ACCEPT = "`mixprof accept '{name}' --reason WHY --until DATE` lets it pass for a time"
TO_DO = {
    "regressed": f"make it as fast as it was; `mixprof bisect` finds the commit, {ACCEPT}",
    "missing": f"mend it; {ACCEPT}",
    "incomparable": "name another BASE with base= or --latency-base",
    "inconclusive": "allow it more than budget={budget:g}",
}


class Nothing(Exception):
    """There are no two things to compare; the message says why."""


class Gate:
    """Called with a model, it lets the test pass, fails or skips it, by the verdict of `mixprof ab`."""

    def __init__(self, item: pytest.Item, temporary: pytest.TempPathFactory):
        self._item, self._temporary = item, temporary

    def __call__(
        self, model: str, *, base: str | None = None, folder: str = HERE, budget: float = 60.0,
        exact_only: bool = False, **settings: Any,
    ) -> dict[str, Any]:  # fmt: skip
        """Gate a model, or a function as "call:package.module:function". The outcome of `ab` as JSON values.

        base: a revision, merge-base or python:PATH; default: --latency-base. folder: below the root of the test run;
        both sides import from it, or from its like in BASE. budget: seconds. exact_only: counts alone, without time.
        settings: further options of `ab` by their names with underscores, like resolutions="56,112", threshold=0.05.
        """
        __tracebackhide__ = True
        if _in_parallel() and not exact_only:
            self._undecided(f"not measured: {_in_parallel()}", measured=False)
        base = base if base is not None else self._item.config.getoption("--latency-base")
        kept = self._temporary.mktemp(NAME) / "ab"
        try:
            options = _options(model, {"budget": budget, "exact_only": exact_only, **settings})
            where = self._where(folder)
            commit = _commit(base, where)
            outcome = job.run(commit or base, HERE, *options, f"--out={kept}", folder=where)
        except Nothing as error:
            self._say(f"nothing to compare: {error}")
            pytest.skip(f"{NAME}: {error}")
        except (UsageError, RuntimeError) as error:
            self._say(str(error))
            pytest.fail(f"{NAME}: {error}", pytrace=False)
        self._conclude(outcome, f"{base} ({commit[:10]})" if commit else base, budget, self._keep(kept))
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

    def _conclude(self, outcome: Mapping[str, Any], base: str, budget: float, kept: Path) -> None:
        """Say every verdict; the policy's exit code is the test's outcome."""
        __tracebackhide__ = True
        judged = [*outcome["cases"], *outcome["families"], *([outcome["grid"]] if outcome["grid"] else [])]
        said = [_in_words(each) for each in judged]
        more = [f"{outcome['words'].strip()}", f"samples and verdicts: {kept}"]
        self._item.add_report_section("call", NAME, "\n".join([*said, *outcome["notes"], *more]) + "\n")
        self._say("; ".join(said) + f" against {base}")
        code = outcome["exit_code"]
        if code == 0:
            return
        line = _line(outcome, [each for each in judged if each["verdict"] in SPEAKS_OF[code]], base, budget)
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


def _options(model: str, settings: Mapping[str, Any]) -> list[str]:
    """Options of `ab`. UsageError for one that it has not."""
    if not isinstance(model, str):
        raise UsageError(
            f"got {model!r}, expected a name, like 'package.module:factory' or 'call:package.module:function': "
            "each side imports its own"
        )
    for name in settings:
        if name not in job.OPTIONS or name == "models":
            raise UsageError(f"got {name}=, expected {nearest(name, SETTINGS)}")
    return job.options({"models": model, **settings})


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
        commit = merge_base("HEAD") if base == "merge-base" else resolve(base)
        if commit == resolve("HEAD") and not uncommitted():
            raise Nothing(f"BASE, {base}, is the commit that is checked out, and nothing is uncommitted")
    return commit


def _in_words(judged: Mapping[str, Any]) -> str:
    waived = f", waived: {judged['waived']}" if judged["waived"] else ""
    return f"{judged['name']}: {job.in_words(judged)}{waived}"


def _line(outcome: Mapping[str, Any], found: list[Mapping[str, Any]], base: str, budget: float) -> str:
    """What made a gate fail, and what to do, in one line."""
    if outcome["exit_code"] == 4 and (outcome["canary"] or {}).get("verdict") in ("regressed", "improved"):
        said = job.in_words(outcome["canary"])
        return f"BASE against itself, {base}, is {said}: nothing here is to be trusted, measure on a machine at rest"
    found = [each for each in found if not each["waived"]]
    said = "; ".join(_in_words(each) for each in found)
    to_do = TO_DO[found[0]["verdict"]].format(name=found[0]["name"], budget=budget)
    if seconds := max((each["more_s"] or 0 for each in found), default=0):
        to_do += f": about {seconds:.0f} s more would decide it"
    return f"{said} against {base}: {to_do}"
