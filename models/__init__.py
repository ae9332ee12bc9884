"""Spatial mixers and the networks around them, by name. Importing this loads no torch."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from mixprof.models.formulations import FORMULATION_OPTIONS
from mixprof.models.registry import (
    HEAD_CHANNELS,
    MODELS,
    SMALLEST_IMAGE,
    Entry,
    accepts,
    check,
    facts,
    kind,
    parse,
    sides_of,
)

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["MODELS", "SMALLEST_IMAGE", "accepts", "build", "check", "facts", "kind", "load_published", "parse"]
__all__ += ["specialize"]
DEFAULT_CHANNELS = 96


def build(
    name: str,
    *,
    resolution: int | tuple[int, int] = 224,
    window: int | None = 7,
    channels: int | None = None,
    num_classes: int = 1000,
    lowering: str | None = None,
) -> nn.Module:
    """A model in eval mode: published with lowering=None, else what specialize() makes of that.

    resolution: (height, width) or the side of a square, in positions of the map for a mixer, in pixels for a
    network. window is ignored where there is none; channels are a mixer's, 96 by default. Raises ValueError for
    what check() refuses.
    """
    entry, options = parse(name)
    reason = check(name, resolution=resolution, window=window, channels=channels)
    if reason is not None:
        raise ValueError(reason)
    make = _make_mixer if entry.kind == "mixer" else _make_network
    module = make(entry, options, sides_of(resolution), window or 1, channels or DEFAULT_CHANNELS, num_classes).eval()
    for option in (FORMULATION_OPTIONS | {"formulation"}) & options.keys():
        _load("mixprof.models.specialization:override")(module, option, options[option])
    return module if lowering is None else specialize(module, lowering)


def _make_mixer(
    entry: Entry, options: Mapping[str, str], sides: tuple[int, int], window: int, channels: int, num_classes: int
) -> nn.Module:
    shifted = options.get("shifted") == "true"
    return _load(entry.factory)(channels, sides, window, channels // HEAD_CHANNELS, shifted=shifted)


def _make_network(
    entry: Entry, options: Mapping[str, str], sides: tuple[int, int], window: int, channels: int, num_classes: int
) -> nn.Module:
    make = partial(_load(entry.factory), sides, window, num_classes, **entry.settings)
    if entry.mixer is None:
        return make()
    return make(mixer=_load(MODELS[options.get("mixer", entry.mixer)].factory))


def _load(path: str) -> Any:
    """What "module:attribute" names, imported now."""
    module, _, attribute = path.partition(":")
    return getattr(importlib.import_module(module), attribute)


def specialize(
    module: nn.Module, lowering: str, formulations: Mapping[str, str] | None = None, device: str | None = None
) -> nn.Module:
    """The same function arranged for a lowering, in place: see specialization.py."""
    return _load("mixprof.models.specialization:specialize")(module, lowering, formulations, device)


def load_published(module: nn.Module, state_dict: Mapping[str, Tensor]) -> None:
    """Load a published Swin or DWNet checkpoint's tensors by their names: see models/published.py."""
    _load("mixprof.models.published:load_published")(module, state_dict)
