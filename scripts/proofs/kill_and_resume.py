"""A sweep of many cases, killed at random moments and resumed each time: nothing is lost, nothing is run twice.

    python scripts/proofs/kill_and_resume.py [--cases 1000] [--kills 20]

Real processes, `kill -9`. The mixer itself notes each launch that runs it, also one that is killed.
Prints what was found and ends with 1 if a record is missing, doubled or not ok, or more launches
were executed than one for each case and one for each kill.
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from mixprof.data import run_folder

TESTS = Path(__file__).parents[2] / "tests"


def start(run: Path, cases: int, resume: bool) -> subprocess.Popen[bytes]:
    """Begin or go on with a quick sweep of a tiny mixer over batches."""
    batches = ",".join(map(str, range(2, cases + 1)))  # the anchor is one case more
    command = [sys.executable, "-m", "mixprof", "sweep", "--models", "toys:counted", "--resolutions", "1"]
    command += ["--channels", "32", "--batches", batches, "--quick", "--threads", "1", "--max-lost-cpu", "1"]
    command += ["--out", str(run), *(["--resume"] if resume else [])]
    environment = {**os.environ, "PYTHONPATH": str(TESTS.parent), "MIXPROF_LAUNCHES": str(run.parent / "launched")}
    return subprocess.Popen(command, cwd=TESTS, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def journalled(run: Path) -> int:
    path = run / run_folder.JOURNAL
    return path.read_bytes().count(b"\n") if path.exists() else 0


def kill_at(run: Path, count: int, cases: int, generator: random.Random) -> None:
    """Let the sweep go on to `count` launches and a random moment more, then kill it."""
    process = start(run, cases, resume=(run / run_folder.MANIFEST).exists())
    while journalled(run) < count and process.poll() is None:
        time.sleep(0.005)
    time.sleep(generator.random() * 0.3)
    process.kill()
    process.wait()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--kills", type=int, default=20)
    options = parser.parse_args()
    generator = random.Random(0)
    with tempfile.TemporaryDirectory(prefix="mixprof-kill-") as folder:
        run = Path(folder) / "run"
        for count in sorted(generator.sample(range(1, options.cases - 1), options.kills)):
            kill_at(run, count, options.cases, generator)
        last = start(run, options.cases, resume=True).wait()
        launches, records = run_folder.read_launches(run), run_folder.read_records(run)
        executed = len((run.parent / "launched").read_text().splitlines()) + 1  # and the anchor, in the first second
    cases = {record.case for record in records}
    statuses = sorted({record.status for record in records})
    print(f"exit code of the last resume: {last}")
    print(f"records: {len(records)}, of {len(cases)} cases, statuses {', '.join(statuses)}")
    print(f"launches journalled: {len(launches)}; executed: {executed}, with {options.kills} kills")
    whole = len(records) == len(cases) == len(launches) == options.cases and last == 0 and statuses == ["ok"]
    whole &= options.cases <= executed <= options.cases + options.kills
    print("nothing lost, nothing doubled" if whole else "FAILED")
    return 0 if whole else 1


if __name__ == "__main__":
    sys.exit(main())
