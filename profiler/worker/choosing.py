"""The fastest formulation of each part of a case's model, by a few interleaved samples before any launch is timed."""

import copy
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mixprof import lowerings
from mixprof.data import choices
from mixprof.data.case import Case, is_simulated
from mixprof.data.choices import Choice, Choices
from mixprof.data.errors import UsageError, one_line
from mixprof.data.json import digest, to_builtins
from mixprof.data.testbed import flatten
from mixprof.lowerings import Lowered, Target
from mixprof.machine import cpu_contention, devices, process, streams, testbed
from mixprof.metrics import accuracy
from mixprof.models import specialization
from mixprof.models.formulations import PUBLISHED, can_run
from mixprof.worker import counting, modules, pin, simulated
from mixprof.worker.reference import Reference

ROUNDS = 9  # of one sample from each that is still in the race
BLOCKS = 2  # of a millisecond in one sample of the host
FAR = 1.5  # times the fastest after two rounds: out of the race
MARGIN = 1.03  # the usual formulation stays unless another is so much faster: noise changes no formulation
TRIES = 2  # of a race in which others took too much of the CPU's time
INSTANCES = 64  # modules of one class that torch.compile may hold at once: rivals are not recompilations


@dataclass(frozen=True)
class Racing:
    """What a part's formulations are compared under."""

    case: Case
    target: Target
    tolerance: float
    machine: str  # a digest of the testbed and of all software that decides
    most_lost: float  # of the CPU time, to others: more, and a race is run again


def choose(request: dict[str, Any]) -> dict[str, Any]:
    """The fastest formulation of each part of a case's model: the fields of Choices. Run before its launches."""
    case, settings = Case.from_json(request["case"]), request["measure"]
    pin.prepare(case, settings["threads"])
    raced_in = lowerings.raced_in(case.lowering)
    _, options = lowerings.parse(raced_in)
    name, cache = raced_in.split(":")[0], Path(request["cache"])
    target = Target(case.device, case.dtype, case.layout, options, settings["threads"], cache, False, "", name)
    hardware = flatten(testbed.testbed(settings["threads"], request["allocator"]))
    machine = digest([hardware, testbed.versions(), sources()])
    reference = Reference.read(Path(request["reference"]))
    torch._dynamo.config.recompile_limit = INSTANCES
    racing = Racing(case, target, reference.tolerance, machine, settings["max_lost_cpu"])
    built = modules.build(request["source"], case, "meta")
    bound = built.example.bind(built.module)
    with torch.no_grad():
        shapes = input_shapes(built.module, lambda: bound(*(tensor.to("meta") for tensor in built.example.tensors)))
        modules.load_state(built.module, reference.state)
        chosen = _of_parts(built.module, shapes, racing)
    formulations = {path: choice.chosen for path, choice in chosen.items()}
    distinct = {digest(to_builtins(choice)): choice for choice in chosen.values()}
    peak = _predicted_peak(request["source"], case, formulations)
    return {"status": "ok", **to_builtins(Choices(formulations, tuple(distinct.values()), peak))}


def _predicted_peak(source: Mapping[str, Any], case: Case, formulations: Mapping[str, str]) -> int | None:
    """Predicted peak bytes of a forward in these formulations; None for a lowering that is not eager."""
    if not formulations or case.lowering.split(":")[0] != "eager":
        return None
    built = modules.build(source, case, "meta")
    module = modules.specialize(source, built.module, case.lowering, formulations)
    dtype = process.torch_dtype(case.dtype)
    inputs = [lowerings.cast(tensor.to("meta"), dtype) for tensor in built.example.tensors]
    return counting.predicted_peak(built.example.bind(lowerings.convert(module, dtype)), inputs, case.device)


@lru_cache(maxsize=1)
def sources() -> str:
    """A digest of the code of all formulations: what another code took says nothing of this one."""
    folder = Path(specialization.__file__).parent
    files = sorted(path for kind in ("*.py", "*.cpp", "*.h") for path in folder.rglob(kind))
    return digest([digest(path.read_text()) for path in files])


def input_shapes(module: nn.Module, forward: Callable[[], object]) -> dict[str, tuple[int, ...]]:
    """The shape of each part's input in a forward, by the part's path."""
    shapes: dict[str, tuple[int, ...]] = {}

    def note(path: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        return lambda _, inputs: shapes.__setitem__(path, tuple(inputs[0].shape))

    parts = specialization.parts_of(module)
    handles = [part.register_forward_pre_hook(note(path)) for path, part in parts.items()]
    try:
        forward()
    finally:
        for handle in handles:
            handle.remove()
    return shapes


def _of_parts(module: nn.Module, shapes: Mapping[str, tuple[int, ...]], racing: Racing) -> dict[str, Choice]:
    """A choice for each part that has one; equal parts share it."""
    known: dict[str, Choice] = {}
    chosen = {}
    for path, part in specialization.parts_of(module).items():
        if getattr(part, specialization.ARRANGED, None) is not None:
            continue  # asked for by name
        key = _key(part, shapes[path], racing)
        known[key] = known.get(key) or choices.recall(key) or _raced(part, shapes[path], racing, key)
        chosen[path] = known[key]
    return chosen


def _key(part: nn.Module, shape: tuple[int, ...], racing: Racing) -> str:
    """Equal for parts that do the same work. Shifted windows count as windows: the shift is a copy more for each."""
    case = racing.case
    where = {name: getattr(case, name) for name in ("lowering", "device", "dtype", "layout", "mode")}
    state = {name: list(tensor.shape) for name, tensor in modules.state_of(part).items()}
    named = {name: getattr(part, name, None) for name in ("window", "heads", "resolution", "reduction")}
    sizes = {name: value for name, value in named.items() if not isinstance(value, nn.Module)}  # a merging's reduction
    kind, offered = type(part).__qualname__, specialization.offered(part)
    return choices.key_of(
        machine=racing.machine, part=kind, offered=offered, shape=shape, state=state, sizes=sizes, **where
    )


def _raced(part: nn.Module, shape: tuple[int, ...], racing: Racing, key: str) -> Choice:
    """Measure a part's formulations, again where others took CPU time meanwhile. Kept for later cases.

    Where they took too much each time the usual one stays: whichever was disturbed least would have won.
    """
    for _ in range(TRIES):
        before = cpu_contention.read()
        choice = Race(part, shape, racing).run()
        lost = cpu_contention.lost_share(before, cpu_contention.read())
        choice = replace(choice, lost_cpu_share=lost)
        if racing.case.device != "cpu" or (lost or 0.0) <= racing.most_lost:
            break
    else:
        choice = replace(choice, chosen=choice.usual)
    try:
        return choices.keep(key, choice)
    except (OSError, UsageError) as error:
        print(f"mixprof: a choice is not kept for the next run: {error}")
        return choice


class Race:
    """One part's formulations against one another: Linears of both kinds first, then how positions are mixed."""

    def __init__(self, part: nn.Module, shape: tuple[int, ...], racing: Racing):
        self.part, self.racing, self.shape = part, racing, shape
        self.input = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        self.order = random.Random(0)
        self.samplers: dict[str, Callable[[], float]] = {}
        self.lowered: list[Lowered] = []  # kept while they race: what a forward writes to is theirs
        self.ms: dict[str, list[float]] = {}
        self.refused: dict[str, str] = {}

    def run(self) -> Choice:
        case, raced_in = self.racing.case, lowerings.raced_in(self.racing.case.lowering)
        lowering = case.lowering.split(":")[0]  # whose graphs may hold less than the code that is raced
        offered = [one for one in specialization.offered(self.part) if can_run(one, lowering, case.device)]
        usual, self.right = self._enter_usual()
        mixing = specialization.mixing_of(usual)
        self._heat([name for name in offered if specialization.mixing_of(name) == mixing or name == PUBLISHED])
        linear = specialization.linear_of(self._fastest(but=PUBLISHED))
        self._heat([name for name in offered if specialization.linear_of(name) == linear])
        fastest, least = self._fastest(), {name: min(samples) for name, samples in self.ms.items()}
        chosen = usual if least[usual] <= MARGIN * least[fastest] else fastest
        elsewhere = None if raced_in == case.lowering else raced_in
        kind = type(self.part).__qualname__
        return Choice(kind, self.shape, chosen, usual, least, self.refused, raced_in=elsewhere)

    def _fastest(self, but: str = "") -> str:
        return min((name for name in self.ms if name != but), key=lambda name: min(self.ms[name]))

    def _lowered(self, formulation: str | None) -> tuple[nn.Module, Lowered]:
        case, part = self.racing.case, copy.deepcopy(self.part)
        specialization.arrange(part, lowerings.form_of(self.racing.target.name), formulation)
        part = lowerings.convert(part, process.torch_dtype(case.dtype))
        key = digest([self.racing.machine, case.to_json(), self.shape, formulation])
        target = replace(self.racing.target, key=key)
        if is_simulated(case.device):
            return part, simulated.lower(case, part, (self.input,), target, "choose")
        return part, lowerings.lower(lowerings.raced_in(case.lowering), part, (self.input,), target)

    def _enter_usual(self) -> tuple[str, Tensor]:
        """Let the usual formulation in; its name here, and its output, by which the others are checked."""
        part, lowered = self._lowered(None)
        usual = specialization.runs(part)
        self._admit(usual, lowered)
        return usual, lowered.read()

    def _admit(self, name: str, lowered: Lowered) -> None:
        assert lowered.forward is not None
        self.lowered.append(lowered)
        self.samplers[name], self.ms[name] = sampler(lowered, self.racing.case), []

    def _heat(self, names: list[str]) -> None:
        """Build what is not in the race yet; then one sample of each in turn, in random order."""
        for name in names:
            if name not in self.samplers and name not in self.refused:
                self._enter(name)
        for number in range(ROUNDS):
            best = min((min(samples) for samples in self.ms.values() if samples), default=0.0)
            near = [name for name in self.samplers if number < 2 or min(self.ms[name]) <= FAR * best]
            for name in self.order.sample(near, len(near)):
                self.ms[name].append(self.samplers[name]())

    def _enter(self, name: str) -> None:
        """Lower a formulation and let it in if it computes what the usual one does."""
        try:
            _, lowered = self._lowered(name)
            error = accuracy.worst_error([lowered.read()], [self.right.double()])
        except Exception as failure:  # of whatever a lowering cannot do: the others go on
            self.refused[name] = one_line(failure)
            return
        if not error <= self.racing.tolerance:
            self.refused[name] = f"its output differs by {error:.2g}, more than {self.racing.tolerance:g}"
            return
        self._admit(name, lowered)


def sampler(lowered: Lowered, case: Case) -> Callable[[], float]:
    """Samples of a lowered part in milliseconds per forward: of the device where it has a queue, else of the host."""
    forward, device = lowered.forward, lowered.device or devices.of(case.device)
    assert forward is not None
    if device.queue:
        return streams.gpu_sampler(forward, streams.queue_of(forward, device), device)
    repeats = BLOCKS * streams.forwards_per_sample(forward, device)
    return streams.host_sampler(forward, repeats, device)
