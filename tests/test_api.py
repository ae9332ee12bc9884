"""`import mixprof`: what it offers, and what its keywords can be."""

import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest

import mixprof
from mixprof.data.errors import UsageError
from mixprof.plan.settings import AXES, MEASURE

STUB = Path(mixprof.__file__).with_suffix(".pyi")


def test_types_and_names_are_of_the_same_functions():
    stubbed = re.findall(r"^from mixprof\.[\w.]+ import (\w+) as \1$", STUB.read_text(), re.M)
    assert sorted(stubbed) == vars(mixprof)["__all__"]
    assert all(callable(getattr(mixprof, name)) for name in stubbed)


def test_importing_it_loads_nothing_else():
    code = (
        "import sys, mixprof; print([name for name in sys.modules if name.startswith('mixprof.') or name == 'numpy'])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


def test_keywords_are_the_settings():
    assert set(AXES) | set(MEASURE) <= set(inspect.signature(mixprof.sweep).parameters)
    assert inspect.signature(mixprof.time).parameters["max_lost_cpu"].default == 0.1
    assert {*AXES, *MEASURE, "budget_s", "base_set"} <= set(inspect.signature(mixprof.ab).parameters)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: mixprof.sweep(models="swin_t", resolution=7), "got resolution=, expected resolutions"),
        (lambda: mixprof.time("swin_t", launches=0), "launches=: got 0, expected a whole number from 1 up"),
        (lambda: mixprof.count("swin_t", window=0), "window=: got 0, expected a whole number from 1 up"),
        (lambda: mixprof.sweep("none.toml"), "none.toml"),
        (lambda: mixprof.ab(models="swin_t"), "expected a difference"),
        (lambda: mixprof.ab("HEAD", budget=3), "got budget=, expected"),
        (lambda: mixprof.ab(cast(Any, 7), models="swin_t"), "got 7, expected a revision"),
        (lambda: mixprof.ab("HEAD", budget_s="long", models="swin_t"), "got long, expected seconds above 0"),
        (
            lambda: mixprof.ab(head_set={"speed": 3}, models="swin_t"),
            "head_set=: got 'speed=3', expected one of lowering",
        ),
        (lambda: mixprof.ab(base_set="lowering=eager", models="swin_t"), "expected a mapping like"),
        (lambda: mixprof.count(cast(Any, 7)), "model=: got 7, expected a name"),
        (lambda: mixprof.count("swin_t", step="trian"), "step=: got 'trian', expected one of inference"),
    ],
)
def test_a_wrong_keyword_or_value_is_one_line(call, said):
    with pytest.raises(UsageError) as error:
        call()
    assert said in str(error.value)
    assert "\n" not in str(error.value)
