"""How `serve-test` loads a service: settings, declared once for command line and Python, and how they are read."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from mixprof.data.errors import UsageError
from mixprof.data.parsing import nearest
from mixprof.plan import sweep_file
from mixprof.plan.settings import AXES, MEASURE, Axes, Measure, Setting, setting, table
from mixprof.plan.values import SECONDS, SWITCH, number, one_of, whole_number

SCENARIOS = ("single", "multi", "offline", "server", "churn")
ENGINES = ("each", "one")
USUAL_SECONDS, QUICK_SECONDS = 10.0, 1.0
POSITIVE = number("a number above 0 and below 1e9", lambda value: 0 < value < 1e9)
WAIT = number("milliseconds from 0 up", lambda value: 0 <= value < 1e6)
NO_AXES = ("modes", "steps", "batches")  # a service runs hot forwards of batches by its own rule


@dataclass(frozen=True)
class Load:
    """How a service is loaded."""

    scenario: tuple[str, ...] = setting(
        ("server",), one_of(*SCENARIOS), "loads, each once; churn: resolutions drawn from --resolutions in one process"
    )
    rate: float | None = setting(None, POSITIVE, "of server: queries a second, Poisson arrivals", "none")
    limit_ms: float | None = setting(
        None, POSITIVE, "of server: the p99 under which the largest rate is searched for", "no search"
    )
    max_batch: int = setting(1, whole_number(1), "queries in one forward, at most")
    max_wait_ms: float = setting(0.0, WAIT, "that a query waits for others to fill its batch, at most")
    seconds: float | None = setting(
        None,
        SECONDS,
        "of each load; up to five times as long for a p99",
        f"{USUAL_SECONDS:g}; {QUICK_SECONDS:g} with --quick",
    )
    quick: bool = setting(False, SWITCH, "short loads")
    launches: int = setting(1, whole_number(1), "processes that are loaded, one after another")
    queries: int = setting(50, whole_number(2), "of churn, in all")
    engines: str = setting(
        "each", one_of(*ENGINES), "of churn: an engine for each resolution, or one whose height and width are free"
    )
    most_queries: int = 20_000  # in each load
    seed: int = 0

    def refuse(self, spelled: Callable[[str], str]) -> None:
        """UsageError for what does not go together."""
        server, churn = "server" in self.scenario, "churn" in self.scenario
        scenario, rate, limit_ms = map(spelled, ("scenario", "rate", "limit_ms"))
        if len(set(self.scenario)) < len(self.scenario):
            raise UsageError(f"{scenario}: got {','.join(self.scenario)}, expected each once")
        if server and self.rate is None and self.limit_ms is None:
            raise UsageError(
                f"got {scenario} server without {rate} and {limit_ms}, expected one: queries a second, or the p99 "
                "that the largest rate is searched for"
            )
        if not server and (self.rate is not None or self.limit_ms is not None):
            raise UsageError(f"got {rate} or {limit_ms}, which are of {scenario} server, expected that with it")
        if self.max_wait_ms and self.max_batch == 1:
            raise UsageError(
                f"got {spelled('max_wait_ms')} with batches of 1, which never wait: expected {spelled('max_batch')} "
                "from 2 up"
            )
        if churn and len(self.scenario) > 1:
            raise UsageError(f"got {scenario} churn beside others, expected it alone: its shapes are built under load")
        if not churn and self.engines != "each":
            raise UsageError(f"got {spelled('engines')} one, which is of {scenario} churn, expected that with it")


LOAD: dict[str, Setting] = table(Load)
# All that a service test takes, by name.
SETTINGS: dict[str, Setting] = {
    **{name: axis for name, axis in AXES.items() if name not in NO_AXES},
    **{name: one for name, one in MEASURE.items() if one.scope == "any" or name == "calibration"},
    **LOAD,
}


def read(given: Mapping[str, object], spelled: Callable[[str], str]) -> tuple[list[Axes], Measure, Load]:
    """Cases, how they are built, and their load. spelled: a setting's name as whoever gave it writes it."""
    if unknown := [name for name in given if name not in SETTINGS]:
        raise UsageError(f"got {spelled(unknown[0])}, expected {nearest(unknown[0], [*SETTINGS])}")
    loads: dict[str, Any] = {
        name: LOAD[name].kind.parse(value, spelled(name)) if name != "scenario" else _scenarios(value, spelled(name))
        for name, value in given.items()
        if name in LOAD
    }
    groups, measure = sweep_file.read(None, {name: each for name, each in given.items() if name not in LOAD}, spelled)
    load = Load(**loads)
    load.refuse(spelled)
    usual = QUICK_SECONDS if load.quick else USUAL_SECONDS
    return groups, measure, replace(load, seconds=load.seconds or usual, seed=measure.seed)


def _scenarios(value: object, where: str) -> tuple[str, ...]:
    names = value.split(",") if isinstance(value, str) else value if isinstance(value, (list, tuple)) else [value]
    return tuple(LOAD["scenario"].kind.parse(name, where) for name in names or [None])
