"""A sweep as so many shards, each a job of a batch system: it goes on where it was when the job is run again."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mixprof.data.histories import is_url
from mixprof.plan.place import Place


@dataclass(frozen=True)
class Batch:
    """The command of a sweep without its place and folder, and where its shards go."""

    command: tuple[str, ...]
    place: Place
    out: str  # of the merged run; a URL's shards are at URLs, too

    @property
    def shards(self) -> str:
        """Where the shards' run folders lie."""
        return self.out.rstrip("/") + "-shards"

    def folder(self, index: int | str) -> Path:
        """The run folder of a shard on this machine's disk."""
        return Path(self.shards) / str(index)

    def of(self, index: int) -> list[str]:
        """A shard's command, in a folder that is there and may be empty."""
        shard = ("--shard", f"{index}/{self.place.shards}", "--out", f"{self.shards}/{index}", "--resume")
        return [sys.executable, "-m", "mixprof", *self.command, *shard]

    def in_shell(self, index: str) -> str:
        """Shell lines that run the shard with the number that a shell's expression gives."""
        folder = f"{shlex.quote(self.shards)}/$shard"
        made = "" if is_url(self.out) else f"mkdir -p {folder}\n"
        return (
            f"shard={index}\n{made}"
            f"exec mixprof {join(self.command)} --shard $shard/{self.place.shards} --out {folder} --resume\n"
        )

    @property
    def then(self) -> str:
        """What is to be done when all shards have ended."""
        shards = " ".join(f"{shlex.quote(self.shards)}/{index}" for index in range(1, self.place.shards + 1))
        out = self.out.rstrip("/").rpartition("/")[2] if is_url(self.out) else self.out
        return f"mixprof merge {shards} --out {shlex.quote(out)} --strict"


def join(words: Sequence[str]) -> str:
    """Words as a shell reads them."""
    return shlex.join(words)
