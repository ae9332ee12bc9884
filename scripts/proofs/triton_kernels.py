"""The Triton kernels without a GPU: values by Triton's interpreter, resources by its compiler, bytes by addresses.

    python scripts/proofs/triton_kernels.py               all, as Markdown: the tables of docs/kernels.md
    python scripts/proofs/triton_kernels.py --only values [--json]

Needs the package triton. `values` runs each kernel on the CPU at small, odd shapes against float64, and gradcheck in
float64. `resources` compiles for sm_80, sm_90 and sm_120 in float16; ptxas reports registers and spills. `bytes` runs
the interpreter and notes every address. Nothing here runs on a GPU, and nothing is timed. Ends with 1 where a value is
wrong or a register spills.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

PARTS = ("values", "resources", "bytes")
TITLES = {
    "values": "Largest error over the largest value, against float64",
    "resources": "Compiled ahead, float16, K = 7",
    "bytes": "Bytes from the access pattern, float16, one image",
}


def main() -> int:
    """Run each part in a process of its own: the interpreter is switched on before triton is imported."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=PARTS)
    parser.add_argument("--json", action="store_true", help="rows as JSON, one list a part")
    arguments = parser.parse_args()
    failed = False
    for part in [arguments.only] if arguments.only else PARTS:
        interpreted = {} if part == "resources" else {"TRITON_INTERPRET": "1"}
        command = [sys.executable, "-W", "ignore", str(Path(__file__).with_name(f"triton_{part}.py"))]
        done = subprocess.run(
            command, env={**os.environ, **interpreted}, stdout=subprocess.PIPE, text=True, check=False
        )
        if done.returncode:
            return done.returncode
        rows = json.loads(done.stdout)
        failed |= any(row.get("right") is False or row.get("spilled bytes") for row in rows)
        print(json.dumps(rows) if arguments.json else table(TITLES[part], rows))
    return int(failed)


def table(title: str, rows: list[dict[str, object]]) -> str:
    """Rows of equal keys as Markdown."""
    heads = list(rows[0])
    lines = [f"## {title}", "", f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    return "\n".join([*lines, *(f"| {' | '.join(str(row[head]) for head in heads)} |" for row in rows), ""])


if __name__ == "__main__":
    sys.exit(main())
