"""The three peaks of a device in one dtype: matrix product, vector multiply-add, copy.

Each is the best of many short blocks over a few sizes and kernels, so that a roof is what torch reached here at its
best, not a data sheet's figure. A depth-wise convolution does not run on matrix units, which is why the vector peak is
one of its own. The CUDA half has never run on a GPU.
"""

import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mixprof.data.manifest import Peaks
from mixprof.machine import cpu_contention, devices
from mixprof.machine.devices import Device
from mixprof.machine.process import torch_dtype
from mixprof.metrics import overheads
from mixprof.metrics.flops import Counts
from mixprof.models.kernels.cpu.linear import CppLinear

BLOCK_S = 0.001  # short, so that some blocks are not interrupted on a busy machine
LOOK_S = 0.4  # for each candidate
SLOW_S = 0.2  # a candidate whose one call takes longer is the last of its kind
SIDES = {"cpu": (256, 512, 1024), "cuda": (2048, 4096, 8192)}  # of square matrices
COPY_BYTES = {"cpu": 256 << 20, "cuda": 1 << 30}  # beyond any cache
CACHED_BYTES = 1 << 20  # of source and of destination, on a CPU
OF_L2 = 0.25  # of a GPU's L2 for each of the two, so that the copy stays within it
CHAIN = 1024  # multiply-adds per value on CUDA
# (channels, side of the map, side of the kernel): maps that fit a core's cache
DEPTHWISE = ((64, 28, 7), (128, 28, 7), (256, 14, 7), (96, 56, 7), (256, 28, 3), (128, 28, 11))
DENSE = (96, 28, 7)  # of a dense convolution
Candidate = tuple[str, Callable[[], object], float]  # its name, what runs, the work of one call


def measure(device: str, dtype: str) -> Peaks:
    """FLOP/s and bytes/s of a device that is prepared for the dtype; a copy counts what it reads and writes."""
    kind, on = device.split(":")[0], devices.of(device)
    synchronize = on.synchronize
    element, before = torch_dtype(dtype.removeprefix("amp_")), cpu_contention.read()
    with torch.inference_mode():
        matrix_by, matrix = _best(_matrix(device, kind, element), synchronize)
        vector_by, vector = _best(_vector(device, kind, element), synchronize)
        _, copy = _best(_copy(device, COPY_BYTES[kind]), synchronize)
        cached = _cached_copy(on)
        overhead_s = 1 / _best(_overhead(device, element), synchronize)[1]
        apart = _overheads(on, element)
    best, lost = {"matrix": matrix_by, "vector": vector_by}, cpu_contention.lost_share(before, cpu_contention.read())
    return Peaks(device, dtype, matrix, vector, copy, cached, cache_bytes(device), overhead_s, *apart, best, lost)


def _best(candidates: Iterator[Candidate], synchronize: Callable[[], None]) -> tuple[str, float]:
    """The name and the rate, in work per second, of the fastest."""
    best = ("", 0.0)
    for name, run, work in candidates:
        seconds = least_s(run, synchronize)
        best = max(best, (name, work / seconds), key=lambda candidate: candidate[1])
        if seconds > SLOW_S:
            break
    return best


def least_s(run: Callable[[], object], synchronize: Callable[[], None], look_s: float = LOOK_S) -> float:
    """Seconds of one call in the fastest block."""

    def block(calls: int) -> float:
        synchronize()
        start = time.perf_counter()
        for _ in range(calls):
            run()
        synchronize()
        return (time.perf_counter() - start) / calls

    block(1)
    first = block(1)
    calls = max(1, math.ceil(BLOCK_S / max(first, 1e-7)))
    end = time.perf_counter() + look_s
    least = block(calls)
    while time.perf_counter() < end:
        least = min(least, block(calls))
    return least


def _flops(macs: int) -> int:
    return Counts(macs, {}, ()).flops


def _matrix(device: str, kind: str, element: torch.dtype) -> Iterator[Candidate]:
    """Square products; on a CPU also as convolutions, which are another library's, and in our own kernel."""
    for side in SIDES[kind]:
        a, b = (torch.rand(side, side, device=device).to(element) for _ in range(2))
        yield f"mm {side}", lambda a=a, b=b: torch.mm(a, b), _flops(side**3)  # type: ignore[misc]
        if kind == "cpu":
            rows = a.view(1, side, 1, side).permute(0, 3, 1, 2)
            weight = b[:, :, None, None]
            yield f"1x1 convolution {side}", lambda x=rows, w=weight: F.conv2d(x, w), _flops(side**3)  # type: ignore[misc]
            yield from _own_product(a, b)
    if kind == "cpu":
        yield _convolution(element)


def _own_product(a: Tensor, b: Tensor) -> Iterator[Candidate]:
    """A square product in our C++ kernel, (side, side) times its like; none without a compiler or for its dtype."""
    if a.dtype not in (torch.float32, torch.float64, torch.bfloat16):
        return
    side = len(a)
    linear = nn.Linear(side, side, bias=False, dtype=a.dtype)
    linear.weight.data = b
    try:
        own = CppLinear.of(linear)
    except ValueError:
        return
    yield f"C++ product {side}", lambda: own(a), _flops(side**3)


def _convolution(element: torch.dtype) -> Candidate:
    """A dense convolution over whole neighbourhoods alone: no zeros are counted."""
    channels, side, kernel = DENSE
    x = torch.rand(1, channels, side, side).to(element).to(memory_format=torch.channels_last)
    weight = torch.rand(channels, channels, kernel, kernel).to(element).to(memory_format=torch.channels_last)
    work = _flops(channels**2 * (side - kernel + 1) ** 2 * kernel**2)
    return f"convolution {kernel}x{kernel}, {side}x{side}x{channels}", lambda: F.conv2d(x, weight), work


def _vector(device: str, kind: str, element: torch.dtype) -> Iterator[Candidate]:
    """On CUDA a chain of multiply-adds in registers. On a CPU, where torch has none, the fastest depth-wise
    convolution (only whole neighbourhoods: no zeros are counted) or multiply-add in cache."""
    if kind == "cuda":
        yield _chain(device, element)
        return
    for channels, side, kernel in DEPTHWISE:
        x = torch.rand(1, channels, side, side).to(element).to(memory_format=torch.channels_last)
        weight = torch.rand(channels, 1, kernel, kernel).to(element)
        macs = channels * (side - kernel + 1) ** 2 * kernel**2
        name = f"depth-wise {kernel}x{kernel}, {side}x{side}x{channels}"
        yield name, lambda x=x, w=weight, c=channels: F.conv2d(x, w, groups=c), _flops(macs)  # type: ignore[misc]
    for values in (1 << 12, 1 << 16):
        a, b, c = (torch.rand(values).to(element) for _ in range(3))
        yield f"addcmul {values}", lambda a=a, b=b, c=c: c.addcmul_(a, b), _flops(values)  # type: ignore[misc]


def _chain(device: str, element: torch.dtype) -> Candidate:
    code = f"""template <typename T> T chain(T x, T a, T b) {{
        #pragma unroll 64
        for (int i = 0; i < {CHAIN}; ++i) x = x * a + b;
        return x;
    }}"""
    chain = torch.cuda.jiterator._create_jit_fn(code)
    x = torch.rand(1 << 22, device=device).to(element)
    a, b = torch.full_like(x, 0.5), torch.full_like(x, 0.25)
    return f"chain of {CHAIN}", lambda: chain(x, a, b), _flops(CHAIN * x.numel())


def _copy(device: str, size: int) -> Iterator[Candidate]:
    source = torch.ones(size // 4, device=device)
    target = torch.empty_like(source)
    yield f"{size} bytes", lambda: target.copy_(source), 2 * size


def _overhead(device: str, element: torch.dtype) -> Iterator[Candidate]:
    """A kernel with next to nothing to do, one call's work being one call."""
    x = torch.ones(8, device=device).to(element)
    yield "relu of 8 values", lambda: F.relu(x), 1


def _cached_copy(on: Device) -> float:
    """Bytes per second of a copy that stays in the last cache. On a GPU in a graph: a launch takes longer than it."""
    if not on.queue:
        return _best(_copy(on.name, CACHED_BYTES), on.synchronize)[1]
    size = int((cache_bytes(on.name) or 0) * OF_L2) or CACHED_BYTES
    ((_, run, work),) = _copy(on.name, size)
    return work / overheads.device_s(run, on)


def _overheads(on: Device, element: torch.dtype) -> tuple[float | None, float | None]:
    """Seconds of a launch on the host, and of a kernel with next to nothing to do on the device; None on a CPU."""
    if not on.queue:
        return None, None
    ((_, run, _),) = _overhead(on.name, element)
    return overheads.host_s(run, on), overheads.device_s(run, on)


def cache_bytes(device: str) -> int | None:
    """The last-level cache that a core shares, or a GPU's L2; None where nobody tells."""
    if device != "cpu":
        return int(torch.cuda.get_device_properties(device).L2_cache_size)
    sizes = []
    for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        text = path.read_text().strip()
        unit = {"K": 2**10, "M": 2**20}.get(text[-1:], 0)
        sizes += [int(text[:-1]) * unit] if unit and text[:-1].isdigit() else []
    return max(sizes, default=None)
