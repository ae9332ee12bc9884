"""Every model by name, with all that others need to know of it. Importing this loads no torch."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from difflib import get_close_matches
from typing import Any

from mixprof.models.formulations import (
    ATTENTION,
    CPP,
    FORMULATION_OPTIONS,
    KERNELS,
    LINEAR_ATTENTION,
    PLAIN_AGGREGATION,
    PLAIN_ATTENTION,
    PLAIN_LINEAR_ATTENTION,
    PLAIN_SAMPLING,
    PLAIN_SCAN,
    SAMPLING,
    SCAN,
    TRITON,
    WINDOWED,
    formulations_of,
)

HEAD_CHANNELS = 32  # channels of one head; a mixer's channels are a multiple of it
SMALLEST_IMAGE = 32  # pixels along a side


@dataclass(frozen=True)
class Published:
    """Figures of others for a network at 224x224, window 7: not measured here."""

    top1_percent: float | None = None  # ImageNet-1K, one crop
    images_per_s: int | None = None  # one V100, batch 128 (FocalNet, arXiv 2203.11926, table 1)
    size: str = ""  # parameters and MACs as printed with the accuracy
    source: str = ""  # of accuracy and size


@dataclass(frozen=True)
class Entry:
    """A model that can be built by name. Others read its facts here, or in a run's manifest, and keep no copy."""

    kind: str  # "mixer" or "network"
    factory: str  # "module:attribute"
    window: bool = True  # whether it has a window or kernel
    odd: bool = False  # whether that must be odd
    mixer: str | None = None  # of a network in which it can be exchanged: the name of its own
    settings: Mapping[str, Any] = field(default_factory=dict)  # fixed keywords of the factory
    options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # option -> its values
    mixing: str = ""  # the one way in which it mixes positions, where no option offers several
    on_cpu: tuple[str, ...] = ()  # further ways to do so, kernels of ours: on a CPU alone
    on_cuda: tuple[str, ...] = ()  # further ways to do so, kernels of ours: on CUDA devices alone
    plain: Mapping[str, str] = field(default_factory=dict)  # formulation without a kernel of its own -> in words
    published: Published | None = None
    compared_with: Mapping[str, str] = field(default_factory=dict)  # a convolution -> what differs between the two

    @property
    def mixings(self) -> tuple[str, ...]:
        """The ways in which it mixes positions, equal in value: its option's, or its one; and kernels of ours."""
        several = (values for option, values in self.options.items() if option in FORMULATION_OPTIONS)
        return (*next(several, (self.mixing,) if self.mixing else ()), *self.on_cpu, *self.on_cuda)

    @property
    def formulations(self) -> tuple[str, ...]:
        """Every formulation: each way to mix positions with Linears of each kind, and the published one."""
        return formulations_of(self.mixings, published=True)


def _pyramid(
    factory: str,
    mixer: str,
    size: tuple[int, tuple[int, ...], float],
    published: Published | None = None,
    rival: str = "",
) -> Entry:
    """A network of four stages. size: dim, depths, drop path; rival: a convolutional network to compare with."""
    compared_with = {rival: "two networks as published"} if rival else {}
    settings = dict(zip(("dim", "depths", "drop_path"), size, strict=True))
    return Entry(
        "network", f"mixprof.models.{factory}", mixer=mixer, settings=settings, published=published,
        compared_with=compared_with,
    )  # fmt: skip


def _vit(dim: int, heads: int) -> Entry:
    settings = {"dim": dim, "depth": 12, "heads": heads, "drop_path": 0.1}
    return Entry(
        "network", "mixprof.models.vit:ViT", window=False, settings=settings, options=ATTENTION, plain=PLAIN_ATTENTION
    )


_MIXERS = "mixprof.models.mixers"
_SWIN, _DWNET = "swin:Swin", "dwnet:DWNet"
_T, _S, _B = (96, (2, 2, 6, 2), 0.2), (96, (2, 2, 18, 2), 0.3), (128, (2, 2, 18, 2), 0.5)  # dim, depths, drop path
_SWIN_PAPER = "Liu et al., Swin Transformer, ICCV 2021, table 1a"
_DWNET_PAPER = "Han et al., ICLR 2022 (arXiv 2106.04263), table 2"

MODELS: dict[str, Entry] = {
    "window_attention": Entry(
        "mixer", f"{_MIXERS}.window_attention:WindowAttention",
        options={**WINDOWED, "shifted": ("true", "false")}, on_cuda=(TRITON,), plain=PLAIN_ATTENTION,
        compared_with={"depthwise_conv": "the two mixers by themselves"},
    ),
    "global_attention": Entry(
        "mixer", f"{_MIXERS}.global_attention:GlobalAttention", window=False, options=ATTENTION, plain=PLAIN_ATTENTION
    ),
    "spatial_reduction_attention": Entry(
        "mixer", f"{_MIXERS}.spatial_reduction_attention:SpatialReductionAttention",
        window=False, options=ATTENTION, plain=PLAIN_ATTENTION,
    ),
    "neighborhood_attention": Entry(
        "mixer", f"{_MIXERS}.neighborhood_attention:NeighborhoodAttention",
        odd=True, options=WINDOWED, plain=PLAIN_ATTENTION,
    ),
    "conv": Entry("mixer", f"{_MIXERS}.conv:Conv", odd=True),
    "pointwise_conv": Entry("mixer", f"{_MIXERS}.pointwise_conv:PointwiseConv", window=False, mixing="linear"),
    "depthwise_conv": Entry(
        "mixer", f"{_MIXERS}.depthwise_conv:DepthwiseConv", odd=True, mixing="conv",
        on_cpu=(CPP,), on_cuda=(TRITON,),
    ),
    "dynamic_depthwise_conv": Entry(
        "mixer", f"{_MIXERS}.dynamic_depthwise_conv:DynamicDepthwiseConv",
        odd=True, mixing="grouped_conv", on_cpu=(CPP,), on_cuda=(TRITON,),
    ),
    "inhomogeneous_depthwise_conv": Entry(
        "mixer", f"{_MIXERS}.inhomogeneous_depthwise_conv:InhomogeneousDepthwiseConv",
        odd=True, options=KERNELS, on_cuda=(TRITON,), plain=PLAIN_AGGREGATION,
    ),
    "local_mlp": Entry(
        "mixer", f"{_MIXERS}.local_mlp:LocalMlp", odd=True, options=KERNELS, plain=PLAIN_AGGREGATION
    ),
    "spatial_mlp": Entry("mixer", f"{_MIXERS}.spatial_mlp:SpatialMlp", window=False),
    "focal_modulation": Entry("mixer", f"{_MIXERS}.focal_modulation:FocalModulation", window=False, mixing="conv"),
    "split_depthwise_conv": Entry("mixer", f"{_MIXERS}.split_depthwise_conv:SplitDepthwiseConv", odd=True),
    "linear_attention": Entry(
        "mixer", f"{_MIXERS}.linear_attention:LinearAttention",
        window=False, options=LINEAR_ATTENTION, plain=PLAIN_LINEAR_ATTENTION,
    ),
    "convnext": Entry("mixer", f"{_MIXERS}.convnext:ConvNeXt", odd=True),
    "dynamic_large_kernel": Entry(
        "mixer", f"{_MIXERS}.dynamic_large_kernel:DynamicLargeKernel",
        odd=True, options=KERNELS, plain=PLAIN_AGGREGATION,
    ),
    "selective_scan": Entry(
        "mixer", f"{_MIXERS}.selective_scan:SelectiveScan", window=False, options=SCAN, plain=PLAIN_SCAN
    ),
    "deformable_aggregation": Entry(
        "mixer", f"{_MIXERS}.deformable_aggregation:DeformableAggregation",
        odd=True, options=SAMPLING, plain=PLAIN_SAMPLING,
    ),
    "swin_t": _pyramid(_SWIN, "window_attention", _T, Published(81.3, 760, "", _SWIN_PAPER), "dwnet_t"),
    "swin_s": _pyramid(_SWIN, "window_attention", _S, Published(83.0, 435, "", _SWIN_PAPER)),
    "swin_b": _pyramid(_SWIN, "window_attention", _B, Published(83.5, 291, "", _SWIN_PAPER), "dwnet_b"),
    "dwnet_t": _pyramid(
        _DWNET, "depthwise_conv", _T, Published(81.2, 1030, "24M / 3.8G", _DWNET_PAPER)
    ),
    "dwnet_b": _pyramid(_DWNET, "depthwise_conv", _B, Published(83.2, 370, "74M / 12.9G", _DWNET_PAPER)),
    "dynamic_dwnet_t": _pyramid(
        _DWNET, "dynamic_depthwise_conv", _T, Published(81.8, None, "51M / 3.8G", _DWNET_PAPER)
    ),
    "dynamic_dwnet_b": _pyramid(
        _DWNET, "dynamic_depthwise_conv", _B, Published(83.2, None, "162M / 13.0G", _DWNET_PAPER)
    ),
    "i_dynamic_dwnet_t": _pyramid(_DWNET, "inhomogeneous_depthwise_conv", _T),
    "i_dynamic_dwnet_b": _pyramid(_DWNET, "inhomogeneous_depthwise_conv", _B),
    "vit_s": _vit(384, 6),
    "vit_b": _vit(768, 12),
}  # fmt: skip


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
        return {**entry.options, **_formulation(entry)}
    mixers = tuple(name for name, one in MODELS.items() if one.kind == "mixer")
    inside = MODELS[_known("value of mixer", options.get("mixer", entry.mixer), mixers)]
    formulations = {option: values for option, values in inside.options.items() if option in FORMULATION_OPTIONS}
    return {"mixer": mixers, **formulations, **_formulation(inside)}


def _formulation(entry: Entry) -> dict[str, tuple[str, ...]]:
    return {"formulation": entry.formulations} if entry.formulations else {}


def _known(what: str, got: str, names: Iterable[str]) -> str:
    """The name itself, or a ValueError with those nearest to it."""
    known = list(names)
    if got in known:
        return got
    near = get_close_matches(got, known, n=3, cutoff=0.5) or known
    expected = f"expected {' or '.join(near)}" if known else "expected none"
    raise ValueError(f"got {what} {got!r}, {expected}: 'mixprof models' lists all")


def facts(name: str) -> dict[str, Any]:
    """A model's facts as plain values, for a run's manifest: kind, mixers, plain formulations, figures of others.

    `own_mixer` is the one of the network as published, `mixer` the one in it now; `compared_with` maps the names of
    convolutions, with their options, to what differs between the two.
    """
    entry, options = parse(name)
    inside = _deciding(entry, options)
    compared_with = {} if options else dict(entry.compared_with)
    if entry.mixer is not None and not options:
        compared_with |= {f"{name}:mixer={mixer}": "only the mixer differs" for mixer in inside.compared_with}
    if entry.mixer in inside.compared_with and set(options) == {"mixer"}:
        compared_with[name.split(":")[0]] = "only the mixer differs"
    return {
        "kind": entry.kind,
        "own_mixer": entry.mixer,
        "mixer": options.get("mixer", entry.mixer),
        "plain_formulations": dict(inside.plain),
        "published": None if options or entry.published is None else asdict(entry.published),
        "compared_with": compared_with,
    }


def _deciding(entry: Entry, options: Mapping[str, str]) -> Entry:
    """The entry that decides about window and formulation: a network's mixer where it has one, else its own."""
    return entry if entry.mixer is None else MODELS[options.get("mixer", entry.mixer)]


def pinned(name: str) -> tuple[str, ...]:
    """The formulations that a name asks for; none for a name that is none of ours."""
    base, *pairs = name.split(":")
    options = [pair.partition("=") for pair in pairs if base in MODELS]
    return tuple(value for option, _, value in options if option in {*FORMULATION_OPTIONS, "formulation"})


def kind(name: str) -> str:
    """ "mixer" or "network"."""
    return parse(name)[0].kind


def accepts(name: str) -> set[str]:
    """Which of resolution, window and channels the model has."""
    axes = {"resolution"}
    if _deciding(*parse(name)).window:
        axes.add("window")
    if kind(name) == "mixer":
        axes.add("channels")
    return axes


def check(name: str, *, resolution: int | tuple[int, int], window: int | None, channels: int | None) -> str | None:
    """Why this model cannot have these values, None if it can. Raises ValueError for an unknown name."""
    is_mixer, deciding = kind(name) == "mixer", _deciding(*parse(name))
    height, width = sides_of(resolution)
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


def sides_of(resolution: int | tuple[int, int]) -> tuple[int, int]:
    """(height, width) of a resolution that may be the side of a square."""
    if isinstance(resolution, int):
        return resolution, resolution
    height, width = resolution
    return height, width
