"""LightningDiT (arXiv 2501.01423): DiT with the options RMSNorm, SwiGLU, QK norm, rotary positions and no shift.

The published layout "lightningdit" has the names of the authors' code, which are the canonical names.
"""

from __future__ import annotations

import math
from functools import partial

from torch import Tensor

from ditzoo.families.dit import DIT, fields_from, fixed_positions
from ditzoo.families.family import Family, KeyLayout, Known
from ditzoo.families.tensors import Entries, Shapes, mlp_ratio
from ditzoo.nets.adaln import AnySize, Conditioning
from ditzoo.nets.layers import rotary_axis, rotary_grid
from ditzoo.nets.lightningdit import LightningDiT
from ditzoo.zoo.configs import LightningDiTConfig

ROTARY = ("feat_rope.freqs_cos", "feat_rope.freqs_sin")
"""The names of the rotary positions in a checkpoint: cosines and sines."""

_WIDTH, _GATED, _MODULATION = "x_embedder.proj.weight", "blocks.0.mlp.w3.weight", "blocks.0.adaLN_modulation.1.weight"
_QK_NORM, _RMS_NORM = "blocks.0.attn.q_norm.weight", "blocks.0.norm1.weight"


def _recognises(shapes: Shapes) -> bool:
    """Whether the shapes show a DiT with at least one of the options. A network without options is a DiT."""
    marked = any(key in shapes for key in (_GATED, _QK_NORM, _RMS_NORM, *ROTARY))
    return _WIDTH in shapes and (marked or _without_shift(shapes))


def _without_shift(shapes: Shapes) -> bool:
    shape = shapes.get(_MODULATION, ())
    return len(shape) == 2 and shape[0] == 4 * shape[1]


def _matches(entries: Entries) -> bool:
    return _recognises({key: entry.shape for key, entry in entries.items()})


def _unchanged(entries: Entries, config: object) -> Entries:
    return entries


def _rotary_positions(index: int, config: LightningDiTConfig) -> Tensor | None:
    if not config.use_rope:
        return None
    side = config.input_size // config.patch_size
    return rotary_grid(rotary_axis(side, config.head_width // 2)[index], side, side)


def _config_from(shapes: Shapes, like: LightningDiTConfig, known: Known) -> LightningDiTConfig:
    """See `Family.config_from`. The rotary positions show the number of heads."""
    width = shapes[_WIDTH][0]
    rotary = shapes.get(ROTARY[0])
    heads = width // rotary[1] if rotary else known.heads_like(width=width, like=(like.hidden_size, like.num_heads))
    return LightningDiTConfig(
        **fields_from(shapes, like, known),
        num_heads=heads,
        mlp_ratio=_mlp_ratio(shapes, like.mlp_ratio),
        use_qknorm=_QK_NORM in shapes,
        use_swiglu=_GATED in shapes,
        use_rope=like.use_rope if rotary is None else True,
        use_rmsnorm=_RMS_NORM in shapes,
        wo_shift=_without_shift(shapes),
    )


def _mlp_ratio(shapes: Shapes, like: float) -> float:
    """The mlp_ratio of a network: `like` if it gives the same width, else one computed from the width.

    The hidden layer of a gated MLP has two thirds of the width that the ratio gives, rounded down.
    """
    if _GATED not in shapes:
        hidden, width = shapes["blocks.0.mlp.fc1.weight"]
        return mlp_ratio(width, hidden, like)
    width, hidden = shapes[_GATED]
    if int(2 / 3 * int(width * like)) == hidden:
        return like
    return mlp_ratio(width, math.ceil(1.5 * hidden), like)


LIGHTNINGDIT = Family(
    name="LightningDiT",
    config=LightningDiTConfig,
    build=LightningDiT,
    layouts=(KeyLayout(name="lightningdit", matches=_matches, to_canonical=_unchanged),),
    recognises=_recognises,
    facts={
        **DIT.facts,
        "kind": lambda shapes: "LightningDiT",
        "mlp_ratio": lambda shapes: _mlp_ratio(shapes, like=4.0),
        "num_heads": lambda shapes: shapes[_WIDTH][0] // shapes[ROTARY[0]][1],
        "use_qknorm": lambda shapes: str(_QK_NORM in shapes),
        "use_swiglu": lambda shapes: str(_GATED in shapes),
        "use_rmsnorm": lambda shapes: str(_RMS_NORM in shapes),
        "wo_shift": lambda shapes: str(_without_shift(shapes)),
    },
    config_from=_config_from,
    label_table=DIT.label_table,
    computed={"pos_embed": fixed_positions, **{key: partial(_rotary_positions, i) for i, key in enumerate(ROTARY)}},
    half_precision=DIT.half_precision,
    conditioning=Conditioning,
    any_size=lambda net, largest: AnySize(net, largest=largest),
    extents=DIT.extents,
)
