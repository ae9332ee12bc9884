"""Checkpoints with the published names and shapes (tests/data/published_keys.json, nested by name) load, strictly."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from mixprof import models

KEYS = json.loads((Path(__file__).parent / "data" / "published_keys.json").read_text())
SHAPE_ONLY = ("relative_position_index", "attn_mask")


def flat(tree: dict, prefix: str = "") -> dict[str, list[int]]:
    """{"a": {"b": shape}} -> {"a.b": shape}."""
    names: dict[str, list[int]] = {}
    for name, value in tree.items():
        names |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return names


def checkpoint(name: str, device: str = "cpu") -> dict[str, Tensor]:
    """Random tensors under the published names; variances positive, weights of a size that keeps outputs finite."""
    torch.manual_seed(0)
    tensors = {key: torch.randn(shape, device=device) * 0.05 for key, shape in flat(KEYS[name]).items()}
    return {
        key: tensor.abs() + 0.5
        if key.endswith("running_var")
        else tensor.long()
        if key.endswith("num_batches_tracked")
        else tensor
        for key, tensor in tensors.items()
    }


def published(name: str) -> nn.Module:
    return models.build(name, resolution=64)


def on_meta(name: str) -> nn.Module:
    with torch.device("meta"):
        return models.build(name)


@pytest.mark.parametrize("name", KEYS)
def test_parameters_and_buffers_are_the_published_ones(name):
    ours = {key: list(tensor.shape) for key, tensor in on_meta(name).state_dict().items()}
    theirs = {key: shape for key, shape in flat(KEYS[name]).items() if not key.endswith(SHAPE_ONLY)}
    assert ours == theirs


@pytest.mark.parametrize("name", KEYS)
@pytest.mark.parametrize("buffers", ["with", "without"])
def test_loads_with_and_without_shape_only_buffers(name, buffers):
    tensors = checkpoint(name, device="meta")
    if buffers == "without":
        tensors = {key: tensor for key, tensor in tensors.items() if not key.endswith(SHAPE_ONLY)}
    models.load_published(on_meta(name), tensors)


@pytest.mark.parametrize("name", ["swin_t", "dwnet_t", "dynamic_dwnet_t", "i_dynamic_dwnet_t"])
def test_loaded_values_land(name):
    module, tensors, image = published(name), checkpoint(name), torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        before = module(image)
        models.load_published(module, tensors)
        after = module(image)
        specialised = models.specialize(module, "eager")(image)
    assert not torch.allclose(before, after, rtol=1e-2)
    assert torch.allclose(after, specialised, rtol=1e-4, atol=1e-5 * float(after.abs().max()))


def test_every_tensor_is_the_checkpoint_s():
    module, tensors = published("swin_t"), checkpoint("swin_t")
    models.load_published(module, tensors)
    assert all(torch.equal(tensor, tensors[key]) for key, tensor in module.state_dict().items())


@pytest.mark.parametrize("name", ["swin_t", "i_dynamic_dwnet_t"])
def test_missing_unexpected_and_wrong_shape_are_errors(name):
    module, tensors = on_meta(name), checkpoint(name, device="meta")
    with pytest.raises(ValueError, match=r"missing head\.bias"):
        models.load_published(module, {key: tensor for key, tensor in tensors.items() if key != "head.bias"})
    with pytest.raises(ValueError, match=r"unexpected layers\.0\.extra"):
        models.load_published(module, tensors | {"layers.0.extra": torch.empty(1, device="meta")})
    with pytest.raises(ValueError, match=r"head\.bias of shape \(7,\), expected \(1000,\)"):
        models.load_published(module, tensors | {"head.bias": torch.empty(7, device="meta")})


def test_a_mask_where_no_window_is_shifted_is_unexpected():
    mask = {"layers.0.blocks.1.attn_mask": torch.empty(64, 49, 49, device="meta")}
    with pytest.raises(ValueError, match=r"unexpected layers\.0\.blocks\.1\.attn_mask"):
        models.load_published(on_meta("dwnet_t"), checkpoint("dwnet_t", device="meta") | mask)


def test_errors_are_one_line_and_change_nothing():
    module = published("dwnet_t")
    before = {key: tensor.clone() for key, tensor in module.state_dict().items()}
    with pytest.raises(ValueError, match=r"and \d+ more") as caught:
        models.load_published(module, {})
    assert "\n" not in str(caught.value)
    assert all(torch.equal(tensor, before[key]) for key, tensor in module.state_dict().items())


def test_a_specialised_module_is_refused():
    with pytest.raises(ValueError, match="load first, then specialize"):
        models.load_published(models.specialize(on_meta("dwnet_t"), "eager"), checkpoint("dwnet_t", device="meta"))
