"""A function of no arguments in the place of a model: `call:package.module:function`. Only its time counts."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable

import torch
from torch import Tensor, nn


class Calling(nn.Module):
    """Calls a function in every forward and hands the input on, as it is."""

    def __init__(self, function: Callable[[], object]):
        super().__init__()
        # Not the function itself: the reference is made on a copy, and what the user hands in need not be copyable.
        self.call = lambda: function()

    def forward(self, x: Tensor) -> Tensor:
        # As it runs at the user's: what comes out of inference mode cannot be differentiated.
        with torch.inference_mode(False), torch.enable_grad():
            self.call()
        return x


def calling(module: str, function: str) -> Calling:
    """The module that calls `module:function`. ValueError for one that cannot be called without arguments."""
    found = getattr(importlib.import_module(module), function)
    try:
        inspect.signature(found).bind()
    except TypeError as error:
        raise ValueError(f"got '{function}' ({error}), expected a function that takes no arguments") from None
    except ValueError:
        pass  # one that is built in, and does not tell
    return Calling(found)
