"""`ab`: two sides measured in one job, interleaved, and what a judge makes of it."""

import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Protocol, TypeVar

from mixprof.data.errors import NotTrusted, UsageError
from mixprof.data.messages import Machine
from mixprof.data.pairs import Measured
from mixprof.data.run_folder import make_folder
from mixprof.data.testbed import testbed_key
from mixprof.gate import grid, module_path
from mixprof.gate.causes import is_new
from mixprof.gate.git import merge_base, resolve, uncommitted
from mixprof.gate.lock import only_one
from mixprof.gate.looks import Budget, Decides, look
from mixprof.gate.ownership import Ownership
from mixprof.gate.rounds import Entry, Rounds
from mixprof.gate.sides import HERE, Setup, Side, is_revision, sides
from mixprof.plan.files import Given
from mixprof.plan.settings import Axes, Measure
from mixprof.plan.sources import Registry
from mixprof.run.session import Session, session

Result = TypeVar("Result", covariant=True)
Say = Callable[[str], None]
MERGE_BASE = "merge-base"


@dataclass(frozen=True)
class Spec:
    """What to compare, and how."""

    groups: Sequence[Axes]
    base: str = HERE  # a revision, merge-base, python:PATH, or '.'
    head: str = HERE
    measure: Measure = field(default_factory=Measure)
    base_set: Mapping[str, str] = field(default_factory=dict)  # this side's own settings: {"lowering": "compile"}
    head_set: Mapping[str, str] = field(default_factory=dict)
    prepare: str | None = None  # command that is run in each revision's work tree
    pythonpath: Sequence[str] = ()  # folders of each side's packages, from the current one
    exact_only: bool = False  # counts alone: no time is measured
    budget_s: float | None = None  # for the whole job
    out: Path | None = None  # a new folder for samples; None: one that is gone afterwards
    hidden: bool = False  # that folder from git: nobody named it
    where: Path = field(default_factory=Path)  # folder that both sides are seen from
    given: Given = field(default_factory=Given)  # what files, and modules of the user's, are fed with


class Judge(Decides, Protocol[Result]):
    """Decides and concludes: made by reports, handed in."""

    def conclude(self, measured: Measured) -> Result: ...


def ab(spec: Spec, judge: Judge[Result], registry: Registry, say: Say = lambda line: None) -> Result:
    """Measure both sides in one job; what the judge concludes.

    registry: where registered models come from. say: takes a line of progress.
    Raises UsageError where there are no two things to compare, or nothing that BASE can run.
    """
    start = time.monotonic()
    with contextlib.ExitStack() as stack:
        stack.enter_context(_working_in(spec.where))
        spec = _checked(spec, say)
        if not spec.exact_only:
            stack.enter_context(only_one(spec.groups, say))
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mixprof-ab-")))
        setup = Setup(spec.prepare, module_path.parse(spec.pythonpath))
        overrides = (dict(spec.base_set), dict(spec.head_set))
        both = stack.enter_context(sides((spec.base, spec.head), scratch, setup, overrides))
        spec = replace(spec, out=(spec.out or scratch / "job").absolute())
        return judge.conclude(_Job(spec, both, judge, registry, say).measure(start))


def _checked(spec: Spec, say: Say) -> Spec:
    """The spec with BASE as a commit where it was merge-base. UsageError for one that compares nothing."""
    if not all(group.models for group in spec.groups) or not spec.groups:
        raise UsageError("got no model, expected --models; `mixprof models` lists them")
    for side in (spec.base, spec.head):
        if not isinstance(side, str):
            raise UsageError(f"got {side!r}, expected a revision, merge-base, python:PATH or '.'")
    has_settings = dict(spec.base_set) != dict(spec.head_set)
    if spec.base == spec.head and not has_settings:
        raise UsageError(
            f"got '{spec.base}' on both sides and no other --base-set than --head-set, expected a difference"
        )
    if spec.budget_s is not None and not (isinstance(spec.budget_s, (int, float)) and spec.budget_s > 0):
        raise UsageError(f"--budget: got {spec.budget_s}, expected seconds above 0")
    if spec.prepare and not any(is_revision(side) for side in (spec.base, spec.head)):
        raise UsageError("got --prepare and no revision, expected one: it is run in the work tree of a revision")
    _say_what_is_compared(spec, say)
    if spec.out is not None and spec.out.exists():
        raise UsageError(f"got --out '{spec.out}', which exists, expected a new folder")
    name = spec.base
    if name == MERGE_BASE:
        spec = replace(spec, base=merge_base("HEAD" if spec.head == HERE else spec.head))
    # Two names of one commit compare nothing: `merge-base HEAD` on the default branch itself, say.
    both = (spec.base, spec.head)
    if not has_settings and all(map(is_revision, both)) and len({commit := resolve(side) for side in both}) == 1:
        names = f"'{name}' and '{spec.head}', which are one commit ({commit[:10]})"
        raise UsageError(f"got {names}, expected two: name another BASE, such as HEAD~1")
    return spec


def _say_what_is_compared(spec: Spec, say: Say) -> None:
    """Uncommitted changes are part of '.', and of nothing else."""
    if not (is_revision(spec.base) or is_revision(spec.head)) or not (changed := uncommitted()):
        return
    names = f"{', '.join(changed[:3])}{', …' if changed[3:] else ''}"
    files = f"uncommitted changes in {len(changed)} file{'s' * (len(changed) != 1)} ({names})"
    if HERE in (spec.base, spec.head):
        say(f"'.' is compared as it is, with {files}")
    else:
        say(f"{files} are not compared: '{spec.head}' is a commit, '.' would be the folder")


@dataclass(frozen=True)
class _Job:
    spec: Spec
    sides: tuple[Side, Side]
    judge: Decides
    registry: Registry
    say: Say

    def measure(self, start: float) -> Measured:
        """Count every case and, where time is asked for, run rounds of them. start: of time.monotonic."""
        spec, (base, head) = self.spec, self.sides
        assert spec.out is not None
        with _asked(spec, self.sides, self.registry) as asked:
            cases = self._grid(asked)
            for entry in cases.entries:
                grid.count(entry, self.sides, *asked)
            imports = [session.server.imports for session in asked]
            for side, imported in zip(self.sides, imports, strict=True):
                self._ownership.refuse_strays(side, imported)
            self._ownership.refuse_same_code(*imports)
            key = self._testbed_key(asked[0].machine(), cases)
        make_folder(spec.out, spec.hidden)
        rounds = Rounds(self.sides, spec.measure, spec.out, check=self._ownership.refuse_strays)
        first, canary = next((entry for entry in cases.entries if entry.pair.failure is None), None), None
        if not spec.exact_only and first is not None:
            canary = Entry.itself(first.base, first.pair.case)
            look(cases.entries, canary, rounds, self.judge, Budget(spec.budget_s, start), self.say)
        pairs, differences = [entry.pair for entry in cases.entries], canary.pair.differences if canary else ()
        names, spent = (base.words, head.words), (rounds.spent_s, time.monotonic() - start)
        return Measured(*names, pairs, cases.missing, differences, cases.notes, key, not spec.exact_only, *spent)

    def _testbed_key(self, machine: Machine, cases: grid.Grid) -> str:
        """The key of the devices that the cases run on. NotTrusted where others compute on one of them, unasked."""
        devices = {entry.pair.case.device for entry in cases.entries}
        shared = None if self.spec.exact_only else machine.shared(devices)
        if shared and not self.spec.measure.allow_shared_gpu:
            raise NotTrusted(f"processes of others compute on {shared}: end them, or add --allow-shared-gpu")
        cases.notes.extend([f"measured beside processes of others on {shared}"] if shared else [])
        return testbed_key(machine.testbed_of(devices))

    def _grid(self, asked: Sequence[Session]) -> grid.Grid:
        """Pair the cases of both sides. UsageError where BASE has none, or where a pattern names none."""
        base, head = (
            grid.of_side(self.spec.groups, side, session, partial(self._ownership.lacks, side))
            for side, session in zip(self.sides, asked, strict=True)
        )
        cases = grid.match(base, head, lambda model: is_new(model, *self.sides))
        sources = {entry.case.model: entry.source for entry in head.values() if entry.case.resolution != (0, 0)}
        cases.notes.extend(self._ownership.of_no_tree(sources))
        if not cases.entries and not cases.missing:
            reasons = [entry.reason for entry in base.values() if entry.reason]
            raise UsageError(f"BASE can run no case: {reasons[0] if reasons else 'the axes are empty'}")
        alike = self.spec.base == self.spec.head and all(entry.base.case == entry.head.case for entry in cases.entries)
        if alike and not cases.missing:
            label = cases.entries[0].base.case.label()
            raise UsageError(
                f"got '{label}' on both sides, expected a --base-set or --head-set that makes a difference"
            )
        compared = [*(entry.pair.case for entry in cases.entries), *(lost.case for lost in cases.missing)]
        self.judge.refuse([case.label() for case in compared])
        return cases

    @cached_property
    def _ownership(self) -> Ownership:
        return Ownership(self.sides)


@contextlib.contextmanager
def _asked(spec: Spec, both: tuple[Side, Side], registry: Registry) -> Iterator[list[Session]]:
    """A session for each side, under its own interpreter and from its own folder; an archive is both sides'."""
    archive = spec.given.inputs
    given = replace(spec.given, inputs=archive and os.path.abspath(archive))
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(session(spec.measure, registry, given, side.origin)) for side in both]


@contextlib.contextmanager
def _working_in(folder: Path) -> Iterator[None]:
    """The current folder is another one for a while."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
