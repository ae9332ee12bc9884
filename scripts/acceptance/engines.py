"""Engines: their device over the real driver, without torch's CUDA, and whole engines where TensorRT is installed."""

from __future__ import annotations

from acceptance import timing
from acceptance.commands import label, sweep
from acceptance.frame import Seen, Skipped, Value
from acceptance.targets import Target
from mixprof.lowerings import Lowered
from mixprof.machine.devices import Call
from mixprof.machine.devices.engine import EngineDevice


class OnDriver(Target):
    """The device of engines. Its spins count nanoseconds of the GPU's own timer: another truth than cycles are."""

    def __init__(self, name: str):
        self.device = self.engine = EngineDevice(int(name.partition(":")[2]))
        self.l2_bytes = self.engine.driver.l2_bytes

    def spins(self, us: float, count: int) -> Call:
        def run() -> None:
            for _ in range(count):
                self.engine.spin(us / 1000)

        return run

    def graph(self, us: float, count: int) -> Call:
        return self.engine.capture(self.spins(us, count))

    def copy(self, size: int) -> Call:
        raise NotImplementedError

    def product(self, side: int, dtype: str) -> Call:
        raise NotImplementedError

    def chain(self, reads: int) -> Lowered:
        raise NotImplementedError


def device(name: str) -> Seen:
    """Spins through the engines' device: gated, as a graph; memory that is read back; torch's CUDA stays untouched."""
    import numpy as np
    import torch

    target = OnDriver(name)
    content = np.arange(1 << 20, dtype=np.uint8)
    memory = target.engine.allocate(content.nbytes)
    target.engine.upload(memory, content)
    same = bool((target.engine.download(memory, content.nbytes) == content).all())
    seen = timing.of_grid(target, target.spins, name)
    graphs = timing.of_grid(target, target.graph, name)
    target.engine.flusher()()
    target.engine.synchronize()
    values: dict[str, Value] = {**seen.values, **{f"graph_{key}": value for key, value in graphs.values.items()}}
    values |= {"library": type(target.engine.driver).__name__, "torch_cuda": torch.cuda.is_initialized()}
    wrong = [*seen.wrong, *(f"as a graph, {each}" for each in graphs.wrong)]
    wrong += ["what was uploaded is not what is read back"] * (not same)
    wrong += ["torch's CUDA was begun"] * torch.cuda.is_initialized()
    samples = {**seen.samples, **{f"graph_{key}": each for key, each in graphs.samples.items()}}
    return Seen(values, samples, tuple(wrong))


def whole(name: str, flavour: str) -> Seen:
    """Engines of two mixers, plain and as a graph: built, run, right, timed."""
    from mixprof import lowerings

    if reason := lowerings.missing(flavour):
        raise Skipped(reason)
    axes = ("--models", "depthwise_conv,window_attention", "--lowerings", f"{flavour},{flavour}:graph=on")
    records, wrong = sweep(name, *axes, "--resolutions", "14", "--dtypes", "float16",
                            "--layouts", "contiguous", limit_s=200)  # fmt: skip
    statuses: dict[str, Value] = {f"status {label(record)}": record["status"] for record in records}
    wrong += [f"{label(record)} is {record['status']}: {record['reason']}" for record in records
              if record["status"] not in ("ok", "unsupported")]  # fmt: skip
    return Seen(statuses, wrong=tuple(wrong), raw={"records": records})
