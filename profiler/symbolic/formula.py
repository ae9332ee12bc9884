"""Sums of monomials of sizes, exact for every case of a model.

Sizes are named by a letter and a divisor d, 1 where none is said; h and w stand for ceil(H/d) and ceil(W/d):

    B  batch     K  window     C  channels     L  2 K - 1, the offsets along a window
    N4 h w, the positions of a map at a quarter of the resolution
    P4 the same with h and w padded to multiples of the window
    F4 floor(H/4) floor(W/4)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from math import lcm, prod
from typing import Any

Powers = tuple[tuple[str, int], ...]  # of each size in a monomial, by name
SUPERSCRIPTS = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")


@dataclass(frozen=True)
class Point:
    """What the cost of a model can depend on."""

    batch: int
    height: int
    width: int
    window: int | None = None
    channels: int | None = None


def _over(side: int, divisor: int) -> int:
    return -(-side // divisor)


def _padded(side: int, window: int) -> int:
    return _over(side, window) * window


AREAS: dict[str, Callable[[int, int, int], int]] = {  # of a side, a divisor and the window: one side of the area
    "N": lambda side, divisor, window: _over(side, divisor),
    "P": lambda side, divisor, window: _padded(_over(side, divisor), window),
    "F": lambda side, divisor, window: side // divisor,
}


def size(name: str, point: Point) -> int:
    """The value of a size, like "N4", at a point. Of K, L and P where there is a window, of C where channels."""
    if name in ("B", "K", "C", "L"):
        values = {"B": point.batch, "K": point.window, "C": point.channels, "L": 2 * (point.window or 0) - 1}
        found = values[name]
        assert found is not None
        return found
    side, divisor = AREAS[name[0]], int(name[1:] or 1)
    window = point.window or 1
    return side(point.height, divisor, window) * side(point.width, divisor, window)


def in_words(name: str) -> str:
    """What a size stands for: "⌈H/4⌉·⌈W/4⌉"."""
    if name in ("B", "K", "C", "L"):
        return {"B": "batch", "K": "window", "C": "channels", "L": "2·K - 1"}[name]
    letter, divisor = name[0], name[1:]
    sides = [f"{side}/{divisor}" if divisor else side for side in "HW"]
    if letter == "F":
        return "·".join(f"⌊{side}⌋" if divisor else side for side in sides)
    rounded = [f"⌈{side}⌉" if divisor else side for side in sides]
    return "·".join(rounded if letter == "N" else (f"K·⌈{side}/K⌉" for side in rounded))


@dataclass(frozen=True)
class Formula:
    """A sum of rational multiples of monomials that is whole at every point of its model."""

    terms: tuple[tuple[Fraction, Powers], ...]

    @classmethod
    def of(cls, terms: Iterable[tuple[Fraction, Powers]]) -> Formula:
        """The sum with equal monomials put together, the highest powers first."""
        summed: dict[Powers, Fraction] = {}
        for coefficient, powers in terms:
            summed[powers] = summed.get(powers, Fraction(0)) + coefficient
        kept = [(coefficient, powers) for powers, coefficient in summed.items() if coefficient]
        return cls(tuple(sorted(kept, key=lambda term: (-degree(term[1]), term[1]))))

    @cached_property
    def sizes(self) -> tuple[str, ...]:
        """The names of the sizes that occur."""
        return tuple(dict.fromkeys(name for _, powers in self.terms for name, _ in powers))

    @cached_property
    def _whole(self) -> tuple[int, list[tuple[int, Powers]]]:
        """The least common denominator, and the terms times it."""
        common = lcm(*(coefficient.denominator for coefficient, _ in self.terms))
        return common, [(int(coefficient * common), powers) for coefficient, powers in self.terms]

    def at(self, point: Point) -> int:
        """The value at a point; ArithmeticError where it is no whole number."""
        values = {name: size(name, point) for name in self.sizes}
        common, terms = self._whole
        total = sum(times * _monomial(powers, values) for times, powers in terms)
        if total % common:
            raise ArithmeticError(f"got {total}/{common} at {point}, expected a whole number")
        return total // common

    def text(self) -> str:
        """Like "4·B·P·C² + 2·B·P·K²·C"."""
        said = [_term_in_words(coefficient, powers) for coefficient, powers in self.terms]
        return " + ".join(said).replace("+ -", "- ") or "0"

    def to_json(self) -> list[Any]:
        return [[str(coefficient), dict(powers)] for coefficient, powers in self.terms]

    @classmethod
    def from_json(cls, terms: list[Any]) -> Formula:
        return cls(tuple((Fraction(coefficient), tuple(powers.items())) for coefficient, powers in terms))


def _monomial(powers: Powers, values: dict[str, int]) -> Any:
    """Whole wherever it is used: a negative power is of K beside a P, which is a multiple of K²."""
    above = prod(values[name] ** power for name, power in powers if power > 0)
    below = prod(values[name] ** -power for name, power in powers if power < 0)
    return above // below


def degree(powers: Powers) -> int:
    """Areas count twice: they are products of two sides."""
    return sum(power * (2 if name[0] in AREAS else 1) for name, power in powers)


def _term_in_words(coefficient: Fraction, powers: Powers) -> str:
    factors = [name if power == 1 else name + str(power).translate(SUPERSCRIPTS) for name, power in powers]
    if coefficient == 1 and factors:
        return "·".join(factors)
    return "·".join([f"{coefficient}", *factors])


def monomial_at(powers: Powers, point: Point) -> int:
    """The value of a monomial at a point."""
    return int(_monomial(powers, {name: size(name, point) for name, _ in powers}))
