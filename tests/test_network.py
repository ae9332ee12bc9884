"""A Ray cluster of nodes in network namespaces, a bridge between them; one's cable is cut while it times a case.

Nothing of this reaches the machine's own network: all is in namespaces that end with the test. Skipped where they are
not allowed, and unless MIXPROF_NETNS=1 asks for it: it takes a minute or two.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from mixprof.data import run_folder
from mixprof.data.fleet import runs_in

pytest.importorskip("ray")
from test_ray import overlapping

TESTS = Path(__file__).parent
OWN = ("unshare", "-rnm", "--pid", "--fork", "--kill-child", "--mount-proc")
AXES = "--models depthwise_conv --resolutions 7 --channels 32 --batches 1,2,3 --devices cpu"
NODES = """
set -e
mount -t tmpfs none /run
ip link set lo up
ip link add br0 type bridge
ip link set br0 up
for i in 1 2 3; do
  ip netns add n$i
  ip link add v$i type veth peer name eth0 netns n$i
  ip link set v$i master br0 up
  ip -n n$i addr add 10.99.0.$i/24 dev eth0
  ip -n n$i link set eth0 up
  ip -n n$i link set lo up
  mkdir $i
done
"""
SWEEP = """
ip netns exec n1 ray start --head --node-ip-address=10.99.0.1 --port=6379 --num-cpus=0 --include-dashboard=false \
  --temp-dir=/run/ray --disable-usage-stats > head.txt 2>&1
for i in 2 3; do
  TMPDIR=$PWD/$i ip netns exec n$i ray start --address=10.99.0.1:6379 --node-ip-address=10.99.0.$i --num-cpus=1 \
    > node$i.txt 2>&1
done
ip netns exec n1 $PYTHON -m mixprof sweep $AXES --quick --threads 1 --max-lost-cpu 1 --on ray://10.99.0.1:6379 \
  --out run 2> said.txt &
driver=$!
until [ "$(cat run/*/launches.jsonl 2> /dev/null | wc -l)" -ge 1 ]; do sleep 0.2; kill -0 $driver; done
ip link set v2 down
wait $driver
"""


def inside(script, folder, timeout):
    """Run a script in namespaces of its own, which end with it."""
    without = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    environment = {
        **without, "PATH": f"{sysconfig.get_path('scripts')}:{os.environ['PATH']}", "PYTHON": sys.executable,
        "PYTHONPATH": str(TESTS.parent / "src"), "AXES": AXES, "HOME": str(folder), "RAY_AUTH_MODE": "disabled",
        "RAY_raylet_start_wait_time_s": "180", "RAY_health_check_period_ms": "1000",
        "RAY_health_check_failure_threshold": "10",
    }  # fmt: skip
    command = [*OWN, "bash", "-c", script]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=timeout)


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("MIXPROF_NETNS"), reason="MIXPROF_NETNS=1 asks for it: minutes")
def test_a_node_behind_a_cut_cable_takes_its_running_launch_alone(tmp_path):
    if not shutil.which("unshare") or not shutil.which("ip"):
        pytest.skip("needs unshare and ip")
    (tmp_path / "try").mkdir()
    allowed = inside(NODES, tmp_path / "try", 60)
    if allowed.returncode:
        pytest.skip(f"network namespaces are not allowed here: {allowed.stderr.strip()[-200:]}")
    done = inside(NODES + SWEEP, tmp_path, 900)
    said = (tmp_path / "said.txt").read_text() if (tmp_path / "said.txt").exists() else ""
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:] + said[-3000:]
    (run,) = runs_in(tmp_path / "run")
    records, launches = run_folder.read_records(run), run_folder.read_launches(run)
    assert sorted(record.case.batch for record in records) == [1, 1, 2, 3]  # the anchor's is 1
    assert {record.status for record in records} == {"ok"}
    assert len(launches) == 4
    assert overlapping(launches) == []
    assert sum(launch.environment.lost or 0 for _, launch in launches) == said.count("launched anew") == 1
    assert {launch.environment.origin for _, launch in launches[-2:]} <= {launches[-1][1].environment.origin}
