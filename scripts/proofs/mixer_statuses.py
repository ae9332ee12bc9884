"""What every lowering makes of the newer mixers, as Markdown: status and error against float64 of each.

    python scripts/proofs/mixer_statuses.py [--run FOLDER] [--resolutions 9x13] [--lowerings A,B] [--models A,B]

TensorRT-RTX builds for cuda:0 in float16, which needs no GPU; the others run on the CPU in float32. One short launch a
case, in the formulations of the table (docs/method.md): no times are compared. With --run that folder is read, and
nothing runs where it holds a run already. Errors are relative to the largest value.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from mixprof.data.record import Record
from mixprof.data.run_folder import read_records

NEWER = "focal_modulation,split_depthwise_conv,linear_attention,convnext,dynamic_large_kernel,selective_scan"
LOWERINGS = "eager,compile,aot,onnxruntime,openvino,tensorrt_rtx"


def groups(options: argparse.Namespace) -> str:
    """The sweep file: what runs here, and what is built for a GPU."""
    names = options.lowerings.split(",")
    here, built = ([name for name in names if name.startswith("tensorrt") is engine] for engine in (False, True))
    shared = f"models = {options.models.split(',')}\nresolutions = {options.resolutions.split(',')}\n"
    where = ((here, "cpu", "float32"), (built, "cuda:0", "float16"))
    return "\n".join(
        f"[[group]]\n{shared}lowerings = {lowerings}\ndevices = ['{device}']\ndtypes = ['{dtype}']\n"
        for lowerings, device, dtype in where
        if lowerings
    )


def sweep(options: argparse.Namespace, folder: Path) -> None:
    """Run the cases into a folder."""
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
        file.write(groups(options))
        file.flush()
        measure = "--quick --seconds 0.05 --formulations usual --threads 1 --max-lost-cpu 1 --timeout 600"
        command = [sys.executable, "-m", "mixprof", "sweep", file.name, *measure.split(), "--out", str(folder)]
        subprocess.run(command, check=True)


def cell(record: Record | None) -> str:
    if record is None:
        return ""
    return record.status if record.relative_error is None else f"{record.status}, {record.relative_error:.0e}"


def table(records: list[Record]) -> str:
    """A row for each model and resolution, a column for each lowering; reasons of what is not ok below."""
    records = [record for record in records if not record.case.model.startswith("anchor")]
    by_case = {(record.case.model, record.case.resolution, record.case.lowering): record for record in records}
    lowerings = list(dict.fromkeys(name for name in LOWERINGS.split(",") for case in by_case if case[2] == name))
    lines = ["| " + " | ".join(["mixer", *lowerings]) + " |", "|---" * (1 + len(lowerings)) + "|"]
    for model, sides in sorted({case[:2] for case in by_case}):
        cells = [cell(by_case.get((model, sides, lowering))) for lowering in lowerings]
        lines.append(f"| `{model}` {sides[0]}x{sides[1]} | " + " | ".join(cells) + " |")
    reasons = [f"{r.case.model} {r.case.lowering}: {r.status}: {r.reason}" for r in records if r.status != "ok"]
    return "\n".join([*lines, "", *reasons])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--models", default=f"{NEWER},deformable_aggregation")
    parser.add_argument("--lowerings", default=LOWERINGS)
    parser.add_argument("--resolutions", default="9x13")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.run or Path(temporary) / "run"
        if not folder.exists():
            sweep(options, folder)
        print(table(list(read_records(folder))))


if __name__ == "__main__":
    main()
