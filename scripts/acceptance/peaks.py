"""What the device reaches: copies around its L2 cache, products, and whether a flush leaves nothing in the cache."""

from __future__ import annotations

import statistics
from dataclasses import asdict
from typing import Any

from acceptance import targets
from acceptance.frame import Seen, Value
from acceptance.targets import Target, samples
from mixprof.data import toml
from mixprof.machine.devices import Call
from mixprof.machine.streams import gpu_sampler, queue_of
from mixprof.metrics import latency
from mixprof.plan import prediction
from mixprof.sampling import budget

MIB = 1 << 20
SIZES_MIB = (1, 2, 4, 8, 12, 16, 20, 24, 32, 48, 64, 128, 256, 512)  # read, and as much written
PRODUCTS = (("float16", 8192), ("bfloat16", 8192), ("tf32", 8192), ("float32", 4096))
COUNT = 9


def _median_s(target: Target, run: Call) -> float:
    return statistics.median(samples(gpu_sampler(run, queue_of(run, target.device), target.device), COUNT)) / 1000


def data_sheet() -> dict[str, Any]:
    """The entry of our table of data sheets for the device that is there; empty without one."""
    import torch

    name = torch.cuda.get_device_name(0).replace(" ", "") if torch.cuda.is_available() else ""
    table = toml.decode(prediction.TABLE.read_text())
    return next(({"key": key, **entry} for key, entry in table.items() if key in name), {})


def copies(device: str) -> Seen:
    """Bytes a second of copies, by size: where the L2 cache ends, and what the memory does."""
    target = targets.of(device)
    rates = {size: 2 * size * MIB / _median_s(target, target.copy(size * MIB)) for size in SIZES_MIB}
    top, memory = max(rates.values()), rates[SIZES_MIB[-1]]
    middle = (top * memory) ** 0.5
    inside = [size for size in SIZES_MIB if rates[size] > middle and size * MIB * 2 <= 4 * target.l2_bytes]
    knee = 2 * max(inside, default=0) * MIB / target.l2_bytes
    sheet = {} if device.startswith("sim") else data_sheet()
    share = memory / sheet["bytes_per_s"] if sheet else None
    wrong = () if memory < 1.02 * sheet.get("bytes_per_s", float("inf")) else ("faster than the data sheet",)
    values: dict[str, Value] = {
        "copy_gb_s": memory / 1e9,
        "cached_gb_s": top / 1e9,
        "knee_of_l2": knee,
        "of_data_sheet": share,
    }
    return Seen(values, {f"{size}mib_gb_s": [rate / 1e9] for size, rate in rates.items()}, wrong,
                virtual_s=_virtual(target))  # fmt: skip


def products(device: str) -> Seen:
    """FLOP/s of square products, on random values, by dtype."""
    target = targets.of(device)
    sheet = {} if device.startswith("sim") else data_sheet().get("matrix", {})
    values: dict[str, Value] = {}
    wrong = []
    for dtype, side in PRODUCTS:
        rate = 2 * side**3 / _median_s(target, target.product(side, dtype))
        values |= {
            f"{dtype}_tflops": rate / 1e12,
            f"{dtype}_of_data_sheet": rate / sheet[dtype] if dtype in sheet else None,
        }
        if rate > 1.02 * sheet.get(dtype, float("inf")):
            wrong.append(f"{dtype}: {rate / 1e12:.0f} TFLOP/s is more than the data sheet's")
    return Seen(values, wrong=tuple(wrong), virtual_s=_virtual(target))


def ours(device: str) -> Seen:
    """`mixprof`'s own peaks beside a copy and a product by the gated sampler: they agree within a tenth."""
    from mixprof.metrics.peaks import measure

    target = targets.of(device)
    peaks = measure(device, "float16")
    copy = 2 * 1024 * MIB / _median_s(target, target.copy(1024 * MIB))
    product = 2 * 8192**3 / _median_s(target, target.product(8192, "float16"))
    values: dict[str, Value] = {
        "copy_ratio": peaks.copy_bytes_per_s / copy,
        "product_ratio": peaks.matrix_flops_per_s / product,
    }
    wrong = tuple(f"{name} is {value:.3f}" for name, value in values.items() if not 0.9 < float(value or 0) < 1.1)
    return Seen(values, wrong=wrong, raw={"peaks": asdict(peaks)})


def flush(device: str) -> Seen:
    """Reading an eighth of the L2 cache, hot, cold, and behind a spin in the place of the flush."""
    target = targets.of(device)
    size = target.l2_bytes // 8
    lowered = target.chain(size)
    took = {mode: latency.measure(lowered, target.device, mode, budget(device, quick=True)) for mode in ("hot", "cold")}
    times = {mode: list(each.gpu_ms.samples) for mode, each in took.items() if each.gpu_ms is not None}
    times["control"] = list(took["cold"].control_ms.samples) if took["cold"].control_ms is not None else []
    medians = {name: statistics.median(each) for name, each in times.items()}
    values: dict[str, Value] = {
        "cold_over_hot": medians["cold"] / medians["hot"],
        "control_over_hot": medians["control"] / medians["hot"],
        "cold_gb_s": size / medians["cold"] / 1e6,
    }
    wrong = ["cold is faster than hot"] * (medians["cold"] < 0.99 * medians["hot"])
    wrong += ["a spin in the place of the flush costs as much: what is cold is not the cache"] * (
        medians["control"] > 0.98 * medians["cold"]
    )
    return Seen(values, {f"{name}_ms": each for name, each in times.items()}, tuple(wrong), virtual_s=_virtual(target))


def _virtual(target: Target) -> float | None:
    return target.device.clock() if target.device.name.startswith("sim") else None
