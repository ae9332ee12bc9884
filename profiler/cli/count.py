"""`mixprof count`: parameters and MACs, as numbers or as formulas."""

import argparse
from dataclasses import asdict, replace

from mixprof import models
from mixprof.cli.command import Command, add_depth, add_files, add_json, check_depth, print_json, read_files
from mixprof.data.case import STEP, STEPS
from mixprof.data.errors import UsageError
from mixprof.plan.settings import AXES
from mixprof.plan.values import one_of
from mixprof.run import counting
from mixprof.run.counting import SINGLE, Counted
from mixprof.symbolic import words

WHERE = {"fake": "on fake tensors: its code does not run on meta"}
WHERE |= {"cpu": "in a forward on the CPU: its code looks at values"}


def add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("model", metavar="MODEL", help=AXES["models"].help)
    for name, axis in SINGLE.items():
        setting = AXES[axis]
        command.add_argument(f"--{name}", metavar=name[0].upper(), help=f"{setting.words} (default: {setting.default})")
    command.add_argument("--step", default=STEP, metavar="S", help=f"{one_of(*STEPS).expected} (default: {STEP})")
    exact = "exact formulas in batch, resolution, window, channels"
    command.add_argument("--symbolic", action="store_true", help=exact)
    command.add_argument("--tree", action="store_true", help="parameters, MACs and bytes of outputs by module")
    add_depth(command)
    add_files(command)
    add_json(command)


def run(arguments: argparse.Namespace) -> int:
    step = one_of(*STEPS).parse(arguments.step, "--step")
    axes = counting.axes_of(arguments.model, {name: getattr(arguments, name) for name in SINGLE}, "--{}")
    if arguments.symbolic:
        return _symbolic(arguments, step)
    check_depth(arguments.depth, "--tree", asked=arguments.tree)
    label, counted = counting.count(axes, models, read_files(arguments), tree=arguments.tree, step=step)
    if counted.tree is not None:
        from mixprof.reports.text import module_tree

        counted = replace(counted, tree=module_tree.pruned(counted.tree, arguments.depth))
    fields = {name: value for name, value in asdict(counted).items() if name != "tree" or value is not None}
    print_json(fields) if arguments.json else print(_as_text(label, counted))
    return 0


def _as_text(label: str, counted: Counted) -> str:
    at_least = "at least " if counted.uncounted_ops else ""
    params = "parameters unknown" if counted.params is None else f"{counted.params:,} parameters"
    lines = [f"{label}: {params}, {at_least}{counted.macs:,} MACs"]
    if counted.min_bytes is not None:
        lines.append(f"  {'minimal bytes moved, the rest fused':48} {counted.min_bytes:>18,}")
    if counted.optimizer_bytes is not None:
        lines.append(f"  {'of these, by the update of AdamW':48} {counted.optimizer_bytes:>18,}")
    if counted.backward_macs is not None:
        lines.append(f"  {'MACs of the backward':48} {counted.backward_macs:>18,}")
    for name, macs in sorted(counted.macs_by_op.items(), key=lambda item: -item[1]):
        lines.append(f"  {name:48} {macs:>18,}")
    if at_least:
        lines.append(f"  not counted: {', '.join(counted.uncounted_ops)}")
    if counted.counted_on in WHERE:
        lines.append(f"  counted {WHERE[counted.counted_on]}")
    if counted.tree is not None:
        from mixprof.reports.text import module_tree

        lines += ["", module_tree.as_text(counted.tree)]
    return "\n".join(lines)


def _symbolic(arguments: argparse.Namespace, step: str) -> int:
    given = [name for name in SINGLE if getattr(arguments, name) is not None]
    if given:
        raise UsageError(f"got --{given[0]} with --symbolic, expected it alone: formulas hold for all sizes")
    proven = counting.formulas(arguments.model, models, read_files(arguments), step)
    name = arguments.model if step == STEP else f"{arguments.model}, {step}"
    print_json(words.as_json(name, proven)) if arguments.json else print(words.as_text(name, proven))
    return 0


EXAMPLES = ("count swin_t --batch 8 --step train", "count my.zoo:net --tree --depth 3")
COMMAND = Command(
    "parameters and MACs of a forward or a training step; runs nothing on a device", add_options, run, EXAMPLES
)
