"""What only an NVIDIA GPU can prove: the tests marked `gpu` and a small sweep, each check's outcome in one file.

    python scripts/gpu_acceptance.py [--out gpu_acceptance.json] [--tests tests]

The file holds `device` (was there one), `summary`, `environment` and `checks`, each with its name, outcome (passed,
failed or skipped), seconds and the message or reason. Without a device nothing can pass: all is skipped, and the
file says why. Ends with 1 if a check failed, else with 0.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as xml
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mixprof import lowerings
from mixprof.data import run_folder
from mixprof.data.files import write_whole
from mixprof.data.record import Record
from mixprof.machine import cuda_driver
from mixprof.plan.settings import DTYPES

ROOT = Path(__file__).parents[1]
NO_DEVICE = "no CUDA device: the NVIDIA driver is not installed, or shows none to this process"
VARIANTS = ("eager:graph=on", "compile:reduce-overhead", "tensorrt:graph=on", "tensorrt_rtx:graph=on")
MODELS = ("depthwise_conv", "window_attention", "inhomogeneous_depthwise_conv")
LIMIT_S = 3600.0  # for the tests and for the sweep
SEVERITY = ("passed", "skipped", "failed")
SCHEMA = 1


@dataclass(frozen=True)
class Check:
    """One thing that was to be proven, and what became of it."""

    name: str
    outcome: str  # "passed", "failed", "skipped"
    message: str | None = None  # why it failed or was skipped
    seconds: float | None = None


def run_tests(tests: Path) -> list[Check]:
    """The outcome of every test marked `gpu` below a folder."""
    with tempfile.TemporaryDirectory(prefix="mixprof-gpu-") as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", str(tests), "-m", "gpu", f"--junitxml={report}"]
        code = _run(command)
        checks = read_report(report) if report.exists() else []
    if code not in (0, 1) or not checks:
        reason = {5: "no test is marked gpu", None: f"not done after {LIMIT_S:.0f} s"}.get(code, f"exit code {code}")
        checks.append(Check("pytest", "failed", f"pytest did not run the tests to their end: {reason}"))
    return checks


def read_report(path: Path) -> list[Check]:
    """The checks of a JUnit file, which has a second entry for a test that breaks while it is torn down."""
    by_name: dict[str, Check] = {}
    for case in xml.parse(path).iter("testcase"):
        name = f"{case.get('classname')}::{case.get('name')}"
        outcomes = {"failure": "failed", "error": "failed", "skipped": "skipped"}
        parts = [part for part in case if part.tag in outcomes]
        outcome = max((outcomes[part.tag] for part in parts), key=SEVERITY.index, default="passed")
        message = " | ".join(part.get("message") or (part.text or "").strip() for part in parts) or None
        check = Check(name, outcome, message, float(case.get("time") or 0))
        by_name[name] = merged(by_name[name], check) if name in by_name else check
    return list(by_name.values())


def merged(first: Check, second: Check) -> Check:
    """One check of two with the same name: the worse outcome, and all that was said."""
    outcome = max(first.outcome, second.outcome, key=SEVERITY.index)
    message = " | ".join(check.message for check in (first, second) if check.message) or None
    return Check(first.name, outcome, message, (first.seconds or 0.0) + (second.seconds or 0.0))


def run_sweep() -> list[Check]:
    """A quick sweep of a few small mixers over all lowerings and dtypes on the first device."""
    names = [*lowerings.LOWERINGS, *VARIANTS]
    with tempfile.TemporaryDirectory(prefix="mixprof-gpu-") as folder:
        run = Path(folder) / "run"
        command = [sys.executable, "-m", "mixprof", "sweep", "--devices", "cuda:0", "--models", ",".join(MODELS)]
        command += ["--lowerings", ",".join(names), "--dtypes", ",".join(DTYPES), "--resolutions", "14", "--batches"]
        command += ["2", "--channels", "64", "--quick", "--out", str(run)]
        start = time.monotonic()
        code = _run(command)
        records = run_folder.read_records(run) if run.exists() else []
        checks = [check_of(record) for record in records]
    if code != 0 or not checks:
        reason = f"not done after {LIMIT_S:.0f} s" if code is None else f"exit code {code}, {len(checks)} records"
        checks.append(Check("sweep", "failed", f"the sweep did not end well: {reason}", time.monotonic() - start))
    return checks


def check_of(record: Record) -> Check:
    """What a case of the sweep shows. An engine that was only built where there is a device has failed."""
    seconds = sum(launch.environment.wall_s or 0.0 for launch in record.launches) or None
    outcome = {"ok": "passed", "unavailable": "skipped", "unsupported": "skipped"}.get(record.status, "failed")
    message = None if outcome == "passed" else f"{record.status}: {record.reason or 'without a reason'}"
    return Check(f"sweep: {record.case.label()}", outcome, message, seconds)


def _run(command: list[str]) -> int | None:
    """A command's exit code, its output on our standard error; None when it was ended for its time."""
    try:
        return subprocess.run(command, cwd=ROOT, env=_variables(), stdout=sys.stderr, timeout=LIMIT_S).returncode
    except subprocess.TimeoutExpired:
        return None


def _variables() -> dict[str, str]:
    """This checkout comes first, whichever one is installed."""
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT / "src"), os.environ.get("PYTHONPATH")))),
    }


def environment() -> dict[str, Any]:
    """Devices, versions and testbed as `mixprof doctor` finds them, and the driver."""
    command = [sys.executable, "-m", "mixprof", "doctor", "--json"]
    done = subprocess.run(command, cwd=ROOT, env=_variables(), capture_output=True, text=True)
    examined: dict[str, Any] = (
        json.loads(done.stdout) if done.returncode == 0 else {"doctor_failed": done.stderr.strip()}
    )
    return {**examined, "cuda_devices": cuda_driver.device_count(), "cuda_driver": cuda_driver.version()}


def assemble(checks: Iterable[Check], environment: dict[str, Any], *, device: bool) -> dict[str, Any]:
    """What the file holds. A check that passes without a device has proven nothing: it is a failure."""
    checks = list(checks)
    if not device:
        checks = [
            Check(check.name, "failed", "passed without a CUDA device, so it proves nothing of one", check.seconds)
            if check.outcome == "passed"
            else check
            for check in checks
        ]
    counts = Counter(check.outcome for check in checks)
    return {
        "schema": SCHEMA,
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "device": device,
        "reason": None if device else f"{NO_DEVICE}: nothing was run on one",
        "summary": {outcome: counts[outcome] for outcome in ("passed", "failed", "skipped")},
        "environment": environment,
        "checks": [asdict(check) for check in checks],
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "gpu_acceptance.json")
    parser.add_argument("--tests", type=Path, default=ROOT / "tests")
    options = parser.parse_args(arguments)
    if not options.out.resolve().parent.is_dir():
        parser.error(f"got --out '{options.out}', expected a file in a folder that exists: mkdir it first")
    device = cuda_driver.device_count() > 0
    checks = run_tests(options.tests.resolve())
    checks += run_sweep() if device else [Check("sweep", "skipped", NO_DEVICE)]
    outcome = assemble(checks, environment(), device=device)
    write_whole(options.out.resolve(), json.dumps(outcome, indent=1).encode() + b"\n")
    for check in outcome["checks"]:
        if check["outcome"] == "failed":
            print(f"failed: {check['name']}: {check['message']}")
    print(f"{options.out}: " + ", ".join(f"{count} {outcome}" for outcome, count in outcome["summary"].items()))
    if outcome["reason"]:
        print(outcome["reason"])
    return 1 if outcome["summary"]["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
