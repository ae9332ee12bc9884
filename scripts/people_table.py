"""Every kind of model that people bring through `count` and `time`, by command, one at a time, as a table in Markdown.

    python scripts/people_table.py --command "python -m mixprof.cli" --out people.md [--only PATTERN] [--timeout 120]

What a command printed is kept beside the table (`people.jsonl`), and a kind that is in it is not run again.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parent.parent / "tests"
sys.path.insert(0, str(TESTS))
QUICK = ("--quick", "--threads", "1", "--max-lost-cpu", "1", "--seconds", "0.1")


def main() -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--command", default=f"{sys.executable} -m mixprof.cli")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", default="")
    parser.add_argument("--timeout", type=float, default=120.0)
    arguments = parser.parse_args()
    from people import DTYPES, KINDS

    kept = arguments.out.with_suffix(".jsonl")
    rows = {row["name"]: row for row in map(json.loads, kept.read_text().splitlines())} if kept.exists() else {}
    for kind in KINDS:
        key = f"{kind.model} {' '.join(kind.options)}".strip()
        if key in rows or not re.search(arguments.only, key):
            continue
        rows[key] = {"name": key, **run_kind(kind, shlex.split(arguments.command), arguments.timeout, DTYPES)}
        with kept.open("a") as file:
            file.write(json.dumps(rows[key]) + "\n")
        print(key, judge(kind, rows[key]), flush=True)
    arguments.out.write_text(table(KINDS, rows))


def run_kind(kind: Any, command: list[str], timeout: float, dtypes: tuple[str, ...]) -> dict[str, Any]:
    """What `count` and `time` say of a kind: parameters, MACs, status and reason in each dtype."""
    side, batch = str(kind.side), str(kind.batch)
    counted = call([*command, "count", kind.model, "--json", "--resolution", side, "--batch", batch, *kind.options],
                   timeout)  # fmt: skip
    axes = ["--resolutions", side, "--batches", batch, "--dtypes", ",".join(dtypes)]
    timed = call([*command, "time", kind.model, *axes, *QUICK, *kind.options], timeout)
    return {"count": counts_of(counted), "time": statuses_of(timed, kind.model, dtypes)}


def call(command: list[str], timeout: float) -> tuple[int | None, str, str]:
    try:
        done = subprocess.run(command, cwd=TESTS, capture_output=True, text=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        return None, "", f"no end within {timeout:g} s"
    return done.returncode, done.stdout, done.stderr


def counts_of(answer: tuple[int | None, str, str]) -> dict[str, Any]:
    code, out, errors = answer
    try:
        found = json.loads(out)
    except ValueError:
        found = {}
    lines = [line for line in errors.splitlines() if line.strip()]
    said = lines[-1] if code and lines else ""
    return {
        "exit": code,
        "params": found.get("params"),
        "macs": found.get("macs"),
        "uncounted": found.get("uncounted_ops"),
        "says": said,
        "lines": len(lines),
    }


def statuses_of(answer: tuple[int | None, str, str], model: str, dtypes: tuple[str, ...]) -> dict[str, list[str]]:
    """Status and reason in each dtype; for a command that refused, its exit code and last line."""
    code, out, errors = answer
    rows = [line for line in out.splitlines() if line.startswith(model + " ")]
    found = {}
    for dtype in dtypes:
        line = next((row for row in rows if re.search(rf"\s{dtype}\s", row)), None)
        status = re.search(r"\s(ok|[a-z]+: .*)$", line) if line else None
        if status:
            word, _, reason = status[1].partition(": ")
            found[dtype] = [word, reason]
        else:
            last = next((text for text in reversed(errors.splitlines()) if text.strip()), "")
            found[dtype] = [f"exit {code}", last]
    return found


def judge(kind: Any, row: dict[str, Any]) -> str:
    """ "right", or what is wrong with an answer."""
    wrong = []
    count = row["count"]
    for part in ("params", "macs"):
        expected, counted = getattr(kind, part), count[part]
        short = part == "macs" and kind.at_least and counted is not None and expected is not None and counted > expected
        if expected is not None and "ok" in kind.status and counted != expected and not short:
            wrong.append(f"{part} {counted}, not {expected}")
    for dtype, (status, reason) in row["time"].items():
        refused = status == "exit 2" and "unsupported" in kind.statuses(dtype)
        if status not in kind.statuses(dtype) and not refused:
            wrong.append(f"{dtype} {status}")
        elif status != "ok" and kind.says and not re.search(kind.says, reason, re.S):
            wrong.append(f"{dtype} does not say {kind.says}")
    return "; ".join(wrong) or "right"


def table(kinds: list[Any], rows: dict[str, dict[str, Any]]) -> str:
    lines = ["| item | kind | params | MACs | float32 | float16 | bfloat16 | judged | says |", "|---" * 9 + "|"]
    right = 0
    for kind in kinds:
        key = f"{kind.model} {' '.join(kind.options)}".strip()
        if key not in rows:
            continue
        row, verdict = rows[key], judge(kind, rows[key])
        right += verdict == "right"
        said = next((reason for _, reason in row["time"].values() if reason), "") or row["count"]["says"]
        count = row["count"]
        macs = "" if count["macs"] is None else f"{count['macs']:,}" + ("+" if count["uncounted"] else "")
        cells = [str(kind.item), f"`{key}`", "" if count["params"] is None else f"{count['params']:,}", macs,
                 *(status for status, _ in row["time"].values()), verdict, said.replace("|", "/")[:200]]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return f"{right} of {len(lines) - 2} as they should be.\n\n" + "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
