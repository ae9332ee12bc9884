"""The right output of a module, made without the package: float64 on the CPU; and how far another is from it."""

import torch

from mixprof.metrics import accuracy


def reference(module, inputs):
    """The outputs of the first and the last image in float64. The module is float64 afterwards."""
    ends = tuple(x[[0, -1]] if x.shape[0] > 1 else x for x in inputs)
    with torch.inference_mode():
        return module.double()(*(x.double() for x in ends))


def relative_error(output: torch.Tensor, expected: torch.Tensor) -> float:
    """max|y - r| / max|r| over the first and the last image; infinite where y is not finite or shaped otherwise."""
    return accuracy.worst_error([output], [expected], of_ends=output.shape[0] > 1)
