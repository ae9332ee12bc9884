"""Flags of torch that change kernels: set for a case after its model's code was imported, read back for its record."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from mixprof.data.json import Json

# Flags that a pair of functions reads and sets; all others are attributes below torch.
FUNCTIONS = {
    "float32_matmul_precision": ("get_float32_matmul_precision", "set_float32_matmul_precision"),
    "deterministic_algorithms": ("are_deterministic_algorithms_enabled", "use_deterministic_algorithms"),
    "num_threads": ("get_num_threads", "set_num_threads"),
    **{
        f"sdp.{backend}": (f"backends.cuda.{backend}_sdp_enabled", f"backends.cuda.enable_{backend}_sdp")
        for backend in ("flash", "mem_efficient", "math", "cudnn")
    },
}
CUDNN_FLAGS = {"benchmark": True, "deterministic": False}
MIXED = "unreadable: older and newer flags of torch contradict each other"


def wanted(dtype: str, threads: int, *, forces_attention: bool = False) -> Json:
    """What every launch of a dtype is run with. forces_attention: by an option of the lowering, which sets sdp.*.

    Both of torch's ways to say it: per operator (torch 2.9), which no wider flag overrides, after the older one, since
    torch refuses to read flags of which one was set and the other was not.
    """
    precision = "tf32" if dtype == "tf32" else "ieee"
    return {
        "float32_matmul_precision": "high" if dtype == "tf32" else "highest",
        "backends.cudnn.allow_tf32": dtype == "tf32",
        "backends.fp32_precision": "ieee",
        "backends.cudnn.fp32_precision": precision,
        "backends.cuda.matmul.fp32_precision": precision,
        "backends.cudnn.conv.fp32_precision": precision,
        "backends.cudnn.rnn.fp32_precision": precision,
        **{f"backends.mkldnn{part}.fp32_precision": "ieee" for part in ("", ".matmul", ".conv", ".rnn")},
        "backends.cuda.matmul.allow_fp16_reduced_precision_reduction": True,
        "backends.cuda.matmul.allow_bf16_reduced_precision_reduction": True,
        "backends.cuda.matmul.allow_fp16_accumulation": False,
        "backends.cudnn.enabled": True,
        **{f"backends.cudnn.{name}": value for name, value in CUDNN_FLAGS.items()},
        "backends.mkldnn.enabled": True,
        "deterministic_algorithms": False,
        "num_threads": threads,
        **({} if forces_attention else dict.fromkeys((name for name in FUNCTIONS if name.startswith("sdp.")), True)),
    }


def apply(values: Mapping[str, Any]) -> None:
    """Set the flags, in this order, that this torch has."""
    for name, value in values.items():
        if name in FUNCTIONS:
            if (setter := _get(FUNCTIONS[name][1])) is not None:
                setter(value)
        elif _get(name) is not None:
            parent, _, attribute = name.rpartition(".")
            setattr(_get(parent), attribute, value)


def read(names: Iterable[str]) -> Json:
    """The flags as torch has them now, without those that this torch has not."""
    values = {name: _value(name) for name in names}
    return {name: value for name, value in values.items() if value is not None}


def changed(values: Mapping[str, Any]) -> str | None:
    """Which flags are no longer what they were set to, in words; None when all are."""
    now = read(values)
    return ", ".join(f"{name} to {now[name]}" for name in now if now[name] != values[name]) or None


def _value(name: str) -> Any:
    if name not in FUNCTIONS:
        return _get(name)
    getter = _get(FUNCTIONS[name][0])
    try:
        return None if getter is None else getter()
    except RuntimeError:
        return MIXED


def _get(path: str) -> Any:
    """An attribute below torch; None where this torch has none of that name."""
    import torch

    value: Any = torch
    try:
        for part in path.split("."):
            value = getattr(value, part)
    except AttributeError:
        return None
    except RuntimeError:
        return MIXED
    return value
