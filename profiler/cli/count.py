"""`mixprof count`: parameters and MACs, as numbers or as formulas."""

from __future__ import annotations

import argparse
from dataclasses import asdict, replace

from mixprof import models
from mixprof.cli.command import Command, add_files, add_json, print_json, read_files
from mixprof.data.errors import UsageError
from mixprof.data.json import Json
from mixprof.plan.settings import AXES
from mixprof.run import counting
from mixprof.run.counting import SINGLE, Counted
from mixprof.symbolic import words

DEPTH = 2
WHERE = {
    "fake": "on fake tensors: its code does not run on meta",
    "cpu": "in a forward on the CPU: its code looks at values",
}


def add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("model", metavar="MODEL", help=AXES["models"].help)
    for name, axis in SINGLE.items():
        setting = AXES[axis]
        command.add_argument(f"--{name}", metavar=name[0].upper(), help=f"{setting.words} (default: {setting.default})")
    command.add_argument(
        "--symbolic", action="store_true", help="exact formulas in batch, resolution, window, channels"
    )
    command.add_argument("--tree", action="store_true", help="parameters, MACs and bytes of outputs by module")
    command.add_argument("--depth", type=int, metavar="N", help=f"of the tree, at most (default: {DEPTH})")
    add_files(command)
    add_json(command)


def run(arguments: argparse.Namespace) -> int:
    axes = counting.axes_of(arguments.model, {name: getattr(arguments, name) for name in SINGLE}, "--{}")
    if arguments.symbolic:
        return _symbolic(arguments)
    if arguments.depth is not None and (arguments.depth < 0 or not arguments.tree):
        raise UsageError(f"got --depth {arguments.depth}, expected a whole number from 0 up, with --tree")
    label, counted = counting.count(axes, models, read_files(arguments), tree=arguments.tree)
    if counted.tree is not None:
        depth = DEPTH if arguments.depth is None else arguments.depth
        counted = replace(counted, tree=[each for each in counted.tree if _depth(each["path"]) <= depth])
    print_json(_as_json(counted)) if arguments.json else print(_as_text(label, counted))
    return 0


def _as_json(counted: Counted) -> dict[str, object]:
    return {name: value for name, value in asdict(counted).items() if name != "tree" or value is not None}


def _depth(path: str) -> int:
    return len(path.split(".")) if path else 0


def _as_text(label: str, counted: Counted) -> str:
    at_least = "at least " if counted.uncounted_ops else ""
    parameters = "" if counted.params is None else f"{counted.params:,} parameters, "
    lines = [f"{label}: {parameters}{at_least}{counted.macs:,} MACs"]
    if counted.min_bytes is not None:
        lines.append(f"  {'minimal bytes moved, the rest fused':48} {counted.min_bytes:>18,}")
    for name, macs in sorted(counted.macs_by_op.items(), key=lambda item: -item[1]):
        lines.append(f"  {name:48} {macs:>18,}")
    if at_least:
        lines.append(f"  not counted: {', '.join(counted.uncounted_ops)}")
    if counted.counted_on in WHERE:
        lines.append(f"  counted {WHERE[counted.counted_on]}")
    if counted.tree is not None:
        lines += ["", *_tree(counted.tree)]
    return "\n".join(lines)


def _tree(branches: list[Json]) -> list[str]:
    """A line a module, indented by its depth."""
    names = ["  " * _depth(each["path"]) + (each["path"].rsplit(".", 1)[-1] or "(whole)") for each in branches]
    width = max(map(len, names), default=0)
    types = max(len(each["type"]) for each in branches)
    rows = zip(names, branches, strict=True)
    head = f"  {'module':{width}}  {'type':{types}}  {'parameters':>14}  {'MACs':>18}  {'bytes of outputs':>16}  role"
    return [
        head,
        *(
            f"  {name:{width}}  {each['type']:{types}}  {each['params']:>14,}  {each['macs']:>18,}  "
            f"{each['activation_bytes']:>16,}  {each['role']}"
            for name, each in rows
        ),
    ]


def _symbolic(arguments: argparse.Namespace) -> int:
    given = [name for name in SINGLE if getattr(arguments, name) is not None]
    if given:
        raise UsageError(f"got --{given[0]} with --symbolic, expected it alone: formulas hold for all sizes")
    proven = counting.formulas(arguments.model, models, read_files(arguments))
    name = arguments.model
    print_json(words.as_json(name, proven)) if arguments.json else print(words.as_text(name, proven))
    return 0


COMMAND = Command(
    "parameters and MACs of one forward; runs nothing on a device",
    add_options,
    run,
    ("count swin_t --resolution 224 --batch 1 --window 7", "count my.zoo:net --tree --depth 3"),
)
