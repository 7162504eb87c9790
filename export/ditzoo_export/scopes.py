"""Which module of a network each node of an ONNX graph belongs to: kept in the node's metadata, so that a fault has a place."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping

import onnx_ir as ir
from onnx_ir.passes.common import ClearMetadataAndDocStringPass

SCOPE = "ditzoo.scope"
"""The key of a node's metadata under which the path of its module is, such as "blocks.0.attn.qkv"."""

_SCOPES = "pkg.torch.onnx.name_scopes"


def scope_of(node: ir.Node) -> str:
    """The path of the module that a node belongs to; empty for the network itself, and where nothing is known."""
    return node.metadata_props.get(SCOPE, "")


def scopes_of_values(nodes: Iterable[ir.Node]) -> dict[str, str]:
    """The path of the module that each value is computed in, by the value's name."""
    return {str(value.name): scope_of(node) for node in nodes for value in node.outputs}


def add_missing_scopes(graph: ir.Graph, known: Mapping[str, str]) -> None:
    """Says for the nodes that were added to a graph which module they belong to.

    It is the module of the value that the node gives, as `known` has it by the value's name. Where `known` has no such value,
    it is the module of a node that takes the value.
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
    """Removes all metadata that torch's exporter wrote but the paths of modules: its stack traces hold this machine's paths."""
    scopes = [(node, ast.literal_eval(node.metadata_props.get(_SCOPES, "['']"))) for node in model.graph]
    ClearMetadataAndDocStringPass()(model)
    for node, modules in scopes:
        inner = modules[-2] if len(modules) > 1 else ""
        node.metadata_props[SCOPE] = re.sub(r"^(net(\.|$))+", "", inner)  # the wrappers that the exporter puts around it
