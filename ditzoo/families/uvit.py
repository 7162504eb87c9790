"""U-ViT (arXiv 2209.12152), and the U-ViTs on DC-AE latents (arXiv 2410.10733), which predict noise or velocity.

The published layout "uvit" has the names of the authors' code, which are the canonical names. Only the DC-AE models have
another name for the label table.
"""

from __future__ import annotations

import math

from ditzoo.families.family import ALL, NO_MODULE, Family, KeyLayout, Known
from ditzoo.families.tensors import Entries, Shapes, count_numbered, mlp_ratio, side
from ditzoo.nets.uvit import UViT
from ditzoo.zoo.configs import UViTConfig


def _is_canonical(entries: Entries) -> bool:
    return "patch_embed.proj.weight" in entries and any(key.startswith("in_blocks.") for key in entries)


def _to_canonical(entries: Entries, config: object) -> Entries:
    return {key.replace("label_emb.embedding_table.", "label_emb."): entry for key, entry in entries.items()}


def _extra_tokens(shapes: Shapes) -> int:
    """The number of tokens before the patches. It is chosen so that the patches form a square grid."""
    tokens = shapes["pos_embed"][1]
    return 2 if "label_emb.weight" in shapes and math.isqrt(tokens - 2) ** 2 == tokens - 2 else 1


def _size(shapes: Shapes) -> str | int:
    tokens = shapes["pos_embed"][1]
    if "context_embed.weight" in shapes:
        return f"of {tokens} tokens"
    return math.isqrt(tokens - _extra_tokens(shapes)) * shapes["patch_embed.proj.weight"][2]


def _config_from(shapes: Shapes, like: UViTConfig, known: Known) -> UViTConfig:
    """See `Family.config_from`. The position table has rows for the time, the label or the text, and the patches."""
    width, channels, patch, _ = shapes["patch_embed.proj.weight"]
    rows = shapes[_LABEL_TABLE][0] if _LABEL_TABLE in shapes else 0
    text = shapes["context_embed.weight"][1] if "context_embed.weight" in shapes else None
    extra = 1 + (like.num_clip_token if text else rows > 0)
    return UViTConfig(
        img_size=side(shapes["pos_embed"][1] - extra) * patch,
        patch_size=patch,
        in_chans=channels,
        embed_dim=width,
        depth=2 * count_numbered(shapes, "in_blocks"),
        num_heads=known.heads_like(width=width, like=(like.embed_dim, like.num_heads)),
        mlp_ratio=mlp_ratio(width, shapes["mid_block.mlp.fc1.weight"][0], like.mlp_ratio),
        qkv_bias="mid_block.attn.qkv.bias" in shapes,
        mlp_time_embed="time_embed.0.weight" in shapes,
        num_classes=rows or -1,
        conv="final_layer.weight" in shapes,
        skip="out_blocks.0.skip_linear.weight" in shapes,
        clip_dim=text,
        num_clip_token=like.num_clip_token,
    )


_LABEL_TABLE = "label_emb.weight"
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
        "num_classes": lambda shapes: shapes.get(_LABEL_TABLE, (-1,))[0],
        "clip_dim": lambda shapes: shapes.get("context_embed.weight", (0, 0))[1],
        "mlp_ratio": lambda shapes: shapes["mid_block.mlp.fc1.weight"][0] / shapes["mid_block.mlp.fc1.weight"][1],
        "qkv_bias": lambda shapes: str("mid_block.attn.qkv.bias" in shapes),
        "mlp_time_embed": lambda shapes: str("time_embed.0.weight" in shapes),
        "skip": lambda shapes: str("out_blocks.0.skip_linear.weight" in shapes),
        "conv": lambda shapes: str("final_layer.weight" in shapes),
    },
    config_from=_config_from,
    label_table=_LABEL_TABLE,
    half_precision=("attn", "mlp", "skip_linear"),
    extents={
        ALL: NO_MODULE,
        "all but the first two blocks": _FIRST_BLOCKS,
        "all but the first two blocks and the skips": rf"{_FIRST_BLOCKS}|skip_linear",
        "attention behind the first two blocks": rf"{_FIRST_BLOCKS}|skip_linear|mlp",
    },
)
