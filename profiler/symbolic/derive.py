"""Closed forms of a model's cost, read off a few counts of it and proven on others.

Each operator that multiplies and accumulates costs one monomial of sizes times a number, each tensor that it reads or
writes another, each parameter another. The monomial is looked up: of all that can be made of the sizes that occur in
the shapes of the model's own tensors, the one that grows from count to count as the cost does. The sums are then
compared with counts at points that were not used: small maps, wide windows, and on both sides of every step that a
rounded size takes. A point that refutes them joins those that they are read off, and others are drawn.
"""

import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from math import gcd

from mixprof.symbolic.formula import LENGTHS, Area, Formula, Point, Powers, degree, monomial_at

FITTED, PROVEN, REFUTED, CHECKED = 6, 10, 6, 3  # points; those that refute at most
DIVISORS = range(1, 65)  # of a side, on the way from the input to the smallest map
OFFSETS = 16  # at most, beyond a divisor: what kernels without padding cut off
TRIES = 20  # for each held-out point: not every window suits every model
BYTES_PER_VALUE = {"float32": 4, "tf32": 4, "float16": 2, "bfloat16": 2}
COSTS = ("macs", "params", "min_bytes")


class NoFormula(Exception):
    """No closed form could be derived or proven; the message says why, in one line."""


class Impossible(Exception):
    """A model cannot be built for a point."""


@dataclass(frozen=True)
class Observed:
    """What was counted at one point, in values of whatever dtype."""

    operators: tuple[tuple[str, str, int, tuple[int, ...]], ...]  # name, module, MACs, bytes of each tensor (float32)
    params: dict[str, int]  # of each parameter, by name
    sizes: frozenset[int]  # lengths of axes that occurred
    uncounted: tuple[str, ...]

    def cost(self, name: str) -> int:
        """One of COSTS; bytes in float32."""
        if name == "params":
            return sum(self.params.values())
        return sum(macs if name == "macs" else sum(parts) for _, _, macs, parts in self.operators)


Observe = Callable[[Point], Observed]  # raises Impossible


@dataclass(frozen=True)
class Formulas:
    """The exact cost of every case of a model."""

    macs: Formula
    params: Formula
    min_bytes: Formula  # in float32: other types' are that times their size over 4
    proven: int  # points that it was compared at


def derive(observe: Observe, *, has_window: bool, has_channels: bool, smallest: int, seed: int = 0) -> Formulas:
    """The formulas of a model; NoFormula where they cannot be derived or do not hold at a held-out point."""
    draw = Points(random.Random(seed), has_window, has_channels, smallest)
    counts = [(point, _observe(observe, point)) for point in (draw.large() for _ in range(FITTED))]
    while True:
        formulas = fit(counts)
        draws = [draw.small] * PROVEN + [partial(draw.edge, area) for area in _areas_in(formulas)]
        refuting = next(_refutations(formulas, observe, draws), None)
        if refuting is None:
            return replace(formulas, proven=len(draws))
        held_out, difference = refuting
        counts.append(held_out)
        if len(counts) > FITTED + REFUTED:
            raise NoFormula(difference)


def holds(
    formulas: Formulas, observe: Observe, *, has_window: bool, has_channels: bool, smallest: int, seed: int = 1
) -> bool:
    """Whether formulas that were derived before give what is counted at a few points now."""
    draw = Points(random.Random(seed), has_window, has_channels, smallest)
    return next(_refutations(formulas, observe, [draw.small] * CHECKED), None) is None


def _refutations(
    formulas: Formulas, observe: Observe, draws: Sequence[Callable[[], Point]]
) -> Iterator[tuple[tuple[Point, Observed], str]]:
    """Points, one of each draw, at which formulas do not hold, what was counted there, and how they differ."""
    for draw in draws:
        held_out = _possible(observe, draw)
        if difference := _refuted(formulas, *held_out):
            yield held_out, difference


def _areas_in(formulas: Formulas) -> list[Area]:
    """The areas that formulas depend on."""
    names = dict.fromkeys(name for cost in COSTS for name in getattr(formulas, cost).sizes)
    return [Area.of(name) for name in names if name not in LENGTHS]


def _observe(observe: Observe, point: Point) -> Observed:
    try:
        return observe(point)
    except Impossible as error:
        raise NoFormula(f"it was to be counted at {in_words(point)}: {error}") from error


def in_words(point: Point) -> str:
    words = f"batch {point.batch}, {point.height}x{point.width}"
    words += "" if point.window is None else f", window {point.window}"
    return words + ("" if point.channels is None else f", {point.channels} channels")


def fit(counts: Sequence[tuple[Point, Observed]]) -> Formulas:
    """Formulas that hold at these points, each operator's part in them a single monomial."""
    observed = [counted for _, counted in counts]
    if uncounted := observed[0].uncounted:
        raise NoFormula(f"{', '.join(uncounted)} cannot be counted")
    shapes = {tuple((name, module, len(parts)) for name, module, _, parts in counted.operators) for counted in observed}
    if len(shapes) > 1 or len({tuple(counted.params) for counted in observed}) > 1:
        raise NoFormula("its operators or parameters are not the same at every size")
    monomials = Monomials(counts)
    macs, parts = [], []
    for rows in zip(*(counted.operators for counted in observed), strict=True):
        name, module = rows[0][:2]
        where = f"{name} in '{module}'" if module else name
        macs.append(monomials.find(f"MACs of {where}", [row[2] for row in rows]))
        for sizes in zip(*(row[3] for row in rows), strict=True):
            parts.append(monomials.find(f"bytes of {where}", sizes))
    params = [
        monomials.find(f"size of '{name}'", [counted.params[name] for counted in observed])
        for name in observed[0].params
    ]
    return Formulas(Formula.of(macs), Formula.of(params), Formula.of(parts), 0)


def _refuted(formulas: Formulas, point: Point, counted: Observed) -> str | None:
    """How formulas differ from what was counted at a point, None if they do not."""
    for name in COSTS:
        expected = counted.cost(name)
        try:
            got = getattr(formulas, name).at(point)
        except ArithmeticError as error:
            return str(error)
        if got != expected:
            return f"at {in_words(point)} its {name} are {expected:,}, and {got:,} by the formula"
    return None


def _possible(observe: Observe, draw: Callable[[], Point]) -> tuple[Point, Observed]:
    for left in reversed(range(TRIES)):
        point = draw()
        try:
            return point, observe(point)
        except Impossible as error:
            if not left:
                raise NoFormula(f"it was to be proven at {in_words(point)}: {error}") from error
    raise AssertionError


@dataclass(frozen=True)
class Points:
    """Random points: large ones, at which no two sizes are alike, and such as people use."""

    random: random.Random
    has_window: bool
    has_channels: bool
    smallest: int  # side of an input

    def large(self) -> Point:
        height, width = self.random.sample(range(10 * self.smallest + 40, 28 * self.smallest + 300), 2)
        window = self.random.choice([3, 5, 7, 9, 11, 13]) if self.has_window else None
        return Point(self.random.randint(2, 9), height, width, window, self._channels())

    def small(self) -> Point:
        highest = 12 * self.smallest + 60
        height = self.random.randint(self.smallest, highest)
        width = self.random.choice([height, self.random.randint(self.smallest, highest)])
        window = self.random.randint(1, 15) if self.has_window else None
        return Point(self.random.choice([1, 1, 2, 3, 8]), height, width, window, self._channels())

    def edge(self, area: Area) -> Point:
        """A height that the area's divisor, and the window, divide without a rest, and a width one more."""
        point = self.small()
        period = area.divisor * (point.window or 1)
        least = -(-max(self.smallest - area.offset, 1) // period)
        height = period * (least + self.random.randint(0, 2)) + area.offset
        return replace(point, height=height, width=height + 1)

    def _channels(self) -> int | None:
        return 32 * self.random.randint(1, 16) if self.has_channels else None


class Monomials:
    """All monomials of the sizes that occur, to be found by how they grow from point to point."""

    def __init__(self, counts: Sequence[tuple[Point, Observed]]):
        self._powers: dict[tuple[int, ...], tuple[Powers, int]] = {}
        points = [point for point, _ in counts]
        for powers in sorted(_candidates(_areas(counts), points[0]), key=degree):
            values = [monomial_at(powers, point) for point in points]
            self._powers.setdefault(_growth(values), (powers, gcd(*values)))

    def find(self, what: str, values: Sequence[int]) -> tuple[Fraction, Powers]:
        """The number and the monomial that give these values at the points; NoFormula if there is none."""
        if not any(values):
            return Fraction(0), ()
        monomial = self._powers.get(_growth(values)) if all(values) else None
        if monomial is None:
            raise NoFormula(f"{what}: no monomial of sizes that occur gives {', '.join(map(str, values))}")
        powers, common = monomial
        return Fraction(gcd(*values), common), powers


def _growth(values: Sequence[int]) -> tuple[int, ...]:
    """The same for values that are multiples of one another."""
    common = gcd(*values)
    return tuple(value // common for value in values)


def _areas(counts: Sequence[tuple[Point, Observed]]) -> list[str]:
    """The names of the areas whose sides occur among the lengths of axes at every point."""

    def occurs(area: Area) -> bool:
        return all(area.occurring(point) <= counted.sizes for point, counted in counts)

    letters = "NT" if counts[0][0].window is None else "NTPV"
    areas = (
        Area(letter, divisor, offset)
        for divisor in DIVISORS
        for offset in dict.fromkeys((0, divisor - 1, *range(divisor + OFFSETS)))  # up, down, all else
        for letter in letters
    )
    different = {
        tuple(area.at(point) for point, _ in counts): area.name for area in reversed(list(filter(occurs, areas)))
    }
    return list(reversed(different.values()))


def _candidates(areas: list[str], point: Point) -> Iterator[Powers]:
    """Monomials of at most two areas, and small powers of the others."""
    singles: list[Powers] = [(), *(((area, 1),) for area in areas)]
    pairs = [((a, 1), (b, 1)) if a != b else ((a, 2),) for a, b in itertools.combinations_with_replacement(areas, 2)]
    windows = [()] if point.window is None else [_powers(K=k, L=offsets) for k in range(5) for offsets in (0, 1, 2)]
    channels = range(1) if point.channels is None else range(4)
    for batch, area, window, width in itertools.product((0, 1), [*singles, *pairs], windows, channels):
        yield (*_powers(B=batch), *area, *window, *_powers(C=width))


def _powers(**powers: int) -> Powers:
    return tuple((name, power) for name, power in powers.items() if power)


def values_at(formulas: Formulas, point: Point, dtype: str) -> dict[str, int]:
    """The costs of one case."""
    per_value = BYTES_PER_VALUE[dtype]
    return {
        "macs": formulas.macs.at(point),
        "params": formulas.params.at(point),
        "min_bytes": formulas.min_bytes.at(point) * per_value // 4,
    }
