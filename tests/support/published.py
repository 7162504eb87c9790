"""Golden models in the layouts of their authors: files to import or pull, and cards of a user for them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from ditzoo.backends.base import Backend
from ditzoo.plan.make import make_plan
from ditzoo.sampling.condition import class_condition
from ditzoo.sampling.loop import fitted, predictor, trajectory
from tests.support.golden import Golden

DCAE_CARD = """
["{name}"]
base = "uvit-s-dcae-f32-512"
null_label = 7
backbone = {{img_size = 4, embed_dim = 32, depth = 4, num_heads = 2, in_chans = 4, num_classes = 8}}
sampling = {{steps = 10, guided_channels = 4}}
[{name}.weights]
repo = "team/dcae"
"""
"""A card of the golden file. It inherits the schedule, the guidance and everything else from the published model."""

VAVAE_CARD = """
["vavae"]
base = "sit-s-2-256"
backbone = {{input_size = 4, patch_size = 1, in_channels = 8, hidden_size = 48, depth = 3, num_heads = 3}}
[vavae.decoder]
scale = 1.0
factor = 16
statistics = "latents_stats.pt"
[vavae.decoder.source]
repo = "team/vavae"
revision = "{revision}"
files = [{{path = "vavae-f16.pt"}}, {{path = "latents_stats.pt"}}]
"""
"""A card with the decoder and the statistics of `golden/lightningdit`."""

LIGHTNINGDIT_CARD = """
["lightning"]
base = "lightningdit-xl-1-256"
null_label = 10
backbone = {{input_size = 4, in_channels = 8, hidden_size = 48, depth = 3, num_heads = 3, num_classes = 10}}
sampling = {{steps = 11}}
[lightning.decoder]
statistics = "latents_stats.pt"
[lightning.decoder.source]
repo = "team/vavae"
revision = "{revision}"
files = [{{path = "vavae-f16.pt"}}, {{path = "latents_stats.pt"}}]
"""
"""A card of `golden/lightningdit`. Except for the size and the number of steps, it is that of the published model."""


def dcae_file(path: Path) -> Path:
    """The published file of `golden/dcae_uvit_f32`: the network and its autoencoder."""
    save_file(Golden("dcae_uvit_f32").group("weights."), path)
    return path


def lightningdit_file(path: Path) -> Path:
    """`golden/lightningdit` as a training run saves it: the weights and their average. The average has the golden values."""
    average = {f"module.{key}": value for key, value in Golden("lightningdit").group("weights.").items()}
    raw = {key: value + 1 for key, value in average.items()}
    torch.save({"model": raw, "ema": average, "opt": {"state": {}}, "config": {"train": {"max_steps": 80_000}}}, path)
    return path


def vavae_files(folder: Path) -> dict[str, bytes | Path]:
    """The published files of the autoencoder in `golden/lightningdit`, by their paths in the repository.

    The checkpoint is that of a training run, so it holds the encoder and the loss too.
    """
    golden = Golden("lightningdit")
    weights = {key: value.float() for key, value in golden.group("tokenizer.").items()}
    others = {"encoder.conv_in.weight": torch.ones(2, 3), "quant_conv.bias": torch.ones(2), "loss.logvar": torch.zeros(1)}
    torch.save({"state_dict": weights | others}, folder / "vavae-f16.pt")
    torch.save(golden.group("latents_stats."), folder / "latents_stats.pt")
    return {name: folder / name for name in ("vavae-f16.pt", "latents_stats.pt")}


def sampled(backend: Backend, golden: Golden) -> np.ndarray:
    """Latents sampled with the card's own settings, from the noise and the labels of a golden file."""
    plan = make_plan(backend.card)
    predict = predictor(backend, plan, class_condition(backend.card, golden["in.labels"].tolist()))
    noise: Callable[[int], np.ndarray] = lambda draw: golden["in.z"].numpy()  # noqa: E731  (only the first draw is used)
    *_, last = trajectory(plan, predict, lambda draw: fitted(backend, {"x": noise(draw)})["x"])
    return backend.numpy(last)
