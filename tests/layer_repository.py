"""A small git repository of somebody's: one mixer, and commits that change it."""

from __future__ import annotations

import subprocess
from pathlib import Path

FACTORY = '''
from torch import nn


class Mixer(nn.Module):
    """Layers on the last axis. (B, H, W, C) -> (B, H, W, C)."""

    def __init__(self, channels):
        super().__init__()
        self.layers = nn.Sequential(*(nn.Linear(channels, channels) for _ in range({layers})))

    def forward(self, x):
        return self.layers(x)


def mixer(channels):
    return Mixer(channels)
'''


def git(folder: Path, *arguments: str) -> str:
    settings = ("-c", "user.name=Somebody", "-c", "user.email=somebody@example.org", "-c", "commit.gpgsign=false")
    done = subprocess.run(["git", *settings, *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def make(folder: Path) -> Path:
    """A repository with the tags one (a layer), unrelated (the same and a file), two (two layers), broken."""
    folder.mkdir()
    git(folder, "init", "--quiet", "--initial-branch", "main")
    (folder / ".gitignore").write_text("__pycache__/\n")
    commit(folder, "one", "toy.py", FACTORY.replace("{layers}", "1"))
    commit(folder, "unrelated", "notes.txt", "nothing\n")
    git(folder, "checkout", "--quiet", "-b", "topic")
    commit(folder, "two", "toy.py", FACTORY.replace("{layers}", "2"))
    commit(folder, "broken", "toy.py", "import no_such_module\n")
    return folder


def commit(folder: Path, tag: str, file: str, text: str) -> None:
    (folder / file).write_text(text)
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", tag)
    git(folder, "tag", tag)
