"""The cases of one shard of a sweep, by seconds that are predicted for a machine that is the same everywhere."""

from __future__ import annotations

from dataclasses import replace

from mixprof.data.messages import Machine
from mixprof.plan.axes import Planned
from mixprof.plan.settings import Measure
from mixprof.plan.shards import Shard, split
from mixprof.plan.sources import anchor_cases
from mixprof.run.outlook import predict
from mixprof.run.session import Session


def part(planned: list[Planned], shard: Shard, measure: Measure, asked: Session, machine: Machine) -> list[Planned]:
    """The shard's own cases, in the order of the sweep, after the anchors that these need."""
    nominal = replace(machine, testbed={**machine.testbed, "threads": 1})
    cases = [entry for entry in planned if not entry.case.is_anchor]
    expected = predict(cases, measure, asked.count, asked.formulas, nominal)
    mine = set(split({row.case: row.estimated_s or 0.0 for row in expected.cases}, shard.of)[shard.index - 1])
    anchors = anchor_cases([entry.case for entry in cases if entry.case in mine and entry.reason is None])
    return [entry for entry in planned if entry.case in mine or entry.case in anchors]
