"""Networks of timm: `timm:NAME:option=value`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from mixprof.data.errors import Unsupported, one_line
from mixprof.worker.options import GUESSED, typed

WORDS = ("state_dict", "model", "model_state", "state_dict_ema")  # under which training scripts keep a state dict


def timm_model(name: str, resolution: int | tuple[int, int], options: Mapping[str, str]) -> nn.Module:
    """Make a network with random weights, or those of pretrained=FILE, for a resolution where it is bound to one.

    Other options go to timm as they are: `img_size=256`, which wins over the resolution, `num_classes=10`.
    """
    import timm

    if not timm.is_model(name):
        raise Unsupported(f"timm has no model '{name}': timm.list_models() names them")
    keywords = {key: typed(key, value, GUESSED) for key, value in options.items() if key != "pretrained"}
    try:
        module = timm.create_model(name, pretrained=False, **{"img_size": resolution, **keywords})
    except TypeError as error:  # a convolutional network is bound to no resolution and takes no img_size
        if "img_size" in keywords or "img_size" not in str(error):
            raise Unsupported(f"timm:{name} does not take an option ({one_line(error)})") from error
        module = _without_size(name, keywords)
    if "pretrained" in options:
        _load(module, Path(options["pretrained"]))
    return module


def _without_size(name: str, keywords: Mapping[str, object]) -> nn.Module:
    import timm

    try:
        return timm.create_model(name, pretrained=False, **keywords)
    except TypeError as error:
        raise Unsupported(f"timm:{name} does not take an option ({one_line(error)})") from error


def _load(module: nn.Module, path: Path) -> None:
    """Fill a network with a checkpoint's weights: tensors alone are read of it."""
    try:
        with torch.device("cpu"):
            content = torch.load(path, map_location="cpu", weights_only=True)
        for word in WORDS:
            content = content[word] if isinstance(content, dict) and word in content else content
        module.load_state_dict(content, assign=True)
    except Exception as error:  # of the file system, the reader or the network
        raise Unsupported(f"pretrained={path}: got no weights of this network ({one_line(error)[:200]})") from error
