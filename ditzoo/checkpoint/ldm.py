"""The decoders of latent diffusion (LDM, arXiv 2112.10752): renames LDM's tensors to those of diffusers' `AutoencoderKL`."""

from __future__ import annotations

import re
from typing import Any

from ditzoo.families.tensors import Entries, Entry, Shapes, count_numbered, without_kernel

_ATTENTION = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}
_UP, _MID = re.compile(r"decoder\.up\.(\d{1,3})\.(.+)"), "decoder.mid."


def to_canonical(entries: Entries) -> Entries:
    """A decoder with the names of diffusers. Tensors that have these names already stay as they are.

    LDM numbers the blocks from the image to the latents, diffusers from the latents to the image.
    """
    blocks = count_numbered({key: entry.shape for key, entry in entries.items()}, r"decoder\.up")
    return dict(_renamed(key, entry, blocks) for key, entry in entries.items())


def _renamed(key: str, entry: Entry, blocks: int) -> tuple[str, Entry]:
    if up := _UP.fullmatch(key):
        inner = re.sub(r"^block\.", "resnets.", up[2])
        inner = re.sub(r"^upsample\.", "upsamplers.0.", inner)
        name = f"decoder.up_blocks.{blocks - 1 - int(up[1])}.{re.sub(r'^attn[.]', 'attentions.', inner)}"
    elif key.startswith(_MID):
        inner = key.removeprefix(_MID).replace("attn_1.", "attentions.0.")
        name = "decoder.mid_block." + inner.replace("block_1.", "resnets.0.").replace("block_2.", "resnets.1.")
    else:
        name = key.replace("decoder.norm_out.", "decoder.conv_norm_out.")
    name = name.replace(".nin_shortcut.", ".conv_shortcut.")
    attention = re.fullmatch(r"(.+\.attentions\.\d+)\.(\w+)\.(weight|bias)", name)
    if attention and attention[2] in _ATTENTION:
        return f"{attention[1]}.{_ATTENTION[attention[2]]}.{attention[3]}", without_kernel(entry)
    return name, entry


def config(shapes: Shapes) -> dict[str, Any]:
    """The arguments of `AutoencoderKL`, read off the shapes. Raises LookupError if a tensor is missing.

    Shapes do not show the groups of norms and the heads of attention. These are as in LDM: 32 groups, one head.
    """
    blocks = range(count_numbered(shapes, r"decoder\.up_blocks"))
    attentive = [f"decoder.up_blocks.{i}.attentions.0.to_q.weight" in shapes for i in blocks]
    widths = [shapes[f"decoder.up_blocks.{i}.resnets.0.conv1.weight"][0] for i in blocks]
    return {
        "latent_channels": shapes["decoder.conv_in.weight"][1],
        "out_channels": shapes["decoder.conv_out.weight"][0],
        "block_out_channels": widths[::-1],
        "layers_per_block": count_numbered(shapes, r"decoder\.up_blocks\.0\.resnets") - 1,
        "up_block_types": ["AttnUpDecoderBlock2D" if has else "UpDecoderBlock2D" for has in attentive],
        "down_block_types": ["DownEncoderBlock2D"] * len(blocks),
        "mid_block_add_attention": "decoder.mid_block.attentions.0.to_q.weight" in shapes,
        "use_quant_conv": False,
        "use_post_quant_conv": "post_quant_conv.weight" in shapes,
    }
