"""The command line: one command runs, and what fails becomes an exit code and one line."""

import contextlib
import errno
import importlib
import importlib.metadata
import os
import signal
import sys
import traceback
from typing import cast

from mixprof.cli.command import Command, Parser
from mixprof.data.errors import NotTrusted, UsageError

NAMES = (
    *("models", "doctor", "count", "time", "plan", "sweep", "merge", "report", "crosscheck", "serve-test"),
    *("ab", "bisect", "accept", "calibrate", "check", "baseline"),
)
COMMANDS: dict[str, Command] = {}
LACKING: dict[str, ModuleNotFoundError] = {}  # commands that need a package which is not installed
DISTRIBUTIONS = {"markdown_it": "markdown-it-py", "tomli_w": "tomli-w"}  # where the module's name is another
for _name in NAMES:
    try:
        COMMANDS[_name] = importlib.import_module(f"mixprof.cli.{_name.replace('-', '_')}").COMMAND
    except ModuleNotFoundError as error:
        LACKING[_name] = error


def parser() -> Parser:
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
    for name, command in COMMANDS.items():
        examples = "\n".join(f"  mixprof {line}" for line in command.examples)
        added = commands.add_parser(name, help=command.help, description=command.help, epilog=f"examples:\n{examples}")
        command.add_options(added)
        added.set_defaults(run=command.run)
    for name, error in LACKING.items():
        words = f"not here: {_lacks(error)}"
        commands.add_parser(name, help=words, description=words)
    return top


def _lacks(error: ModuleNotFoundError) -> str:
    package = (error.name or "").partition(".")[0]
    if package in ("", "mixprof"):
        raise error
    return f"{package} is not installed: {sys.executable} -m pip install {DISTRIBUTIONS.get(package, package)}"


def main(argv: list[str] | None = None) -> int:
    """Run one command; its exit code, or that of how it failed."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        for name in (sys.argv[1:] if argv is None else argv)[:1]:
            if name in LACKING:
                raise LACKING[name]
        top = parser()
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
