"""Tables of a service test."""

from collections.abc import Iterable, Sequence

from mixprof.data.case import Case
from mixprof.data.served import Percentile, Served
from mixprof.reports.text.markdown import plain_table

Rate = tuple[Served, float | None, float | None]  # one of a case's launches, and the ends of its largest rate


def tables(served: Sequence[Served], rates: Iterable[Rate] = ()) -> str:
    """Loads, largest rates and changing shapes, each a table where there are any."""
    loads = [each for each in served if each.shapes == () and (each.percentiles or each.per_second)]
    parts = [
        [_load(each) for each in loads],
        [_rate(*each) for each in rates if each[0].status == "ok"],
        [row for each in served for row in _shapes(each)],
        [{"case": _label(each), "scenario": each.scenario, each.status: each.reason or ""}
         for each in served if each.status != "ok"],
    ]  # fmt: skip
    return "\n\n".join(plain_table(part) for part in parts if part)


def _label(served: Served) -> str:
    return Case.from_json(served.case).label() + (f" launch {served.launch + 1}" if served.launch else "")


def _load(served: Served) -> dict[str, str]:
    named = {f"p{100 * each.share:g}": _bounded(each) for each in served.percentiles}
    share = "p90" if served.scenario == "single" else "p99"
    enough = served.early_stopping_needs is None or (served.queries or 0) >= served.early_stopping_needs
    stopped = "" if not served.percentiles else _ms(served.early_stopping_ms) if enough else "too few queries"
    return {
        "case": _label(served),
        "scenario": served.scenario + (f" {served.rate:g}/s" if served.rate else ""),
        "samples/s": _number(served.per_second),
        "queries": str(served.queries),
        **{name: named.get(name, "") for name in ("p50", "p90", "p99")},
        "early stopping": f"{share} {stopped}" if stopped else "",
        "batch": _number(served.mean_batch),
        "note": _note(served),
    }


def _note(served: Served) -> str:
    lost = served.lost_cpu_share or 0.0
    notes = [
        "simulated" if served.simulated else "",
        f"{served.recompiles} recompilations" if served.recompiles else "",
        f"{lost:.0%} of the CPU lost to others" if lost > 0.05 else "",
    ]
    return ", ".join(filter(None, notes))


def _bounded(each: Percentile) -> str:
    """Milliseconds with their bounds; a query that was never answered is ∞."""
    high = "∞" if each.high_ms is None else f"{each.high_ms:.3g}"
    low = "0" if each.low_ms is None else f"{each.low_ms:.3g}"
    return f"{_ms(each.ms)} [{low}, {high}]"


def _ms(value: float | None) -> str:
    return "∞" if value is None else f"{value:.3g} ms"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _rate(served: Served, low: float | None, high: float | None) -> dict[str, str]:
    """The largest rate: above what surely keeps the limit, below what surely breaks it."""
    none = low is None and high is not None
    between = f"none from {high:.4g} up" if none else f"{_number(low) or '?'} to {_number(high) or '?'} queries/s"
    return {
        "case": Case.from_json(served.case).label(),
        "limit": f"p99 of {served.limit_ms:g} ms",
        "largest rate": between,
        "rates tried": str(len(served.tried)),
    }


def _shapes(served: Served) -> list[dict[str, str]]:
    return [
        {
            "case": Case.from_json(served.case).label().replace(_size(served.case["resolution"]), "*"),
            "engines": str(served.settings.get("engines", "each")),
            "resolution": _size(shape.resolution),
            "queries": str(shape.queries),
            "built in": f"{shape.build_s:.3g} s",
            "first": _ms(shape.first_ms),
            "later median": _bounded(shape.percentiles[0]) if shape.percentiles else "",
            "recompiles": str(shape.recompiles),
        }
        for shape in served.shapes
    ]


def _size(resolution: Sequence[int]) -> str:
    return "x".join(map(str, resolution))
