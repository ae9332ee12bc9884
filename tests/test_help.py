"""What `mixprof` says of itself: help, defaults, examples, completion."""

import argparse
import subprocess

import pytest

from mixprof.cli import main
from mixprof.cli.command import Command, Parser
from mixprof.data.errors import UsageError


def commands():
    (choices,) = [action.choices for action in main.parser()._actions if isinstance(action.choices, dict)]
    return choices


def test_mixprof_alone_prints_help(capsys):
    assert main.main([]) == 0
    said = capsys.readouterr()
    assert said.out.startswith("usage: mixprof")
    assert all(name in said.out for name in main.NAMES)
    assert said.err == ""


def test_version(capsys):
    with pytest.raises(SystemExit) as ended:
        main.main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("mixprof ")


@pytest.mark.parametrize("name", main.NAMES)
def test_every_option_says_what_it_is_for_and_its_default(name):
    command: Parser = commands()[name]
    formatter = command._get_formatter()
    for action in command._actions:
        assert action.help, action.dest
        if action.option_strings and action.default is not argparse.SUPPRESS:
            assert "default" in (formatter._get_help_string(action) or "") or action.required, action.option_strings


@pytest.mark.parametrize("name", main.NAMES)
def test_help_ends_with_two_examples_that_the_parser_takes(name):
    *_, title, first, second = commands()[name].format_help().splitlines()
    assert title == "examples:"
    for line in (first, second):
        assert line.startswith(f"  mixprof {name}")
    loaded = main.command(name)
    assert isinstance(loaded, Command)
    for example in loaded.examples:
        quoted = subprocess.run(["sh", "-c", f"printf '%s\\n' {example}"], capture_output=True, text=True).stdout
        assert main.parser().parse_args(quoted.splitlines()).run is loaded.run


def test_an_abbreviation_is_an_error():
    with pytest.raises(UsageError, match="--model"):
        main.parser().parse_args(["plan", "--model", "swin_t"])


def test_completion_knows_commands_and_options():
    script = subprocess.run(
        ["bash", "-c", 'source /dev/stdin && COMP_WORDS=(mixprof sweep --lay) COMP_CWORD=2 && _shtab_mixprof && '
         'echo "${COMPREPLY[@]}"'],
        input=_completion(), capture_output=True, text=True,
    )  # fmt: skip
    assert script.stdout.split() == ["--layouts", "--layers"], script.stderr


def _completion():
    import shtab

    return shtab.complete(main.parser(), "bash")
