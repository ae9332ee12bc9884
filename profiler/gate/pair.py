"""Two resident processes of one case, one on each side, that take samples in turn: A B B A."""

import itertools
import json
import math
import os
import random
import select
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixprof.run.client import Server, ServerDied

ITERATIONS = 5  # samples in a row of one side
BLOCKS = 6  # of A B B A, at least
BLOCK_S = 1.0  # and for as long as this


class Ended(Exception):
    """A resident process ended before it was told to; `values` say how."""

    def __init__(self, values: dict[str, Any], side: str = ""):
        super().__init__(values.get("reason"))
        self.values, self.side = values, side


class Resident:
    """The parent's end of one resident process, which is stopped while it is not asked for anything.

    Threads that wait for work spin for milliseconds, longer than a turn of a small mixer takes: the other side's time.
    """

    _number = itertools.count()

    def __init__(self, side: str, server: Server, timeout_s: float, **request: Any):
        self.side, self.server, self.timeout_s = side, server, timeout_s
        name = f"pipe-{os.getpid()}-{next(self._number)}"
        self._paths = [server.scratch / f"{name}.{way}" for way in ("asks", "answers")]
        for path in self._paths:
            os.mkfifo(path, 0o600)
        # Opened for both ways: neither end waits for the other, and a reader is always there.
        self._asks, self._answers = (os.open(path, os.O_RDWR) for path in self._paths)
        self._buffer = b""
        self.repeats = 1  # forwards in one sample
        try:
            self.running = server.begin("resident", asks=str(self._paths[0]), answers=str(self._paths[1]), **request)
        except BaseException:
            self._close()
            raise

    def ready(self) -> None:
        """Wait until it is lowered and warm. Ended when it ends instead."""
        self.repeats = self._answer()["forwards_per_sample"]
        self.server.pause()

    def take(self, samples: int) -> tuple[list[float], float | None]:
        """So many samples in milliseconds per forward, and the share of its CPU time that others took meanwhile."""
        self.server.resume()
        os.write(self._asks, json.dumps({"take": samples}).encode() + b"\n")
        answer = self._answer()
        self.server.pause()
        return answer["ms"], answer["lost"]

    def end(self) -> dict[str, Any]:
        """Let it end; the fields of its Launch."""
        try:
            self.server.resume()
            os.write(self._asks, b'{"end": true}\n')
            return self.server.finish(self.running, self.timeout_s).values
        finally:
            self._close()

    def kill(self) -> None:
        self.server.kill_job()
        self.end()

    def _answer(self) -> dict[str, Any]:
        deadline = time.monotonic() + self.timeout_s
        while b"\n" not in self._buffer:
            waited = [self._answers, self.server.descriptor]
            ready, _, _ = select.select(waited, [], [], max(0.0, deadline - time.monotonic()))
            if self._answers in ready:
                self._buffer += os.read(self._answers, 1 << 20)
            elif ready or time.monotonic() >= deadline:
                try:
                    # What is asked of a process that has ended is answered at once; one that is late is ended.
                    values = self.server.finish(self.running, 0.0 if not ready else self.timeout_s).values
                finally:
                    self._close()
                raise Ended(values, self.side)
        line, self._buffer = self._buffer.split(b"\n", 1)
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _close(self) -> None:
        for descriptor in (self._asks, self._answers):
            os.close(descriptor)
        for path in self._paths:
            path.unlink(missing_ok=True)


@dataclass(frozen=True)
class PairSamples:
    """Samples of one round of one case in milliseconds, in the order of their blocks."""

    base_ms: tuple[tuple[float, ...], ...]
    head_ms: tuple[tuple[float, ...], ...]
    lost_share: float | None  # of the CPU time, on the worse side
    head_repeats: int = 1  # forwards in one of HEAD's samples

    @property
    def difference(self) -> float:
        """The log of HEAD over BASE: the median over blocks."""
        return difference(self.base_ms, self.head_ms)


def difference(base: Sequence[Sequence[float]], head: Sequence[Sequence[float]]) -> float:
    pairs = zip(base, head, strict=True)
    return statistics.median(math.log(statistics.median(b) / statistics.median(a)) for a, b in pairs)


def take_turns(base: Resident, head: Resident, generator: random.Random, seconds: float = BLOCK_S) -> PairSamples:
    """Blocks of A B B A or B A A B, five samples at a time, until there are enough of them."""
    blocks: list[tuple[list[float], list[float]]] = []
    lost: list[float] = []
    start = time.monotonic()
    while len(blocks) < BLOCKS or time.monotonic() - start < seconds:
        first, second = (base, head) if generator.random() < 0.5 else (head, base)
        taken: dict[Resident, list[float]] = {base: [], head: []}
        for side in (first, second, second, first):
            samples, share = side.take(1 + ITERATIONS)
            taken[side] += samples[1:]  # the first finds caches full of the other side's
            lost += [] if share is None else [share]
        blocks.append((taken[base], taken[head]))
    shares = statistics.fmean(lost) if lost else None
    return PairSamples(tuple(tuple(a) for a, _ in blocks), tuple(tuple(b) for _, b in blocks), shares, head.repeats)


def round_of(
    sides: dict[str, tuple[Server, dict[str, Any]]],
    generator: random.Random,
    timeout_s: float,
    seconds: float = BLOCK_S,
) -> tuple[PairSamples, dict[str, Any], dict[str, Any]]:
    """One round of one case: the samples, and each side's Launch. Ended or ServerDied when a side fails.

    sides: name -> server and request, BASE first.
    """
    residents: list[Resident] = []
    try:
        for name, (server, request) in sides.items():
            residents.append(Resident(name, server, timeout_s, **request))
            residents[-1].ready()  # one after the other: building is not to be raced
        samples = take_turns(residents[0], residents[1], generator, seconds)
        return samples, residents[0].end(), residents[1].end()
    except (Ended, ServerDied):
        for resident in residents:
            if resident.server.busy:
                resident.kill()
        raise


def scratch_of(folder: Path, side: str) -> Path:
    """Make a side's own scratch below a job's."""
    scratch = folder / side
    scratch.mkdir(parents=True, exist_ok=True)
    return scratch
