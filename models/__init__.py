"""Spatial mixers and the networks around them, by name. Importing this loads no torch."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

HEAD_CHANNELS = 32  # channels of one head; a mixer's channels are a multiple of it
SMALLEST_IMAGE = 32  # pixels along a side
DEFAULT_CHANNELS = 96

ATTENTION = {"attention": ("explicit", "sdpa", "baddbmm")}
AGGREGATION = {"aggregation": ("matmul", "shift", "shift_flat", "unfold_rows", "unfold_sum")}
FORMULATION_OPTIONS = frozenset(ATTENTION) | frozenset(AGGREGATION)


@dataclass(frozen=True)
class Entry:
    """A model that can be built by name."""

    kind: str  # "mixer" or "network"
    factory: str  # "module:attribute"
    window: bool = True  # whether it has a window or kernel
    odd: bool = False  # whether that must be odd
    mixer: str | None = None  # of a network in which it can be exchanged: the name of its own
    settings: Mapping[str, Any] = field(default_factory=dict)  # fixed keywords of the factory
    options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # option -> its values


def _mixer(
    factory: str, *, window: bool = True, odd: bool = False, options: Mapping[str, tuple[str, ...]] | None = None
) -> Entry:
    return Entry("mixer", f"mixprof.models.mixers.{factory}", window=window, odd=odd, options=options or {})


def _pyramid(factory: str, mixer: str, dim: int, depths: tuple[int, ...]) -> Entry:
    return Entry("network", f"mixprof.models.{factory}", mixer=mixer, settings={"dim": dim, "depths": depths})


def _vit(dim: int, heads: int) -> Entry:
    settings = {"dim": dim, "depth": 12, "heads": heads}
    return Entry("network", "mixprof.models.vit:ViT", window=False, settings=settings, options=ATTENTION)


_SHALLOW, _DEEP = (2, 2, 6, 2), (2, 2, 18, 2)

MODELS: dict[str, Entry] = {
    "window_attention": _mixer("window_attention:WindowAttention", options={**ATTENTION, "shifted": ("true", "false")}),
    "global_attention": _mixer("global_attention:GlobalAttention", window=False, options=ATTENTION),
    "spatial_reduction_attention": _mixer(
        "spatial_reduction_attention:SpatialReductionAttention", window=False, options=ATTENTION
    ),
    "neighborhood_attention": _mixer("neighborhood_attention:NeighborhoodAttention", odd=True, options=ATTENTION),
    "conv": _mixer("conv:Conv", odd=True),
    "pointwise_conv": _mixer("pointwise_conv:PointwiseConv", window=False),
    "depthwise_conv": _mixer("depthwise_conv:DepthwiseConv", odd=True),
    "dynamic_depthwise_conv": _mixer("dynamic_depthwise_conv:DynamicDepthwiseConv", odd=True),
    "inhomogeneous_depthwise_conv": _mixer(
        "inhomogeneous_depthwise_conv:InhomogeneousDepthwiseConv", odd=True, options=AGGREGATION
    ),
    "local_mlp": _mixer("local_mlp:LocalMlp", odd=True, options=AGGREGATION),
    "spatial_mlp": _mixer("spatial_mlp:SpatialMlp", window=False),
    "swin_t": _pyramid("swin:Swin", "window_attention", 96, _SHALLOW),
    "swin_s": _pyramid("swin:Swin", "window_attention", 96, _DEEP),
    "swin_b": _pyramid("swin:Swin", "window_attention", 128, _DEEP),
    "dwnet_t": _pyramid("dwnet:DWNet", "depthwise_conv", 96, _SHALLOW),
    "dwnet_b": _pyramid("dwnet:DWNet", "depthwise_conv", 128, _DEEP),
    "dynamic_dwnet_t": _pyramid("dwnet:DWNet", "dynamic_depthwise_conv", 96, _SHALLOW),
    "dynamic_dwnet_b": _pyramid("dwnet:DWNet", "dynamic_depthwise_conv", 128, _DEEP),
    "i_dynamic_dwnet_t": _pyramid("dwnet:DWNet", "inhomogeneous_depthwise_conv", 96, _SHALLOW),
    "i_dynamic_dwnet_b": _pyramid("dwnet:DWNet", "inhomogeneous_depthwise_conv", 128, _DEEP),
    "vit_s": _vit(384, 6),
    "vit_b": _vit(768, 12),
}


def parse(name: str) -> tuple[Entry, dict[str, str]]:
    """The entry and the options that a name like "swin_t:mixer=depthwise_conv" stands for.

    Raises ValueError, one line with the nearest names, for a model, an option or a value that does not exist.
    """
    base, *pairs = name.split(":")
    entry = MODELS[_known("model", base, MODELS)]
    options: dict[str, str] = {}
    for pair in pairs:
        option, _, value = pair.partition("=")
        if option in options:
            raise ValueError(f"got option {option!r} twice in {name!r}, expected it once")
        options[option] = value
    allowed = _allowed(entry, options)
    for option, value in options.items():
        _known(f"option of {base}", option, allowed)
        _known(f"value of {option}", value, allowed[option])
    return entry, options


def _allowed(entry: Entry, options: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """The options of a model, those of the mixer inside a network included, and their values."""
    if entry.mixer is None:
        return dict(entry.options)
    mixers = tuple(name for name, each in MODELS.items() if each.kind == "mixer")
    inside = MODELS[_known("value of mixer", options.get("mixer", entry.mixer), mixers)]
    formulations = {option: values for option, values in inside.options.items() if option in FORMULATION_OPTIONS}
    return {"mixer": mixers, **formulations}


def _known(what: str, got: str, names: Iterable[str]) -> str:
    """The name itself, or a ValueError with those nearest to it."""
    known = list(names)
    if got in known:
        return got
    near = get_close_matches(got, known, n=3, cutoff=0.5) or known
    expected = f"expected {' or '.join(near)}" if known else "expected none"
    raise ValueError(f"got {what} {got!r}, {expected}: 'mixprof models' lists all")


def _windowed(name: str) -> Entry:
    """The entry that decides about the window: a network's mixer where it has one, else the model itself."""
    entry, options = parse(name)
    return entry if entry.mixer is None else MODELS[options.get("mixer", entry.mixer)]


def kind(name: str) -> str:
    """ "mixer" or "network"."""
    return parse(name)[0].kind


def accepts(name: str) -> set[str]:
    """Which of resolution, window and channels the model has."""
    axes = {"resolution"}
    if _windowed(name).window:
        axes.add("window")
    if kind(name) == "mixer":
        axes.add("channels")
    return axes


def check(name: str, *, resolution: int | tuple[int, int], window: int | None, channels: int | None) -> str | None:
    """Why this model cannot have these values, None if it can. Raises ValueError for an unknown name."""
    is_mixer, deciding = kind(name) == "mixer", _windowed(name)
    height, width = _sides(resolution)
    smallest = 1 if is_mixer else SMALLEST_IMAGE
    if min(height, width) < smallest:
        return f"{name}: got resolution {height}x{width}, expected sides of at least {smallest}"
    if channels is not None and not is_mixer:
        return f"{name}: got channels={channels}, expected none: a network has its own; leave channels out"
    if channels is not None and (channels < HEAD_CHANNELS or channels % HEAD_CHANNELS):
        return f"{name}: got channels={channels}, expected a multiple of {HEAD_CHANNELS}"
    if deciding.window and (window is None or window < 1):
        return f"{name}: got window={window}, expected at least 1"
    if deciding.window and deciding.odd and window is not None and window % 2 == 0:
        return f"{name}: got window={window}, expected an odd one: a kernel needs a centre"
    return None


def _sides(resolution: int | tuple[int, int]) -> tuple[int, int]:
    """(height, width) of a resolution that may be the side of a square."""
    if isinstance(resolution, int):
        return resolution, resolution
    height, width = resolution
    return height, width


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
    module = make(entry, options, _sides(resolution), window or 1, channels or DEFAULT_CHANNELS, num_classes).eval()
    for option in FORMULATION_OPTIONS & options.keys():
        _load("mixprof.models.specialization:override")(module, options[option])
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


def specialize(module: nn.Module, lowering: str) -> nn.Module:
    """The same function arranged for a lowering, in place: see models/specialization.py."""
    return _load("mixprof.models.specialization:specialize")(module, lowering)


def load_published(module: nn.Module, state_dict: Mapping[str, Tensor]) -> None:
    """Load a published Swin or DWNet checkpoint's tensors by their names: see models/published.py."""
    _load("mixprof.models.published:load_published")(module, state_dict)
