"""LightningDiT (arXiv 2501.01423): DiT with RMSNorm, SwiGLU and rotary positions, each of them an option.

The published layout "lightningdit" has the names of the authors' code, which are the canonical ones.
"""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor

from ditzoo.families.dit import DIT
from ditzoo.families.family import Family, KeyLayout
from ditzoo.families.tensors import Entries, Entry, Shapes, listed
from ditzoo.nets.adaln import AnySize, Conditioning
from ditzoo.nets.layers import rotary_axis, rotary_grid
from ditzoo.nets.lightningdit import LightningDiT
from ditzoo.zoo.configs import LightningDiTConfig

ROTARY = ("feat_rope.freqs_cos", "feat_rope.freqs_sin")
"""The rotary positions of a checkpoint: cosines and sines."""

_TOLERANCE = 1e-2
"""How far numbers between −1 and 1 may be from what is computed: they may have been stored in bfloat16."""

_MARKS = ("blocks.0.norm1.weight", "blocks.0.mlp.w12.weight", "blocks.0.attn.q_norm.weight", *ROTARY)


def _recognises(shapes: Shapes) -> bool:
    """A DiT with one of the options or more; one without any is a DiT."""
    return "x_embedder.proj.weight" in shapes and (any(mark in shapes for mark in _MARKS) or _without_shift(shapes))


def _without_shift(shapes: Shapes) -> bool:
    rows, width = shapes.get("blocks.0.adaLN_modulation.1.weight", (0, 1))
    return rows == 4 * width


def _matches(entries: Entries) -> bool:
    return _recognises({key: entry.shape for key, entry in entries.items()})


def _with_rotary_positions(entries: Entries, config: LightningDiTConfig | None) -> Entries:
    """The entries, and the rotary positions where the network has some that the checkpoint left out."""
    if config is None or not config.use_rope:
        return entries
    side, head = config.input_size // config.patch_size, config.head_width
    computed = {key: Entry(shape=(config.tokens, head), load=partial(_rotary_positions, key, side, head)) for key in ROTARY}
    return {**computed, **entries}


def _rotary_positions(key: str, side: int, head: int) -> Tensor:
    return rotary_grid(rotary_axis(side, head // 2)[ROTARY.index(key)], side, side)


def _other_positions(entries: Entries) -> list[str]:
    """One sentence where a checkpoint has other rotary positions than those that are computed here."""
    other = [key for key in ROTARY if key in entries and not _as_computed(key, entries[key].load())]
    return [f"rotary positions that are not those of the paper: {listed(other)}"] if other else []


def _as_computed(key: str, found: Tensor) -> bool:
    computed = _rotary_positions(key, math.isqrt(found.shape[0]), found.shape[1])
    return found.shape == computed.shape and torch.allclose(found.float(), computed, rtol=0, atol=_TOLERANCE)


def _mlp_ratio(shapes: Shapes) -> float:
    """The ratio of widths of an MLP; of a gated one three halves of it, to two decimals, since its width was rounded down."""
    if "blocks.0.mlp.w3.weight" not in shapes:
        return DIT.facts["mlp_ratio"](shapes)  # type: ignore[return-value]
    width, hidden = shapes["blocks.0.mlp.w3.weight"]
    return round(1.5 * hidden / width, 2)


LIGHTNINGDIT = Family(
    name="LightningDiT",
    config=LightningDiTConfig,
    build=LightningDiT,
    layouts=(KeyLayout(name="lightningdit", matches=_matches, to_canonical=_with_rotary_positions, problems=_other_positions),),
    recognises=_recognises,
    facts={
        **DIT.facts,
        "kind": lambda shapes: "LightningDiT",
        "mlp_ratio": _mlp_ratio,
        "num_heads": lambda shapes: shapes["x_embedder.proj.weight"][0] // shapes[ROTARY[0]][1],
        "use_qknorm": lambda shapes: str("blocks.0.attn.q_norm.weight" in shapes),
        "use_swiglu": lambda shapes: str("blocks.0.mlp.w12.weight" in shapes),
        "use_rmsnorm": lambda shapes: str("blocks.0.norm1.weight" in shapes),
        "wo_shift": lambda shapes: str(_without_shift(shapes)),
    },
    computed=frozenset({"pos_embed", *ROTARY}),
    half_precision=DIT.half_precision,
    conditioning=Conditioning,
    any_size=lambda net, largest: AnySize(net, largest=largest),
    extents=DIT.extents,
)
