"""Checks that the tests of scripts/gpu_acceptance.py run in place of its own.

    python tests/acceptance_toys.py FOLDER [arguments of gpu_acceptance.py]

FOLDER gets a line in `events` for each beginning and end of a probe.
"""

import os
import sys
import time
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "scripts"))

import gpu_acceptance
from acceptance.frame import Check, Seen, Skipped


def work(device, folder, name, seconds=0.0):
    note(folder, "begins", name)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.01)
    note(folder, "ends", name)
    return Seen({"answer": 42}, {"waits_s": [seconds] * 50})


def note(folder, what, name):
    with open(Path(folder) / "events", "a") as file:
        file.write(f"{what} {name} {os.getpid()}\n")


def wrong(device):
    return Seen({"rate": 1.0}, wrong=("the rate is 1.0, not 2.0",))


def skips(device):
    raise Skipped("pynvml is not installed")


def raises(device):
    raise OSError("no such driver")


def crashes(device):
    os.kill(os.getpid(), 11)


def starts_another(device, folder):
    """Begins a program that outlives it, unless it is ended with it."""
    import subprocess

    other = subprocess.Popen(["sleep", "600"])
    (Path(folder) / "other").write_text(str(other.pid))
    other.wait()


def checks(folder):
    here = "acceptance_toys"
    paces = [("a", 0.05), ("b", 0.3), ("c", 0.01), ("d", 0.2), ("e", 0.1), ("f", 0.02), ("g", 0.25), ("h", 0.01)]
    many = [
        Check(
            f"many.{name}", "", f"{here}:work", 30, 0.1, arguments={"folder": folder, "name": name, "seconds": seconds}
        )
        for name, seconds in paces
    ]
    return (
        *many,
        Check("odd.wrong", "", f"{here}:wrong", 30),
        Check("odd.skips", "", f"{here}:skips", 30),
        Check("odd.raises", "", f"{here}:raises", 30),
        Check("odd.crashes", "", f"{here}:crashes", 30),
        Check("odd.absent", "", f"{here}:absent", 30),
        Check("odd.real", "", f"{here}:work", 30, needs="gpu", arguments={"folder": folder, "name": "real"}),
        Check(
            "hangs.itself", "", f"{here}:work", 0.5, 0.1, arguments={"folder": folder, "name": "hang", "seconds": 600}
        ),
        Check("hangs.other", "", f"{here}:starts_another", 2.0, 0.1, arguments={"folder": folder}),
        Check("long.one", "", f"{here}:work", 30, 20, arguments={"folder": folder, "name": "long"}),
        Check("long.slow", "", f"{here}:work", 300, 0.1, arguments={"folder": folder, "name": "slow", "seconds": 299}),
    )


if __name__ == "__main__":
    os.environ["PYTHONPATH"] = os.pathsep.join((str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")))
    sys.exit(gpu_acceptance.main(sys.argv[2:], checks(sys.argv[1])))
