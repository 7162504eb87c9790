"""`to-diffusers`: a model as a folder that `diffusers.DiTPipeline.from_pretrained` loads."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import msgspec
from safetensors.torch import load_file

from ditzoo.checkpoint import write
from ditzoo.errors import UsageError
from ditzoo.families import family_of
from ditzoo.families.tensors import Entry
from ditzoo.files import check_writable
from ditzoo.hub.client import PATIENCE
from ditzoo.hub.fetch import fetch
from ditzoo.weights.local import weights_file
from ditzoo.zoo.card import Autoencoder, Card, DiscreteBetas
from ditzoo.zoo.class_names import class_names

_NULL_LABEL = 1000
"""What `DiTPipeline` has built in."""

_WEIGHTS = "diffusion_pytorch_model.safetensors"


def to_diffusers(card: Card, out: Path, *, patience: float = PATIENCE) -> Path:
    """Writes `card` as a pipeline of diffusers to the new folder `out`: transformer, scheduler, decoder.

    The norms get the paper's eps of 1e-6. What diffusers cannot say stays different: its time embedding divides by 127 where
    the paper's divides by 128 (docs/checkpoints.md has figures). Raises UsageError for a model that it has no pipeline for.
    """
    config, decoder, theirs = card.backbone, card.decoder, family_of(card.backbone).diffusers
    if theirs is None or card.prediction != "noise" or not isinstance(decoder, Autoencoder):
        raise UsageError(f"diffusers has a pipeline for DiTs on latents alone; {card.name} is none")
    if card.null_label != _NULL_LABEL:
        raise UsageError(
            f"diffusers' DiTPipeline guides with the label {_NULL_LABEL}, whatever the model, so it is right for"
            f" {_NULL_LABEL} classes alone; {card.name} has {card.number_of_classes}, and its null label is {card.null_label}"
        )
    if decoder.mean or decoder.std or decoder.statistics is not None:
        raise UsageError(f"diffusers' DiTPipeline only scales latents; those of {card.name} have a mean and a deviation too")
    if decoder.source is None or decoder.architecture != "AutoencoderKL" or theirs.refusal(config):
        raise UsageError(
            f"diffusers' DiTPipeline takes an AutoencoderKL and a null label; {card.name} has another decoder or none"
        )
    if out.exists():
        raise UsageError(f"{out} is there already; choose a new folder")
    check_writable(out.parent)
    checkpoint, vae = weights_file(card), fetch(decoder.source, patience=patience)
    for part in ("transformer", "scheduler", "vae"):
        (out / part).mkdir(parents=True)
    _json(out / "model_index.json", _index(card, theirs.model))
    _json(out / "transformer" / "config.json", theirs.config(config))
    _json(out / "scheduler" / "scheduler_config.json", _scheduler(card))
    state = dict(theirs.state(load_file(checkpoint), config))
    write(
        {key: Entry(shape=tuple(value.shape), load=value.contiguous) for key, value in state.items()},
        out / "transformer" / _WEIGHTS,
    )
    for file in decoder.source.files:
        shutil.copyfile(vae / file.path, out / "vae" / Path(file.path).name)
    return out


def _index(card: Card, transformer: str) -> dict[str, Any]:
    return {
        "_class_name": "DiTPipeline",
        "id2label": {str(number): name for number, name in enumerate(class_names(card))},
        "scheduler": ["diffusers", "DDIMScheduler"],
        "transformer": ["diffusers", transformer],
        "vae": ["diffusers", "AutoencoderKL"],
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
