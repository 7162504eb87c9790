"""From the published layouts of autoencoders to the decoders of diffusers' classes.

The authors of DC-AE and of latent diffusion (LDM) name the layers of their autoencoders otherwise than diffusers does. Of each
autoencoder the decoder alone is kept. Its sizes are read off the shapes, so that a card has to name the class only.
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
    """What is known of the checkpoints of one class of autoencoders.

    `to_canonical` gives the decoder's tensors the names that diffusers' class has for them; those that have these names already
    keep them. `config` reads the arguments of the class off the shapes; it raises LookupError where a tensor is missing.
    """

    to_canonical: Callable[[Entries], Entries]
    config: Callable[[Shapes], dict[str, Any]]


LAYOUTS: dict[Architecture, AutoencoderLayout] = {
    "AutoencoderDC": AutoencoderLayout(to_canonical=dcae.to_canonical, config=dcae.config),
    "AutoencoderKL": AutoencoderLayout(to_canonical=ldm.to_canonical, config=ldm.config),
}


def decoder_entries(entries: Entries, architecture: Architecture) -> Entries:
    """The decoder among the tensors of an autoencoder, under the names of diffusers' class `architecture`.

    A decoder's tensors without such a name keep theirs, so that they can be reported.
    """
    ours = {key: entry for key, entry in entries.items() if key.startswith(_DECODER) and not key.endswith(_COUNTER)}
    return LAYOUTS[architecture].to_canonical(ours)


def diffusers_class(architecture: Architecture) -> Any:
    """The class of that name; raises MissingPackageError, with what to install, without diffusers."""
    try:
        import diffusers
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            f"decoding with torch needs the package {error.name}: pip install 'ditzoo[diffusers]'"
        ) from error
    return getattr(diffusers, architecture)


def build(architecture: Architecture, shapes: Shapes) -> nn.Module:
    """diffusers' autoencoder of the sizes that `shapes` have, without its encoder, on torch's device "meta".

    Raises CheckpointError where a tensor that tells the sizes is missing, MissingPackageError without diffusers.
    """
    kind = diffusers_class(architecture)
    try:
        with torch.device("meta"):
            net: nn.Module = kind(**LAYOUTS[architecture].config(shapes))
    except (LookupError, ValueError, ZeroDivisionError) as error:
        raise CheckpointError(f"it is no decoder of {architecture}: {error}") from error
    net.encoder = nn.Identity()
    return net


def misfits(entries: Entries, architecture: Architecture, *, channels: int) -> list[str]:
    """Every tensor that is missing, unexpected or misshapen for a decoder of `channels` latent channels, by kind.

    Without diffusers nothing is known of its class: then the check has to wait until the decoder is loaded.
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
