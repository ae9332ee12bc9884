"""Our mixers and networks against plain formulations of the same function, paired, in one run on the CPU.

    python scripts/proofs/bench_mixers.py [--quick] [--compile] [--pinned] [--models swin_t,dwnet_t]

Prints a Markdown table: time and peak memory above the weights, each as a ratio ours / plain, and for networks the
time as a multiple of FLOPs / (rate of a matrix product measured in between). With --compile, torch.compile of ours
against torch.compile of the plain one as well. Exit code 1 when a target is missed, 2 when outputs disagree.
Both run as a user's own script would; with --pinned the allocator keeps its memory, as in mixprof's workers: the
plain inhomogeneous mixer then pays no page faults for its unfolded tensor, and the ratio is closer to 1.
Mixers at the first stage of a 224 x 224 network (56 x 56 x 96, window 7), float32, batch 1.
"""

import argparse
import gc
import math
import os
import random
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from scipy.stats import t as student
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import plain_formulations
from mixprof import models
from mixprof.machine.process import ALLOCATOR

QUIET = {"KINETO_LOG_LEVEL": "99"}  # the profiler's own messages
SIDE, CHANNELS, WINDOW = 56, 96, 7
MATRIX = 1024
BLOCK_S = 0.05  # least duration of one timed block
TOLERANCE = 1e-4
# Eager, ours / plain.
TIME_TARGETS = {
    "swin_t": 0.9,
    "dwnet_t": 0.95,
    "i_dynamic_dwnet_t": 0.35,
    "inhomogeneous_depthwise_conv": 0.1,
}
MEMORY_TARGETS = {"inhomogeneous_depthwise_conv": 0.2}
NAMES = [*plain_formulations.NETWORKS, *plain_formulations.MIXERS, "window_attention:shifted=true"]
HEADER = [
    "model",
    "lowering",
    "formulation",
    "ours ms",
    "plain ms",
    "time ratio [95 %]",
    "target",
    "x matmul rate",
    "ours peak MiB",
    "plain peak MiB",
    "memory ratio",
    "target",
    "verdict",
]
Forward = Callable[[], Tensor]


@dataclass(frozen=True)
class Timing:
    """Medians over blocks in seconds; the ratio ours / plain with its 95 % interval."""

    ours_s: float
    plain_s: float
    matrix_s: float
    ratio: float
    low: float
    high: float


def plain_module(name: str) -> nn.Module:
    base, _, option = name.partition(":")
    if base in plain_formulations.NETWORKS:
        return plain_formulations.NETWORKS[base]()
    mixer = plain_formulations.MIXERS[base]
    return mixer(CHANNELS, (SIDE, SIDE), WINDOW, CHANNELS // 32, 0, option == "shifted=true")


def example(name: str) -> Tensor:
    """Four inputs that differ in their means too: dynamic kernels follow the mean of an image."""
    if models.kind(name) == "network":
        return torch.randn(4, 3, 224, 224) + torch.randn(4, 3, 1, 1)
    return torch.randn(4, SIDE, SIDE, CHANNELS) + torch.randn(4, 1, 1, CHANNELS)


def initialise(module: nn.Module, x: Tensor) -> None:
    """Random weights of unit gain; the statistics of batch norms are those of x, so that nothing grows with depth."""
    for name, parameter in module.named_parameters():
        nn.init.normal_(parameter)
        if parameter.dim() == 4 and name == "weight":  # local_mlp: (H, W, taps, heads)
            parameter.div_(math.sqrt(parameter.shape[2]))
        elif parameter.dim() > 1 and "relative_position" not in name and "embed" not in name.split(".")[-1]:
            parameter.div_(math.sqrt(parameter[0].numel()))
        elif name.endswith("weight"):  # of a norm
            parameter.div_(4).add_(1)
        if name.endswith("attn2conv.bn2.weight"):  # keeps 24 dynamic blocks in a row well conditioned in float32
            parameter.div_(4)
    module.eval()
    norms = [part for part in module.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.train().momentum = 1.0
    if norms:
        module(x)
    module.eval()


def build_pair(name: str, lowering: str) -> tuple[nn.Module, nn.Module, Tensor]:
    """(ours, plain, one input): the same weights, ours specialised for the lowering."""
    torch.manual_seed(0)
    plain, x = plain_module(name), example(name)
    initialise(plain, x)
    resolution = 224 if models.kind(name) == "network" else SIDE
    ours = models.build(name, resolution=resolution, window=WINDOW)
    models.load_published(ours, plain.state_dict())
    ours = models.specialize(ours, lowering)
    if models.kind(name) == "network":
        ours = ours.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return ours, plain, x[:1]


@torch.no_grad()
def forwards(name: str, lowering: str) -> tuple[Forward, Forward, str]:
    """Ours and plain, ready to be timed on one input, and our formulation. Raises ArithmeticError if they disagree."""
    ours, plain, x = build_pair(name, lowering)
    formulation = getattr(ours, "formulation", "")
    mine = x.to(memory_format=torch.channels_last) if models.kind(name) == "network" else x
    got, expected = ours(mine), plain(x)
    error = ((got - expected).abs().max() / expected.abs().max()).item()
    if not error <= TOLERANCE:
        raise ArithmeticError(f"{name} {lowering}: outputs differ by {error:.1e}, expected at most {TOLERANCE:.0e}")
    if lowering == "compile":
        torch._dynamo.reset()
        ours.compile(dynamic=False, fullgraph=True)
        plain.compile(dynamic=False)
    return (lambda: ours(mine)), (lambda: plain(x)), formulation


def seconds(forward: Forward, repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        forward()
    return (time.perf_counter() - start) / repeats


def paired(ours: Forward, plain: Forward, matrix: Forward, blocks: int) -> Timing:
    """Time A B B A or B A A B by the toss of a coin, `blocks` times, a matrix product after each."""
    subjects = {"A": ours, "B": plain, "M": matrix}
    repeats = {}
    for key, forward in subjects.items():
        seconds(forward, 2)
        repeats[key] = max(1, math.ceil(BLOCK_S / seconds(forward, 1)))
    samples: dict[str, list[float]] = {key: [] for key in subjects}
    for _ in range(blocks):
        for key in random.choice(["ABBA", "BAAB"]) + "MM":
            samples[key].append(seconds(subjects[key], repeats[key]))
    log_a, log_b = ([math.log(value) for value in samples[key]] for key in "AB")
    logs = [(log_a[i] + log_a[i + 1] - log_b[i] - log_b[i + 1]) / 2 for i in range(0, 2 * blocks, 2)]
    centre = statistics.median(logs)
    half_width = student.ppf(0.975, blocks - 1) * statistics.stdev(logs) / math.sqrt(blocks)
    medians = {key: statistics.median(values) for key, values in samples.items()}
    ratio, low, high = (math.exp(value) for value in (centre, centre - half_width, centre + half_width))
    return Timing(medians["A"], medians["B"], medians["M"], ratio, low, high)


def peak_bytes(forward: Forward) -> int:
    """Most bytes that torch's allocator held during one forward, above what it held before (weights, input)."""
    forward()
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        forward()
    assert profile.profiler is not None
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def flops(name: str) -> int:
    """Of a network's published formulation at batch 1, counted on meta."""
    with torch.device("meta"):
        module, x = models.build(name), torch.empty(1, 3, 224, 224)
    with FlopCounterMode(display=False) as counter:
        module(x)
    return counter.get_total_flops()


def measure(name: str, lowering: str, blocks: int) -> tuple[list[str], bool]:
    """One row of the table, and whether its targets are met."""
    ours, plain, formulation = forwards(name, lowering)
    a, b = torch.randn(2, MATRIX, MATRIX).unbind()
    with torch.inference_mode():
        timing = paired(ours, plain, lambda: a @ b, blocks)
        peak, plain_peak = peak_bytes(ours), peak_bytes(plain)
    multiple = ""
    if models.kind(name) == "network":
        multiple = f"{timing.ours_s / (flops(name) / (2 * MATRIX**3 / timing.matrix_s)):.2f}"
    time_target = TIME_TARGETS.get(name) if lowering == "eager" else None
    memory_target = MEMORY_TARGETS.get(name) if lowering == "eager" else None
    targets = [(timing.ratio, time_target), (peak / plain_peak, memory_target)]
    judged = [value <= target for value, target in targets if target is not None]
    row = [
        name,
        lowering,
        formulation,
        f"{timing.ours_s * 1e3:.2f}",
        f"{timing.plain_s * 1e3:.2f}",
        f"{timing.ratio:.3f} [{timing.low:.3f}, {timing.high:.3f}]",
        "" if time_target is None else f"≤ {time_target}",
        multiple,
        f"{peak / 2**20:.1f}",
        f"{plain_peak / 2**20:.1f}",
        f"{peak / plain_peak:.3f}",
        "" if memory_target is None else f"≤ {memory_target}",
        "" if not judged else "pass" if all(judged) else "FAIL",
    ]
    return row, all(judged)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="6 blocks each, not 15")
    parser.add_argument("--compile", action="store_true", help="torch.compile as well as eager")
    parser.add_argument("--pinned", action="store_true", help="with the allocator of mixprof's workers")
    parser.add_argument("--models", default=",".join(NAMES), help="comma-separated; default: %(default)s")
    options = parser.parse_args()
    options.models = options.models.split(",")
    unknown = sorted(set(options.models) - set(NAMES))
    if unknown:
        parser.error(f"--models: got {', '.join(unknown)}; expected among {', '.join(NAMES)}")
    return options


def main() -> int:
    options = arguments()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.set_flush_denormal(True)
    random.seed(0)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads\n")
    print(f"| {' | '.join(HEADER)} |\n|{'---|' * len(HEADER)}", flush=True)
    missed = []
    for name in options.models:
        for lowering in ["eager", "compile"] if options.compile else ["eager"]:
            try:
                row, met = measure(name, lowering, 6 if options.quick else 15)
            except ArithmeticError as error:
                print(error, file=sys.stderr)
                return 2
            print(f"| {' | '.join(row)} |", flush=True)
            missed += [] if met else [f"{name} ({lowering})"]
            gc.collect()
    print(f"\n{'missed: ' + ', '.join(missed) if missed else 'all targets met'}")
    return 1 if missed else 0


if __name__ == "__main__":
    environment = QUIET | (ALLOCATOR if "--pinned" in sys.argv else {})
    if any(os.environ.get(key) != value for key, value in environment.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **environment})
    sys.exit(main())
