"""NVIDIA's own tools on a small program of ours: memory errors, and bytes that really came from memory."""

from __future__ import annotations

import csv
import io
import json
import shutil
import sys

from acceptance.commands import command, mixprof
from acceptance.frame import Seen, Skipped, Value

# What is under test: the gate, the flush, a graph, and a mixer as the product lowers it.
PROGRAM = """
import sys, torch
from mixprof import models
from mixprof.machine import devices, process
process.prepare(sys.argv[1], "float16", 1)
device = devices.of(sys.argv[1])
net = models.build("depthwise_conv", resolution=(56, 56), channels=96, lowering="eager").to(sys.argv[1]).half()
x = torch.randn(int(sys.argv[2]), 56, 56, 96, device=sys.argv[1]).half()
with torch.inference_mode():
    net(x)
    device.synchronize()
    torch.cuda.cudart().cudaProfilerStart()
    net(x)
    device.synchronize()
    torch.cuda.cudart().cudaProfilerStop()
    if int(sys.argv[2]) == 1:
        device.spin(0.1)
        device.flusher()()
        device.capture(lambda: net(x))()
        device.synchronize()
"""
BYTES = ("dram__bytes_read.sum", "dram__bytes_write.sum")
BATCH = 256  # of the mixer: its activations are larger than any L2 cache
REFUSED = ("ERR_NVGPUCTRPERM", "permission", "LibraryNotLoaded", "Device not supported")


def sanitizer(device: str) -> Seen:
    """compute-sanitizer's memcheck over gate, flush, graph and a mixer: it finds nothing."""
    program = shutil.which("compute-sanitizer")
    if program is None:
        raise Skipped("compute-sanitizer is not installed: it comes with CUDA's toolkit")
    arguments = [program, "--tool", "memcheck", "--error-exitcode", "9", sys.executable, "-c", PROGRAM, device, "1"]
    done = command(arguments, 150, variables={"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"})
    _refuse(done.stdout + done.stderr)
    wrong = (f"it ended with {done.returncode}: {done.stdout.strip()[-400:]}",) if done.returncode else ()
    return Seen({"exit": done.returncode}, wrong=wrong)


def dram(device: str) -> Seen:
    """Bytes that a mixer moves, by the hardware's counters, beside the least that our formulas say it must."""
    program = shutil.which("ncu")
    if program is None:
        raise Skipped("ncu is not installed: it comes with CUDA's toolkit")
    axes = ["--models", "depthwise_conv", "--batches", str(BATCH), "--dtypes", "float16", "--devices", device, "--json"]
    planned = json.loads(mixprof("plan", *axes, limit_s=60).stdout)["cases"]
    least = next(case["min_bytes"] for case in planned if case["case"]["model"] == "depthwise_conv")
    options = ["--metrics", ",".join(BYTES), "--csv", "--profile-from-start", "off", "--clock-control", "none"]
    done = command([program, *options, sys.executable, "-c", PROGRAM, device, str(BATCH)], 120)
    _refuse(done.stdout + done.stderr)
    moved = read_bytes(done.stdout)
    if not moved:
        return Seen(wrong=(f"ncu told of no kernel: {done.stdout.strip()[-300:]}",))
    total = sum(moved.values())
    values: dict[str, Value] = {"over_least": total / least, "kernels": len(moved)}
    wrong = ("fewer bytes came from memory than must",) if total < 0.9 * least else ()
    return Seen(values, wrong=wrong, raw={"bytes": moved, "least": least})


def _refuse(text: str) -> None:
    for reason in REFUSED:
        if reason in text:
            raise Skipped(f"the tool is refused here: {reason}")


def read_bytes(text: str) -> dict[str, float]:
    """Bytes of each kernel in ncu's CSV, whose table follows lines of its own; units are scaled back."""
    lines = text.splitlines()
    start = next((number for number, line in enumerate(lines) if line.startswith('"ID"')), len(lines))
    scales = {"byte": 1.0, "Kbyte": 1e3, "Mbyte": 1e6, "Gbyte": 1e9}
    moved: dict[str, float] = {}
    for row in csv.DictReader(io.StringIO("\n".join(lines[start:]))):
        if row.get("Metric Name") in BYTES:
            name = f"{row['ID']} {row['Kernel Name'][:80]}"
            moved[name] = (
                moved.get(name, 0.0) + float(row["Metric Value"].replace(",", "")) * scales[row["Metric Unit"]]
            )
    return moved
