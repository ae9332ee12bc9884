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
from typing import Any, NamedTuple

from mixprof.data.launch import is_host_bound
from mixprof.run.client import Server, ServerDied

ITERATIONS = 5  # samples in a row of one side
BLOCKS = 6  # of A B B A, at least
BLOCK_S = 1.0  # and for as long as this


class Taken(NamedTuple):
    """The samples of one turn in milliseconds; a CPU has none of the second."""

    ms: list[float]
    enqueue_ms: list[float]
    lost: float | None


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
        self.repeats, self.gated = 1, False  # forwards in one sample; see streams.Queue
        try:
            self.running = server.begin("resident", asks=str(self._paths[0]), answers=str(self._paths[1]), **request)
        except BaseException:
            self._close()
            raise

    def ready(self) -> None:
        """Wait until it is lowered and warm. Ended when it ends instead."""
        answer = self._answer()
        self.repeats, self.gated = answer["forwards_per_sample"], answer.get("gated", False)
        self.server.pause()

    def take(self, samples: int) -> Taken:
        """So many samples in milliseconds per forward, and the share of its CPU time that others took meanwhile."""
        self.server.resume()
        os.write(self._asks, json.dumps({"take": samples}).encode() + b"\n")
        answer = self._answer()
        self.server.pause()
        return Taken(answer["ms"], answer.get("enqueue_ms", []), answer["lost"])

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
    base_enqueue_ms: tuple[tuple[float, ...], ...] = ()  # none on a CPU
    head_enqueue_ms: tuple[tuple[float, ...], ...] = ()
    head_gated: bool = True

    @property
    def difference(self) -> float:
        """The log of HEAD over BASE: the median over blocks."""
        return difference(self.base_ms, self.head_ms)

    @property
    def host_difference(self) -> float | None:
        """Of the times to enqueue a forward; None on a CPU."""
        return difference(self.base_enqueue_ms, self.head_enqueue_ms) if self.head_enqueue_ms else None

    @property
    def host_bound(self) -> bool:
        """Whether HEAD's forward takes as long to enqueue as to run, or its queue does not hold it."""
        if not self.head_enqueue_ms:
            return False
        enqueue, run = (statistics.median(itertools.chain(*of)) for of in (self.head_enqueue_ms, self.head_ms))
        return not self.head_gated or is_host_bound(enqueue, run)


def difference(base: Sequence[Sequence[float]], head: Sequence[Sequence[float]]) -> float:
    pairs = zip(base, head, strict=True)
    return statistics.median(math.log(statistics.median(b) / statistics.median(a)) for a, b in pairs)


def take_turns(base: Resident, head: Resident, generator: random.Random, seconds: float = BLOCK_S) -> PairSamples:
    """Blocks of A B B A or B A A B, five samples at a time, until there are enough of them."""
    blocks: list[dict[Resident, list[Taken]]] = []
    start = time.monotonic()
    while len(blocks) < BLOCKS or time.monotonic() - start < seconds:
        first, second = (base, head) if generator.random() < 0.5 else (head, base)
        blocks.append({base: [], head: []})
        for side in (first, second, second, first):
            blocks[-1][side].append(side.take(1 + ITERATIONS))
    shares = [turn.lost for block in blocks for turns in block.values() for turn in turns if turn.lost is not None]

    def of(side: Resident, time: str) -> tuple[tuple[float, ...], ...]:
        """By block; the first sample of a turn finds caches full of the other side's."""
        taken = [[sample for turn in block[side] for sample in getattr(turn, time)[1:]] for block in blocks]
        return tuple(tuple(samples) for samples in taken if samples)

    return PairSamples(
        of(base, "ms"), of(head, "ms"), statistics.fmean(shares) if shares else None, head.repeats,
        of(base, "enqueue_ms"), of(head, "enqueue_ms"), head.gated,
    )  # fmt: skip


def round_of(
    sides: dict[str, tuple[Server, dict[str, Any]]], generator: random.Random, timeout_s: float, seconds: float
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
