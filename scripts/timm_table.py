"""Networks of timm, each family at least once, through `count` and `time`, beside timm's published figures.

    python scripts/timm_table.py --out timm.md [--command "python -m mixprof"] [--timeout 300] [--count-only]

Needs timm (1.0.31 with torch 2.14.1 was tried). `timm_published.csv` holds facts of timm's own benchmark tables, by
their image size: billions of multiply-accumulates and millions of parameters, rounded as published there to two digits.
"""

import csv
import sys
from pathlib import Path
from typing import Any

from people_table import QUICK, Kept, call, counts_of, options, statuses_of

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from people import Kind

PUBLISHED = Path(__file__).with_name("timm_published.csv")
ROUNDING = 0.005  # of a figure with two digits behind its point


def main() -> None:
    parser = options(300.0)
    parser.add_argument("--count-only", action="store_true")
    arguments = parser.parse_args()
    kept = Kept(arguments.out)
    with PUBLISHED.open() as file:
        published = list(csv.DictReader(file))
    for network in published:
        name = network["model"]
        if name not in kept.rows:
            kept.add(name, run(network, arguments.command, arguments.timeout, arguments.count_only))
            print(line(network, kept.rows[name]), flush=True)
    arguments.out.write_text(table(published, kept.rows))


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
    titles = "family | model | side | params (M) | published | GMACs | published | apart | uncounted | float32 | says"
    head = [f"| {titles} |", "|---" * (titles.count("|") + 1) + "|"]
    return "\n".join((*head, *(line(each, rows[each["model"]]) for each in published if each["model"] in rows))) + "\n"


if __name__ == "__main__":
    main()
