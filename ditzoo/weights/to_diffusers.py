"""`to-diffusers`: write a model as a folder that `diffusers.DiTPipeline.from_pretrained` loads."""

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
from ditzoo.files import check_replaceable, check_target, check_writable, disk_errors
from ditzoo.folders import appearing
from ditzoo.hub.client import PATIENCE
from ditzoo.hub.fetch import fetch
from ditzoo.locks import lock_of
from ditzoo.weights.local import weights_file
from ditzoo.zoo.card import Autoencoder, Card, DiscreteBetas
from ditzoo.zoo.class_names import class_names

_NULL_LABEL = 1000
"""The null label that is fixed in the code of `DiTPipeline`."""

_WEIGHTS = "diffusion_pytorch_model.safetensors"


def to_diffusers(card: Card, out: Path, *, patience: float = PATIENCE) -> Path:
    """Writes `card` as a diffusers pipeline to the new folder `out`: transformer, scheduler and decoder. Returns `out`.

    The norms get the paper's eps of 1e-6. One difference remains: the time embedding of diffusers divides by 127, that of the
    paper by 128 (docs/explain/diffusers.md has figures). Raises UsageError if diffusers has no pipeline for the model, or if
    `out` exists or cannot be written. The folder appears when it is complete. `patience` is how many seconds the server of the
    decoder may be silent.
    """
    config, decoder, theirs = card.backbone, card.decoder, family_of(card.backbone).diffusers
    if theirs is None or card.prediction != "noise" or not isinstance(decoder, Autoencoder):
        raise UsageError(f"diffusers has a pipeline only for DiTs on latents that predict noise; {card.name} is not one")
    if card.null_label != _NULL_LABEL:
        raise UsageError(
            f"diffusers' DiTPipeline always uses {_NULL_LABEL} as the null label, so it needs a model with {_NULL_LABEL}"
            f" classes; {card.name} has {card.number_of_classes} classes and the null label {card.null_label}"
        )
    if decoder.mean or decoder.std or decoder.statistics is not None:
        raise UsageError(
            f"diffusers' DiTPipeline only scales latents; those of {card.name} also have a mean and a standard deviation"
        )
    if decoder.source is None or decoder.architecture != "AutoencoderKL" or theirs.refusal(config):
        raise UsageError(
            "diffusers' DiTPipeline needs an AutoencoderKL with its own source, and a network with a null label;"
            f" {card.name} has another decoder or no null label"
        )
    check_target(out, "DIR")
    if out.exists():
        raise UsageError(f"{out} exists already; choose a new folder")
    check_replaceable(out, "DIR")
    check_writable(out.parent, "DIR")
    checkpoint, vae = weights_file(card), fetch(decoder.source, patience=patience)
    with lock_of(out), disk_errors(out), appearing(out.absolute()) as folder:
        for part in ("transformer", "scheduler", "vae"):
            (folder / part).mkdir()
        _json(folder / "model_index.json", _index(card, theirs.model))
        _json(folder / "transformer" / "config.json", theirs.config(config))
        _json(folder / "scheduler" / "scheduler_config.json", _scheduler(card))
        state = dict(theirs.state(load_file(checkpoint), config))
        write(
            {key: Entry(shape=tuple(value.shape), load=value.contiguous) for key, value in state.items()},
            folder / "transformer" / _WEIGHTS,
        )
        for file in decoder.source.files:
            shutil.copyfile(vae / file.path, folder / "vae" / Path(file.path).name)
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
        raise UsageError(f"diffusers' DiTPipeline needs a discrete schedule of betas; {card.name} has another kind")
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
