"""What this machine's gate can tell, as `mixprof calibrate` found it: one file a testbed key, valid for seven days."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mixprof.data import cache
from mixprof.data.files import write_whole
from mixprof.data.testbed import testbed_key

SCHEMA = 1
VALID_S = 7 * 24 * 3600.0
NONE = "not calibrated: mixprof calibrate"


def path_of(testbed: dict[str, Any]) -> Path:
    return cache.folder() / "calibration" / f"{testbed_key(testbed)}.json"


def write(testbed: dict[str, Any], calibration: Mapping[str, Any]) -> Path:
    """Keep a calibration of this machine; where it lies."""
    path = path_of(testbed)
    cache.own_folder(cache.folder())
    cache.own_folder(path.parent)
    fields = {"schema": SCHEMA, "made_s": time.time(), **calibration}
    write_whole(path, json.dumps(fields, indent=1, allow_nan=False).encode() + b"\n")
    return path


def read(testbed: dict[str, Any], now_s: float | None = None) -> dict[str, Any] | None:
    """The calibration of this machine; None where there is none, an old one, or one that cannot be read."""
    try:
        kept: dict[str, Any] = json.loads(path_of(testbed).read_bytes())
        age_s = (time.time() if now_s is None else now_s) - float(kept["made_s"])
        return kept if kept["schema"] == SCHEMA and 0 <= age_s <= VALID_S else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def quoted(testbed: dict[str, Any], now_s: float | None = None) -> str | None:
    """What every verdict says of how much it can tell; None where this machine has no valid calibration."""
    kept = read(testbed, now_s)
    try:
        return None if kept is None else _quoted(kept)
    except (KeyError, TypeError, ValueError):  # written by another version
        return None


def _quoted(kept: Mapping[str, Any]) -> str:
    alarms, noisiest = kept["false_alarms"], max(kept["detectable_by_case"].values())
    words = [
        f"false alarms {alarms['share']:.1%} [{alarms['low']:.1%}, {alarms['high']:.1%}] of comparisons",
        f"smallest detectable slow-down {kept['detectable']:.1%} after {kept['rounds']} rounds"
        f" (noisiest case {noisiest:.1%})",
    ]
    if power := kept["power"]:
        words.append(
            f"an injected {power['injected']:.0%} (measured {power['measured']:+.1%}) found in {power['share']:.0%} "
            f"[{power['low']:.0%}, {power['high']:.0%}]"
        )
    made = time.strftime("%Y-%m-%d", time.localtime(kept["made_s"]))
    return f"calibrated {made} on {kept['pairs']} A/A pairs: {'; '.join(words)}"


def in_words(testbed: dict[str, Any]) -> str:
    """What is quoted, or what to do where that is nothing."""
    return quoted(testbed) or NONE
