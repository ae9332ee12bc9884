"""The command line: one command runs, and what fails becomes an exit code and one line."""

from __future__ import annotations

import argparse
import contextlib
import errno
import importlib
import importlib.metadata
import os
import signal
import sys
import traceback
from collections.abc import Iterable
from typing import TYPE_CHECKING, cast

from mixprof.cli.command import Command, Parser
from mixprof.data.errors import NotTrusted, UsageError

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[Parser]

NAMES = (
    *("models", "doctor", "count", "time", "plan", "sweep", "merge", "report", "crosscheck", "serve-test"),
    *("ab", "bisect", "accept", "calibrate", "check", "baseline", "history"),
)
DISTRIBUTIONS = {"markdown_it": "markdown-it-py", "tomli_w": "tomli-w"}  # where the module's name is another


def command(name: str) -> Command | ModuleNotFoundError:
    """A command of NAMES, whose module is imported now; the error where it needs a package that is not installed."""
    try:
        loaded: Command = importlib.import_module(f"mixprof.cli.{name.replace('-', '_')}").COMMAND
        return loaded
    except ModuleNotFoundError as error:
        return error


def parser(names: Iterable[str] = NAMES) -> Parser:
    """The command line, with these commands."""
    try:
        version = importlib.metadata.version("mixprof")
    except importlib.metadata.PackageNotFoundError:  # run from a checkout
        version = "not installed"
    top = Parser("mixprof", "What a spatial mixer really costs, measured on this machine.")
    top.set_defaults(run=None)
    top.add_argument("--version", action="version", version=f"mixprof {version}")
    with contextlib.suppress(ModuleNotFoundError):
        importlib.import_module("shtab").add_argument_to(
            top, help="print the script that completes commands in a shell (see docs/axes.md)"
        )
    commands = top.add_subparsers(title="commands", metavar="COMMAND")
    for name in names:
        _add(commands, name, command(name))
    return top


def _add(commands: Subparsers, name: str, loaded: Command | ModuleNotFoundError) -> None:
    if isinstance(loaded, ModuleNotFoundError):
        words = f"not here: {_lacks(loaded)}"
        commands.add_parser(name, help=words, description=words)
        return
    examples = "\n".join(f"  mixprof {line}" for line in loaded.examples)
    added = commands.add_parser(name, help=loaded.help, description=loaded.help, epilog=f"examples:\n{examples}")
    loaded.add_options(added)
    added.set_defaults(run=loaded.run)


def _lacks(error: ModuleNotFoundError) -> str:
    package = (error.name or "").partition(".")[0]
    if package in ("", "mixprof"):
        raise error
    return f"{package} is not installed: {sys.executable} -m pip install {DISTRIBUTIONS.get(package, package)}"


def main(argv: list[str] | None = None) -> int:
    """Run one command; its exit code, or that of how it failed."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        first = (sys.argv[1:] if argv is None else argv)[:1]
        asked = [name for name in NAMES if first == [name]]
        for name in asked:
            if isinstance(loaded := command(name), ModuleNotFoundError):
                raise loaded
        top = parser(asked or NAMES)  # the one that is asked for: all of them import pandas, scipy and more
        arguments = top.parse_args(argv)
        if arguments.run is None:
            top.print_help()
            return 0
        return cast(int, arguments.run(arguments))
    except UsageError as error:
        return _fail(2, str(error))
    except ModuleNotFoundError as error:
        return _fail(2, _lacks(error))
    except NotTrusted as error:
        return _fail(4, str(error))
    except KeyboardInterrupt:
        return _fail(130, "interrupted")
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the reader of our output has left
        return 0
    except OSError as error:
        elsewhere = "; --out names a folder elsewhere" if error.errno == errno.EROFS else ""
        reason = f"{error.strerror or error}{elsewhere}"
        return _fail(74, f"{error.filename or 'a file'} could not be written or read: {reason}")
    except Exception as error:
        traceback.print_exc()
        return _fail(70, f"internal error: {type(error).__name__}: {error}; please report it with the lines above")


def _fail(code: int, message: str) -> int:
    print(f"mixprof: {' '.join(message.split())}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
