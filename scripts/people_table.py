"""Every kind of model that people bring through `count` and `time`, by command, one at a time, as a table in Markdown.

    python scripts/people_table.py --command "python -m mixprof" --out people.md [--only PATTERN] [--timeout 120]

What a command printed is kept beside the table (`people.jsonl`), and a kind that is in it is not run again.
"""

import argparse
import json
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parent.parent / "tests"
sys.path.insert(0, str(TESTS))
from people import DTYPES, Kind  # noqa: E402  (the tests' folder is no package)

PREFIX = "people-"  # of the folder that files are written to
QUICK = ("--quick", "--threads", "1", "--max-lost-cpu", "1", "--seconds", "0.1")


def options(timeout_s: float) -> argparse.ArgumentParser:
    """What this table and that of timm's networks take."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--command", type=shlex.split, default=[sys.executable, "-m", "mixprof"])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--timeout", type=float, default=timeout_s)
    return parser


class Kept:
    """The rows of a table, beside it, by the first of their fields; one that is there is not made again."""

    def __init__(self, table: Path):
        self.path = table.with_suffix(".jsonl")
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        self.rows: dict[str, Any] = {next(iter(row.values())): row for row in map(json.loads, lines)}

    def add(self, key: str, row: dict[str, Any]) -> None:
        self.rows[key] = row
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")


def main() -> None:
    parser = options(120.0)
    parser.add_argument("--only", default="")
    arguments = parser.parse_args()
    from people import KINDS
    from people_calls import MACS

    kept = Kept(arguments.out)
    calls = [Kind(f"call:people_calls:{name}", 9, None, macs, 0, 0) for name, macs in MACS.items()]
    with tempfile.TemporaryDirectory(prefix=PREFIX) as folder:
        kinds = [*KINDS, *calls, *files(Path(folder))]
        for kind in kinds:
            key = key_of(kind)
            if key not in kept.rows and re.search(arguments.only, key):
                kept.add(key, {"name": key, **run_kind(kind, arguments.command, arguments.timeout)})
                print(key, judge(kind, kept.rows[key]), flush=True)
    arguments.out.write_text(table(kinds, kept.rows))


def files(folder: Path) -> list[Kind]:
    """Files, written into a folder; each is run in the dtype that it has."""
    import onnx_people
    import people_files

    made = []
    for item, makers in ((8, people_files.MAKERS), (10, onnx_people.MAKERS)):
        for name, maker in makers.items():
            own = folder / name
            own.mkdir()
            file: Any = maker(own)
            status = ("ok",) if file.status == "ok" else ("unsupported",)
            options, sides = getattr(file, "options", ()), getattr(file, "resolution", None)
            shown = rf"\s{file.batch}\s+{'x'.join(map(str, dict.fromkeys(sides)))}\s" if sides else ""
            made.append(Kind(str(file.path), item, file.params, file.macs, 0, 0, options, status,
                             says=file.says, shown=shown))  # fmt: skip
    return made


def key_of(kind: Kind) -> str:
    """What a row is called: a file by its maker's folder and its name, which are the same in every run."""
    _, _, place = kind.model.partition(f"/{PREFIX}")
    return " ".join((place.partition("/")[2] or kind.model, *kind.options))


def run_kind(kind: Kind, command: list[str], timeout: float) -> dict[str, Any]:
    """What `count` and `time` say of a kind: parameters, MACs, status and reason in each dtype."""
    one: list[str] = []
    several: list[str] = []
    if kind.batch:
        one = ["--resolution", str(kind.side), "--batch", str(kind.batch)]
        several = ["--resolutions", str(kind.side), "--batches", str(kind.batch), "--dtypes", ",".join(DTYPES)]
    counted = call([*command, "count", kind.model, "--json", *one, *kind.options], timeout)
    timed = call([*command, "time", kind.model, *several, *QUICK, *kind.options], timeout)
    return {"count": counts_of(counted), "time": statuses_of(timed, kind)}


def call(command: list[str], timeout: float) -> tuple[int | None, str, str]:
    try:
        done = subprocess.run(command, cwd=TESTS, capture_output=True, text=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        return None, "", f"no end within {timeout:g} s"
    return done.returncode, done.stdout, done.stderr


def counts_of(answer: tuple[int | None, str, str]) -> dict[str, Any]:
    code, out, errors = answer
    try:
        fields = json.loads(out)
    except ValueError:
        fields = {}
    lines = [line for line in errors.splitlines() if line.strip()]
    message = lines[-1] if code and lines else ""
    counts = {"params": fields.get("params"), "macs": fields.get("macs"), "uncounted": fields.get("uncounted_ops")}
    return {"exit": code, **counts, "says": message, "lines": len(lines)}


def statuses_of(answer: tuple[int | None, str, str], kind: Kind) -> dict[str, list[str]]:
    """Status and reason in each dtype; for a command that refused, its exit code and last line."""
    code, out, errors = answer
    rows = [line for line in out.splitlines() if line.startswith(kind.model + " ")]
    statuses = {}
    for dtype in DTYPES if kind.batch else ("float32",):
        line = next((row for row in rows if re.search(rf"\s{dtype}\s", row)), None)
        status = re.search(r"\s(ok|[a-z]+: .*)$", line) if line else None
        if status:
            word, _, reason = status[1].partition(": ")
            statuses[dtype] = [word, reason, line or ""]
        else:
            last = next((text for text in reversed(errors.splitlines()) if text.strip()), "")
            statuses[dtype] = [f"exit {code}", last, ""]
    return statuses


def judge(kind: Kind, row: dict[str, Any]) -> str:
    """ "right", or what is wrong with an answer."""
    wrong = []
    count = row["count"]
    for part in ("params", "macs"):
        expected, counted = getattr(kind, part), count[part]
        short = part == "macs" and kind.at_least and counted is not None and expected is not None and counted > expected
        if expected is not None and "ok" in kind.status and counted != expected and not short:
            wrong.append(f"{part} {counted}, not {expected}")
    for dtype, (status, reason, line) in row["time"].items():
        refused = status == "exit 2" and "unsupported" in kind.statuses(dtype)
        if status not in kind.statuses(dtype) and not refused:
            wrong.append(f"{dtype} {status}")
        elif kind.shown and not re.search(kind.shown, line):
            wrong.append(f"another batch or resolution: {line}")
        elif status != "ok" and kind.says and not re.search(kind.says, reason, re.S):
            wrong.append(f"{dtype} does not say {kind.says}")
    return "; ".join(wrong) or "right"


def table(kinds: list[Kind], rows: dict[str, dict[str, Any]]) -> str:
    lines = ["| item | kind | params | MACs | float32 | float16 | bfloat16 | judged | says |", "|---" * 9 + "|"]
    right = 0
    for kind in kinds:
        key = key_of(kind)
        if key not in rows:
            continue
        row, verdict = rows[key], judge(kind, rows[key])
        right += verdict == "right"
        remark = next((reason for _, reason, _ in row["time"].values() if reason), "") or row["count"]["says"]
        count = row["count"]
        macs = "" if count["macs"] is None else f"{count['macs']:,}" + ("+" if count["uncounted"] else "")
        params = "" if count["params"] is None else f"{count['params']:,}"
        statuses = [*(status for status, _, _ in row["time"].values()), "", ""][:3]
        cells = [str(kind.item), f"`{key}`", params, macs, *statuses, verdict, remark.replace("|", "/")[:200]]
        lines.append("| " + " | ".join(cells) + " |")
    return f"{right} of {len(lines) - 2} as they should be.\n\n" + "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
