"""The module of the network that each node of an ONNX graph belongs to. The node's metadata holds it for bisections."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping

import onnx_ir as ir
from onnx_ir.passes.common import ClearMetadataAndDocStringPass

SCOPE = "ditzoo.scope"
"""The key in a node's metadata for the path of its module, such as "blocks.0.attn.qkv"."""

_SCOPES = "pkg.torch.onnx.name_scopes"

_NO_MODULE = "_empty_nn_module_stack_from_metadata_hook"
"""What torch 2.9 and 2.10 write for a node of the network itself."""


def scope_of(node: ir.Node) -> str:
    """The path of the module that a node belongs to. It is empty for the network itself, and if it is not known."""
    return node.metadata_props.get(SCOPE, "")


def scopes_of_values(nodes: Iterable[ir.Node]) -> dict[str, str]:
    """The path of the module that computes each value, by the name of the value."""
    return {str(value.name): scope_of(node) for node in nodes for value in node.outputs}


def add_missing_scopes(graph: ir.Graph, known: Mapping[str, str]) -> None:
    """Sets the module of each node that has none, because it was added to the graph later.

    `known` maps the names of values to the paths of their modules. A node belongs to the module of its output. If `known` does
    not have the output, the node belongs to the module of a node that takes the output.
    """
    scopes = dict(known)
    for node in reversed(graph):
        if SCOPE not in node.metadata_props:
            names = [str(value.name) for value in node.outputs]
            node.metadata_props[SCOPE] = next((scopes[name] for name in names if name in scopes), "")
        for value in node.inputs:
            if value is not None:
                scopes.setdefault(str(value.name), scope_of(node))


def keep_only_scopes(model: ir.Model) -> None:
    """Removes all metadata of torch's exporter except the paths of modules. Its stack traces hold paths of this machine."""
    scopes = [(node, ast.literal_eval(node.metadata_props.get(_SCOPES, "['']"))) for node in model.graph]
    ClearMetadataAndDocStringPass()(model)
    for node, modules in scopes:
        inner = modules[-2] if len(modules) > 1 and modules[-2] != _NO_MODULE else ""
        node.metadata_props[SCOPE] = re.sub(r"^(net(\.|$))+", "", inner)  # without the exporter's wrappers
