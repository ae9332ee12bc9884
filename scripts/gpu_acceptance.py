"""What only an NVIDIA GPU can prove, check by check; docs/gpu.md says what each decides.

    python scripts/gpu_acceptance.py [--device cuda:0|sim:0] [--deadline 540] [--only NAMES] [--resume] [--out FOLDER]

Runs from a checkout, installed or not. The folder gets at most six files: checks.jsonl (a line per check, on the disk
when it ends: outcome, raw samples, what was predicted), gpu_acceptance.json, summary.md, log.txt, and what the product
wrote: records.jsonl, trace.json.gz. Exit code: 0; 1 if a check failed, or the driver does not start; 2 for wrong
usage; 3 if checks are left for --resume. Without a device all that needs one is skipped, said, and 0.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from acceptance import checks, probes, summary
from acceptance.frame import NONE, Check, Journal, Usage, chosen
from acceptance.provenance import NO_DEVICE, NO_DRIVER
from acceptance.run import Device, run

HOUR_S = 3600.0


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    made.add_argument("--device", default="cuda:0", help="cuda:N, or the simulated sim:0 (default: cuda:0)")
    made.add_argument("--deadline", type=float, default=HOUR_S, metavar="SECONDS", help="for all of it (default: 3600)")
    made.add_argument("--only", metavar="NAMES", help="blocks or checks, separated by commas")
    made.add_argument("--resume", action="store_true", help="keep what the folder has, do the rest")
    made.add_argument("--out", type=Path, default=probes.ROOT / "gpu_acceptance", metavar="FOLDER")
    made.add_argument("--require-device", action="store_true", help="without a device: exit code 1")
    made.add_argument("--list", action="store_true", help="name the checks and what each decides")
    return made


def find(label: str, server: probes.Server) -> Device:
    """The device that a label means. RuntimeError when the driver does not start."""
    if label.startswith("sim:"):
        return Device(label, "sim", label)
    result = server.run(checks.FIND, label, checks.FIND.limit_s)
    values = result.seen.values
    if result.outcome != "passed":
        raise RuntimeError(f"the driver was not asked: {result.message}")
    if values["status"] not in (0, NO_DRIVER, NO_DEVICE):
        raise RuntimeError(values["reason"] or f"the CUDA driver does not start: cuInit returned {values['status']}")
    if values["name"] is None:
        reason = values["reason"] or f"no device '{label}': CUDA shows {values['devices']}"
        return Device(NONE, "none", "", f"no CUDA device, nothing was run on one: {reason}")
    return Device(label, "gpu", str(values["name"]))


def main(arguments: list[str] | None = None, todo: tuple[Check, ...] = checks.CHECKS) -> int:
    start, made = time.monotonic(), parser()
    options = made.parse_args(arguments)
    if options.list:
        print("\n".join(f"{check.name:28}{check.decides}" for check in todo))
        return 0
    probes.set_paths()
    try:
        return accept(options, chosen(todo, options.only), start)
    except Usage as error:
        made.error(str(error))
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 1


def accept(options: argparse.Namespace, todo: tuple[Check, ...], start: float) -> int:
    """Run the checks into the folder; the exit code."""
    out = options.out.resolve()
    if not out.parent.is_dir():
        raise Usage(f"got --out '{options.out}', expected a folder, or one that can be made: mkdir its parent first")
    out.mkdir(exist_ok=True)
    server = probes.Server(out / "log.txt")
    device = find(options.device, server)
    journal = Journal(out / "checks.jsonl", device=device.label, resume=options.resume)
    left = run(todo, journal, server, device, start + options.deadline)
    counts = summary.write(out, device, list(journal.results.values()), left)
    print(f"{out}: " + ", ".join(f"{count} {outcome}" for outcome, count in counts.items()))
    if device.reason:
        print(device.reason)
    if counts["failed"] or (options.require_device and device.kind == "none"):
        return 1
    return 3 if left else 0


if __name__ == "__main__":
    sys.exit(main())
