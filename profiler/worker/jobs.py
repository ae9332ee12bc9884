"""What a worker process does: each job is a function of its request that returns JSON values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mixprof.data.json import to_builtins
from mixprof.machine import cuda_driver, nvml, process, simulation, testbed, torch_cuda
from mixprof.worker import choosing, counting, feeds, graphs, launch, modules, reference, resident

Job = Callable[[dict[str, Any]], dict[str, Any]]


def environment(request: dict[str, Any]) -> dict[str, Any]:
    """Devices, versions and the testbed of this machine."""
    # Asked first, before torch makes this process one of those that NVML lists.
    foreign = {f"cuda:{index}": nvml.foreign(index) for index in range(cuda_driver.device_count())}
    return {
        "status": "ok",
        "foreign": {device: to_builtins(of) for device, of in foreign.items() if of is not None},
        "no_cuda": to_builtins(torch_cuda.no_cuda()),
        "devices": testbed.devices(),
        "versions": testbed.versions(),
        "testbed": testbed.testbed(request["threads"], request["allocator"]),
        "informing": testbed.informing(),
        "simulated": simulation.configured().words,
    }


def serve(request: dict[str, Any]) -> dict[str, Any]:
    """A model under load."""
    from mixprof.worker import serving  # not above: it needs scipy, which no other job does

    return serving.serve(request)


def describe(request: dict[str, Any]) -> dict[str, Any]:
    """The keywords that a user's factory is called with, and whether it makes mixers or networks."""
    source = request["source"]
    factory = modules.resolve(source)
    accepts = modules.accepted(factory)
    kind = source["kind"] if source["kind"] == "call" else modules.kind_of(source, factory, accepts)
    if kind == "network":  # its own number of channels, whatever it is a number of
        accepts = [name for name in accepts if name != "channels"]
    return {"status": "ok", "accepts": accepts, "kind": kind}


def peaks(request: dict[str, Any]) -> dict[str, Any]:
    """Matrix product, vector multiply-add and copy that this device can do at most."""
    from mixprof.metrics.peaks import measure

    process.prepare(request["device"], request["dtype"], request["threads"])
    return {"status": "ok", "peaks": to_builtins(measure(request["device"], request["dtype"]))}


def _of_either(of_module: Job, of_file: Job) -> Job:
    """A job for models that are modules, and its like for those that are files."""
    return lambda request: (of_module if request["source"]["artifact"] is None else of_file)(request)


JOBS: dict[str, Job] = {
    "environment": environment,
    "describe": describe,
    "inspect": graphs.inspect,
    "inspect_inputs": feeds.inspect_archive,
    "count": _of_either(counting.count, graphs.count),
    "derive": counting.derive,
    "operators": counting.operators,
    "peaks": peaks,
    "choose": choosing.choose,
    "prepare": _of_either(reference.prepare, graphs.prepare),
    "launch": launch.launch,
    "resident": resident.resident,
    "serve": serve,
}
