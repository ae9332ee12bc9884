"""The right output of a module, made without the package: float64 on the CPU."""

import torch


def reference(module, inputs):
    """The outputs of the first and the last image in float64. The module is float64 afterwards."""
    ends = tuple(x[[0, -1]] if x.shape[0] > 1 else x for x in inputs)
    with torch.inference_mode():
        return module.double()(*(x.double() for x in ends))
