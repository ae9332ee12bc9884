"""Rounds of an `ab` job: every case of the grid once on both sides, interleaved, in random order, with a canary."""

import json
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mixprof.data.case import Case, is_simulated
from mixprof.data.imports import Imports
from mixprof.data.pairs import Failure, Paired
from mixprof.gate.causes import explain
from mixprof.gate.pair import BLOCK_S, Ended, PairSamples, round_of
from mixprof.gate.sides import Side
from mixprof.machine.process import default_threads
from mixprof.plan.axes import Planned
from mixprof.plan.settings import Measure
from mixprof.run.client import Server, ServerDied
from mixprof.run.executors.local import preload
from mixprof.run.launching import choices_of, reference_of, request_of

CANARY = "canary"  # the side that is BASE once more
TRIES = 3  # of a round that others disturbed; then it is given up
JOURNAL = "pairs.jsonl"
Check = Callable[[Side, Iterable[Imports]], None]


@dataclass(frozen=True)
class Entry:
    """One case on both sides: the same experiment, but for what a side sets for itself."""

    pair: Paired
    base: Planned
    head: Planned

    @classmethod
    def itself(cls, planned: Planned, case: Case, failure: Failure | None = None) -> "Entry":
        """One side against itself; with a failure, a case that the other side cannot even plan."""
        return cls(Paired(case, planned.case, planned.case, failure=failure, uncounted=failure), planned, planned)


class Rounds:
    """Runs rounds of a grid and journals each pair when it ends.

    extra_work: share of extra work that HEAD's processes do, for calibration. check: raises for code that is not a
    side's own, which a forward may import as late as this.
    """

    def __init__(
        self, sides: tuple[Side, Side], measure: Measure, folder: Path, extra_work: float = 0.0,
        check: Check = lambda side, imports: None,
    ):  # fmt: skip
        self.sides = dict(zip(("base", "head", CANARY), (*sides, sides[0]), strict=True))
        self.measure, self.folder, self.extra_work = measure, folder, extra_work
        self.threads = measure.threads or default_threads()
        self.settings = {**asdict(measure), "threads": self.threads}
        self.check = check
        self.spent_s = 0.0
        self._generator = random.Random(measure.seed)
        self._requests = 0

    def run(self, entries: Sequence[Entry], canary: Entry | None, stop: Callable[[], bool]) -> None:
        """Run one round: fresh servers, the cases in random order, the canary among them."""
        start = time.monotonic()
        waiting = [(entry, "head") for entry in entries if entry.pair.failure is None]
        waiting += [(canary, CANARY)] if canary and canary.pair.failure is None else []
        self._generator.shuffle(waiting)
        planned = [side for entry, _ in waiting for side in (entry.base, entry.head)]
        servers: dict[str, Server] = {}
        try:
            for entry, against in waiting:
                if stop():
                    return
                for side in ("base", against):
                    if side not in servers:
                        servers[side] = self._server(side, planned)
                self._measure(entry, against, servers, stop)
        finally:
            for server in servers.values():
                server.close()
            self.spent_s += time.monotonic() - start

    def _server(self, name: str, planned: Iterable[Planned]) -> Server:
        settings = (preload(planned), self.threads, self.measure.allocator)
        return Server(self.folder / name, *settings, self.sides[name].origin)

    def _measure(self, entry: Entry, against: str, servers: dict[str, Server], stop: Callable[[], bool]) -> None:
        """Measure one case until a round of it was undisturbed, or its tries are over."""
        for number in range(TRIES):
            if number and stop():  # no time to try again
                break
            try:
                planned = {"base": entry.base, against: entry.head}
                requests = {side: self._request(servers[side], side, planned[side]) for side in planned}
                sides = {side: (servers[side], requests[side]) for side in planned}
                seconds = 0.0 if is_simulated(entry.base.case.device) else BLOCK_S  # its blocks take none of ours
                samples, *launches = round_of(sides, self._generator, self.measure.timeout, seconds)
            except Failed as failed:
                entry.pair.failure = failed.failure
                return
            except Ended as ended:
                entry.pair.failure = self._failure(ended.side, ended.values)
                return
            except ServerDied as error:
                # Blamed on the side whose server has ended: that of BASE is nothing that HEAD did.
                died = next((side for side in ("base", against) if servers[side].ended), against)
                for side in ("base", against):
                    servers.pop(side).close()
                entry.pair.failure = Failure(died, "crashed", str(error))
                return
            for side in {"base", against}:
                self.check(self.sides[side], servers[side].imports)
            self._write(entry, against, samples)
            if (samples.lost_share or 0.0) <= self.measure.max_lost_cpu:
                proofs = [launch["proof"] or {} for launch in launches]
                _count(entry.pair, samples, dict(zip(("base", against), proofs, strict=True)))
                return
        entry.pair.disturbed += 1

    def _request(self, server: Server, side: str, planned: Planned) -> dict[str, Any]:
        """A resident process's request; its reference is made first where this side has none yet."""
        request, reference = request_of(planned), reference_of(server, planned.case)
        if not reference.exists():
            values = server.run("prepare", self.measure.timeout, reference=str(reference), **request).values
            if values["status"] != "ok":
                raise Failed(self._failure(side, values))
        more: dict[str, Any] = {"extra_work": self.extra_work} if side == "head" and self.extra_work else {}
        more["choices"] = choices_of(server, planned, self.settings)
        self._requests += 1
        more["noise"] = f"pair {self._requests}"
        return {**request, "reference": str(reference), "measure": self.settings, "max_memory": None, **more}

    def _failure(self, name: str, values: Mapping[str, Any]) -> Failure:
        reason = explain(self.sides[name], str(values.get("reason") or ""))
        return Failure("base" if name == CANARY else name, str(values["status"]), reason)

    def _write(self, entry: Entry, against: str, samples: PairSamples) -> None:
        """Append one line to the job's journal."""
        line = {
            "canary": against == CANARY,
            "base": entry.base.case.to_json(),
            "head": entry.head.case.to_json(),
            "base_ms": samples.base_ms,
            "head_ms": samples.head_ms,
            "head_forwards_per_sample": samples.head_repeats,
            "lost_share": samples.lost_share,
            "difference": samples.difference,
            "base_enqueue_ms": samples.base_enqueue_ms,
            "head_enqueue_ms": samples.head_enqueue_ms,
            "host_difference": samples.host_difference,
            "host_bound": samples.host_bound,
        }
        with (self.folder / JOURNAL).open("a") as file:
            file.write(json.dumps(line) + "\n")


def _count(pair: Paired, samples: PairSamples, proofs: Mapping[str, dict[str, Any]]) -> None:
    """Add a round that counts."""
    pair.differences.append(samples.difference)
    pair.host_differences += [] if samples.host_difference is None else [samples.host_difference]
    pair.host_bound |= samples.host_bound
    pair.head_ms.append([ms for block in samples.head_ms for ms in block])
    pair.head_repeats = max(samples.head_repeats, pair.head_repeats)
    pair.proofs = proofs


class Failed(Exception):
    """A side cannot do a case."""

    def __init__(self, failure: Failure):
        super().__init__(failure.reason)
        self.failure = failure
