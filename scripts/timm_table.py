"""Networks of timm, each family at least once, through `count` and `time`, beside timm's published figures.

    python scripts/timm_table.py --out timm.md [--command "python -m mixprof.cli"] [--timeout 300] [--count-only]

Needs timm (1.0.31 with torch 2.14.1 was tried). `timm_published.csv` holds facts of timm's own benchmark tables, by
their image size: billions of multiply-accumulates and millions of parameters, rounded as published there to two digits.
"""

import argparse
import csv
import json
import shlex
import sys
from pathlib import Path
from typing import Any

from people_table import QUICK, call, counts_of, statuses_of

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from people import Kind

PUBLISHED = Path(__file__).with_name("timm_published.csv")
ROUNDING = 0.005  # of a figure with two digits behind its point


def main() -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--command", default=f"{sys.executable} -m mixprof.cli")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--timeout", type=float, default=300.0)
    parser.add_argument("--count-only", action="store_true")
    arguments = parser.parse_args()
    kept = arguments.out.with_suffix(".jsonl")
    rows = {row["model"]: row for row in map(json.loads, kept.read_text().splitlines())} if kept.exists() else {}
    with PUBLISHED.open() as file:
        published = list(csv.DictReader(file))
    for each in published:
        if each["model"] not in rows:
            rows[each["model"]] = run(each, shlex.split(arguments.command), arguments.timeout, arguments.count_only)
            with kept.open("a") as file:
                file.write(json.dumps(rows[each["model"]]) + "\n")
            print(line(each, rows[each["model"]]), flush=True)
    arguments.out.write_text(table(published, rows))


def run(each: dict[str, str], command: list[str], timeout: float, count_only: bool) -> dict[str, Any]:
    """What `count` says of a network, and `time` in float32 unless counts are all that is asked for."""
    model, side = f"timm:{each['model']}", each["image_size"]
    counted = call([*command, "count", model, "--json", "--resolution", side, "--batch", "1"], timeout)
    row: dict[str, Any] = {"model": each["model"], "count": counts_of(counted), "time": None}
    if not count_only:
        axes = ("--resolutions", side, "--batches", "1", "--dtypes", "float32")
        timed = call([*command, "time", model, *axes, *QUICK], timeout)
        row["time"] = statuses_of(timed, Kind(model, 0, None, None, 0, 0))["float32"]
    return row


def apart(each: dict[str, str], counted: int | None) -> float | None:
    """By what share a count differs from what is published, beyond the rounding there; None without one of the two."""
    if not each["gmacs"] or counted is None:
        return None
    published = float(each["gmacs"]) * 1e9
    difference = counted - published
    beyond = max(0.0, abs(difference) - ROUNDING * 1e9)
    return beyond / published if difference > 0 else -beyond / published


def line(each: dict[str, str], row: dict[str, Any]) -> str:
    count, timed = row["count"], row["time"] or ["", ""]
    share = apart(each, count["macs"])
    cells = [
        each["family"], each["model"], each["image_size"], f"{(count['params'] or 0) / 1e6:.2f}",
        each["params_millions"], f"{(count['macs'] or 0) / 1e9:.3f}", each["gmacs"],
        "" if share is None else f"{share:+.1%}", " ".join(count["uncounted"] or ()), timed[0],
        (timed[1] or count["says"])[:160].replace("|", "/"),
    ]  # fmt: skip
    return "| " + " | ".join(cells) + " |"


def table(published: list[dict[str, str]], rows: dict[str, dict[str, Any]]) -> str:
    names = (
        "family",
        "model",
        "side",
        "params (M)",
        "published",
        "GMACs",
        "published",
        "apart",
        "uncounted",
        "float32",
    )
    head = ["| " + " | ".join((*names, "says")) + " |", "|---" * (len(names) + 1) + "|"]
    return "\n".join((*head, *(line(each, rows[each["model"]]) for each in published if each["model"] in rows))) + "\n"


if __name__ == "__main__":
    main()
