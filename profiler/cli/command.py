"""A command of the command line, and the options that several share."""

import argparse
import json
import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from mixprof.data.errors import UsageError
from mixprof.data.histories import is_url
from mixprof.plan import sweep_file
from mixprof.plan.files import Given
from mixprof.plan.given import parse, parse_shapes
from mixprof.plan.settings import AXES, MEASURE, Scope, Setting
from mixprof.run.sweep import Sweep


@dataclass(frozen=True)
class Command:
    """What it is for, its options, what runs it, and two examples, each a line of arguments."""

    help: str
    add_options: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]
    examples: tuple[str, str]


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Says the default of every option that does not say it itself."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        help = action.help or ""
        if not action.option_strings or action.default is argparse.SUPPRESS or "default" in help:
            return help
        if action.required:
            return f"{help} (required)"
        default = action.default
        words = "no" if default is False else "none" if default in (None, []) else "%(default)s"
        return f"{help} (default: {words})"


class Parser(argparse.ArgumentParser):
    """One line for an error, exit code 2, no abbreviated options."""

    def __init__(self, prog: str, description: str, epilog: str | None = None):
        super().__init__(prog, None, description, epilog, formatter_class=HelpFormatter, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; `{self.prog} --help` lists what is expected")


def add_list(command: argparse.ArgumentParser, option: str, metavar: str, help: str) -> None:
    """An option that may be given several times."""
    command.add_argument(option, action="append", default=[], metavar=metavar, help=help)


def add_json(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="print JSON and nothing else")


def add_axes(command: argparse.ArgumentParser, but: Sequence[str] = ()) -> None:
    """An option for each axis, a list with commas."""
    for axis in AXES.values():
        if axis.name not in but:
            add_setting(command, axis, "A,B")


def add_measure(command: argparse.ArgumentParser, *scopes: Scope) -> None:
    """An option for each measuring setting of these scopes."""
    for setting in MEASURE.values():
        if setting.scope in scopes:
            add_setting(command, setting, setting.name[0].upper())


def add_setting(command: argparse.ArgumentParser, setting: Setting, metavar: str) -> None:
    """An option for one setting."""
    help = f"{setting.words} (default: {setting.default})"
    if setting.is_switch:
        command.add_argument(setting.option, action="store_true", help=help)
    else:
        command.add_argument(setting.option, metavar=metavar, help=help)


def add_files(command: argparse.ArgumentParser) -> None:
    """What modules of the user's and files are fed with."""
    add_list(command, "--input", "INPUT:1x77:int64", "one that the forward takes, float32 unless said")
    add_list(command, "--shape", "INPUT:1x3x224x224", "of an input of a file")
    command.add_argument("--inputs", metavar="FILE.npz", help="what the forward is fed with (default: random)")


def add_depth(command: argparse.ArgumentParser) -> None:
    command.add_argument("--depth", type=int, metavar="N", help="of the table by module, at most (default: 2)")


def check_depth(depth: int | None, option: str, *, asked: bool) -> None:
    """UsageError for a depth that is none, or of a table that nobody asked for."""
    if depth is not None and (depth < 0 or not asked):
        raise UsageError(f"got --depth {depth}, expected a whole number from 0 up, with {option}")


def read_sweep(arguments: argparse.Namespace) -> Sweep:
    """Groups and settings from a sweep file, the command line, or both; the command line wins."""
    file = getattr(arguments, "file", None)
    groups, measure = sweep_file.read(Path(file) if file else None, given(arguments, (*AXES, *MEASURE)), spelled)
    return Sweep(groups, measure, read_files(arguments))


def given(arguments: argparse.Namespace, names: Iterable[str]) -> dict[str, object]:
    """Those of the settings that were given, by name."""
    values = {name: getattr(arguments, name, None) for name in names}
    return {name: value for name, value in values.items() if value is not None and value is not False}


def spelled(name: str) -> str:
    """A setting's name as an option."""
    return f"--{name.replace('_', '-')}"


def read_files(arguments: argparse.Namespace) -> Given:
    shapes, fed = (getattr(arguments, name, None) or () for name in ("shape", "input"))
    return Given(parse_shapes(shapes), getattr(arguments, "inputs", None), parse(fed))


def next_report(out: str | Path) -> str:
    """The command that reports a run, as a shell takes it; the report of a URL is written here."""
    report = "report" if is_url(str(out)) else f"{out}/report"
    return f"next: mixprof report {shlex.quote(str(out))} --out {shlex.quote(report)}"


def print_json(value: object) -> None:
    print(json.dumps(value, indent=1))
