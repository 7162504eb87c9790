"""Converts the published layouts of autoencoders to the decoders of diffusers' classes.

The authors of DC-AE and of latent diffusion (LDM) use other names for the layers than diffusers does. Only the decoder of an
autoencoder is kept. Its sizes are read off the shapes, so a card only has to name the class.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import msgspec
import torch
from torch import nn

from ditzoo.checkpoint import dcae, ldm
from ditzoo.errors import CheckpointError, MissingPackageError
from ditzoo.families.tensors import Entries, Shapes, compare
from ditzoo.zoo.card import Architecture

_DECODER = ("decoder.", "post_quant_conv.")
_COUNTER = ".num_batches_tracked"


class AutoencoderLayout(msgspec.Struct, frozen=True, kw_only=True):
    """How to read the checkpoints of one class of autoencoders.

    `to_canonical` renames the decoder's tensors to the names of diffusers' class; tensors that already have these names keep
    them. `config` reads the arguments of the class off the shapes. It raises LookupError if a tensor is missing.
    """

    to_canonical: Callable[[Entries], Entries]
    config: Callable[[Shapes], dict[str, Any]]


LAYOUTS: dict[Architecture, AutoencoderLayout] = {
    "AutoencoderDC": AutoencoderLayout(to_canonical=dcae.to_canonical, config=dcae.config),
    "AutoencoderKL": AutoencoderLayout(to_canonical=ldm.to_canonical, config=ldm.config),
}


def decoder_entries(entries: Entries, architecture: Architecture) -> Entries:
    """The decoder's tensors of an autoencoder, with the names of diffusers' class `architecture`.

    A tensor that has no name in that class keeps its own, so that it can be reported.
    """
    ours = {key: entry for key, entry in entries.items() if key.startswith(_DECODER) and not key.endswith(_COUNTER)}
    return LAYOUTS[architecture].to_canonical(ours)


def diffusers_class(architecture: Architecture) -> Any:
    """The diffusers class called `architecture`. Raises MissingPackageError if diffusers is not installed."""
    try:
        import diffusers
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            f"decoding with torch needs the package {error.name}: pip install 'ditzoo[diffusers]'"
        ) from error
    return getattr(diffusers, architecture)


def build(architecture: Architecture, shapes: Shapes) -> nn.Module:
    """The diffusers autoencoder with the sizes in `shapes`, without its encoder, on torch's device "meta".

    Raises CheckpointError if a tensor that determines a size is missing, and MissingPackageError if diffusers is not installed.
    """
    kind = diffusers_class(architecture)
    try:
        with torch.device("meta"):
            net: nn.Module = kind(**LAYOUTS[architecture].config(shapes))
    except (LookupError, ValueError, TypeError, RuntimeError, ArithmeticError) as error:
        raise CheckpointError(f"it is not a decoder of {architecture}: {error}") from error
    net.encoder = nn.Identity()
    return net


def misfits(entries: Entries, architecture: Architecture, *, channels: int) -> list[str]:
    """The tensors that are missing, unexpected or misshapen for a decoder of `channels` latent channels, one message a kind.

    The result is empty if diffusers is not installed. In that case the decoder is checked when it is loaded.
    """
    if importlib.util.find_spec("diffusers") is None:
        return []
    shapes = {key: entry.shape for key, entry in entries.items()}
    try:
        net = build(architecture, shapes)
    except CheckpointError as error:
        return [f"the autoencoder: {error}"]
    expected = {key: tuple(value.shape) for key, value in net.state_dict().items() if not key.endswith(_COUNTER)}
    wrong = [f"the autoencoder: {problem}" for problem in compare(shapes, expected)]
    found = shapes.get("decoder.conv_in.weight", (0, 0))[1]
    return wrong if found == channels else [*wrong, f"the autoencoder is for latents of {found} channels, not {channels}"]
