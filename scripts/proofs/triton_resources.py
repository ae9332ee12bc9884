"""Resources of the Triton kernels, compiled ahead for GPUs that are not here: rows of JSON. See triton_kernels.py."""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

import triton_launches
from mixprof.models.kernels.triton.launches import Launch

TARGETS = (80, 90, 120)
POINTERS = {torch.float16: "*fp16", torch.bfloat16: "*bf16", torch.float32: "*fp32"}
TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"


def compiled(launch: Launch, target: int) -> Any:
    """The kernel of a launch for a compute capability, its pointers aligned as torch's allocator aligns them."""
    function = launch.function()
    signature, constants, aligned = {}, {}, {}
    for place, name in enumerate(function.arg_names):
        tensor = launch.tensors.get(name)
        if tensor is None:
            signature[name], constants[name] = "constexpr", launch.constants.get(name)
        else:
            signature[name], aligned[(place,)] = POINTERS[tensor.dtype], [["tt.divisibility", 16]]
    options = {"num_warps": launch.warps, "num_stages": launch.stages}
    source = ASTSource(function, signature, constants, aligned)
    return triton.compile(source, target=GPUTarget("cuda", target, 32), options=options)


def resources(ptx: str, target: int) -> tuple[int, int]:
    """Registers of a thread and bytes that it spills, as ptxas reports them."""
    tool = TOOLS / ("ptxas-blackwell" if target >= 90 else "ptxas")
    name = re.search(r"^\.target (\w+)", ptx, re.MULTILINE)
    assert name is not None
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "kernel.ptx"
        file.write_text(ptx)
        command = [str(tool), "-v", f"--gpu-name={name[1]}", str(file), "-o", os.devnull]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    (registers,) = re.findall(r"Used (\d+) registers", told)
    return int(registers), sum(map(int, re.findall(r"(\d+) bytes spill", told)))


def rows() -> list[dict[str, Any]]:
    made = []
    for known in triton_launches.launches(lambda *shape: torch.empty(shape, dtype=torch.float16, device="meta")):
        columns: dict[str, list[int]] = {"registers": [], "shared bytes": [], "spilled bytes": []}
        for target in TARGETS:
            kernel = compiled(known.launch, target)
            registers, spilled = resources(kernel.asm["ptx"], target)
            for column, value in zip(columns.values(), (registers, kernel.metadata.shared, spilled), strict=True):
                column.append(value)
        programs = " x ".join(map(str, known.launch.grid))
        sized = {"programs": programs, "threads": 32 * known.launch.warps}
        several = {name: " / ".join(map(str, values)) for name, values in columns.items()}
        spilled = sum(columns["spilled bytes"])
        made.append({"kernel": known.name, "map": known.map, **sized, **several, "spilled bytes": spilled})
    return made


if __name__ == "__main__":
    json.dump(rows(), sys.stdout)
