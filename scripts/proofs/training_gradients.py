"""Errors of loss, gradients and update of a training step against float64, as a table in Markdown.

    python scripts/proofs/training_gradients.py [--models NAME,...] [--dtypes NAME,...] [--side N] [--batch B]

What a launch checks, in one process: reference and step of each mixer at odd sizes, of four networks at 56 pixels.
"""

import argparse
import sys
from collections.abc import Iterator

import torch

from mixprof.data.case import Case
from mixprof.data.errors import Unsupported
from mixprof.lowerings import cast, convert
from mixprof.lowerings.training import step_of
from mixprof.machine.process import torch_dtype
from mixprof.metrics import accuracy, gradients
from mixprof.models import MODELS, accepts, kind
from mixprof.worker import feeds, modules, training

NETWORKS = ("swin_t", "dwnet_t", "dynamic_dwnet_t", "i_dynamic_dwnet_t")
SIDES = {"mixer": ((15, 15), (9, 13)), "network": ((56, 56),)}  # odd ones of mixers: no window divides them
DTYPES = ("float32", "amp_float16", "amp_bfloat16", "bfloat16")
COLUMNS = ("model", "size", "dtype", "loss", "gradients", "median of gradients", "rounding alone", "update", "verdict")


def main() -> None:
    arguments = _arguments()
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}", flush=True)
    wrong = 0
    for case in _cases(arguments):
        row = _row(case)
        wrong += row[-1] not in ("ok",) and not row[-1].startswith("unsupported")
        print(f"| {' | '.join(row)} |", flush=True)
    sys.exit(1 if wrong else 0)


def _arguments() -> argparse.Namespace:
    command = argparse.ArgumentParser(allow_abbrev=False)
    mixers = [name for name, entry in MODELS.items() if entry.kind == "mixer"]
    command.add_argument("--models", default=",".join((*mixers, *NETWORKS)))
    command.add_argument("--dtypes", default=",".join(DTYPES))
    command.add_argument("--side", type=int)
    command.add_argument("--batch", type=int, default=2)
    return command.parse_args()


def _cases(arguments: argparse.Namespace) -> Iterator[Case]:
    for model in arguments.models.split(","):
        is_mixer = kind(model) == "mixer"
        sides = ((arguments.side, arguments.side),) if arguments.side else SIDES[kind(model)]
        window, channels = 7 if "window" in accepts(model) else None, 32 if is_mixer else None
        for side in sides:
            for dtype in arguments.dtypes.split(","):
                where = ("eager", "cpu", dtype, "channels_last", "hot", arguments.batch)
                yield Case(model, *where, side, window, channels, "train")


def _source(case: Case) -> dict[str, object]:
    return {
        "factory": "mixprof.models:build",
        "arguments": {"name": case.model},
        "accepts": sorted(accepts(case.model)),
        "kind": kind(case.model),
        "specialize": "mixprof.models:specialize",
        "user": False,
    }


def _row(case: Case) -> list[str]:
    size, source = f"{case.batch}x{case.resolution[0]}x{case.resolution[1]}", _source(case)
    dtype, within = torch_dtype(case.dtype), kind(case.model) == "mixer"
    built = modules.build(source, case)
    example = built.example.tensors
    accuracy.initialize(built.module, tuple(each[:1] for each in example), feeds.seed_of(case))
    convert(convert(built.module, dtype), torch.float32)
    state = {name: each.clone() for name, each in modules.state_of(built.module).items()}
    inputs = [cast(cast(each, dtype), torch.float32) for each in example]
    try:
        right = training.right_of(built.module, inputs, case, within, built.trained)
        timed = modules.build(source, case).module
        modules.load_state(timed, state)
        recipe = training.recipe(case, right.trained, within=within)
        step = step_of(convert(timed, dtype), tuple(cast(each, dtype) for each in inputs), recipe, timed)
    except Unsupported as reason:
        return [case.model, size, case.dtype, *[""] * 5, f"unsupported: {reason}"]
    with torch.enable_grad():
        step.ahead()
        step.backward()
        errors = gradients.compare(step, right)
        median = float(torch.tensor([*errors.by_parameter.values()]).median())
        updated = gradients.update(step)
    figures = (errors.loss, errors.gradient, median)
    verdict = errors.wrong or updated.wrong or "ok"
    return [
        case.model,
        size,
        case.dtype,
        *map(_short, figures),
        f"{right.rounding_alone} of {len(right.gradients)}",
        _short(updated.update),
        verdict,
    ]


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:.1e}"


if __name__ == "__main__":
    main()
