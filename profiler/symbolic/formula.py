"""Sums of monomials of sizes, exact for every case of a model.

A size is named by a letter: B the batch, K the window, C the channels, L = 2 K - 1 the offsets along a window; or it
is an area, named by a letter, a divisor d and an offset o, which are 1 and 0 where they are not said:

    N8_3  the positions of a map with sides ceil((H - 3) / 8) and ceil((W - 3) / 8)
    P8_3  the same with both sides padded to multiples of the window
    V8_3  the windows in that
    T8_3  the positions N8_3 and a class token

A chain of strides and paddings always leaves such sides: dividing and rounding one up or down gives another.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from math import lcm
from typing import Any

Powers = tuple[tuple[str, int], ...]  # of each size in a monomial, by name
SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Point:
    """What the cost of a model can depend on."""

    batch: int
    height: int
    width: int
    window: int | None = None
    channels: int | None = None


LENGTHS: dict[str, Callable[[Point], int | None]] = {
    "B": lambda point: point.batch,
    "K": lambda point: point.window,
    "C": lambda point: point.channels,
    "L": lambda point: 2 * (point.window or 0) - 1,
}
MEANINGS = {"B": "batch", "K": "window", "C": "channels", "L": "2·K - 1"}


@dataclass(frozen=True)
class Area:
    """A map, its windows or its tokens, as a function of the resolution."""

    letter: str
    divisor: int = 1
    offset: int = 0

    @classmethod
    def of(cls, name: str) -> "Area":
        divisor, _, offset = name[1:].partition("_")
        return cls(name[0], int(divisor or 1), int(offset or 0))

    @property
    def name(self) -> str:
        divisor = "" if self.divisor == 1 and not self.offset else str(self.divisor)
        return self.letter + divisor + (f"_{self.offset}" if self.offset else "")

    def side(self, length: int, window: int | None) -> int:
        """Of the map along one axis, from the input's length there."""
        side = -((self.offset - length) // self.divisor)
        if self.letter in "NT" or window is None:
            return side
        windows = -(-side // window)
        return windows * window if self.letter == "P" else windows

    def at(self, point: Point) -> int:
        return self.side(point.height, point.window) * self.side(point.width, point.window) + (self.letter == "T")

    def occurring(self, point: Point) -> set[int]:
        """Lengths of axes that occur where the area does."""
        if self.letter == "T":
            return {self.at(point)}
        return {self.side(point.height, point.window), self.side(point.width, point.window)}

    def in_words(self) -> str:
        """Like "⌈H/4⌉·⌈W/4⌉"."""
        return "·".join(self._side_in_words(length) for length in "HW") + (" + 1" if self.letter == "T" else "")

    def _side_in_words(self, length: str) -> str:
        over = f"({length} - {self.offset})" if self.offset else length
        side = over if self.divisor == 1 else f"⌈{over}/{self.divisor}⌉"
        if self.divisor > 1 and self.offset == self.divisor - 1:
            side = f"⌊{length}/{self.divisor}⌋"
        return {"P": f"K·⌈{side}/K⌉", "V": f"⌈{side}/K⌉"}.get(self.letter, side)


def size(name: str, point: Point) -> int:
    """The value of a size, like "N4", at a point."""
    if name not in LENGTHS:
        return Area.of(name).at(point)
    value = LENGTHS[name](point)
    if value is None:
        raise ValueError(f"got no {MEANINGS[name]} at {point}, expected one: the formula depends on it")
    return value


def in_words(name: str) -> str:
    """What a size stands for."""
    return MEANINGS.get(name) or Area.of(name).in_words()


@dataclass(frozen=True)
class Formula:
    """A sum of rational multiples of monomials that is whole at every point of its model."""

    terms: tuple[tuple[Fraction, Powers], ...]

    @classmethod
    def of(cls, terms: Iterable[tuple[Fraction, Powers]]) -> "Formula":
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
    def _compiled(self) -> tuple[int, list[tuple[str, int]], list[tuple[int, list[int]]]]:
        """The common denominator, each power that occurs, and each term times the former as places of the latter."""
        common = lcm(*(coefficient.denominator for coefficient, _ in self.terms))
        factors = list(dict.fromkeys(factor for _, powers in self.terms for factor in powers))
        places = {factor: place for place, factor in enumerate(factors)}
        terms = [(int(times * common), [places[factor] for factor in powers]) for times, powers in self.terms]
        return common, factors, terms

    def at(self, point: Point) -> int:
        """The value at a point; ArithmeticError where it is no whole number."""
        common, factors, terms = self._compiled
        values = [size(name, point) ** power for name, power in factors]
        total = 0
        for product, places in terms:
            for place in places:
                product *= values[place]
            total += product
        if total % common:
            raise ArithmeticError(f"got {total}/{common} at {point}, expected a whole number")
        return total // common

    def text(self) -> str:
        """Like "2·B·P·K²·C + 4·B·P·C²"."""
        return " + ".join(_in_words(coefficient, powers) for coefficient, powers in self.terms) or "0"

    def to_json(self) -> list[Any]:
        return [[str(coefficient), dict(powers)] for coefficient, powers in self.terms]

    @classmethod
    def from_json(cls, terms: list[Any]) -> "Formula":
        return cls(tuple((Fraction(coefficient), tuple(powers.items())) for coefficient, powers in terms))


def degree(powers: Powers) -> int:
    """Areas count twice: they are products of two sides."""
    return sum(power if name in LENGTHS else 2 * power for name, power in powers)


def _in_words(coefficient: Fraction, powers: Powers) -> str:
    factors = [name if power == 1 else name + str(power).translate(SUPERSCRIPTS) for name, power in powers]
    if coefficient == 1 and factors:
        return "·".join(factors)
    return "·".join([f"{coefficient}", *factors])


def monomial_at(powers: Powers, point: Point) -> int:
    """The value of a monomial at a point."""
    value = 1
    for name, power in powers:
        value *= size(name, point) ** power
    return value
