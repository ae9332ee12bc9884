"""One table of settings: command line, sweep file, Python and documentation follow from it."""

from pathlib import Path

import pytest

from mixprof.cli import main
from mixprof.data.errors import UsageError
from mixprof.plan import sweep_file
from mixprof.plan.settings import AXES, MEASURE, Axes, Measure

ROOT = Path(__file__).parents[1]


def test_a_sweep_has_an_option_for_each_setting():
    arguments = main.parser().parse_args(["sweep"])
    assert set(AXES) | set(MEASURE) <= set(vars(arguments))


@pytest.mark.parametrize("setting", [*AXES.values(), *MEASURE.values()], ids=lambda each: each.name)
def test_the_documentation_lists_it_with_bounds_and_default(setting):
    row = f"| `{setting.option}` | {setting.words} | {setting.default} |"
    assert row in (ROOT / "docs" / "axes.md").read_text().splitlines()


def test_given_values_win_over_a_file(tmp_path):
    path = tmp_path / "sweep.toml"
    path.write_text('[measure]\nlaunches = 5\nseconds = 2\n[[group]]\nmodels = "a"\nbatches = [1, 2]\n')
    groups, measure = sweep_file.read(path, {"batches": "4", "threads": "1"}, "--{}".format)
    assert groups == [Axes(models=("a",), batches=(4,))]
    assert measure == Measure(launches=5, seconds=2.0, threads=1)
    assert sweep_file.read(path, {"quick": True}, "--{}".format)[1] == Measure(quick=True)


def test_a_name_that_is_no_setting_gets_the_nearest():
    with pytest.raises(UsageError, match="got resolution=, expected resolutions"):
        sweep_file.read(None, {"resolution": 7}, "{}=".format)


def test_quick_and_publication_exclude_each_other():
    with pytest.raises(UsageError, match="at most one"):
        sweep_file.read(None, {"quick": True, "publication": True}, "--{}".format)
