"""Published Swin and DWNet checkpoints, read by their own names."""

from collections.abc import Mapping

from torch import Tensor, nn

from mixprof.models.mixers.window_attention import WindowAttention
from mixprof.models.specialization import DONE

SHOWN = 3  # names in an error


def load_published(module: nn.Module, state_dict: Mapping[str, Tensor]) -> None:
    """Load a checkpoint's tensors, by their published names, into a module built with lowering=None.

    Buffers that are functions of the shape alone (relative_position_index, attn_mask) are dropped, present or not.
    Raises ValueError, one line, on any other name that is missing or unexpected, or of another shape.
    """
    if getattr(module, DONE, None) is not None:
        raise ValueError("got a specialized module, expected one built with lowering=None: load first, then specialize")
    dropped = shape_only(module)
    tensors = {name: tensor for name, tensor in state_dict.items() if name not in dropped}
    expected = module.state_dict()
    wrong = [f"missing {name}" for name in expected if name not in tensors]
    wrong += [f"unexpected {name}" for name in tensors if name not in expected]
    wrong += [
        f"{name} of shape {tuple(tensors[name].shape)}, expected {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in tensors and tensors[name].shape != tensor.shape
    ]
    if wrong:
        more = f", and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
        raise ValueError(f"checkpoint does not fit: {', '.join(wrong[:SHOWN])}{more}; build the model it was made for")
    module.load_state_dict(tensors)


def shape_only(module: nn.Module) -> set[str]:
    """Names under which checkpoints of this module may hold buffers that follow from its shape."""
    names = set()
    for name, part in module.named_modules():
        if isinstance(part, WindowAttention):
            names |= {f"{name}.relative_position_index".lstrip("."), f"{name.rpartition('.')[0]}.attn_mask"}
    return names
