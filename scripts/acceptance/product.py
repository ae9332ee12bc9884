"""The product by its command line: mixers and networks, each time beside the others and the roofline."""

from __future__ import annotations

import json
import statistics
from typing import Any

from acceptance.commands import label, median_ms, mixprof, sweep
from acceptance.frame import Seen, Value
from acceptance.peaks import data_sheet

Record = dict[str, Any]
SIMULATED = (
    "--dtypes",
    "float32",
    "--batches",
    "1,2",
    "--channels",
    "32",
)  # its outputs come from a CPU, which is slow in float16
LIMIT_S = 170.0


def mixer(device: str, model: str, lowerings: str) -> Seen:
    """A mixer at 14 and 56, batch 1 and 32; on sim:0 batch 1 and 2, of fewer channels."""
    sizes = SIMULATED if device.startswith("sim") else ("--dtypes", "float16", "--batches", "1,32")
    return _swept(device, ["--models", model, "--lowerings", lowerings, "--resolutions", "14,56", *sizes])


def network(device: str, model: str, lowerings: str) -> Seen:
    """A network at 224, batch 1 and 128; on sim:0 at 32, batch 1."""
    simulated = device.startswith("sim")
    sizes = ("32", "1", "float32") if simulated else ("224", "1,128", "float16")
    axes = [option for pair in zip(("--resolutions", "--batches", "--dtypes"), sizes, strict=True) for option in pair]
    return _swept(device, ["--models", model, "--lowerings", lowerings, *axes])


def _swept(device: str, axes: list[str]) -> Seen:
    axes += ["--layouts", "channels_last"]  # `layouts` compares
    records, wrong = sweep(device, *axes, limit_s=LIMIT_S)
    values: dict[str, Value] = {}
    for record in records:
        values |= _values(record)
        wrong += _wrong(record)
    ratios = {} if device.startswith("sim") else _of_roofline(axes, records)
    if ratios:
        values["least_over_roofline"], values["most_over_roofline"] = min(ratios.values()), max(ratios.values())
    pairs = _pairs(records)
    values |= {f"graph_over_eager {name}": ratio for name, (ratio, _) in pairs.items()}
    wrong += [f"{name}: as a graph it computes something else" for name, (_, same) in pairs.items() if not same]
    return Seen(values, wrong=tuple(wrong), raw={"records": records, "over_roofline": ratios})


def _values(record: Record) -> dict[str, Value]:
    """Status, the three times, images a second and what ran, of one case."""
    name, gpu_ms = label(record), median_ms(record)
    times: dict[str, Value] = {each: median_ms(record, each) for each in ("gpu_ms", "enqueue_ms", "host_ms")}
    proof = record.get("proof") or {}
    kernels = proof.get("kernels")
    return {
        f"status {name}": record["status"],
        **{f"{each} {name}": value for each, value in times.items()},
        f"images_per_s {name}": 1000 * record["case"]["batch"] / gpu_ms if gpu_ms else None,
        f"attention {name}": proof.get("attention") if isinstance(proof.get("attention"), str) else None,
        f"kernels {name}": len(kernels) if isinstance(kernels, list) else kernels,
    }


def _wrong(record: Record) -> list[str]:
    """Claims that one case's record breaks."""
    name, status = label(record), record["status"]
    if status in ("unavailable", "unsupported"):
        return []
    if status != "ok":
        return [f"{name} is {status}: {record['reason']}"]
    gpu_ms, host_ms = median_ms(record), median_ms(record, "host_ms")
    if gpu_ms is None or host_ms is None:
        return [f"{name} has no time of the device"]
    wrong = [f"{name}: {gpu_ms:.4g} ms on the device, {host_ms:.4g} from call to result"] * (gpu_ms > 1.05 * host_ms)
    truth = (record["proof"] or {}).get("simulated", {}).get("truth")
    if truth is not None and abs(gpu_ms / truth["hot"]["gpu_ms"] - 1) > 0.01:
        wrong.append(f"{name}: {gpu_ms:.4g} ms, in truth {truth['hot']['gpu_ms']:.4g}")
    memory = record["memory"] or {}
    if "graph=on" in name and truth is None and not memory.get("cuda_graph_pool_bytes"):
        wrong.append(f"{name}: no bytes of a graph's pool were told")
    return wrong


def _pairs(records: list[Record]) -> dict[str, tuple[float, bool]]:
    """Of each case that ran eager and as a graph: the ratio of device times, and whether both err by as much."""
    by_name = {label(record): record for record in records if record["status"] == "ok"}
    pairs = {}
    for name, graph in by_name.items():
        eager = by_name.get(name.replace("eager:graph=on", "eager"))
        if eager is graph or eager is None:
            continue
        times = [median_ms(record) for record in (graph, eager)]
        if times[0] and times[1]:
            pairs[name] = times[0] / times[1], graph["relative_error"] == eager["relative_error"]
    return pairs


def _of_roofline(axes: list[str], records: list[Record]) -> dict[str, float]:
    """Measured over predicted time of each case, where a data sheet of this GPU is in our table."""
    key = data_sheet().get("key")
    if key is None:
        return {}
    done = mixprof("plan", *axes, "--on", key, "--json", limit_s=60)
    if done.returncode:
        return {}
    planned = {
        json.dumps(each["case"], sort_keys=True): each.get("prediction") for each in json.loads(done.stdout)["cases"]
    }
    ratios = {}
    for record in records:
        prediction = planned.get(json.dumps(record["case"], sort_keys=True)) or {}
        measured = median_ms(record)
        if measured and prediction.get("latency_ms"):
            ratios[label(record)] = measured / prediction["latency_ms"]
    return ratios


def layouts(device: str) -> Seen:
    """A convolutional network in both layouts: which is faster, and by how much."""
    axes = ["--models", "dwnet_t", "--resolutions", "224", "--batches", "32", "--dtypes", "float16"]
    records, wrong = sweep(device, *axes, "--layouts", "contiguous,channels_last", limit_s=LIMIT_S)
    times = {record["case"]["layout"]: median_ms(record) for record in records}
    last, first = times.get("channels_last"), times.get("contiguous")
    if not last or not first:
        return Seen(wrong=tuple(wrong or ["one of the layouts has no time"]), raw={"records": records})
    return Seen({"contiguous_over_channels_last": first / last}, wrong=tuple(wrong), raw={"records": records})


def energy(device: str) -> Seen:
    """Joules by the counter beside power times time, of a network that is busy for seconds."""
    axes = ["--models", "swin_t", "--resolutions", "224", "--batches", "64", "--dtypes", "float16", "--energy"]
    records, wrong = sweep(device, *axes, limit_s=LIMIT_S)
    launches = [launch for record in records for launch in record["launches"]]
    clocks = [(launch["environment"] or {}).get("clocks") or {} for launch in launches]
    ratios = [
        each["energy_j"] / (each["energy_s"] * each["power_w"])
        for each in clocks
        if each.get("energy_j") and each.get("energy_s") and each.get("power_w")
    ]
    wrong += ["no launch has energy and power"] * (not ratios)
    ratio = statistics.median(ratios) if ratios else None
    return Seen({"counter_over_power_time": ratio}, wrong=tuple(wrong), raw={"records": records})
