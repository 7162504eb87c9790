"""The decoders of DC-AE (arXiv 2410.10733): renames the tensors of the authors' code to those of diffusers' `AutoencoderDC`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from typing import Any

from torch import Tensor

from ditzoo.families.tensors import Entries, Entry, Shapes, without_kernel

_NAMES = (
    (".project_in.main.conv.", ".conv_in."),
    (".project_out.op_list.0.", ".norm_out."),
    (".project_out.op_list.2.conv.", ".conv_out."),
    (".context_module.main.proj.conv.", ".attn.to_out."),
    (".context_module.main.proj.norm.", ".attn.norm_out."),
    (".local_module.main.inverted_conv.conv.", ".conv_out.conv_inverted."),
    (".local_module.main.depth_conv.conv.", ".conv_out.conv_depth."),
    (".local_module.main.point_conv.conv.", ".conv_out.conv_point."),
    (".local_module.main.point_conv.norm.", ".conv_out.norm."),
    (".main.conv1.conv.", ".conv1."),
    (".main.conv2.conv.", ".conv2."),
    (".main.conv2.norm.", ".norm."),
    (".main.conv.conv.", ".conv."),
)
"""Parts of the authors' keys, each with the part that replaces it in diffusers' keys."""

_QKV, _PARTS = ".context_module.main.qkv.conv.", (".attn.to_q.", ".attn.to_k.", ".attn.to_v.")
_UP_BLOCK = re.compile(r"decoder\.up_blocks\.(\d{1,3})\.(\d{1,3})\.(.+)")


def to_canonical(entries: Entries) -> Entries:
    """A decoder with the names of diffusers. Tensors that have these names already stay as they are."""
    return dict(renamed for key, entry in entries.items() for renamed in _renamed(key, entry))


def _renamed(key: str, entry: Entry) -> Iterator[tuple[str, Entry]]:
    name = re.sub(r"\.stages\.(\d+)\.op_list\.", r".up_blocks.\1.", key)
    if _QKV in name and entry.shape:
        third = entry.shape[0] // 3
        for i, part in enumerate(_PARTS):
            rows = Entry(shape=(third, *entry.shape[1:]), load=partial(_rows, entry, i * third, third), flaw=entry.flaw)
            yield name.replace(_QKV, part), without_kernel(rows)
        return
    for theirs, ours in _NAMES:
        name = name.replace(theirs, ours)
    yield name, without_kernel(entry) if ".attn.to_out." in name else entry


def _rows(entry: Entry, start: int, count: int) -> Tensor:
    return entry.load()[start : start + count]


def config(shapes: Shapes) -> dict[str, Any]:
    """The arguments of `AutoencoderDC`, read off the shapes. Raises LookupError if a tensor is missing.

    Shapes do not show the width of the heads or the activations. These are as in all DC-AEs that the authors published: heads
    of 32 channels, ReLU in blocks with batch norm, SiLU in blocks with RMS norm.
    """
    stages = _stages(shapes)
    depths = [sum(kind != "up" for kind in stage.values()) for stage in stages]
    kinds = ["EfficientViTBlock" if "vit" in stage.values() else "ResBlock" for stage in stages]
    norms = ["batch_norm" if _has_statistics(shapes, i) else "rms_norm" for i in range(len(stages))]
    widths = [_width(shapes, i, stage) for i, stage in enumerate(stages)]
    widths = [width or widths[min(i + 1, len(widths) - 1)] for i, width in enumerate(widths)]
    return {
        "latent_channels": shapes["decoder.conv_in.weight"][1],
        **_both("block_types", kinds),
        **_both("block_out_channels", widths),
        **_both("layers_per_block", depths),
        **_both("qkv_multiscales", [()] * len(stages)),
        "decoder_norm_types": norms,
        "decoder_act_fns": ["relu" if norm == "batch_norm" else "silu" for norm in norms],
    }


def _both(name: str, values: list[Any]) -> dict[str, list[Any]]:
    """An argument for the decoder, and the same one for the encoder, which is built and then removed."""
    return {f"decoder_{name}": values, f"encoder_{name}": values}


def _stages(shapes: Shapes) -> list[dict[int, str]]:
    """The kind of each block ("up", "res" or "vit") of each stage, from the image to the latents."""
    found: dict[int, dict[int, str]] = {}
    for match in filter(None, map(_UP_BLOCK.fullmatch, shapes)):
        kind = "up" if match[3].startswith("conv.") else "res" if match[3].startswith(("conv1.", "conv2.", "norm.")) else "vit"
        found.setdefault(int(match[1]), {})[int(match[2])] = kind
    if not found:
        raise LookupError("it has no decoder.up_blocks")
    return [found.get(i, {}) for i in range(max(found) + 1)]


def _width(shapes: Shapes, index: int, stage: dict[int, str]) -> int:
    """The width of a stage; 0 if the stage has no blocks."""
    names = {"res": "conv1.weight", "vit": "attn.to_q.weight"}
    for block, kind in stage.items():
        if kind in names:
            return shapes[f"decoder.up_blocks.{index}.{block}.{names[kind]}"][1]
    return 0


def _has_statistics(shapes: Shapes, index: int) -> bool:
    return any(key.startswith(f"decoder.up_blocks.{index}.") and key.endswith(".running_mean") for key in shapes)
