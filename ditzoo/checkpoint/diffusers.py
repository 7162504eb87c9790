"""A folder that `diffusers.DiTPipeline.from_pretrained` loads, for those who go on there."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import msgspec
from safetensors.torch import load_file

from ditzoo.card import Autoencoder, Card, DiscreteBetas, DiTConfig
from ditzoo.checkpoint import layouts, write
from ditzoo.checkpoint.read import Entry
from ditzoo.classes import class_names
from ditzoo.errors import UsageError
from ditzoo.files import check_writable
from ditzoo.hub import fetch, weights
from ditzoo.hub.client import PATIENCE

_WEIGHTS = "diffusion_pytorch_model.safetensors"


def to_diffusers(card: Card, out: Path, *, patience: float = PATIENCE) -> Path:
    """Writes `card` as a pipeline of diffusers to the new folder `out`: transformer, scheduler, decoder.

    The norms get the paper's eps of 1e-6. What diffusers cannot say stays different: its time embedding divides by 127 where
    the paper's divides by 128 (docs/checkpoints.md has figures). Raises UsageError for a model that it has no pipeline for.
    """
    config, decoder = card.backbone, card.decoder
    if not isinstance(config, DiTConfig) or card.prediction != "noise" or not isinstance(decoder, Autoencoder):
        raise UsageError(f"diffusers has a pipeline for DiTs on latents alone; {card.name} is none")
    if decoder.source is None or decoder.architecture != "AutoencoderKL" or config.null_label is None:
        raise UsageError(
            f"diffusers' DiTPipeline takes an AutoencoderKL and a null label; {card.name} has another decoder or none"
        )
    if out.exists():
        raise UsageError(f"{out} is there already; choose a new folder")
    check_writable(out.parent)
    checkpoint, vae = weights(card), fetch(decoder.source, patience=patience)
    for part in ("transformer", "scheduler", "vae"):
        (out / part).mkdir(parents=True)
    _json(out / "model_index.json", _index(card))
    _json(out / "transformer" / "config.json", transformer_config(config))
    _json(out / "scheduler" / "scheduler_config.json", _scheduler(card))
    state = dict(layouts.to_diffusers(load_file(checkpoint), config.depth))
    write(
        {key: Entry(shape=tuple(value.shape), load=value.contiguous) for key, value in state.items()},
        out / "transformer" / _WEIGHTS,
    )
    for file in decoder.source.files:
        shutil.copyfile(vae / file.path, out / "vae" / Path(file.path).name)
    return out


def _index(card: Card) -> dict[str, Any]:
    return {
        "_class_name": "DiTPipeline",
        "id2label": {str(number): name for number, name in enumerate(class_names(card))},
        "scheduler": ["diffusers", "DDIMScheduler"],
        "transformer": ["diffusers", "DiTTransformer2DModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }


def transformer_config(config: DiTConfig) -> dict[str, Any]:
    """The configuration of diffusers' `DiTTransformer2DModel` for a DiT, with the paper's eps in every norm."""
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


def _scheduler(card: Card) -> dict[str, Any]:
    schedule = card.schedule
    if not isinstance(schedule, DiscreteBetas):
        raise UsageError(f"diffusers' DiTPipeline walks discrete schedules; {card.name} has another kind")
    return {
        "_class_name": "DDIMScheduler",
        "beta_start": schedule.start,
        "beta_end": schedule.end,
        "beta_schedule": schedule.spacing,
        "clip_sample": False,
        "num_train_timesteps": schedule.steps,
        "prediction_type": "epsilon",
        "set_alpha_to_one": True,
        "steps_offset": 0,
    }


def _json(path: Path, value: object) -> None:
    path.write_bytes(msgspec.json.format(msgspec.json.encode(value), indent=2))
