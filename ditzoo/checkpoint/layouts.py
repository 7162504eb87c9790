"""The published layouts of keys, and the way from each to the canonical one: the names of the papers' own code.

dit         the authors' DiT and SiT; canonical
uvit        the authors' U-ViT; canonical, but for another name of the label table in one of its descendants
diffusers   `DiTTransformer2DModel`, and `Transformer2DModel` before it: q, k, v apart, the embedders in every block
dcae        `diffusion_model.*` (dit or uvit) and `autoencoder.*` in one file
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from ditzoo.card import DiTConfig, Layout
from ditzoo.checkpoint.read import Entries, Entry
from ditzoo.errors import CheckpointError
from ditzoo.nets.layers import sincos_positions

_NETWORK, _AUTOENCODER = "diffusion_model.", "autoencoder."
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
"""From the canonical names of layers to those of diffusers."""


def detect(entries: Entries) -> Layout:
    """The layout, from the keys alone; raises CheckpointError where it is none of those known."""
    if any(key.startswith(_NETWORK) for key in entries):
        return "dcae"
    if any(key.startswith(_BLOCKS) for key in entries):
        return "diffusers"
    if "x_embedder.proj.weight" in entries:
        return "dit"
    if "patch_embed.proj.weight" in entries and any(key.startswith("in_blocks.") for key in entries):
        return "uvit"
    seen = ", ".join(sorted(entries)[:3]) or "none at all"
    raise CheckpointError(
        f"the keys of this checkpoint ({seen} ...) are of no layout that ditzoo knows: DiT, U-ViT, diffusers, DC-AE"
    )


def to_canonical(entries: Entries, layout: Layout, config: object) -> Entries:
    """The network's entries under their canonical names. What has no place there keeps its name, to be reported."""
    if layout == "dcae":
        inner = {key.removeprefix(_NETWORK): entry for key, entry in entries.items() if not key.startswith(_AUTOENCODER)}
        return to_canonical(inner, detect(inner), config)
    if layout == "uvit":
        return {key.replace("label_emb.embedding_table.", "label_emb."): entry for key, entry in entries.items()}
    if layout == "diffusers":
        return dict(_from_diffusers(entries)) | _positions(config)
    return entries


def decoder(entries: Entries) -> Entries:
    """The entries of the autoencoder that a checkpoint holds beside the network, without their prefix."""
    return {key.removeprefix(_AUTOENCODER): entry for key, entry in entries.items() if key.startswith(_AUTOENCODER)}


def differing_copies(entries: Entries) -> list[str]:
    """Of what diffusers keeps in every block, the keys whose tensor is not that of block 0."""
    different = []
    for name in IN_EVERY_BLOCK.values():
        for suffix in ("weight", "bias"):
            copies = [key for key in entries if key.startswith(_BLOCKS) and key.endswith(f".{name}.{suffix}")]
            first = entries.get(f"{_BLOCKS}0.{name}.{suffix}")
            if first is not None:
                original = first.load()
                different += [key for key in copies if not torch.equal(entries[key].load(), original)]
    return sorted(different)


def to_diffusers(weights: dict[str, Tensor], depth: int) -> Iterator[tuple[str, Tensor]]:
    """Canonical weights of a DiT under the names that `DiTTransformer2DModel` gives them."""
    for suffix in ("weight", "bias"):
        for ours, theirs in OUTER.items():
            yield f"{theirs}.{suffix}", weights[f"{ours}.{suffix}"]
        for i in range(depth):
            for ours, theirs in PER_BLOCK.items():
                yield f"{_BLOCKS}{i}.{theirs}.{suffix}", weights[f"blocks.{i}.{ours}.{suffix}"]
            for theirs, part in zip(QKV, weights[f"blocks.{i}.attn.qkv.{suffix}"].chunk(3), strict=True):
                yield f"{_BLOCKS}{i}.{theirs}.{suffix}", part
            for ours, theirs in IN_EVERY_BLOCK.items():
                if f"{ours}.{suffix}" in weights:
                    yield f"{_BLOCKS}{i}.{theirs}.{suffix}", weights[f"{ours}.{suffix}"]


def _from_diffusers(entries: Entries) -> Iterator[tuple[str, Entry]]:
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
        elif block and name in QKV:
            yield f"blocks.{block[1]}.attn.qkv.{suffix}", _joined(entries, f"{_BLOCKS}{block[1]}", suffix)
        elif key != "pos_embed.pos_embed":  # the fixed positions, in files of old versions
            yield key, entry


def _joined(entries: Entries, block: str, suffix: str) -> Entry:
    parts = [entries[key] for key in (f"{block}.{name}.{suffix}" for name in QKV) if key in entries]
    rows = sum(part.shape[0] for part in parts)
    return Entry(shape=(rows, *parts[0].shape[1:]), load=partial(_concatenated, parts))


def _concatenated(parts: list[Entry]) -> Tensor:
    return torch.cat([part.load() for part in parts])


def _positions(config: object) -> Entries:
    """DiT's fixed positions, which diffusers does not store."""
    if not isinstance(config, DiTConfig):
        return {}
    side = config.input_size // config.patch_size
    load = partial(sincos_positions, side, side, config.hidden_size)
    return {"pos_embed": Entry(shape=(1, side * side, config.hidden_size), load=load)}
