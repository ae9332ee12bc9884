"""What an ONNX graph says of itself: inputs, outputs, operators, and the modules its nodes come from."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mixprof.data.errors import Unsupported
from mixprof.data.parsing import parse_range
from mixprof.lowerings.tensorrt.proof import Layer

if TYPE_CHECKING:
    import torch

    from mixprof.lowerings import Target

Shape = tuple[int, ...]
NETWORK_STEP = 32  # pixels: the patch of a stem and three mergings divide such sides without padding
ROLES = ("mixer", "generator", "reshape", "mlp", "norm", "merge", "embed", "head", "other")
# The class of a module that a node comes from, innermost first, and what it stands for.
ROLE_OF_CLASS = {
    "Mlp": "mlp",
    "LayerNorm": "norm",
    "BatchNorm2d": "norm",
    "PatchMerging": "merge",
    "PatchEmbed": "embed",
}
RESHAPES = {"Reshape", "Transpose", "Slice", "Concat", "Pad", "Squeeze", "Unsqueeze", "Split", "Expand", "Gather"}


@dataclass(frozen=True)
class Graph:
    """An ONNX graph without its weights."""

    inputs: dict[str, tuple[int | str | None, ...]]  # name -> shape; a name or None for an axis that is not fixed
    outputs: tuple[str, ...]
    operators: dict[str, str]  # node name -> operator
    roles: dict[str, str]  # node name -> one of ROLES
    dtypes: dict[str, int]  # of inputs and outputs, ONNX's numbers

    @classmethod
    def read(cls, content: bytes) -> Graph:
        """Of a serialized ModelProto; Unsupported when it is none."""
        import onnx
        from google.protobuf.message import DecodeError

        try:
            graph = onnx.load_from_string(content).graph
        except DecodeError as error:
            raise Unsupported(f"got a file that is no ONNX model ({error}), expected one that onnx can load") from error
        weights = {each.name for each in graph.initializer}
        inputs = [each for each in graph.input if each.name not in weights]
        return cls(
            inputs={each.name: _shape(each) for each in inputs},
            outputs=tuple(each.name for each in graph.output),
            operators={node.name: node.op_type for node in graph.node},
            roles={node.name: _role(node) for node in graph.node},
            dtypes={each.name: each.type.tensor_type.elem_type for each in (*inputs, *graph.output)},
        )

    def dtype_of(self, name: str) -> torch.dtype:
        """The element type of an input or output, as torch has it."""
        import torch

        found = {1: torch.float32, 10: torch.float16, 16: torch.bfloat16, 11: torch.float64, 7: torch.int64,
                 6: torch.int32, 3: torch.int8, 2: torch.uint8, 9: torch.bool}  # fmt: skip
        if self.dtypes[name] not in found:
            raise Unsupported(f"got element type {self.dtypes[name]} of '{name}', expected a float, an integer or bool")
        return found[self.dtypes[name]]

    def roles_of(self, layers: Sequence[Layer]) -> dict[str, str]:
        """The role of each layer of an engine: that of most of its nodes which compute, reshapes aside."""
        return {layer.name: self._role_of(layer.nodes) for layer in layers}

    def _role_of(self, nodes: Sequence[str]) -> str:
        found = [self.roles[node] for node in nodes if node in self.roles]
        computing = [role for role in found if role != "reshape"] or found
        return max(dict.fromkeys(computing), key=computing.count, default="other")


def _shape(value: Any) -> tuple[int | str | None, ...]:
    dims = value.type.tensor_type.shape.dim
    return tuple(dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None for dim in dims)


def _role(node: Any) -> str:
    """From the modules that the exporter noted: the innermost that names a role, a mixer outside of these."""
    noted = {each.key: each.value for each in node.metadata_props}
    try:
        classes = [str(each) for each in ast.literal_eval(noted.get("pkg.torch.onnx.class_hierarchy", "[]"))]
    except (ValueError, SyntaxError):
        classes = []
    for name in reversed(classes):
        role = ROLE_OF_CLASS.get(name.rsplit(".", 1)[-1]) or ("mixer" if ".mixers." in name else None)
        if role == "mixer" and node.op_type in RESHAPES:
            return "reshape"
        if role is not None:
            return role
    return "reshape" if node.op_type in RESHAPES else "other"


def dynamic_axes(inputs: Sequence[torch.Tensor], target: Target) -> tuple[dict[int, Any], ...] | None:
    """For torch.onnx.export: which axes of each input vary; None for none."""
    if "dynamic" not in target.options:
        return None
    from torch.export import Dim

    varying: dict[int, Any] = {0: Dim("batch", min=1)}
    if "resolutions" in target.options:
        height, width = Dim("height", min=1), Dim("width", min=1)
        sides = (NETWORK_STEP * height, NETWORK_STEP * width) if target.images else (height, width)
        varying |= dict(zip(_spatial_axes(target), sides, strict=True))
    return tuple(dict(varying) for _ in inputs)


def _spatial_axes(target: Target) -> tuple[int, int]:
    """Height and width in (B, 3, H, W) of images, in (B, H, W, C) of a mixer's map."""
    return (2, 3) if target.images else (1, 2)


def profile(graph: Graph, inputs: Sequence[torch.Tensor], target: Target) -> dict[str, tuple[Shape, Shape, Shape]]:
    """Least, usual and greatest shape of each input of a dynamic engine; the case's own shape is the usual one."""
    if "dynamic" not in target.options:
        return {}
    found = {}
    for name, each in zip(graph.inputs, inputs, strict=True):
        least, most = list(each.shape), list(each.shape)
        least[0], most[0] = parse_range(target.options.get("batches", f"1-{2 * each.shape[0]}"))
        if "resolutions" in target.options:
            low, high = parse_range(target.options["resolutions"])
            if target.images and (low % NETWORK_STEP or high % NETWORK_STEP):
                raise Unsupported(
                    f"got resolutions={low}-{high} for a network, expected multiples of {NETWORK_STEP}: "
                    "its stages halve the map"
                )
            for axis in _spatial_axes(target):
                least[axis], most[axis] = low, high
        found[name] = (tuple(least), tuple(each.shape), tuple(most))
    return found
