"""What a record says of its device while it was timed, and of what ran on it: cells of the frame's columns."""

import json
from statistics import median
from typing import Any

from mixprof.data.json import Json
from mixprof.data.record import Record

TEXT, WHOLE, REAL, TRUTH = "object", "Int64", "float64", "boolean"
CUDA_MEMORY = ("cuda_allocated_bytes", "cuda_reserved_bytes", "cuda_graph_pool_bytes")
SENSORS = {
    "sm_clock_mhz": REAL,  # the median over launches of each one's median
    "sm_clock_low_mhz": REAL,  # this and the next: of any launch
    "sm_clock_high_mhz": REAL,
    "power_capped_share": REAL,  # of the readings, the largest of a launch
    **dict.fromkeys(("temperature_c", "power_w"), REAL),  # the highest
    "energy_w": REAL,  # joules of the total-energy counter over their seconds
    "joules_per_image": REAL,
}
RAN = {
    "attention_kernel": TEXT,  # this and the next two: comma-separated, from the names of what ran
    "convolution_kernel": TEXT,
    "product_kernel": TEXT,
    "ran_tf32": TRUTH,
    "ran_launches": WHOLE,  # kernels of one forward; on a CPU operators
    "transposes_share": REAL,  # of a forward's time, in copies into another layout
    "longest_kernel": TEXT,
    "longest_kernel_share": REAL,
    "role_shares": TEXT,  # JSON: role -> share of the profiled forward
    "choices": TEXT,  # JSON: the formulations that raced, as data/choices.py has them
}
COLUMNS = {**dict.fromkeys(CUDA_MEMORY, WHOLE), **SENSORS, **RAN}


def cells(record: Record) -> dict[str, Any]:
    """The cells of one record; a name that is absent was not observed."""
    proof = record.proof or {}
    return {
        **{name: getattr(record.memory, name, None) for name in CUDA_MEMORY},
        **_sensors(record),
        **_ran(proof.get("ran") or {}),
        "choices": json.dumps(proof["choices"]) if proof.get("choices") else None,
    }


def _sensors(record: Record) -> dict[str, Any]:
    read = [launch.environment.clocks for launch in record.launches if launch.environment.clocks]

    def known(name: str) -> list[Any]:
        return [clocks[name] for clocks in read if clocks.get(name) is not None]

    ranges, seconds = known("sm_clock_mhz"), sum(known("energy_s"))
    medians = [quantiles[len(quantiles) // 2] for quantiles in known("sm_clock_quantiles_mhz")]
    return {
        "sm_clock_mhz": median(medians or [sum(each) / 2 for each in ranges]) if ranges else None,
        "sm_clock_low_mhz": min((each[0] for each in ranges), default=None),
        "sm_clock_high_mhz": max((each[1] for each in ranges), default=None),
        **{name: max(known(name), default=None) for name in ("power_capped_share", "temperature_c", "power_w")},
        "energy_w": sum(known("energy_j")) / seconds if seconds else None,
        "joules_per_image": getattr(record.energy, "joules_per_image", None),
    }


def _ran(ran: Json) -> dict[str, Any]:
    if not ran:
        return {}
    words = {f"{name}_kernel": ", ".join(ran[name]) or None for name in ("attention", "convolution", "product")}
    longest = ran["kernels"][0] if ran["kernels"] else {"name": None, "share": None}
    return {
        **words,
        "ran_tf32": ran["tf32"],
        "ran_launches": ran["launches"],
        "transposes_share": ran["transposes_share"],
        "longest_kernel": longest["name"],
        "longest_kernel_share": longest["share"],
        "role_shares": json.dumps(ran["role_shares"]) if ran["role_shares"] else None,
    }
