"""What GPU tests find out, each in a process of its own: the real code on a device, figures as JSON.

    python tests/gpu_probes.py NAME '{"argument": value}'

A process of its own since a CUDA error sticks to a process, and since one that runs an engine must not have torch's
CUDA in it. Nothing here has run on a GPU yet.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch import nn

from mixprof import lowerings, models, sampling
from mixprof.lowerings import Target
from mixprof.machine import cuda_driver, devices, process, testbed
from mixprof.metrics import accuracy, latency, memory

DEVICE = "cuda:0"
LIMIT_S = 900
BUDGET = sampling.Budget(min_work_s=0.2, window_s=0.1, steady_cap_s=5.0, cap_s=2.0)


def ask(probe, /, *, cache=None, **arguments):
    """Run a probe in a process of its own; what it returns. Its errors are the test's."""
    root = str(Path(__file__).parents[1] / "src")
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "PYTHONPATH": path, "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
    environment |= {"MIXPROF_CACHE": str(cache)} if cache else {}
    command = [sys.executable, __file__, probe, json.dumps(arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=LIMIT_S)
    assert done.returncode == 0, f"{probe} ended with {done.returncode}: {done.stderr[-2000:]}"
    return json.loads(done.stdout.splitlines()[-1])


# What is put on the device


class Scale(nn.Module):
    """Two elementwise steps: the first one's result lives until the second one's is made."""

    def forward(self, x):
        return (x + 1) * 2


class Sums(nn.Module):
    """Reads eight buffers of `size` floats each, and little else."""

    def __init__(self, size):
        super().__init__()
        self.parts = nn.ParameterList(nn.Parameter(torch.ones(size), requires_grad=False) for _ in range(8))

    def forward(self, x):
        return x + sum(each.sum() for each in self.parts)


def target(lowering, dtype, folder, *, layout="channels_last", images=False):
    _, options = lowerings.parse(lowering)
    name = lowering.split(":")[0]
    return Target(DEVICE, dtype, layout, options, 1, Path(folder), images, f"{name}-{dtype}", name)


def lowered_in_torch(module, x, lowering, dtype, folder=".", **more):
    """A module lowered on the device as a launch does it, torch pinned for the dtype."""
    process.prepare(DEVICE, dtype, 1)
    module = module.eval().requires_grad_(False)
    with torch.no_grad():
        return lowerings.lower(lowering, module, (x,), target(lowering, dtype, folder, **more))


def mixer(name, dtype, batch=2, side=14):
    """A mixer with the gate's weights rounded to a dtype, its input and the float64 reference of all images."""
    kind = process.torch_dtype(dtype)

    def build():
        return models.build(name, resolution=(side, side), window=7, channels=64).requires_grad_(False)

    module = build()
    x = accuracy.random_input((batch, side, side, 64), torch.Generator().manual_seed(1), images=False).to(kind).float()
    first = accuracy.random_input((1, side, side, 64), torch.Generator().manual_seed(3), images=False)
    accuracy.initialize(module, (first,), seed=2)  # the same weights at every batch
    module = module.to(kind).float()
    copy = build()
    copy.load_state_dict(module.state_dict())
    with torch.inference_mode():
        expected = copy.double()(x.double())
    return module, x, expected


def error_of(output, expected):
    """Largest relative error over all images."""
    return float((output.double() - expected).abs().max() / expected.abs().max())


def times_of(lowered, mode="hot"):
    found = latency.measure(lowered, lowered.device or devices.of(DEVICE), mode, BUDGET)
    lists = {name: getattr(found, name) for name in ("gpu_ms", "enqueue_ms", "host_ms")}
    return {name: statistics.median(each.samples) for name, each in lists.items()} | {"recompiles": found.recompiles}


# In torch


def product(side, dtype):
    """A square matrix product: its three times, and its time by a second method, one wall clock around many."""
    x = torch.randn(1, 1, side, side)
    lowered = lowered_in_torch(nn.Linear(side, side, bias=False), x, "eager", dtype)
    found = times_of(lowered)
    count = 50
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(count):
        lowered.forward()
    torch.cuda.synchronize()
    properties = torch.cuda.get_device_properties(0)
    return {
        **found,
        "wall_ms": 1000 * (time.perf_counter() - start) / count,
        "stream": torch.cuda.current_stream().cuda_stream,
        "multiprocessors": properties.multi_processor_count,
    }


def one_by_one(side):
    """Device time of a product that is queued ahead, and of the same one enqueued to an idle device each time."""
    x = torch.randn(1, 1, side, side)
    lowered = lowered_in_torch(nn.Linear(side, side, bias=False), x, "eager", "float16")
    stream, idle = devices.of(DEVICE), []
    for _ in range(100):
        stream.synchronize()
        begin = stream.event()
        lowered.forward()
        end = stream.event()
        stream.synchronize()
        idle.append(stream.elapsed_ms(begin, end))
    graphed = lowered_in_torch(nn.Linear(side, side, bias=False), x, "eager:graph=on", "float16")
    return {"queued": times_of(lowered), "graphed": times_of(graphed), "idle_ms": statistics.median(idle)}


def modes():
    """Hot and cold time of reading a quarter of the L2 cache."""
    process.prepare(DEVICE, "float32", 1)
    l2_bytes = torch.cuda.get_device_properties(0).L2_cache_size
    lowered = lowered_in_torch(Sums(l2_bytes // 4 // 8 // 4), torch.zeros(1, 1, 1, 1), "eager:graph=on", "float32")
    return {"l2_bytes": l2_bytes, "hot": times_of(lowered)["gpu_ms"], "cold": times_of(lowered, "cold")["gpu_ms"]}


def precision(dtype):
    """Relative errors of a product and a convolution against float64 with the same weights."""
    torch.manual_seed(0)
    found = {}
    for name, module, x, images in (
        ("product", nn.Linear(1024, 1024), torch.randn(1, 8, 8, 1024), False),
        ("convolution", nn.Conv2d(64, 64, 3, padding=1), torch.randn(2, 64, 28, 28), True),
    ):
        with torch.no_grad():
            expected = nn.Module.double(module)(x.double())
        module = module.float()
        found[name] = error_of(lowered_in_torch(module, x, "eager", dtype, images=images).read(), expected)
    return found


def layouts(layout):
    """How input, weights and output of a small network lie in memory."""
    net = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1, groups=16))
    lowered = lowered_in_torch(net, torch.randn(2, 3, 32, 32), "eager", "float16", layout=layout, images=True)
    output = lowered.forward()
    last = torch.channels_last
    (weight, *_) = net.parameters()  # the module is placed itself, not a copy
    return {
        "output": output.is_contiguous(memory_format=last) and not output.is_contiguous(),
        "weight": weight.is_cuda and weight.is_contiguous(memory_format=last) and not weight.is_contiguous(),
    }


def graphs():
    """Output of a mixer in eager and as a CUDA graph: their largest difference, and the graph's error."""
    module, x, expected = mixer("window_attention", "float16")
    plain = lowered_in_torch(models.specialize(module, "eager"), x, "eager", "float16").read()
    module, x, _ = mixer("window_attention", "float16")
    graphed = lowered_in_torch(models.specialize(module, "eager"), x, "eager:graph=on", "float16")
    first = graphed.read()
    again = graphed.read()
    return {
        "difference": float((plain - first).abs().max()),
        "between_replays": float((first - again).abs().max()),
        "error": error_of(first, expected),
        "memory": devices.of(DEVICE).reserved(),
    }


def captures(folder):
    """How often CUDA graphs were captured while compiling with reduce-overhead, and while sampling after it."""
    from torch._dynamo.utils import counters

    count, begin = 0, torch.cuda.CUDAGraph.capture_begin

    def counted(self, *arguments, **keywords):
        nonlocal count
        count += 1
        return begin(self, *arguments, **keywords)

    vars(torch.cuda)["CUDAGraph"].capture_begin = counted
    module, x, expected = mixer("depthwise_conv", "float16")
    lowered = lowered_in_torch(
        models.specialize(module, "compile"), x, "compile:reduce-overhead", "float16", folder=folder
    )
    built = count
    with torch.no_grad():
        error, times = error_of(lowered.read(), expected), times_of(lowered)
    skipped = counters["inductor"]["cudagraph_skips"]
    return {"built": built, "sampled": count - built, "skipped": skipped, "error": error, **times,
            "memory": devices.of(DEVICE).reserved()}  # fmt: skip


def allocator(side):
    """Allocator peak of two elementwise steps on `side` squared floats, and what is reserved."""
    lowered = lowered_in_torch(Scale(), torch.randn(1, 1, side, side), "eager", "float32")
    with torch.inference_mode():
        lowered.forward()
        peak = devices.of(DEVICE).allocator_peak(lowered.forward)
        return {
            "peak": peak,
            "memory": devices.of(DEVICE).reserved(),
            "process_peak": memory.process_peak(lowered.forward),
        }


def sensors():
    """What NVML says, before and after 256 MiB are taken, and which device torch and the driver mean."""
    from mixprof.machine import nvml

    read = nvml.reader(0)
    if read is None:
        return None
    torch.cuda.init()
    torch.zeros(1, device=DEVICE)
    before = read()
    held = torch.zeros(256 << 20, dtype=torch.uint8, device=DEVICE)
    torch.cuda.synchronize()
    after = read()
    return {
        "before": before.__dict__,
        "after": after.__dict__,
        "identity": nvml.identity(0),
        "testbed": testbed.testbed(1, "pinned"),
        "uuids": [cuda_driver.device_uuid(0), str(torch.cuda.get_device_properties(0).uuid)],
        "held": held.numel(),
    }


def timer(side):
    """A product's time by torch.utils.benchmark, which knows nothing of ours, beside ours."""
    from torch.utils.benchmark import Timer

    x = torch.randn(1, 1, side, side)
    lowered = lowered_in_torch(nn.Linear(side, side, bias=False), x, "eager", "float16")
    theirs = Timer("forward()", globals={"forward": lowered.forward}).blocked_autorange(min_run_time=1.0)
    return {"ours_ms": times_of(lowered)["gpu_ms"], "theirs_ms": 1000 * theirs.median}


if __name__ == "__main__":
    import engine_probes

    # Those of engines take a flavour or a lowering; two names, `modes` among them, are of both kinds.
    arguments = json.loads(sys.argv[2])
    probes = vars(engine_probes) if {"flavour", "lowering"} & set(arguments) else globals()
    probe = probes[sys.argv[1]]
    print(json.dumps(probe(**arguments)))
