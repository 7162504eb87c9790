"""Converts any published layout of keys to the canonical one, the names of the authors' own code.

Each family knows its own layouts. There is one more layout, "dcae": a file with a network of any family, `diffusion_model.*`,
and its autoencoder, `autoencoder.*`.
"""

from __future__ import annotations

from ditzoo.errors import CheckpointError
from ditzoo.families import FAMILIES, KeyLayout
from ditzoo.families.tensors import Entries, listed
from ditzoo.zoo.card import Layout

_NETWORK, _AUTOENCODER = "diffusion_model.", "autoencoder."
_LAYOUTS = {layout.name: layout for family in FAMILIES for layout in family.layouts}
_CONFIGS = {layout.name: family.config for family in FAMILIES for layout in family.layouts}


def detect(entries: Entries) -> Layout:
    """The layout of a checkpoint, from its keys and shapes. Raises CheckpointError if ditzoo does not know the layout."""
    if any(key.startswith(_NETWORK) for key in entries):
        return "dcae"
    for layout in _LAYOUTS.values():
        if layout.matches(entries):
            return layout.name
    seen = listed(sorted(entries)[:3]) or "it has none"
    raise CheckpointError(
        f"ditzoo does not know the layout of this checkpoint (first keys: {seen}); it knows {', '.join(_LAYOUTS)}, dcae; if the"
        f" keys have a prefix, {_prefix(entries)}"
    )


def _prefix(entries: Entries) -> str:
    """The advice about a prefix. It names the prefix if the keys have a known layout without it."""
    for first in sorted({key.partition(".")[0] for key in entries if "." in key}):
        inner = {key.removeprefix(f"{first}."): entry for key, entry in entries.items() if key.startswith(f"{first}.")}
        if any(layout.matches(inner) for layout in _LAYOUTS.values()):
            return f"name it: --prefix {listed([first])}."
    return "name it with --prefix PREFIX"


def to_canonical(entries: Entries, layout: Layout, config: object) -> Entries:
    """The network's entries with their canonical names. Entries without a canonical name keep theirs, so they can be reported.

    `config` is the configuration of the network, or None if it is not known yet. A configuration of another family than the
    checkpoint's is ignored.
    """
    network, known = _network(entries, layout)
    kept = {key: entry for key, entry in network.items() if not key.startswith(known.training_only)}
    return known.to_canonical(kept, config if isinstance(config, _CONFIGS[known.name]) else None)


def left_out(entries: Entries, layout: Layout) -> list[str]:
    """The names of the tensors that only the training needs, which `to_canonical` leaves out."""
    network, known = _network(entries, layout)
    return [key for key in network if key.startswith(known.training_only)]


def problems(entries: Entries, layout: Layout) -> list[str]:
    """The problems of a checkpoint of that layout other than missing and unexpected keys."""
    network, known = _network(entries, layout)
    return known.problems(network)


def autoencoder(entries: Entries) -> Entries:
    """The entries of the autoencoder in a checkpoint, with their prefix removed; empty if there is none."""
    return {key.removeprefix(_AUTOENCODER): entry for key, entry in entries.items() if key.startswith(_AUTOENCODER)}


def _network(entries: Entries, layout: Layout) -> tuple[Entries, KeyLayout]:
    """The entries of the network without the autoencoder, and their layout."""
    if layout != "dcae":
        return entries, _LAYOUTS[layout]
    inner = {key.removeprefix(_NETWORK): entry for key, entry in entries.items() if not key.startswith(_AUTOENCODER)}
    return inner, _LAYOUTS[detect(inner)]
