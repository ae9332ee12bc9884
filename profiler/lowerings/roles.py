"""The part that an operator plays in a network: of an exported graph's nodes, and of modules by their class."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

ROLES = ("mixer", "generator", "reshape", "mlp", "norm", "merge", "embed", "head", "other", "unknown")
ROLE_OF_CLASS = {
    "Mlp": "mlp",
    "LayerNorm": "norm",
    "BatchNorm2d": "norm",
    "PatchMerging": "merge",
    "PatchEmbed": "embed",
}
RESHAPES = {"Reshape", "Transpose", "Slice", "Concat", "Pad", "Squeeze", "Unsqueeze", "Split", "Expand", "Gather"}


def exporter_notes(node: Any, name: str) -> list[str]:
    """A list that torch's exporter noted of an ONNX node: "class_hierarchy" or "name_scopes", outermost first."""
    notes = {note.key: note.value for note in node.metadata_props}
    try:
        return [str(entry) for entry in ast.literal_eval(notes.get(f"pkg.torch.onnx.{name}", "[]"))]
    except (ValueError, SyntaxError):
        return []


def role_of_node(node: Any) -> str:
    """The role of the innermost module around an ONNX node that has one; a mixer's copies are "reshape"."""
    for name in reversed(exporter_notes(node, "class_hierarchy")):
        role = ROLE_OF_CLASS.get(name.rsplit(".", 1)[-1]) or ("mixer" if ".mixers." in name else None)
        if role == "mixer" and node.op_type in RESHAPES:
            return "reshape"
        if role is not None:
            return role
    return "reshape" if node.op_type in RESHAPES else "other"


def role_times(layer_ms: Mapping[str, float], roles: Mapping[str, str]) -> dict[str, float]:
    """Milliseconds of each role; a layer that the roles lack, a reformat of the runtime's own, is "other"."""
    total_ms: dict[str, float] = {}
    for name, ms in layer_ms.items():
        role = roles.get(name, "other")
        total_ms[role] = total_ms.get(role, 0.0) + ms
    return total_ms
