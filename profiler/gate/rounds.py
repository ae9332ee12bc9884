"""The rounds of an `ab` job: every case of the grid once on both sides, interleaved, in random order, with a canary."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mixprof.data.types import digest
from mixprof.gate.pair import Duel, Ended, round_of, scratch_of
from mixprof.gate.sides import Side
from mixprof.plan.axes import Measure, Planned
from mixprof.run.client import Server, ServerDied, source_request
from mixprof.run.executors.local import preload

CANARY = "canary"
TRIES = 3  # of a round that others disturbed; then it is given up


@dataclass
class Pairs:
    """What a job has so far of each case: differences by round, and why it cannot go on, if it cannot."""

    differences: dict[str, list[float]] = field(default_factory=dict)
    failed: dict[str, tuple[str, str, str]] = field(default_factory=dict)  # key -> side, status, reason
    disturbed: dict[str, int] = field(default_factory=dict)  # key -> rounds given up
    head_ms: dict[str, list[list[float]]] = field(default_factory=dict)  # key -> its samples in each round that counts
    head_repeats: dict[str, int] = field(default_factory=dict)  # key -> most forwards in one of these
    proofs: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)  # key -> side -> proof
    spent_s: float = 0.0


@dataclass(frozen=True)
class Entry:
    """One case on both sides: the same experiment, but for what a side overrides."""

    key: str
    base: Planned
    head: Planned


class Rounds:
    """Runs rounds of a grid and writes each duel to a journal when it ends."""

    def __init__(self, base: Side, head: Side, measure: Measure, folder: Path, threads: int):
        self.sides = {"base": base, "head": head, CANARY: base}
        self.measure, self.folder, self.threads = measure, folder, threads
        self.settings = {**measure.__dict__, "threads": threads}
        self.more: dict[str, dict[str, Any]] = {}  # what a side's processes are told besides
        self.pairs = Pairs()
        self._generator = random.Random(measure.seed)

    def run(self, entries: list[Entry], canary: Entry | None, stop: Callable[[], bool]) -> None:
        """One round: fresh servers, the cases in random order, the canary among them."""
        start = time.monotonic()
        waiting = [(each, "head") for each in entries if each.key not in self.pairs.failed]
        waiting += [(canary, CANARY)] if canary else []
        self._generator.shuffle(waiting)
        servers: dict[str, Server] = {}
        try:
            for entry, against in waiting:
                if stop():
                    return
                for name in ("base", against):
                    if name not in servers:
                        servers[name] = self._server(
                            name, (each for pair, _ in waiting for each in (pair.base, pair.head))
                        )
                self._fight(entry, against, servers, stop)
        finally:
            for server in servers.values():
                server.close()
            self.pairs.spent_s += time.monotonic() - start

    def _server(self, name: str, planned: Iterable[Planned]) -> Server:
        side = self.sides[name]
        return Server(
            scratch_of(self.folder, name), preload(planned), self.threads, self.measure.allocator,
            python=side.python, path=side.path, folder=side.folder,
        )  # fmt: skip

    def _fight(self, entry: Entry, against: str, servers: dict[str, Server], stop: Callable[[], bool]) -> None:
        key = CANARY if against == CANARY else entry.key
        sides = {"base": entry.base, against: entry.base if against == CANARY else entry.head}
        for number in range(TRIES):
            if number and stop():  # no time to try again
                break
            try:
                requests = [self._request(servers[name], name, planned) for name, planned in sides.items()]
                duel, *launches = round_of(
                    {name: (servers[name], each) for name, each in zip(sides, requests, strict=True)},
                    self._generator,
                    self.measure.timeout,
                )
            except Failed as failure:
                self.pairs.failed[key] = failure.where
                return
            except Ended as ended:
                self.pairs.failed[key] = (ended.side, ended.values["status"], str(ended.values.get("reason")))
                return
            except ServerDied as error:
                # Blamed on the side whose server has ended: that of BASE is no finding about HEAD.
                died = next((name for name in sides if servers[name].ended), against)
                for name in sides:
                    servers.pop(name).close()
                self.pairs.failed[key] = (died, "crashed", str(error))
                return
            self._write(key, entry, duel)
            if (duel.lost_share or 0.0) <= self.measure.max_lost_cpu:
                self.pairs.differences.setdefault(key, []).append(duel.difference)
                self.pairs.head_ms.setdefault(key, []).append([ms for block in duel.head_ms for ms in block])
                self.pairs.head_repeats[key] = max(duel.head_repeats, self.pairs.head_repeats.get(key, 1))
                self.pairs.proofs[key] = {name: each["proof"] or {} for name, each in zip(sides, launches, strict=True)}
                return
        self.pairs.disturbed[key] = self.pairs.disturbed.get(key, 0) + 1

    def _request(self, server: Server, side: str, planned: Planned) -> dict[str, Any]:
        """What a resident process is told; its reference is made first where this side has none yet."""
        case = planned.case
        request = {"source": source_request(planned.source), "case": case.to_json()}
        shared = digest({**case.to_json(), "lowering": None, "device": None, "layout": None, "mode": None})
        reference = server.scratch / "references" / f"{shared}.pt"
        reference.parent.mkdir(exist_ok=True)
        (server.scratch / "cache").mkdir(exist_ok=True)
        if not reference.exists():
            values = server.run("prepare", self.measure.timeout, reference=str(reference), **request).values
            if values["status"] != "ok":
                raise Failed(side, values)
        return {**request, "reference": str(reference), "measure": self.settings, "max_memory": None,
                **self.more.get(side, {})}  # fmt: skip

    def _write(self, key: str, entry: Entry, duel: Duel) -> None:
        line = {
            "key": key,
            "base": entry.base.case.to_json(),
            "head": entry.head.case.to_json(),
            "base_ms": duel.base_ms,
            "head_ms": duel.head_ms,
            "head_forwards_per_sample": duel.head_repeats,
            "lost_share": duel.lost_share,
            "difference": duel.difference,
        }
        with (self.folder / "duels.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")


class Failed(Exception):
    """A side cannot do a case."""

    def __init__(self, side: str, values: dict[str, Any]):
        super().__init__(values.get("reason"))
        self.where = (side, str(values["status"]), str(values.get("reason") or ""))
