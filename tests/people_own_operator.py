"""A module with an operator of its own and the formula that counts it; and one that registers what is known."""

import mixprof
from people_operators import OwnOperator


def product(x, weight, *, out_shape):
    """MACs of (..., n) by (n, m)."""
    rows = 1
    for size in x:
        rows *= size
    return rows * weight[1]


mixprof.register_flops("people::product", product)


def registered():
    return OwnOperator()


def known():
    mixprof.register_flops("aten::mm", product)
