"""The driver of `--on ray` over simulated nodes, which die with some of their launches, loudly or silently."""

import json
import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from mixprof.data import fleet, run_folder
from mixprof.data.launch import Launch, Samples
from mixprof.plan.axes import Planned
from mixprof.plan.settings import Measure
from mixprof.plan.sources import ANCHOR
from mixprof.run.executors.ray import dispatch
from simulated_nodes import SimulatedTasks, drive, nodes_of
from synthetic_runs import case

TESTS = Path(__file__).parent
LABELS = ["H100", "L4"]


def launch(task, round):
    return Launch("ok", host_ms=Samples((float(task.entry.case.batch), 2.0, 3.0), 1))


@pytest.mark.parametrize(("deaths", "silence"), [(0.1, 0.0), (0.05, 0.05)])
def test_every_case_is_there_once_and_no_two_timings_share_a_node(deaths, silence, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(dispatch, "WAIT_S", 0.0)
    monkeypatch.setattr(dispatch, "GONE_S", 0.0)
    planned = [Planned(case(batch=batch), ANCHOR) for batch in range(1, 61)]
    nodes = nodes_of(LABELS, 5)
    tasks = SimulatedTasks({node.id: node for node in nodes}, launch, random.Random(1), deaths, silence)
    drive(planned, tmp_path, Measure(launches=3), tasks)
    runs = fleet.runs_in(tmp_path) if fleet.is_fleet(tmp_path) else sorted(tmp_path.iterdir())
    assert len(runs) == 2
    lost = 0
    for run in runs:
        journal = run_folder.read_launches(run)
        assert Counter((of.batch, one.round) for of, one in journal) == {
            (batch, round): 1 for batch in range(1, 61) for round in range(3)
        }
        assert sorted(record.case.batch for record in run_folder.read_records(run)) == list(range(1, 61))
        assert all(one.host_ms and one.host_ms.samples[0] == of.batch for of, one in journal)
        by_node: dict[str | None, list[tuple[float, float]]] = {}
        for _, one in journal:
            place = one.environment
            by_node.setdefault(place.origin, []).append((place.began_s or 0.0, place.ended_s or 0.0))
        for times in by_node.values():
            assert all(before[1] <= after[0] for before, after in zip(sorted(times), sorted(times)[1:], strict=False))
        lost += sum(one.environment.lost or 0 for _, one in journal)
    assert lost == tasks.lost > 10
    assert capsys.readouterr().err.count("launched anew") == lost


@pytest.mark.long
@pytest.mark.slow
def test_the_proof_at_scale_runs_small(tmp_path):
    pytest.importorskip("ray")
    script = TESTS.parent / "scripts" / "proofs" / "fleet_scale.py"
    small = ("--nodes", "8", "--cases", "96", "--json")
    environment = {**os.environ, "PYTHONPATH": str(TESTS.parent / "src"), "TMPDIR": str(tmp_path)}
    done = subprocess.run([sys.executable, str(script), *small], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["records"] == 96
