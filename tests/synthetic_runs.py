"""Run folders with known numbers, made through mixprof.data.run_folder."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mixprof.data.case import Case
from mixprof.data.launch import Launch, Memory, Samples, StepMemory
from mixprof.data.manifest import Environment, Manifest, Sweep
from mixprof.data.record import Record
from mixprof.data.run_folder import RECORDS, append_record, write_manifest

MANIFEST = Manifest(
    sweep=Sweep(),
    environment=Environment({"cpu": {"model": "A | B <cpu>", "threads": 2}}, {"governor": None}),
    versions={"torch": "2.13.0"},
    measure={"launches": 3},
)


def case(model: str = "depthwise_conv", **changes: Any) -> Case:
    fields: dict[str, Any] = {
        "model": model, "lowering": "eager", "device": "cpu", "dtype": "float32", "layout": "channels_last",
        "mode": "hot", "batch": 1, "resolution": (56, 56), "window": 7, "channels": 96,
    }  # fmt: skip
    return Case(**{**fields, **changes})


def launch(samples: Iterable[float], time: str = "host_ms", forwards: int = 1) -> Launch:
    return Launch(status="ok", **{time: Samples(tuple(samples), forwards)})  # type: ignore[arg-type]


def ok(of: Case, medians: Sequence[float] | np.ndarray, **fields: Any) -> Record:
    """A record whose launches have these medians: three samples each."""
    launches = tuple(replace(launch((0.9 * m, m, 1.5 * m)), round=k) for k, m in enumerate(medians))
    return Record(case=of, status="ok", launches=launches, **fields)


def write_run(folder: Path, records: Iterable[Record], manifest: Manifest = MANIFEST) -> Path:
    folder.mkdir(parents=True)
    write_manifest(folder, manifest)
    for record in records:
        append_record(folder, record)
    return folder


MIXERS = {"window_attention": 1.0, "depthwise_conv": 0.6, "dynamic_depthwise_conv": 0.9, "global_attention": 1.1}
NETWORKS = {"swin_t": 30.0, "swin_t:mixer=depthwise_conv": 21.0, "dwnet_t": 17.0, "vit_s": 28.0}
LOWERINGS = {"eager": 1.0, "compile:max-autotune": 0.7, "onnxruntime": 0.55}


COST = {**MIXERS, **NETWORKS}


def realistic(seed: int = 0, launches: int = 3) -> list[Record]:
    """4 mixers x 5 resolutions x 3 windows x 3 lowerings, 4 networks, the anchors, and some that are not ok."""
    random = np.random.default_rng(seed)
    records = []
    for lowering, speed in LOWERINGS.items():
        records.append(ok(case("anchor_v1", lowering=lowering, channels=None, window=None), [2.0 * speed] * launches))
        for of, milliseconds in [*_mixer_cases(lowering), *_network_cases(lowering)]:
            records.append(_record(of, milliseconds * speed, random, launches))
    return records


def _mixer_cases(lowering: str) -> Iterable[tuple[Case, float]]:
    for name, cost in MIXERS.items():
        for side in (14, 28, 56, 112, 224):
            for window in (3, 7, 11) if name != "global_attention" else (None,):
                growth = {"window_attention": 1 + (window or 0) / 12, "global_attention": 1 + side**2 / 1500}
                scale = growth.get(name, 0.5 + ((window or 0) / 6.5) ** 2)
                of = case(name, lowering=lowering, resolution=(side, side), window=window)
                yield of, cost * scale * (0.08 + side**2 / 56**2)


def _network_cases(lowering: str) -> Iterable[tuple[Case, float]]:
    for name, cost in NETWORKS.items():
        for size in ((224, 224), (256, 256), (384, 384), (512, 512), (800, 1333)):
            for batch in (1, 4, 16) if size[1] < 500 else (1,):
                window = None if name.startswith("vit") else 7
                of = case(name, lowering=lowering, resolution=size, window=window, channels=None, batch=batch)
                yield of, cost * batch**0.95 * size[0] * size[1] / 224**2


def _record(of: Case, milliseconds: float, random: np.random.Generator, launches: int) -> Record:
    positions, width = of.resolution[0] * of.resolution[1], of.channels or 3
    if of.model in ("global_attention", "vit_s") and positions > 40_000 and of.lowering == "eager":
        return Record(of, "oom", "tried to allocate 9.00 GiB | 2.00 GiB free\n(see the note)", flops=10**9)
    if of.model == "dynamic_depthwise_conv" and of.lowering == "onnxruntime" and of.window == 11:
        return Record(of, "unsupported", "no kernel for <float32> at window 11")
    medians = [milliseconds * float(np.exp(0.06 * random.standard_normal())) for _ in range(launches)]
    samples = [launch(median * np.exp(0.02 * random.standard_normal(40))) for median in medians]
    macs = int(of.batch * positions * width * (of.window or 14) ** 2 * COST[of.model])
    counts: dict[str, Any] = {"macs": macs, "flops": 2 * macs, "params": 4 * width**2, "relative_error": 2e-6}
    memory = Memory(int(16 * of.batch * positions * width * COST[of.model]) + 2**20, 2**29)
    uncounted = ("aten::fft_rfft2",) if of.model == "dynamic_depthwise_conv" else ()
    return Record(of, "ok", None, tuple(samples), uncounted_ops=uncounted, memory=memory, **counts)


def write_lines(folder: Path, records: Iterable[Record], manifest: Manifest = MANIFEST) -> Path:
    """The same folder as `write_run` makes, without putting every line on disk before the next."""
    folder.mkdir(parents=True)
    write_manifest(folder, manifest)
    with (folder / RECORDS).open("w") as file:
        file.writelines(json.dumps(record.to_json()) + "\n" for record in records)
    return folder


def many(count: int, samples: int = 40, seed: int = 0) -> Iterable[Record]:
    """This many records of a dense grid, three launches each; one in fifty is not ok, each with a reason of its own."""
    random = np.random.default_rng(seed)
    lowerings, mixers = ("eager", "compile", "onnxruntime"), [*MIXERS, "local_mlp", "conv", "spatial_mlp"]
    grid = itertools.product(
        range(8, 8 * 26, 8), (1, 2, 4, 8, 16), (3, 5, 7, 9, 11), mixers, lowerings, ("float32", "bfloat16")
    )
    for number, (side, batch, window, model, lowering, dtype) in enumerate(itertools.islice(grid, count)):
        of = case(model, lowering=lowering, dtype=dtype, batch=batch, window=window, resolution=(side, side))
        macs = batch * side**2 * 96 * (96 + window**2)
        if number % 50 == 49:
            yield Record(of, "oom", f"tried to allocate {macs} bytes", macs=macs, flops=2 * macs)
            continue
        middle = 1e-7 * macs * (1 + mixers.index(model) / 4)
        launches = [launch(middle * np.exp(0.03 * random.standard_normal(samples))) for _ in range(3)]
        memory = Memory(16 * batch * side**2 * 96, 2**29)
        counts: dict[str, Any] = {"macs": macs, "flops": 2 * macs, "params": 20_000, "relative_error": 2e-6}
        proof = {"formulation": ["conv"], "recompiles": 0}
        yield Record(of, "ok", None, tuple(launches), uncounted_ops=(), memory=memory, proof=proof, **counts)


ATTENTION, CONVOLUTION, DENSE = "window_attention", "depthwise_conv", "conv"
FORWARD = {ATTENTION: 1.5, CONVOLUTION: 1.0, DENSE: 4.0}  # milliseconds, at side 14
BACKWARD = {ATTENTION: 2.0, CONVOLUTION: 5.0, DENSE: 2.5}  # times the forward
SIDES = (14, 28, 56)
SHARES = {"zero_grad": 0.05, "optimizer": 0.2}  # of the forward
MEBIBYTE = 2**20
KINDS = ("weights", "gradients", "optimizer", "activations", "temporaries", "peak")


def bytes_of(*mebibytes: int) -> StepMemory:
    fields: dict[str, Any] = {f"{kind}_bytes": mib * MEBIBYTE for kind, mib in zip(KINDS, mebibytes, strict=True)}
    return StepMemory(**fields)


MEASURED, PREDICTED = bytes_of(8, 8, 16, 40, 10, 82), bytes_of(8, 8, 16, 40, 6, 78)


def parts_of(model: str, side: int) -> dict[str, float]:
    forward = FORWARD[model] * (side / 14) ** 2
    return {"forward": forward, "backward": BACKWARD[model] * forward, **{n: s * forward for n, s in SHARES.items()}}


def step_launch(parts: dict[str, float], drift: float, random: np.random.Generator, noise: float = 0.002) -> Launch:
    """Twenty steps of one launch: each step slow or fast as a whole, its parts alike."""
    steps = drift * np.exp(noise * random.standard_normal(20))
    samples = {name: Samples(tuple(ms * steps), 1) for name, ms in parts.items()}
    return Launch("ok", host_ms=Samples(tuple(sum(parts.values()) * steps), 1), parts=samples)


def training_records(drift: float = 0.05) -> Iterable[Record]:
    """Three mixers at three sides, in inference and as training steps, which the backward of one turns around."""
    random = np.random.default_rng(1)
    for model, side in itertools.product(FORWARD, SIDES):
        parts, drifts = parts_of(model, side), np.exp(drift * random.standard_normal(3))
        inference = case(model, resolution=(side, side))
        yield ok(inference, FORWARD[model] * (side / 14) ** 2 * np.exp(0.01 * random.standard_normal(3)))
        launches = tuple(step_launch(parts, each, random) for each in drifts)
        yield Record(
            case(model, resolution=(side, side), step="train"),
            "ok",
            launches=launches,
            step_memory=MEASURED,
            predicted_step_memory=PREDICTED,
            gradient_error=3e-6,
            update_error=2e-7,
            backward_macs=2 * 10**6,
        )
