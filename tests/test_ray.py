"""Sweeps over a real Ray cluster of several nodes: nodes and the driver are killed, and every case is there once."""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from mixprof.data import run_folder
from mixprof.data.fleet import runs_in

pytest.importorskip("ray")
from ray_clusters import cluster

TESTS = Path(__file__).parent
# of the first test: at least 6 cases, launches of each
CASES, LAUNCHES = int(os.environ.get("MIXPROF_RAY_CASES", "9")), int(os.environ.get("MIXPROF_RAY_LAUNCHES", "2"))
TIMEOUT_S = 600 + 20 * CASES * LAUNCHES
QUICK = ("--quick", "--threads", "1", "--max-lost-cpu", "1", "--devices", "cpu")
AXES = ("--models", "depthwise_conv", "--resolutions", "7", "--channels", "32")
pytestmark = pytest.mark.slow


def command(*arguments):
    return [sys.executable, "-m", "mixprof", *map(str, arguments)]


def environment(address="", **more):
    return {**os.environ, "PYTHONPATH": str(TESTS.parent / "src"), "RAY_ADDRESS": address, **more}


def mixprof(*arguments, address="", cwd=TESTS, **more):
    return subprocess.run(
        command(*arguments),
        cwd=cwd,
        env=environment(address, **more),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    with cluster(tmp_path_factory.mktemp("nodes")) as started:
        yield started


def journals(run):
    folders = runs_in(run) if (run / "fleet.json").exists() else []
    return [line for folder in folders for line in run_folder.read_launches(folder)]


def overlapping(launches):
    """Pairs of timings that overlapped on one node, from the intervals that they recorded."""
    by_node: dict[str, list[tuple[float, float, str]]] = {}
    for case, launch in launches:
        place = launch.environment
        by_node.setdefault(place.origin, []).append((place.began_s, place.ended_s, case.label()))
    pairs = [pair for times in by_node.values() for pair in zip(sorted(times), sorted(times)[1:], strict=False)]
    return [(before, after) for before, after in pairs if after[0] < before[1]]


def test_nodes_and_the_driver_are_killed_and_every_case_is_there_once(nodes, tmp_path):
    """Two nodes and a driver are killed, in a longer run more, at launches and on nodes that are drawn."""
    chance, run, said = random.Random(16), tmp_path / "run", tmp_path / "stderr"
    axes = (*AXES, "--batches", ",".join(map(str, range(1, CASES + 1))), *QUICK, "--launches", LAUNCHES)
    for name in ("one", "two", "three"):
        nodes.add(name, "H100")

    def begin(*more):
        with said.open("ab") as errors:
            to = ("--on", "ray", "--out", run, *more)
            return subprocess.Popen(
                command("sweep", *axes, *to), cwd=TESTS, env=environment(nodes.address), stderr=errors
            )

    def after(launches):
        while len(journals(run)) < launches:
            assert driver.poll() is None, said.read_text()
            time.sleep(0.2)

    driver, before = begin(), journals(run)
    more = ["node"] * (CASES // 50) + ["driver"] * (CASES // 150)
    kinds = ["node", "driver", "node", *chance.sample(more, len(more))]
    times = sorted(chance.sample(range(3, CASES * LAUNCHES - 4), len(kinds)))
    for number, (kind, least) in enumerate(zip(kinds, times, strict=True)):
        after(least)
        if kind == "node":
            nodes.kill(chance.choice(sorted(nodes.nodes)))
            nodes.add(f"more-{number}", "H100")
        else:
            driver.send_signal(signal.SIGKILL)
            driver.wait()
            assert journals(run)[: len(before)] == before
            before = journals(run)
            driver = begin("--resume")
    assert driver.wait(timeout=TIMEOUT_S) == 0, said.read_text()

    local = mixprof("sweep", *axes, "--launches", "1", "--seconds", "0.05", "--out", tmp_path / "local")
    assert local.returncode == 0, local.stderr
    (folder,) = runs_in(run)
    records, launches = run_folder.read_records(folder), run_folder.read_launches(folder)
    assert counts_of(records) == counts_of(run_folder.read_records(tmp_path / "local"))
    assert Counter((case.key, launch.round) for case, launch in launches) == {
        (record.case.key, round): 1
        for record in records
        for round in range(LAUNCHES if record.status == "ok" else len(record.launches))
    }
    assert launches[: len(before)] == before  # nothing that arrived before a driver died was measured again
    assert overlapping(launches) == []
    lost = sum(launch.environment.lost or 0 for _, launch in launches)
    assert 1 <= lost <= said.read_text().count("launched anew")  # what the killed driver had lost, it had said
    origins = {launch.environment.origin for _, launch in launches}
    assert set(run_folder.read_manifest(folder).origins or {}) >= origins
    unstable = sum(record.status == "unstable" for record in records)
    print(
        f"{len(records)} cases ({unstable} unstable), {len(launches)} launches on {len(origins)} nodes; "
        f"killed -9: {kinds.count('node')} "
        f"nodes, {kinds.count('driver')} drivers, at launches {times}; {lost} launches lost and made anew; "
        "every case once, as a local run's; overlaps 0"
    )


def counts_of(records):
    """Each case of a run once, with what does not depend on time. On a busy machine a few find no steady state."""
    assert len({record.case for record in records}) == len(records)
    assert {record.status for record in records} <= {"ok", "unstable"}
    return {record.case.key: (record.params, record.macs) for record in records}


def test_each_accelerator_is_a_testbed_with_the_same_cases(nodes, tmp_path):
    nodes.have("H100", "L4")
    run = tmp_path / "run"
    to = ("--accelerators", "H100,L4", "--out", run)
    done = mixprof("sweep", *AXES, *QUICK, "--on", f"ray://{nodes.address}", *to)
    assert done.returncode == 0, done.stderr
    cases = {folder.name.split("-")[0]: {r.case for r in run_folder.read_records(folder)} for folder in runs_in(run)}
    assert set(cases) == {"h100", "l4"}
    assert cases["h100"] == cases["l4"]
    assert len(cases["l4"]) == 2
    on = {run_folder.read_manifest(folder).accelerator: folder for folder in runs_in(run)}
    origins = {label: {line[1].environment.origin for line in run_folder.read_launches(on[label])} for label in on}
    assert origins["H100"].isdisjoint(origins["L4"])
    assert all((folder / "peaks.json").exists() for folder in runs_in(run))
    again = mixprof("sweep", *AXES, *QUICK, "--on", "ray", *to, "--resume", address=nodes.address)
    assert again.returncode == 0, again.stderr
    assert "[1/" not in again.stderr
    assert mixprof("report", run, "--out", tmp_path / "report").returncode == 0


MINE = "from torch import nn\n\n\ndef wide(channels):\n    return nn.Linear(channels, channels)\n"


def test_the_users_code_travels_with_the_current_folder(nodes, tmp_path):
    nodes.have("H100")
    (tmp_path / "mine.py").write_text(MINE)
    sweep = ("sweep", "--models", "mine:wide", "--resolutions", "4", "--channels", "32", *QUICK)
    to = ("--on", "ray", "--accelerators", "H100", "--out", "run")
    done = mixprof(*sweep, *to, address=nodes.address, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {launch.status for _, launch in journals(tmp_path / "run")} == {"ok"}


def test_what_cannot_be_is_one_line(nodes, tmp_path):
    nodes.have("H100", "L4")

    def refused(*more, **where):
        done = mixprof("sweep", *AXES, *QUICK, *more, "--out", tmp_path / "never", **where)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
        assert not (tmp_path / "never").exists()
        return done.stderr

    here = {"address": nodes.address}
    assert "got nodes with H100, L4, expected --accelerators" in refused("--on", "ray", **here)
    assert "--accelerators: got 'H200', expected H100" in refused("--on", "ray", "--accelerators", "H200", **here)
    assert "got device cuda:1, expected cuda:0" in refused("--on", "ray", "--devices", "cuda:1", **here)
    assert "none of" in refused("--on", "ray", "--devices", "cuda:0", **here)
    assert "got no cluster at '127.0.0.1:9'" in refused("--on", "ray://127.0.0.1:9")
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "elsewhere.py").write_text(MINE)
    path = f"{TESTS.parent / 'src'}:{tmp_path / 'lib'}"
    models = ("--models", "elsewhere:wide", "--on", "ray", "--accelerators", "H100")
    assert "'elsewhere:wide' cannot be imported there" in refused(*models, PYTHONPATH=path, **here)
