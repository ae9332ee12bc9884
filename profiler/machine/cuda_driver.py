"""What the CUDA driver tells of its devices, asked through ctypes: torch's CUDA stays untouched by it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import uuid
from collections.abc import Iterator
from typing import Any

from mixprof.data.messages import NoDevice

CAPABILITY = (75, 76)  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR


# What cuInit returns where an installed driver does not start: what that means, and what to do.
FAILURES = {
    3: ("not initialized", "this process was forked after CUDA had started: report it"),
    34: ("the toolkit's stub of libcuda", "take the toolkit's `stubs` folder out of LD_LIBRARY_PATH"),
    304: ("the system refused", "let this user read and write /dev/nvidia*"),
    802: (
        "system not ready: the NVSwitch fabric is not up",
        "systemctl start nvidia-fabricmanager, then wait a minute",
    ),
    803: (
        "libcuda and the kernel's driver are of two versions",
        "reboot after the driver's update; in a container, take cuda-compat's folder out of LD_LIBRARY_PATH",
    ),
    804: (
        "CUDA's forward compatibility does not support this GPU",
        "take cuda-compat's folder out of LD_LIBRARY_PATH, or update the driver",
    ),
    999: (
        "unknown: nvidia_uvm is not loaded, or the GPU has fallen off the bus",
        "nvidia-modprobe -u -c 0, and look for Xid in dmesg",
    ),
}
NO_DRIVER, NO_GPU = "no NVIDIA driver: libcuda.so.1 is not there (a container needs `docker run --gpus all`)", 100


def _load() -> tuple[Any, int | None]:
    """The driver's library and what its cuInit returns; None on a machine without one."""
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None, None
    return library, library.cuInit(0)


def _driver() -> Any:
    """The driver's library, ready to be asked; None where there is none or it does not start."""
    library, code = _load()
    return library if code == 0 else None


def no_device() -> NoDevice | None:
    """Why the driver offers no CUDA device to this process, in one line; None where it offers one."""
    _, code = _load()
    if code is None:
        return NoDevice(NO_DRIVER)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if code in (0, NO_GPU):
        hidden = "" if visible is None else f": CUDA_VISIBLE_DEVICES is '{visible}'"
        return None if device_count() else NoDevice(f"the NVIDIA driver shows no GPU to this process{hidden}")
    meaning, to_do = FAILURES.get(code, ("unknown to this version", "run nvidia-smi, and look for NVRM in dmesg"))
    return NoDevice(f"the CUDA driver does not start: cuInit returned {code} ({meaning}): {to_do}", failed=True)


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
    """The newest CUDA that the driver can run, like "13.0", whether it starts or not; None without a driver."""
    (library, _), number = _load(), ctypes.c_int(0)
    if library is None or library.cuDriverGetVersion(ctypes.byref(number)) != 0:
        return None
    return f"{number.value // 1000}.{number.value % 1000 // 10}"


@contextlib.contextmanager
def current(index: int) -> Iterator[None]:
    """The device that CUDA counts as `index` is this thread's while the block runs; RuntimeError where it cannot be."""
    library, device, context = _driver(), ctypes.c_int(0), ctypes.c_void_p()
    if library is None or library.cuDeviceGet(ctypes.byref(device), index) != 0:
        raise RuntimeError(f"got device {index}, expected one below {device_count()}")
    if code := library.cuDevicePrimaryCtxRetain(ctypes.byref(context), device):
        raise RuntimeError(f"device {index} has no context: cuDevicePrimaryCtxRetain returned {code}")
    library.cuCtxPushCurrent_v2(context)
    try:
        yield
    finally:
        library.cuCtxPopCurrent_v2(ctypes.byref(context))
        library.cuDevicePrimaryCtxRelease_v2(device)
