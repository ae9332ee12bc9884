"""What the command line asks before a sweep: models, machine, cases, and whether a stored run may go on."""

import contextlib
import functools
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from mixprof import lowerings
from mixprof.data.case import STEP, Case
from mixprof.data.errors import NotTrusted, UsageError
from mixprof.data.git import checked_out
from mixprof.data.json import Json, decode, digest
from mixprof.data.manifest import Content, Environment, Manifest, Sweep
from mixprof.data.messages import Counted, Machine
from mixprof.data.parsing import nearest
from mixprof.machine.process import default_threads
from mixprof.plan import sources
from mixprof.plan.axes import Planned, Source, expand
from mixprof.plan.files import MODULES, Given, is_file
from mixprof.plan.given import Fed
from mixprof.plan.settings import Axes, Measure
from mixprof.plan.sources import Described, Registry
from mixprof.run.client import Origin, Server, source_request
from mixprof.symbolic import shelf
from mixprof.symbolic.derive import Formulas

ASK_TIMEOUT_S = 300.0
FREE = ("timeout", "require_device", "allow_shared_gpu")  # settings that a run which is resumed may change
PRELOAD = ("torch", "sympy", "mixprof.worker.jobs")


@dataclass
class Session:
    """A worker server that answers questions about models and this machine."""

    server: Server
    registry: Registry
    given: Given = field(default_factory=Given)  # of the inputs of files
    require_device: bool = False

    def ask(self, job: str, **request: Any) -> Json:
        """A job's values; UsageError when it has none."""
        values: Json = self.server.run(job, ASK_TIMEOUT_S, **request).values
        if values["status"] != "ok":
            raise UsageError(values["reason"])
        return values

    def describe(self, name: str) -> Source:
        if is_file(name):
            inspected = self.ask("inspect", path=name, inputs=self.given.inputs)
            return sources.of_file(name, self.given, inspected)

        if name.endswith(MODULES):
            return self._fed(sources.of_module_file(name, self.ask("inspect", path=name, inputs=None)["sha256"]))

        def described(source: Source) -> Described:
            try:
                values = self.ask("describe", source=source_request(source))
            except UsageError as error:
                raise UsageError(
                    f"model '{name}' cannot be imported ({error}): expected package.module:factory, "
                    "importable from the current folder, or a name that `mixprof models` lists"
                ) from None
            return Described(tuple(values["accepts"]), values["kind"])

        source = sources.describe(name, self.registry, described)
        return self._fed(source) if sources.takes_inputs(source) else source

    def _fed(self, source: Source) -> Source:
        """The source with what the user gives its forward."""
        given = self.given
        if given.inputs is None:
            return replace(source, inputs=given.fed)
        read = self.ask("inspect_inputs", inputs=given.inputs)
        fed = tuple(Fed(each["name"], each["dtype"], tuple(each["given"])) for each in read["inputs"])
        return replace(source, inputs=fed, inputs_file=given.inputs, inputs_sha256=read["sha256"])

    def machine(self) -> Machine:
        return self._machine

    @functools.cached_property
    def _machine(self) -> Machine:
        """This machine. NotTrusted where a CUDA device is required and there is none; a driver that fails is said."""
        machine = decode(self.ask("environment"), Machine)
        if stripped := machine.informing.get("stripped_variables"):
            print(f"mixprof: {', '.join(stripped)} not passed on: it would change which kernels run", file=sys.stderr)
        if machine.no_cuda is not None and self.require_device:
            raise NotTrusted(f"--require-device: {machine.no_cuda.reason}")
        if machine.no_cuda is not None and machine.no_cuda.failed:
            print(f"mixprof: no CUDA device, the default is the CPU: {machine.no_cuda.reason}", file=sys.stderr)
        if shared := machine.shared(machine.devices):
            print(f"mixprof: processes of others compute on {shared}: times there are not its own", file=sys.stderr)
        return machine

    def formulas(self, source: Source, step: str = STEP) -> tuple[Formulas | None, str | None]:
        """The exact costs of a model's step for every case, or the reason why there are none."""
        request = source_request(source)

        def ask(old: Json | None) -> Json:
            return self.server.run("derive", ASK_TIMEOUT_S, source=request, formulas=old, step=step).values

        return shelf.find(source, ask, step)

    def count(self, case: Case, source: Source, *, tree: bool = False) -> Counted:
        """The costs of a case, or the reason why there are none. tree: by module, too."""
        return decode(self._of_case("count", case, source, tree=tree), Counted)

    def operators(self, case: Case, source: Source) -> Json:
        """The operators of a case's eager form, or the reason why there are none."""
        return self._of_case("operators", case, source)

    def _of_case(self, job: str, case: Case, source: Source, **more: bool) -> Json:
        return self.server.run(job, ASK_TIMEOUT_S, source=source_request(source), case=case.to_json(), **more).values


@contextlib.contextmanager
def session(
    measure: Measure, registry: Registry, given: Given | None = None, side: Origin | None = None
) -> Iterator[Session]:
    """A session with a server of its own, whose folder is gone afterwards. side: of a Server."""
    threads = measure.threads or default_threads()
    with (
        tempfile.TemporaryDirectory(prefix="mixprof-") as folder,
        Server(Path(folder), PRELOAD, threads, measure.allocator, side) as server,
    ):
        yield Session(server, registry, given or Given(), measure.require_device)


def planned_cases(groups: list[Axes], asked: Session) -> tuple[list[Planned], Machine]:
    """All cases of a sweep, the anchors first, and the machine they will run on."""
    for group in groups:
        for name in group.lowerings or ():
            lowerings.parse(name)
    machine = asked.machine()
    known: dict[str, Source] = {}

    def describe(name: str) -> Source:
        if name not in known:
            known[name] = asked.describe(name)
        return known[name]

    planned = expand(groups, describe, machine.devices)
    refuse_unused(asked.given, planned)
    if all(entry.case.is_anchor for entry in planned):
        raise UsageError("got an anchor alone, which every sweep times by itself, expected another model")
    possible = [entry.case for entry in planned if entry.reason is None and not entry.case.is_anchor]
    anchors = [Planned(case, sources.ANCHOR) for case in sources.anchor_cases(possible)]
    return [*anchors, *(entry for entry in planned if not entry.case.is_anchor)], machine


def refuse_unused(given: Given, planned: list[Planned]) -> None:
    """UsageError for a shape, an input or an archive that none of the models takes."""
    artifacts = {entry.source.artifact for entry in planned if entry.source.artifact is not None}
    if not artifacts and given.shapes:
        raise UsageError(
            "got --shape, which is for models that are files, expected a net.onnx or net.plan with it; a module of "
            "your own takes --input name:1x3x224x224"
        )
    takes = bool(artifacts) or any(sources.takes_inputs(entry.source) for entry in planned)
    if not takes and (given.fed or given.inputs):
        option = "--inputs" if given.inputs else "--input"
        raise UsageError(
            f"got {option}, which is for models that are files and for modules of your own, expected one with it: "
            "others take --batches and --resolutions"
        )
    names = [each.name for artifact in artifacts for each in artifact.inputs]
    of_modules = [each.name for each in given.fed] if takes and not artifacts else []
    for name in given.sizes:
        if name not in (*names, *of_modules):
            option = "--shape" if name in given.shapes else "--input"
            raise UsageError(f"{option}: got input '{name}', expected {nearest(name, names)}")


def manifest_of(
    planned: list[Planned], measure: Measure, machine: Machine, code: Mapping[str, str] = MappingProxyType({})
) -> Manifest:
    """The manifest of a run that begins now. code: a digest of each user's model's, by the model's name."""
    cases = [entry.case.to_json() for entry in planned]
    return Manifest(
        sweep=Sweep(len(cases), digest(cases)),
        measure={**asdict(measure), "launches": measure.rounds},
        environment=Environment(machine.testbed_of({entry.case.device for entry in planned}), machine.informing),
        versions=machine.versions,
        artifacts=_contents(planned, code),
        models={entry.case.model: {"kind": entry.source.kind, **entry.source.facts} for entry in planned},
        lowerings=lowerings.facts(),
        created=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        commit=checked_out(),
    )


def _contents(planned: list[Planned], code: Mapping[str, str]) -> dict[str, Content]:
    """The content of every file among the models, of users' code, and of what models are fed with."""
    contents = {}
    for model, source in {entry.case.model: entry.source for entry in planned}.items():
        artifact, sha256 = source.artifact, source.arguments.get("sha256", code.get(model, ""))
        if artifact is not None:
            shapes = {one.name: one.given for one in artifact.inputs}
            contents[model] = Content(artifact.sha256, artifact.inputs_sha256, shapes)
        elif source.inputs or sha256:
            contents[model] = Content(sha256, source.inputs_sha256, {one.name: one.given for one in source.inputs})
    return contents


def _refuse_changed(run: Path, before: Mapping[str, Content], now: Mapping[str, Content]) -> None:
    """NotTrusted for a file, or its inputs, of other content than when the run began."""
    for name in set(before) & set(now):
        for part, words in (("sha256", "it"), ("inputs_sha256", "its --inputs")):
            if getattr(before[name], part) != getattr(now[name], part):
                raise NotTrusted(f"'{run}' was measured with another '{name}': {words} was changed; use a new --out")
        if before[name].shapes != now[name].shapes:
            raise UsageError(f"got other shapes for '{name}' than '{run}' has, expected the same --shape with --resume")


def refuse_other(run: Path, stored: Manifest, manifest: Manifest) -> None:
    """Going on with a run needs the same cases and settings (else 2) in the same environment (else 4)."""
    _refuse_changed(run, stored.artifacts, manifest.artifacts)
    if stored.sweep.shards != manifest.sweep.shards:
        here, there = (", ".join(one.sweep.shards or ("the whole sweep",)) for one in (manifest, stored))
        raise UsageError(f"got shard {here}, expected {there} as '{run}' has: use a new --out")
    if stored.sweep != manifest.sweep:
        raise UsageError(
            f"got other axes than those of '{run}' ({manifest.sweep.cases} cases, there "
            f"{stored.sweep.cases}), expected the same with --resume; use a new --out"
        )
    for name in stored.measure:
        if stored.measure[name] != manifest.measure.get(name) and name not in FREE:
            raise UsageError(
                f"got {name} = {manifest.measure.get(name)}, expected {stored.measure[name]} as '{run}' has"
            )
    for part, before, now in (
        ("testbed", stored.environment.testbed, manifest.environment.testbed),
        ("versions", stored.versions, manifest.versions),
    ):
        for name in {**before, **now}:
            if before.get(name) != now.get(name):
                raise NotTrusted(
                    f"'{run}' was measured with {part}.{name} = {before.get(name)}, here it is {now.get(name)}: "
                    "use a new --out"
                )
