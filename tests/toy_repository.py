"""A repository with a mixer in it, made by a test: what `ab` and `bisect` meet at a user's."""

import os
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
AXES = ("--channels", "32", "--resolutions", "14", "--devices", "cpu", "--threads", "1")

# `waste` is real work that no count sees, `products` matrix products that every count sees; neither changes the output.
NET = """
import torch
from torch import nn


class Mixer(nn.Module):
    def __init__(self, channels, waste=0, products=1):
        super().__init__()
        self.linear, self.waste, self.products = nn.Linear(channels, channels), waste, products

    def forward(self, x):
        y = self.linear(x)
        for _ in range(self.products - 1):
            y = y + 0 * self.linear(x)
        wasted = x.clone()
        for _ in range(self.waste):
            wasted.sin_()
        return y + 0 * wasted


def mixer(channels):
    return Mixer(channels, waste={waste}, products={products})


def lighter(channels):
    return Mixer(channels, waste={lighter})


def steady(channels):
    return Mixer(channels)
"""
BROKEN = "import a_module_that_nobody_has\n"
MANY = 60  # of waste: several times the work of the mixer


def net(waste=0, products=1, lighter=0):
    return NET.replace("{waste}", str(waste)).replace("{products}", str(products)).replace("{lighter}", str(lighter))


def environment(**more):
    """Git as nobody has set it up, and this project's packages in front of whatever is installed."""
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT / "src"),
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        **{f"GIT_{who}_{what}": f"{who.lower()}@toy" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
        **more,
    }


class Repository:
    """A git repository in a folder."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.git("init", "--quiet", "--initial-branch", "main")

    def git(self, *arguments):
        command = ["git", *map(str, arguments)]
        done = subprocess.run(command, cwd=self.folder, env=environment(), capture_output=True, text=True, check=True)
        return done.stdout.rstrip("\n")

    def commit(self, name, **files):
        """Commit files, given by their names without .py, and tag the commit with `name`."""
        for file, text in files.items():
            (self.folder / f"{file}.py").write_text(text)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", f"toy: {name}")
        self.git("tag", name)
        return self.git("rev-parse", "HEAD")

    def work_trees(self):
        lines = self.git("worktree", "list", "--porcelain").splitlines()
        return [Path(line.removeprefix("worktree ")) for line in lines if line.startswith("worktree ")]

    def state(self):
        """What a command must leave as it was."""
        return {
            "branch": self.git("branch", "--show-current"),
            "head": self.git("rev-parse", "HEAD"),
            "refs": self.git("for-each-ref"),
            "status": self.git("status", "--porcelain"),
            "trees": self.work_trees(),
        }


def with_topic(folder):
    """A repository with the tags one, unrelated (the same and a file), and on a branch two (two products), broken."""
    found = Repository(folder)
    found.commit("one", net=net())
    found.commit("unrelated", other="x = 1\n")
    found.git("checkout", "--quiet", "-b", "topic")
    found.commit("two", net=net(products=2))
    found.commit("broken", net=BROKEN)
    return found


def start(folder, *arguments, **more):
    """Start a mixprof command in a folder; more: of its environment."""
    return subprocess.Popen(
        [sys.executable, "-m", "mixprof", *map(str, arguments)], cwd=folder, env=environment(**more),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=_with_interrupts,
    )  # fmt: skip


def _with_interrupts():
    """A shell starts what runs in its background with interrupts ignored, which Python keeps."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def mixprof(folder, *arguments, timeout=600, **more):
    process = start(folder, *arguments, **more)
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return subprocess.CompletedProcess(arguments, process.returncode, out, err)
