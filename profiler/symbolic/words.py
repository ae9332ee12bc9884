"""A model's formulas for a person, and for a program."""

from typing import Any

from mixprof.symbolic.derive import COSTS, Formulas
from mixprof.symbolic.formula import in_words

TITLES = {"macs": "MACs", "params": "parameters", "min_bytes": "minimal bytes in float32 (half of it in 16 bits)"}
NO_PEAK = "no closed form was proven: it follows which copies padding and shifting leave; count single cases"


def as_text(name: str, formulas: Formulas) -> str:
    """One line per cost, then what its letters stand for."""
    lines = [f"{name}: exact for every case, proven on {formulas.proven} counts that it was not derived from"]
    lines += [f"  {TITLES[cost]} = {getattr(formulas, cost).text()}" for cost in COSTS]
    lines.append(f"  predicted peak memory: {NO_PEAK}")
    return "\n".join([*lines, "where", *(f"  {size} = {meaning}" for size, meaning in _sizes(formulas).items())])


def _sizes(formulas: Formulas) -> dict[str, str]:
    names = dict.fromkeys(size for cost in COSTS for size in getattr(formulas, cost).sizes)
    return {size: in_words(size) for size in sorted(names)}


def as_json(name: str, formulas: Formulas) -> dict[str, Any]:
    """Each cost as text and as terms, a list of [coefficient, {size: power}]; `sizes` says what these are."""
    costs = {
        cost: {"text": getattr(formulas, cost).text(), "terms": getattr(formulas, cost).to_json()} for cost in COSTS
    }
    return {
        "model": name,
        **costs,
        "predicted_peak_bytes": None,
        "predicted_peak_reason": NO_PEAK,
        "sizes": _sizes(formulas),
        "proven_points": formulas.proven,
    }
