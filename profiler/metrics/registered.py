"""Formulas for operators of one's own: what a user's module registers when it is imported, here or in a worker."""

import re
from collections.abc import Callable

from mixprof.data.errors import UsageError
from mixprof.metrics.operator_costs import REGISTERED, is_known

Formula = Callable[..., int]


def register_flops(name: str, formula: Formula) -> Formula:
    """Count the operator "my::op" by a formula of one's own: multiply-accumulates, which are 2 FLOPs each.

    formula: called as `formula(*arguments, out_shape=…)`, tensors as tuples of their sizes and the rest as it is, with
    the operator's keywords where it is called with some; returns a whole number. Returns the formula, and replaces one
    that was registered before. UsageError for a name that is none, or that is known already.
    """
    if not re.fullmatch(r"\w+::\w+", name):
        raise UsageError(f"got operator '{name}', expected a namespace and a name like 'my::op'")
    if not callable(formula):
        raise UsageError(f"got {type(formula).__name__} for operator '{name}', expected a function of its shapes")
    dotted = name.replace("::", ".")
    if is_known(dotted):
        raise UsageError(f"got operator '{name}', which is counted already, expected one that `count` cannot count")
    REGISTERED[dotted] = formula
    return formula
