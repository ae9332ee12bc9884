"""What GPU tests find out about engines, each in a process of its own without torch's CUDA: see gpu_probes."""

import math
import statistics
import tempfile
from typing import Any

import torch
from torch import nn

from gpu_probes import error_of, lowerings, mixer, models, target, times_of
from mixprof.data import cache
from mixprof.data.errors import is_out_of_memory
from mixprof.lowerings.onnx_graph import Graph
from mixprof.lowerings.tensorrt import build, lower, proof, run


def mixer_engine(lowering, name, dtype, batch=2, side=14):
    """(lowered, input, float64 reference) of a mixer."""
    module, x, expected = mixer(name, dtype, batch, side)
    folder = tempfile.mkdtemp(prefix="mixprof-probe-")
    with torch.no_grad():
        lowered = lowerings.lower(lowering, models.specialize(module, lowering), (x,), target(lowering, dtype, folder))
    assert lowered.forward is not None, "built only, though there is a device"
    return lowered, x, expected


def kept_engine():
    """The one engine in the cache with its proof from the builder's log, and its graph."""
    (folder,) = (cache.folder() / "engines").iterdir()
    found, warning = cache.fetch(folder.name)
    assert found is not None, warning
    engine, said = found
    onnx = (cache.folder() / "onnx" / f"{said['onnx_sha256']}.onnx").read_bytes()
    return engine, said, Graph.read(onnx)


def bound(flavour, engine, graph, x, *, graphed=False):
    """A runner of an engine with one input."""
    trt = build.load(flavour)
    (name,) = graph.inputs
    inputs, shapes = {name: lower.raw_bytes(x)}, {name: tuple(x.shape)}
    return run.Runner(trt, engine, 0, inputs, shapes, graph=graphed)


def output_of(runner, graph):
    return lower.outputs_of(runner, graph.outputs)[0]


def output(lowering, name, dtype):
    """Error of an engine's output, its times and proof, what the builder said of it, and torch's CUDA afterwards."""
    lowered, _, expected = mixer_engine(lowering, name, dtype)
    error, times = error_of(lowered.read(), expected), times_of(lowered)
    _, said, _ = kept_engine()
    lowered.close()
    lowered.close()  # nothing is left to free
    return {
        "error": error,
        "times": times,
        "proof": {key: value for key, value in lowered.proof.items() if key != "layers"},
        "inspected": lowered.proof["kernels"],
        "built": said["kernels"],
        "built_activation_bytes": said["activation_bytes"],
        "torch_cuda": torch.cuda.is_initialized(),
    }


def poison(flavour):
    """How many values a read finds when the forward writes none, and how many of them are not NaN."""
    lowered, x, _ = mixer_engine(flavour, "depthwise_conv", "float16")
    lowered.close()
    engine, _, graph = kept_engine()
    runner: Any = bound(flavour, engine, graph, x.half())
    runner.forward = lambda: None
    read = output_of(runner, graph)
    runner.close()
    return {"values": read.numel(), "written": int((~read.isnan()).sum())}


def captured(flavour):
    """Largest difference between the output of an engine and of the same one as a CUDA graph, and their times."""
    found = {}
    for option in ("", ":graph=on"):
        lowered, _, expected = mixer_engine(flavour + option, "window_attention", "float16")
        read = lowered.read()
        found[option] = {"error": error_of(read, expected), "graph": lowered.proof["cuda_graph"], **times_of(lowered)}
        found[option]["hash"] = lowered.proof["engine_sha256"]
        found[option]["output"] = read.double()
        lowered.close()
    plain, graphed = found[""].pop("output"), found[":graph=on"].pop("output")
    return {"plain": found[""], "graphed": found[":graph=on"], "difference": float((plain - graphed).abs().max())}


def dynamic(flavour):
    """Errors of one engine with a profile at three batches, each with buffers of its own."""
    lowered, _, _ = mixer_engine(f"{flavour}:dynamic:batches=1-4", "depthwise_conv", "float16", batch=2)
    lowered.close()
    engine, said, graph = kept_engine()
    errors = {}
    for batch in (1, 2, 4):
        _, x, expected = mixer("depthwise_conv", "float16", batch)
        runner = bound(flavour, engine, graph, x.half())
        errors[batch] = error_of(output_of(runner, graph), expected)
        runner.close()
    return {"errors": errors, "profile": said["profile"]}


def beyond(flavour):
    """What is said of a batch beyond an engine's profile."""
    lowered, x, _ = mixer_engine(f"{flavour}:dynamic:batches=1-4", "depthwise_conv", "float16", batch=2)
    lowered.close()
    engine, _, graph = kept_engine()
    return _refused(lambda: bound(flavour, engine, graph, torch.cat([x.half()] * 4)))


def freed(flavour):
    """Free device memory before a runner was made and after it was closed, twice: what stays must not grow."""
    import pycuda.driver as cuda

    lowered, x, _ = mixer_engine(flavour, "window_attention", "float16")
    lowered.close()
    del lowered
    engine, _, graph = kept_engine()
    context = cuda.Device(0).retain_primary_context()  # kept, so that its own memory is in all of the figures
    context.push()
    free = []
    for _ in range(4):
        runner = bound(flavour, engine, graph, x.half(), graphed=True)
        flush = runner.device.flusher()
        flush()
        runner.forward()
        runner.close()
        del runner, flush
        free.append(cuda.mem_get_info()[0])
    context.pop()
    return {"free": free}


def layers(flavour):
    """Layer times by TensorRT's profiler, the engine's own time, and the names the inspector knows."""
    lowered, _, _ = mixer_engine(flavour, "window_attention", "float16", batch=64, side=56)
    found = lowered.layer_times(20)
    names = [layer["name"] for layer in lowered.proof["layers"]]
    gpu_ms = times_of(lowered)["gpu_ms"]
    lowered.close()
    return {"layers": found, "gpu_ms": gpu_ms, "names": names, "roles": lowered.proof["roles"]}


def wrong_engine(flavour, other):
    """What is said of an engine that this device cannot take: built for `other`, or of half its bytes."""
    with tempfile.TemporaryDirectory() as folder:
        module, x, _ = mixer("depthwise_conv", "float16")
        if other is None:
            lowered, x, _ = mixer_engine(flavour, "depthwise_conv", "float16")
            lowered.close()
            engine, _, graph = kept_engine()
            return _refused(lambda: bound(flavour, engine[: len(engine) // 2], graph, x.half()))
        name = f"{flavour}:sm={other}"
        run = target(name, "float16", folder)
        module = models.specialize(module, name)
        return _refused(lambda: lowerings.lower(name, module, (x,), run))


def without_memory(flavour):
    """What is raised where nearly all of the device's memory is taken, and whether it counts as out of memory."""
    import pycuda.driver as cuda

    lowered, x, _ = mixer_engine(flavour, "window_attention", "float16", batch=64, side=56)
    lowered.close()
    del lowered
    engine, _, graph = kept_engine()
    context = cuda.Device(0).retain_primary_context()
    context.push()
    held, size = [], 1 << 30
    while size >= 1 << 20:
        try:
            held.append(cuda.mem_alloc(size))
        except cuda.MemoryError:
            size //= 2
    try:
        bound(flavour, engine, graph, x.half())
    except Exception as error:
        return {"out_of_memory": is_out_of_memory(error), "said": f"{type(error).__name__}: {error}"}
    finally:
        held.clear()
        context.pop()
    return None


def modes(flavour):
    """Hot and cold time of an engine that is bound by memory, its input an eighth of the L2 cache."""
    import pycuda.driver as cuda

    cuda.init()
    l2_bytes = cuda.Device(0).get_attribute(cuda.device_attribute.L2_CACHE_SIZE)
    module = nn.Sequential(nn.Conv2d(8, 8, 1, bias=False), nn.ReLU()).requires_grad_(False)
    x = torch.randn(1, 8, l2_bytes // 8 // (8 * 256 * 2), 256)
    name = f"{flavour}:graph=on"
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        lowered = lowerings.lower(name, module, (x,), target(name, "float16", folder, images=True))
        found = {"hot": times_of(lowered)["gpu_ms"], "cold": times_of(lowered, "cold")["gpu_ms"]}
        lowered.close()
    return {**found, "l2_bytes": l2_bytes}


def flushed(flavour):
    """Time of reading a quarter of the L2 cache: after having read it, and after a flush."""
    lowered, _, _ = mixer_engine(flavour, "depthwise_conv", "float16")
    device: Any = lowered.device
    flush = device.flusher()
    device.driver.l2_bytes //= 16  # of which a flush reads four times as much
    read = device.flusher()
    found: dict[str, list[float]] = {"warm": [], "flushed": []}
    before = {"warm": read, "flushed": flush}
    for _ in range(50):
        for name, times in found.items():
            before[name]()
            begin = device.event()
            read()
            end = device.event()
            device.synchronize()
            times.append(device.elapsed_ms(begin, end))
    lowered.close()
    return {name: statistics.median(times) for name, times in found.items()}


def texts(flavour):
    """The inspector's text as it is read: layers of it, layers that the engine counts, tensors with a shape."""
    lowered, x, _ = mixer_engine(flavour, "window_attention", "float16")
    lowered.close()
    engine, said, graph = kept_engine()
    runner = bound(flavour, engine, graph, x.half())
    found = proof.parse_layers(runner.inspect())
    counted = runner.engine.num_layers if hasattr(runner.engine, "num_layers") else None
    sizes = [math.prod(each.shape) for layer in found for each in (*layer.inputs, *layer.outputs)]
    runner.close()
    return {"parsed": len(found), "counted": counted, "built": said["kernels"], "least_tensor": min(sizes, default=0),
            "nodes": sum(bool(layer.nodes) for layer in found)}  # fmt: skip


def _refused(run):
    """Type and message of the error that a call ends with; None when it ends without one."""
    try:
        with torch.no_grad():
            run()
    except Exception as error:
        return {"type": type(error).__name__, "said": str(error)}
    return None
