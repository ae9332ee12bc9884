"""The pytest plugin: the `latency_gate` fixture with its marker and options. It loads nothing until a test asks for it.

`-p no:mixprof` leaves it out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mixprof.cli import LATENCY_GATE as NAME

if TYPE_CHECKING:
    from mixprof.cli.latency_gate import Gate


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("mixprof", "latency_gate of mixprof")
    group.addoption(
        "--latency-base", default="merge-base", metavar="REV",
        help="what gates compare with where the test does not say: a revision or merge-base (default)",
    )  # fmt: skip
    group.addoption(
        "--latency-inconclusive", default="skip", choices=("skip", "fail", "pass"),
        help="what a gate without a verdict comes to (default: skip)",
    )  # fmt: skip


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", f"{NAME}: given to every test that uses the fixture of this name")


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark what uses the fixture, so that `-m latency_gate` selects it."""
    if NAME in getattr(item, "fixturenames", ()):
        item.add_marker(NAME)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print one line for each gate, also for those that passed or did not measure."""
    reports = [report for reports in terminalreporter.stats.values() for report in reports]
    called = [report for report in reports if getattr(report, "when", None) == "call"]
    lines = [f"{report.nodeid}: {line}" for report in called for name, line in report.user_properties if name == NAME]
    if lines:
        terminalreporter.section("latency gates")
        terminalreporter.write("\n".join([*lines, ""]))


@pytest.fixture
def latency_gate(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Gate:
    """Call it with a model's name: BASE against the folder as it is, the verdict as the test's outcome."""
    from mixprof.cli.latency_gate import Gate

    return Gate(request.node, tmp_path_factory)
