"""DiT (arXiv 2212.09748), and SiT (arXiv 2401.08740), which has the same networks.

There are two published layouts. "dit" has the names of the authors' code, which are the canonical names. "diffusers" has the
names of `DiTTransformer2DModel`, which has separate tensors for q, k and v, and a copy of the embedders in every block. The
checkpoints of REPA (arXiv 2410.06940) have the layout "dit". Their projectors are used by the training only.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ditzoo.families.family import ALL, NO_MODULE, DiffusersForm, Family, KeyLayout, Known
from ditzoo.families.tensors import Entries, Entry, Shapes, count_numbered, listed, mlp_ratio, side
from ditzoo.nets.adaln import AnySize, Conditioning
from ditzoo.nets.dit import DiT
from ditzoo.nets.layers import sincos_positions
from ditzoo.zoo.configs import AdaLNConfig, DiTConfig

_BLOCKS = "transformer_blocks."

OUTER = {
    "x_embedder.proj": "pos_embed.proj",
    "final_layer.adaLN_modulation.1": "proj_out_1",
    "final_layer.linear": "proj_out_2",
}
PER_BLOCK = {
    "adaLN_modulation.1": "norm1.linear",
    "attn.proj": "attn1.to_out.0",
    "mlp.fc1": "ff.net.0.proj",
    "mlp.fc2": "ff.net.2",
}
QKV = ("attn1.to_q", "attn1.to_k", "attn1.to_v")
IN_EVERY_BLOCK = {
    "t_embedder.mlp.0": "norm1.emb.timestep_embedder.linear_1",
    "t_embedder.mlp.2": "norm1.emb.timestep_embedder.linear_2",
    "y_embedder.embedding_table": "norm1.emb.class_embedder.embedding_table",
}
"""These four tables map canonical names of layers to the names of diffusers."""


def _is_canonical(entries: Entries) -> bool:
    return "x_embedder.proj.weight" in entries


def _is_diffusers(entries: Entries) -> bool:
    return any(key.startswith(_BLOCKS) for key in entries)


def _unchanged(entries: Entries, config: object) -> Entries:
    return entries


def _from_diffusers(entries: Entries, config: object) -> Entries:
    return dict(_renamed(entries))


def _renamed(entries: Entries) -> Iterator[tuple[str, Entry]]:
    outer = {theirs: ours for ours, theirs in OUTER.items()}
    inner = {theirs: ours for ours, theirs in PER_BLOCK.items()}
    shared = {theirs: ours for ours, theirs in IN_EVERY_BLOCK.items()}
    for key, entry in entries.items():
        layer, _, suffix = key.rpartition(".")
        block = re.fullmatch(rf"{re.escape(_BLOCKS)}(\d+)\.(.+)", layer)
        name = block[2] if block else layer
        if not block and layer in outer:
            yield f"{outer[layer]}.{suffix}", entry
        elif block and name in inner:
            yield f"blocks.{block[1]}.{inner[name]}.{suffix}", entry
        elif block and name in shared:
            yield f"{shared[name]}.{suffix}", entries.get(f"{_BLOCKS}0.{name}.{suffix}", entry)
        elif block and name in QKV and (joined := _joined(entries, f"{_BLOCKS}{block[1]}", suffix)):
            yield f"blocks.{block[1]}.attn.qkv.{suffix}", joined
        else:  # files of old diffusers versions hold the fixed positions
            yield "pos_embed" if key == "pos_embed.pos_embed" else key, entry


def _joined(entries: Entries, block: str, suffix: str) -> Entry | None:
    """The rows of q, k and v as one tensor. None if their shapes do not allow it."""
    parts = [entries[key] for key in (f"{block}.{name}.{suffix}" for name in QKV) if key in entries]
    if not all(part.shape and part.shape[1:] == parts[0].shape[1:] for part in parts):
        return None
    rows, flaws = sum(part.shape[0] for part in parts), [part.flaw for part in parts if part.flaw]
    return Entry(shape=(rows, *parts[0].shape[1:]), load=partial(_concatenated, parts), flaw=flaws[0] if flaws else "")


def _concatenated(parts: list[Entry]) -> Tensor:
    tensors = [part.load() for part in parts]
    same = len({tensor.dtype for tensor in tensors}) == 1
    return torch.cat(tensors if same else [tensor.to(torch.float32) for tensor in tensors])


def _differing_copies(entries: Entries) -> list[str]:
    """A message if an embedder, which diffusers copies into every block, is not equal in all blocks; else an empty list."""
    different = []
    for name in IN_EVERY_BLOCK.values():
        for suffix in ("weight", "bias"):
            copies = [key for key in entries if key.startswith(_BLOCKS) and key.endswith(f".{name}.{suffix}")]
            first = entries.get(f"{_BLOCKS}0.{name}.{suffix}")
            if first is not None:
                original = first.load()
                different += [key for key in copies if not _is_same(entries[key].load(), original)]
    return [f"embedders that differ from those of block 0: {listed(sorted(different))}"] if different else []


def _is_same(copy: Tensor, original: Tensor) -> bool:
    return copy.dtype == original.dtype and torch.equal(copy, original)


def to_diffusers(weights: dict[str, Tensor], config: DiTConfig) -> Iterator[tuple[str, Tensor]]:
    """The canonical weights of a DiT with the names of `DiTTransformer2DModel`."""
    for suffix in ("weight", "bias"):
        for ours, theirs in OUTER.items():
            yield f"{theirs}.{suffix}", weights[f"{ours}.{suffix}"]
        for i in range(config.depth):
            for ours, theirs in PER_BLOCK.items():
                yield f"{_BLOCKS}{i}.{theirs}.{suffix}", weights[f"blocks.{i}.{ours}.{suffix}"]
            for theirs, part in zip(QKV, weights[f"blocks.{i}.attn.qkv.{suffix}"].chunk(3), strict=True):
                yield f"{_BLOCKS}{i}.{theirs}.{suffix}", part
            for ours, theirs in IN_EVERY_BLOCK.items():
                if f"{ours}.{suffix}" in weights:
                    yield f"{_BLOCKS}{i}.{theirs}.{suffix}", weights[f"{ours}.{suffix}"]


def transformer_config(config: DiTConfig) -> dict[str, Any]:
    """The configuration of diffusers' `DiTTransformer2DModel` for a DiT. The eps of every norm is that of the paper."""
    return {
        "_class_name": "DiTTransformer2DModel",
        "activation_fn": "gelu-approximate",
        "attention_bias": True,
        "attention_head_dim": config.hidden_size // config.num_heads,
        "in_channels": config.in_channels,
        "norm_elementwise_affine": False,
        "norm_eps": 1e-6,
        "norm_type": "ada_norm_zero",
        "num_attention_heads": config.num_heads,
        "num_embeds_ada_norm": config.num_classes,
        "num_layers": config.depth,
        "out_channels": config.in_channels * (2 if config.learn_sigma else 1),
        "patch_size": config.patch_size,
        "sample_size": config.input_size,
    }


def fixed_positions(config: AdaLNConfig) -> Tensor:
    """The fixed positions of a DiT or LightningDiT: one row for each patch, as wide as the network."""
    rows = config.input_size // config.patch_size
    return sincos_positions(rows, rows, config.hidden_size)


def fields_from(shapes: Shapes, like: AdaLNConfig, known: Known) -> dict[str, Any]:
    """The fields of `Family.config_from` that DiT and LightningDiT share. The position table shows the size of the latents."""
    width, channels, patch, _ = shapes["x_embedder.proj.weight"]
    outputs = _output_channels(shapes) / channels
    if outputs not in (1, 2):
        raise ValueError(f"{_output_channels(shapes)} output channels, but there must be {channels} or {2 * channels}")
    return {
        "input_size": side(shapes["pos_embed"][1]) * patch if "pos_embed" in shapes else known.side or like.input_size,
        "patch_size": patch,
        "in_channels": channels,
        "hidden_size": width,
        "depth": count_numbered(shapes, "blocks"),
        "class_dropout_prob": (like.class_dropout_prob or DiTConfig().class_dropout_prob) if known.null_row else 0.0,
        "num_classes": shapes[LABEL_TABLE][0] - known.null_row,
        "learn_sigma": outputs == 2,
    }


def _config_from(shapes: Shapes, like: DiTConfig, known: Known) -> DiTConfig:
    """See `Family.config_from`."""
    width, fields = shapes["x_embedder.proj.weight"][0], fields_from(shapes, like, known)
    ratio = mlp_ratio(width, shapes["blocks.0.mlp.fc1.weight"][0], like.mlp_ratio)
    heads = known.heads_like(width=width, like=(like.hidden_size, like.num_heads))
    return DiTConfig(**fields, num_heads=heads, mlp_ratio=ratio)


def _output_channels(shapes: Shapes) -> int:
    return shapes["final_layer.linear.weight"][0] // shapes["x_embedder.proj.weight"][2] ** 2


LABEL_TABLE = "y_embedder.embedding_table.weight"
_FIRST_BLOCKS = r"^blocks\.[01]\."

DIT = Family(
    name="DiT",
    config=DiTConfig,
    build=DiT,
    layouts=(
        KeyLayout(name="diffusers", matches=_is_diffusers, to_canonical=_from_diffusers, problems=_differing_copies),
        KeyLayout(name="dit", matches=_is_canonical, to_canonical=_unchanged, training_only=("projectors.",)),
    ),
    recognises=lambda shapes: "x_embedder.proj.weight" in shapes,
    facts={
        "kind": lambda shapes: "DiT",
        "hidden_size": lambda shapes: shapes["x_embedder.proj.weight"][0],
        "depth": lambda shapes: count_numbered(shapes, "blocks"),
        "patch_size": lambda shapes: shapes["x_embedder.proj.weight"][2],
        "in_channels": lambda shapes: shapes["x_embedder.proj.weight"][1],
        "input_size": lambda shapes: math.isqrt(shapes["pos_embed"][1]) * shapes["x_embedder.proj.weight"][2],
        "output channels": _output_channels,
        "rows of the label table": lambda shapes: shapes[LABEL_TABLE][0],
        "mlp_ratio": lambda shapes: shapes["blocks.0.mlp.fc1.weight"][0] / shapes["blocks.0.mlp.fc1.weight"][1],
    },
    config_from=_config_from,
    label_table=LABEL_TABLE,
    computed={"pos_embed": fixed_positions},
    half_precision=("attn", "mlp", "adaLN_modulation"),
    conditioning=Conditioning,
    any_size=lambda net, largest: AnySize(net, largest=largest),
    extents={
        ALL: NO_MODULE,
        "all but the first two blocks": _FIRST_BLOCKS,
        "attention behind the first two blocks": rf"{_FIRST_BLOCKS}|mlp",
    },
    diffusers=DiffusersForm(
        model="DiTTransformer2DModel",
        config=transformer_config,
        state=to_diffusers,
        refusal=lambda config: "" if config.null_label is not None else "' DiT always has a null label",
    ),
)
