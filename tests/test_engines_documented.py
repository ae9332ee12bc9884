"""What the house says of its engines, in the doctor, README and CONTRIBUTING, is what there is."""

import re
from pathlib import Path
from typing import cast

from mixprof.data.case import QUANTIZED
from mixprof.lowerings import LOWERINGS
from mixprof.run import doctor

ROOT = Path(__file__).parents[1]
WORDS = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO", "aot": "AOTInductor"}
WORDS |= {"tensorrt": "TensorRT |", "tensorrt_rtx": "TensorRT-RTX"}
PROVIDERS = cast(tuple[str, ...], LOWERINGS["onnxruntime"].options["provider"])


def test_the_example_of_a_lowering_stands_in_the_tree():
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.S)
    lines = [line.strip() for line in example.strip().splitlines()]
    source = [line.strip() for line in (ROOT / "profiler/lowerings/openvino.py").read_text().splitlines()]
    first = source.index(lines[0])
    assert len(lines) == 3
    assert source[first : first + 3] == lines


def test_readme_names_every_lowering_provider_and_dtype():
    table = (ROOT / "README.md").read_text().partition("## What has run where")[2].partition("\n## ")[0]
    providers = [f"provider={name}" for name in PROVIDERS]
    wanted = [*(WORDS.get(name, name) for name in LOWERINGS), *providers, *(f"`{dtype}`" for dtype in QUANTIZED)]
    assert [name for name in wanted if name not in table] == []


def test_doctor_names_every_provider_and_dtype(monkeypatch):
    assert set(PROVIDERS) <= set(doctor.PROVIDERS)
    monkeypatch.setattr(doctor.lowerings, "missing", lambda name: f"{name}: pip install {name}")
    reason = doctor._unquantized("int8", None)
    assert reason is not None
    assert reason.startswith("onnxruntime: pip install onnxruntime; openvino")
    monkeypatch.setattr(doctor.lowerings, "missing", lambda name: None if name == "tensorrt_rtx" else "absent")
    assert doctor._unquantized("fp8", "no driver") == "no CUDA device: tensorrt_rtx builds engines here, and runs none"
    assert doctor._unquantized("fp8", None) is None
