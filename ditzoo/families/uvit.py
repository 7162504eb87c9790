"""U-ViT (arXiv 2209.12152), and the U-ViTs on DC-AE latents (arXiv 2410.10733), with noise or velocity as the prediction.

The published layout "uvit" has the names of the authors' code, which are the canonical ones, but that the DC-AE models call the
label table otherwise.
"""

from __future__ import annotations

import math

from ditzoo.families.family import ALL, NO_MODULE, Family, KeyLayout
from ditzoo.families.tensors import Entries, Shapes, count_numbered
from ditzoo.nets.uvit import UViT
from ditzoo.zoo.configs import UViTConfig


def _is_canonical(entries: Entries) -> bool:
    return "patch_embed.proj.weight" in entries and any(key.startswith("in_blocks.") for key in entries)


def _to_canonical(entries: Entries, config: object) -> Entries:
    return {key.replace("label_emb.embedding_table.", "label_emb."): entry for key, entry in entries.items()}


def _extra_tokens(shapes: Shapes) -> int:
    """How many tokens stand before the patches: such that a square grid of them remains."""
    tokens = shapes["pos_embed"][1]
    return 2 if "label_emb.weight" in shapes and math.isqrt(tokens - 2) ** 2 == tokens - 2 else 1


def _size(shapes: Shapes) -> str | int:
    tokens = shapes["pos_embed"][1]
    if "context_embed.weight" in shapes:
        return f"of {tokens} tokens"
    return math.isqrt(tokens - _extra_tokens(shapes)) * shapes["patch_embed.proj.weight"][2]


_FIRST_BLOCKS = r"^in_blocks\.[01]\."

UVIT = Family(
    name="U-ViT",
    config=UViTConfig,
    build=UViT,
    layouts=(KeyLayout(name="uvit", matches=_is_canonical, to_canonical=_to_canonical),),
    recognises=lambda shapes: "patch_embed.proj.weight" in shapes,
    facts={
        "kind": lambda shapes: "U-ViT",
        "embed_dim": lambda shapes: shapes["patch_embed.proj.weight"][0],
        "depth": lambda shapes: 2 * count_numbered(shapes, "in_blocks"),
        "patch_size": lambda shapes: shapes["patch_embed.proj.weight"][2],
        "in_chans": lambda shapes: shapes["patch_embed.proj.weight"][1],
        "img_size": _size,
        "num_classes": lambda shapes: shapes.get("label_emb.weight", (-1,))[0],
        "clip_dim": lambda shapes: shapes.get("context_embed.weight", (0, 0))[1],
        "mlp_ratio": lambda shapes: shapes["mid_block.mlp.fc1.weight"][0] / shapes["mid_block.mlp.fc1.weight"][1],
        "qkv_bias": lambda shapes: str("mid_block.attn.qkv.bias" in shapes),
        "mlp_time_embed": lambda shapes: str("time_embed.0.weight" in shapes),
        "skip": lambda shapes: str("out_blocks.0.skip_linear.weight" in shapes),
        "conv": lambda shapes: str("final_layer.weight" in shapes),
    },
    half_precision=("attn", "mlp", "skip_linear"),
    extents={
        ALL: NO_MODULE,
        "all but the first two blocks": _FIRST_BLOCKS,
        "all but the first two blocks and the skips": rf"{_FIRST_BLOCKS}|skip_linear",
        "attention behind the first two blocks": rf"{_FIRST_BLOCKS}|skip_linear|mlp",
    },
)
