"""A machine as a run knows it: flat names, and the key that tells whether two runs compare."""

from collections.abc import Iterable, Mapping
from typing import Any

from mixprof.data.json import Json, digest

SOFTWARE = ("cuda", "cudnn", "libc")  # of a testbed: compared as the versions are, and no part of its key

OF_GPUS = ("gpus", "gpu_settings")  # lists by the number of a CUDA device


def flatten(value: Any, name: str = "") -> Json:
    """{"gpus": [{"ecc": True}]} -> {"gpus[0].ecc": True}. A flat mapping stays as it is."""
    if isinstance(value, Mapping) and (value or not name):
        parts = [(f"{name}.{key}" if name else str(key), part) for key, part in value.items()]
    elif isinstance(value, list) and value:
        parts = [(f"{name}[{index}]", part) for index, part in enumerate(value)]
    else:
        return {name: value}
    return {path: leaf for key, part in parts for path, leaf in flatten(part, key).items()}


def hardware(testbed: Json) -> Json:
    """A flat testbed without its software."""
    return {name: value for name, value in flatten(testbed).items() if name not in SOFTWARE}


def of_devices(testbed: Json, devices: Iterable[str]) -> Json:
    """A testbed without the GPUs that are none of `devices`: what a neighbour is set to decides nothing.

    {"gpus": ["A", "B"]}, ["cuda:1"] -> {"gpus": [None, "B"]}
    """
    used = [int(device.split(":")[1]) for device in devices if device.startswith("cuda:")]
    if not used:
        return {name: value for name, value in testbed.items() if name not in (*OF_GPUS, "cudnn_flags")}
    lists = {name: testbed[name][: max(used) + 1] for name in OF_GPUS if name in testbed}
    own = {name: [one if index in used else None for index, one in enumerate(of)] for name, of in lists.items()}
    return {**testbed, **own}


def testbed_key(testbed: Json) -> str:
    """Runs with the same key were made on machines that compare: the hash of the machine and how it is set."""
    return digest(hardware(testbed))
