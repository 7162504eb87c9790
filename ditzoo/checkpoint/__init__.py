"""Converts any published checkpoint to the canonical form: safetensors in float32 with the keys of the authors' own code."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

import msgspec
import torch

from ditzoo.checkpoint import autoencoders, layouts, shapes
from ditzoo.checkpoint.choose import Pick
from ditzoo.checkpoint.fixed import with_fixed
from ditzoo.checkpoint.read import open_checkpoint, shard_names
from ditzoo.errors import CheckpointError
from ditzoo.families.tensors import Entries, Shape, listed
from ditzoo.zoo.card import Architecture, Card, Layout
from ditzoo.zoo.configs import BackboneConfig

log = logging.getLogger(__name__)


class Converted(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a conversion: the checkpoint's layout, the entry that was used, and the tensors that were not float32.

    `entry` is "" if the network was the whole file.
    """

    layout: Layout
    entry: str
    rounded: tuple[str, ...]


def convert(
    path: Path,
    config: BackboneConfig,
    out: Path,
    *,
    decoder: Path | None = None,
    architecture: Architecture | None = None,
    cards: Iterable[Card] = (),
    pick: Pick | None = None,
) -> Converted:
    """Writes the canonical form of the checkpoint at `path` to `out`. The file is mapped and converted one tensor at a time.

    If the checkpoint holds a decoder of class `architecture`, it is written to `decoder`; it is left out if either is None.
    `pick` selects the network among the tensors of the file. Tensors of another precision are converted to float32.

    Raises CheckpointError, with all problems at once, if a tensor is missing, unexpected or misshapen, or if a number is not
    finite in float32. If the network is another one, the message suggests those of `cards` that fit. Warnings name the entry
    that was used, the tensors that were not float32, and the fixed tables that were computed again.
    """
    chosen = open_checkpoint(path, pick)
    layout = layouts.detect(chosen.entries)
    network = layouts.to_canonical(chosen.entries, layout, config)
    found = layouts.autoencoder(chosen.entries)
    autoencoder = autoencoders.decoder_entries(found, architecture) if architecture else {}
    misfits = _misfits(network, config, cards)
    if architecture and autoencoder:
        misfits += autoencoders.misfits(autoencoder, architecture, channels=config.latent_shape[0])
    fixed = with_fixed(network, config, fits=not misfits)
    rounded, broken = _examine({**fixed.entries, **autoencoder})
    problems = [*misfits, *fixed.problems, *broken, *layouts.problems(chosen.entries, layout)]
    if problems:
        raise CheckpointError(f"{path.name} cannot be used: {'; '.join(problems)}")
    for remark in (*chosen.remarks, *(f"{path.name}: {remark}" for remark in fixed.remarks)):
        log.warning("%s", remark)
    if unused := layouts.left_out(chosen.entries, layout):
        log.warning("%s: left out these tensors, which only the training needs: %s", path.name, listed(unused))
    if rounded:
        log.warning("%s is not float32 in %s tensors: %s", path.name, len(rounded), listed(rounded))
    write(fixed.entries, out)
    if decoder is not None and autoencoder:
        write(autoencoder, decoder)
    return Converted(layout=layout, entry=chosen.entry, rounded=tuple(rounded))


def convert_decoder(path: Path, architecture: Architecture, out: Path, *, channels: int) -> None:
    """Writes the decoder of the autoencoder at `path` to `out`, in float32, with the keys of diffusers' class.

    The checkpoint may have any known layout of that class. `channels` is the number of latent channels. Raises the errors of
    `convert`.
    """
    write(read_decoder(path, architecture, channels=channels), out)


def read_decoder(path: Path, architecture: Architecture, *, channels: int) -> Entries:
    """The decoder of the autoencoder at `path`, with the keys of diffusers' class. Its tensors are not kept in memory.

    `channels` is the number of latent channels. Raises the errors of `convert`.
    """
    autoencoder = autoencoders.decoder_entries(open_checkpoint(path).entries, architecture)
    _, broken = _examine(autoencoder)
    problems = [*autoencoders.misfits(autoencoder, architecture, channels=channels), *broken]
    if problems:
        raise CheckpointError(f"{path.name} cannot be used as a decoder: {'; '.join(problems)}")
    return autoencoder


def shapes_of(path: Path, pick: Pick | None = None) -> tuple[Layout, dict[str, Shape]]:
    """The layout of a checkpoint, and the shape of every tensor of its network, by canonical name.

    Raises CheckpointError if the file cannot be read or has no known layout.
    """
    entries = open_checkpoint(path, pick).entries
    layout = layouts.detect(entries)
    return layout, {key: entry.shape for key, entry in layouts.to_canonical(entries, layout, None).items()}


def write(entries: Entries, out: Path) -> None:
    """Writes a safetensors file in float32, one tensor at a time. The keys are sorted, so equal tensors give equal bytes."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for key in sorted(entries):
        start, end = end, end + 4 * torch.Size(entries[key].shape).numel()
        header[key] = {"dtype": "F32", "shape": list(entries[key].shape), "data_offsets": [start, end]}
    text = msgspec.json.encode(header)
    text += b" " * (-len(text) % 8)
    with out.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for key in sorted(entries):
            file.write(entries[key].load().detach().to(torch.float32).contiguous().view(-1).numpy().data)


def _misfits(network: Entries, config: BackboneConfig, cards: Iterable[Card]) -> list[str]:
    """The differences between a network's shapes and those of `config`: hyperparameters if these differ, else keys."""
    seen = {key: entry.shape for key, entry in network.items()}
    different = shapes.differences(seen, config)
    if not different:
        return shapes.mismatches(seen, config)
    fits = [card.name for card in shapes.fitting(seen, list(cards))]
    hint = f" (it fits {listed(fits)})" if fits else ""
    return [f"it is another network: {', '.join(different)}{hint}"]


def _examine(entries: Entries) -> tuple[list[str], list[str]]:
    """The keys of the tensors that are not float32, and the problems of the numbers in float32.

    The problems are NaN or Inf, numbers beyond the range of float32, and the flaws of tensors whose values cannot be read.
    """
    rounded: list[str] = []
    kinds: dict[str, list[str]] = {"NaN or Inf": [], "beyond the range of float32": []}
    for key, entry in entries.items():
        if entry.flaw:
            kind, _, detail = entry.flaw.partition(" (")
            kinds.setdefault(kind, []).append(f"{key} ({detail}" if detail else key)
            continue
        tensor = entry.load()
        if tensor.dtype != torch.float32:
            rounded.append(f"{key} ({_name(tensor.dtype)})")
        if not torch.isfinite(tensor.to(torch.float32)).all():
            wide = tensor.dtype == torch.float64 and bool(torch.isfinite(tensor).all())
            kinds["beyond the range of float32" if wide else "NaN or Inf"].append(key)
    return rounded, [f"{kind}: {listed(names)}" for kind, names in kinds.items() if names]


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


__all__ = [
    "Converted",
    "Pick",
    "convert",
    "convert_decoder",
    "open_checkpoint",
    "read_decoder",
    "shapes_of",
    "shard_names",
    "write",
]
