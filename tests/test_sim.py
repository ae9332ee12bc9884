"""A simulated GPU knows the truth: what the samplers tell of it, regime by regime, and what its pieces do."""

import statistics
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from mixprof.data.errors import UsageError
from mixprof.lowerings import Lowered
from mixprof.machine import simulation, streams, thermal
from mixprof.machine.devices.cpu import Cpu
from mixprof.machine.devices.simulated import Memory, OutOfMemoryError, Simulated
from mixprof.machine.simulation import Gpu, Kernel, truth
from mixprof.metrics import latency
from mixprof.sampling import budget

sys.path.append(str(Path(__file__).parents[1] / "scripts" / "proofs"))

import gated_samplers

MEDIAN = statistics.median
NOTHING = torch.empty(0)


def timed(gpu: Gpu, kernels: Any, mode: str = "hot", **more: Any) -> Any:
    """The times of a forward of these kernels, measured as those of any GPU are."""
    device = Simulated(gpu, "a test")
    lowered = Lowered(device.forward(kernels), lambda: NOTHING, 0.0, device=device)
    return latency.measure(lowered, device, mode, budget("sim:0", **more))


def test_what_a_kernel_takes_is_a_roofline_and_an_overhead():
    gpu = Gpu(overhead_us=2.0, matrix_tflops=100.0, vector_tflops=10.0, dram_gb_s=1000.0, l2_gb_s=4000.0, l2_mib=1.0)
    product = simulation.kernel(gpu, kind="matrix", flops=10**9, moved_bytes=4000, wide=False)
    assert (product.hot_us, product.cold_us) == (2 + 10, 2 + 10)  # 1e9 / 1e14 s
    assert simulation.kernel(gpu, kind="matrix", flops=10**9, moved_bytes=4000, wide=True).hot_us == 2 + 20
    copy = simulation.kernel(gpu, kind="move", flops=0, moved_bytes=10**6, wide=False)
    assert (copy.hot_us, copy.cold_us) == (2 + 0.25, 2 + 1)
    large = simulation.kernel(gpu, kind="move", flops=0, moved_bytes=10**7, wide=False)
    assert large.hot_us == large.cold_us == 2 + 10  # no cache holds it


def test_the_truth_of_a_forward_by_hand():
    gpu = Gpu(launch_us=6.0, latency_us=3.0, sync_us=5.0, queue=1000)
    fast = truth(gpu, [Kernel(2.5, 4.0)] * 6)
    # Every kernel waits for its launch: the last one starts 3 us after 6 launches of 6 us.
    expected: Any = pytest.approx((36 + 3 + 2.5 + 5) / 1e3)
    assert fast == simulation.Truth(0.015, 0.036, expected, 6, host_bound=False)
    slow = truth(gpu, [Kernel(20.0, 20.0)] * 6)
    assert slow.request_ms == pytest.approx((6 + 3 + 6 * 20 + 5) / 1e3)
    as_graph = truth(gpu, simulation.graph(gpu, [Kernel(2.5, 4.0)] * 6))
    assert (as_graph.launches, as_graph.enqueue_ms) == (1, 0.006)
    assert as_graph.request_ms == pytest.approx((6 + 3 + 15 + 5) / 1e3)
    assert truth(gpu, [Kernel(2.5, 4.0)] * 6, cold=True).gpu_ms == pytest.approx(0.024)


def test_a_queue_that_is_full_makes_the_host_wait():
    device = Simulated(Gpu(queue=10, launch_us=1.0, latency_us=0.0, noise=0.0, launch_noise=0.0), "a test")
    device.spin(1.0)
    for _ in range(9):
        device.spin(0.0)
    assert device.clock() == pytest.approx(10e-6)
    device.spin(0.0)  # the eleventh: it has to wait for the first to end
    assert device.clock() == pytest.approx(1e-3, rel=0.01)


@pytest.mark.parametrize("launches", [1, 6, 260, 890])
def test_a_forwards_places_in_the_queue_are_counted_by_filling_it(launches):
    device = Simulated(Gpu(), "a test")
    assert streams.places(device.forward([Kernel(2.0, 2.0)] * launches), device) == launches


def test_a_graph_takes_one_place_and_a_forward_that_waits_has_no_number():
    device = Simulated(Gpu(), "a test")
    assert streams.places(device.forward(simulation.graph(device.gpu, [Kernel(2.0, 2.0)] * 50)), device) == 1
    run = device.forward([Kernel(2.0, 2.0)])

    def waits():
        run()
        device.synchronize()

    assert streams.places(waits, device) is None
    assert not streams.queue_of(waits, device).gated


REGIMES = {
    "host-bound": [Kernel(2.5, 2.5)] * 6,
    "device-bound": [Kernel(80.0, 80.0)] * 20,
    "batch 1": [Kernel(1.6, 2.0)] * 150,
    "one small kernel": [Kernel(2.0, 2.0)],
    "almost a queue": [Kernel(2.0, 2.0)] * 890,
    "graph": simulation.graph(Gpu(), [Kernel(1.6, 2.0)] * 150),
}


@pytest.mark.parametrize("mode", ["hot", "cold"])
@pytest.mark.parametrize("regime", REGIMES)
def test_gpu_ms_is_within_a_percent_of_the_truth(regime, mode):
    kernels = REGIMES[regime]
    times = timed(Gpu(), kernels, mode, quick=True)
    expected = truth(Gpu(), kernels, cold=mode == "cold")
    assert times.unsteady is None
    assert times.queued.gated
    assert times.queued.launches == expected.launches
    assert MEDIAN(times.gpu_ms.samples) == pytest.approx(expected.gpu_ms, rel=0.01)


@pytest.mark.parametrize("regime", ["device-bound", "batch 1"])
def test_the_full_budget_of_a_launch_is_as_true(regime):
    times = timed(Gpu(), REGIMES[regime])
    assert times.unsteady is None
    assert MEDIAN(times.gpu_ms.samples) == pytest.approx(truth(Gpu(), REGIMES[regime]).gpu_ms, rel=0.01)


def test_request_and_enqueue_times_are_those_of_the_host():
    for kernels in REGIMES.values():
        times, expected = timed(Gpu(), kernels, quick=True), truth(Gpu(), kernels)
        assert MEDIAN(times.host_ms.samples) == pytest.approx(expected.request_ms, rel=0.02)
        assert MEDIAN(times.enqueue_ms.samples) == pytest.approx(expected.enqueue_ms, rel=0.03)


def test_a_forward_with_more_launches_than_the_queue_is_host_bound_and_says_so():
    kernels = [Kernel(2.0, 2.0)] * 1200
    assert truth(Gpu(), kernels).host_bound
    times = timed(Gpu(), kernels, quick=True)
    assert (times.queued.launches, times.queued.gated) == (None, False)
    assert MEDIAN(times.gpu_ms.samples) == pytest.approx(1200 * 0.006, rel=0.02)  # the host's pace
    slow = timed(Gpu(), [Kernel(20.0, 20.0)] * 1200, quick=True)  # where the device sets the pace, it is the device's
    assert MEDIAN(slow.gpu_ms.samples) == pytest.approx(1200 * 0.020, rel=0.01)


def test_a_forward_that_waits_now_and_then_is_timed_without_a_gate_and_says_so():
    device = Simulated(Gpu(), "a test")
    run, calls = device.forward([Kernel(2.0, 2.0)] * 100), []

    def forward():
        run()
        calls.append(1)
        if len(calls) % 7 == 0:
            device.synchronize()

    lowered = Lowered(forward, lambda: NOTHING, 0.0, device=device)
    times: Any = latency.measure(lowered, device, "hot", budget("sim:0", quick=True))
    assert times.queued.gated is False
    assert MEDIAN(times.gpu_ms.samples) > 0.5  # the host's pace, 0.6 ms, and not the device's 0.2


@pytest.mark.parametrize("regime", REGIMES)
def test_cold_is_never_faster_than_hot(regime):
    hot, cold = (timed(Gpu(), REGIMES[regime], mode, quick=True) for mode in ("hot", "cold"))
    assert MEDIAN(cold.gpu_ms.samples) >= 0.99 * MEDIAN(hot.gpu_ms.samples)
    # Behind a spin as long as the flush the caches are as they were: what a cold time is compared with.
    assert MEDIAN(cold.control_ms.samples) == pytest.approx(MEDIAN(hot.gpu_ms.samples), rel=0.01)
    assert hot.control_ms is None


def test_a_power_cap_is_recorded_and_rejects_nothing():
    gpu = Gpu(power_cap=0.8)
    times = timed(gpu, REGIMES["device-bound"])
    assert (times.unsteady, times.throttled) == (None, None)
    assert times.clocks["power_capped_share"] == 1.0
    low, high = times.clocks["sm_clock_mhz"]
    assert 0.75 * 1800 < low < high < 0.85 * 1800
    assert MEDIAN(times.gpu_ms.samples) == pytest.approx(truth(gpu, REGIMES["device-bound"]).gpu_ms, rel=0.01)
    assert timed(Gpu(), REGIMES["device-bound"], quick=True).clocks["power_capped_share"] == 0.0


def test_a_hardware_slowdown_is_rejected():
    times = timed(Gpu(throttled=0.5), REGIMES["device-bound"], quick=True)
    assert "hardware thermal slowdown" in times.throttled


def test_clock_and_temperature_are_kept_of_every_queue():
    by_queue = timed(Gpu(), REGIMES["device-bound"], quick=True).clocks["by_queue"]
    clocks, degrees = by_queue["sm_clock_mhz"], by_queue["temperature_c"]
    assert len(clocks) == len(degrees) > 3
    assert clocks[-1] == pytest.approx(1800, rel=0.01)
    assert degrees[-1] >= degrees[0] >= 35


def test_a_ramp_of_the_clock_is_over_before_samples_count():
    gpu = Gpu(ramp_s=0.1)
    times = timed(gpu, REGIMES["device-bound"])
    assert MEDIAN(times.gpu_ms.samples) == pytest.approx(truth(gpu, REGIMES["device-bound"]).gpu_ms, rel=0.01)


def test_a_warm_gpu_is_waited_for():
    device = Simulated(Gpu(start_c=70.0), "a test")
    assert thermal.cool(device, 20.0) == 0.0  # 20 degrees below 90 already
    waited: Any = thermal.cool(device, 45.0)
    assert 1.0 <= waited < 30.0
    reading: Any = device.reader()()
    assert reading.temperature_c <= 45
    assert thermal.cool(device, 80.0) == pytest.approx(thermal.MOST_S, abs=thermal.STEP_S)  # it never gets so cool
    assert thermal.cool(Cpu(), 20.0) is None


def test_settings_give_the_simulated_gpu_other_figures():
    assert simulation.configured("launch_us=2,queue=64") == Gpu(launch_us=2.0, queue=64)
    assert simulation.configured("launch_us=2").words.endswith(" launch_us=2.0")
    assert simulation.configured("launch_us=2").words != simulation.configured("").words
    with pytest.raises(UsageError, match="MIXPROF_SIM: got 'speed=2', expected one of launch_us"):
        simulation.configured("speed=2")


def test_the_allocator_keeps_what_it_took_and_says_when_there_is_no_more():
    memory = Memory(10 << 20)
    memory.free(memory.allocate(3 << 20))
    memory.allocate(100)
    assert (memory.allocated, memory.peak, memory.reserved) == (512, 3 << 20, 4 << 20)
    with pytest.raises(OutOfMemoryError, match="out of memory: tried to allocate"):
        memory.allocate(10 << 20)


def test_the_same_seed_gives_the_same_times():
    once, again = (timed(Gpu(), REGIMES["batch 1"], quick=True).gpu_ms for _ in range(2))
    other = timed(Gpu(seed=1), REGIMES["batch 1"], quick=True).gpu_ms
    assert once == again != other


def test_without_a_gate_a_host_bound_forward_is_too_long_and_cold_is_faster_than_hot():
    """What the samplers said before they were gated: the table of docs/simulated-device.md."""
    regime = "a network at batch 1: 150 kernels of 1.6 µs"
    expected = truth(*gated_samplers.REGIMES[regime]).gpu_ms
    hot, cold = (gated_samplers.measured(regime, mode, gated_samplers.ungated) for mode in ("hot", "cold"))
    assert hot > 3 * expected
    assert cold < hot
    assert gated_samplers.measured(regime, "hot", gated_samplers.gated) == pytest.approx(expected, rel=0.01)
