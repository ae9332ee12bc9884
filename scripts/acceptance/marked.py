"""The tests marked `gpu`, each test a line, and a small sweep over all lowerings and dtypes."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import xml.etree.ElementTree as xml
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from acceptance.commands import command
from acceptance.frame import Seen, Skipped
from acceptance.probes import ROOT

VARIANTS = ("eager:graph=on", "compile:reduce-overhead", "tensorrt:graph=on", "tensorrt_rtx:graph=on")
MODELS = ("depthwise_conv", "window_attention", "inhomogeneous_depthwise_conv")
SEVERITY = ("passed", "skipped", "failed")
REASONS = {5: "no test is marked gpu", None: "its time was over"}


@dataclass(frozen=True)
class Outcome:
    """What became of a test or of a case. message: why it failed or was skipped."""

    outcome: str  # of SEVERITY
    message: str | None = None
    seconds: float = 0.0


def outcomes_of_tests(device: str, folder: str = "tests", limit_s: float = 1790) -> Seen:
    """The outcome of every test marked `gpu` below a folder."""
    with tempfile.TemporaryDirectory(prefix="mixprof-gpu-") as temporary:
        report = Path(temporary) / "report.xml"
        arguments = [sys.executable, "-m", "pytest", str(ROOT / folder), "-m", "gpu", f"--junitxml={report}"]
        try:
            code: int | None = command([*arguments, "-p", "no:cacheprovider"], limit_s).returncode
        except subprocess.TimeoutExpired:
            code = None
        outcomes = read_report(report) if report.exists() else {}
    if code not in (0, 1) or not outcomes:
        reason = REASONS.get(code, f"exit code {code}")
        outcomes["pytest"] = Outcome("failed", f"pytest did not run the tests to their end: {reason}")
    return seen(outcomes)


def seen(outcomes: Mapping[str, Outcome]) -> Seen:
    """Counts, and each by name; all skipped is a skip, with the reason of the first."""
    counts = Counter(each.outcome for each in outcomes.values())
    if set(counts) == {"skipped"}:
        raise Skipped(next(iter(outcomes.values())).message or "each was skipped")
    wrong = tuple(f"{name}: {each.message}"[:600] for name, each in outcomes.items() if each.outcome == "failed")
    raw = {name: asdict(each) for name, each in outcomes.items()}
    return Seen({outcome: counts[outcome] for outcome in SEVERITY}, wrong=wrong, raw=raw)


def read_report(path: Path) -> dict[str, Outcome]:
    """The tests of a JUnit file, which has a second entry for a test that breaks while it is torn down."""
    by_name: dict[str, Outcome] = {}
    for case in xml.parse(path).iter("testcase"):
        name = f"{case.get('classname')}::{case.get('name')}"
        outcomes = {"failure": "failed", "error": "failed", "skipped": "skipped"}
        parts = [part for part in case if part.tag in outcomes]
        outcome = max((outcomes[part.tag] for part in parts), key=SEVERITY.index, default="passed")
        message = " | ".join(part.get("message") or (part.text or "").strip() for part in parts) or None
        entry = Outcome(outcome, message, float(case.get("time") or 0))
        by_name[name] = merged(by_name[name], entry) if name in by_name else entry
    return by_name


def merged(first: Outcome, second: Outcome) -> Outcome:
    """One of two with the same name: the worse outcome, and all that was said."""
    outcome = max(first.outcome, second.outcome, key=SEVERITY.index)
    message = " | ".join(each.message for each in (first, second) if each.message) or None
    return Outcome(outcome, message, first.seconds + second.seconds)


def sweep(device: str, limit_s: float = 1790) -> Seen:
    """A quick sweep of a few small mixers over all lowerings and dtypes."""
    from mixprof import lowerings
    from mixprof.data import run_folder
    from mixprof.plan.settings import DTYPES

    with tempfile.TemporaryDirectory(prefix="mixprof-gpu-") as temporary:
        run = Path(temporary) / "run"
        arguments = [sys.executable, "-m", "mixprof", "sweep", "--devices", device, "--models", ",".join(MODELS)]
        arguments += ["--lowerings", ",".join([*lowerings.LOWERINGS, *VARIANTS]), "--dtypes", ",".join(DTYPES)]
        arguments += ["--resolutions", "14", "--batches", "2", "--channels", "64", "--quick", "--out", str(run)]
        try:
            code: int | None = command(arguments, limit_s, variables={"MIXPROF_CACHE": temporary}).returncode
        except subprocess.TimeoutExpired:
            code = None
        records = run_folder.read_records(run) if run.exists() else []
    outcomes = {record.case.label(): of_record(record.status, record.reason) for record in records}
    if code != 0 or not outcomes:
        reason = REASONS[None] if code is None else f"exit code {code}, {len(records)} records"
        outcomes["sweep"] = Outcome("failed", f"the sweep did not end well: {reason}")
    return seen(outcomes)


def of_record(status: str, reason: str | None) -> Outcome:
    """What a case of the sweep shows. An engine that was only built where there is a device has failed."""
    outcome = {"ok": "passed", "unavailable": "skipped", "unsupported": "skipped"}.get(status, "failed")
    return Outcome(outcome, None if outcome == "passed" else f"{status}: {reason or 'without a reason'}")
