"""What the CUDA driver tells of its devices, asked through ctypes: torch's CUDA stays untouched by it."""

from __future__ import annotations

import ctypes
import uuid
from typing import Any

CAPABILITY = (75, 76)  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR


def _driver() -> Any:
    """The driver's library, ready to be asked; None on a machine without one."""
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    return library if library.cuInit(0) == 0 else None


def device_count() -> int:
    """CUDA devices that this process may use; 0 without a driver."""
    library, count = _driver(), ctypes.c_int(0)
    if library is None or library.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value


def device_name(index: int) -> str | None:
    """The model of the device that CUDA counts as `index`; None where there is no such device."""
    library, device, name = _driver(), ctypes.c_int(0), ctypes.create_string_buffer(256)
    if library is None or library.cuDeviceGet(ctypes.byref(device), index) != 0:
        return None
    return name.value.decode() if library.cuDeviceGetName(name, len(name), device) == 0 else None


def device_uuid(index: int) -> str | None:
    """NVML's name for the GPU that CUDA counts as `index`, "GPU-…"; None where the driver does not tell.

    The two number devices differently: CUDA_VISIBLE_DEVICES hides and reorders them for CUDA alone.
    """
    library, device, identifier = _driver(), ctypes.c_int(0), (ctypes.c_ubyte * 16)()
    if library is None or library.cuDeviceGet(ctypes.byref(device), index) != 0:
        return None
    # Not its second version, which names a MIG slice: clocks and throttling are the whole GPU's.
    if library.cuDeviceGetUuid(ctypes.byref(identifier), device) != 0:
        return None
    return f"GPU-{uuid.UUID(bytes=bytes(identifier))}"


def compute_capability(index: int) -> tuple[int, int]:
    """Of the device that CUDA counts as `index`, like (8, 9); (0, 0) where the driver does not tell."""
    library, device, value = _driver(), ctypes.c_int(0), ctypes.c_int(0)
    if library is None or library.cuDeviceGet(ctypes.byref(device), index) != 0:
        return 0, 0
    values = []
    for attribute in CAPABILITY:
        library.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
        values.append(value.value)
    return values[0], values[1]


def version() -> str | None:
    """The newest CUDA that the driver can run, like "13.0"; None without a driver."""
    library, number = _driver(), ctypes.c_int(0)
    if library is None or library.cuDriverGetVersion(ctypes.byref(number)) != 0:
        return None
    return f"{number.value // 1000}.{number.value % 1000 // 10}"
