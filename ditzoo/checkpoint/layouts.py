"""From any published layout of keys to the canonical one: the names of the authors' own code.

Each family knows its own layouts. Beside those there is "dcae": `diffusion_model.*`, a network of any family, and
`autoencoder.*`, its decoder, in one file.
"""

from __future__ import annotations

from ditzoo.errors import CheckpointError
from ditzoo.families import FAMILIES, KeyLayout
from ditzoo.families.tensors import Entries
from ditzoo.zoo.card import Layout

_NETWORK, _AUTOENCODER = "diffusion_model.", "autoencoder."
_LAYOUTS = {layout.name: layout for family in FAMILIES for layout in family.layouts}
_CONFIGS = {layout.name: family.config for family in FAMILIES for layout in family.layouts}


def detect(entries: Entries) -> Layout:
    """The layout, from the keys alone; raises CheckpointError if it is none that ditzoo knows."""
    if any(key.startswith(_NETWORK) for key in entries):
        return "dcae"
    for layout in _LAYOUTS.values():
        if layout.matches(entries):
            return layout.name
    seen = ", ".join(sorted(entries)[:3]) or "none at all"
    raise CheckpointError(
        f"the keys of this checkpoint ({seen} ...) are of no layout that ditzoo knows: {', '.join(_LAYOUTS)}, dcae; where they"
        f" have a prefix, {_prefix(entries)}"
    )


def _prefix(entries: Entries) -> str:
    """What to do about a prefix: the one behind which there is a known layout, if there is one."""
    for first in sorted({key.partition(".")[0] for key in entries if "." in key}):
        inner = {key.removeprefix(f"{first}."): entry for key, entry in entries.items() if key.startswith(f"{first}.")}
        if any(layout.matches(inner) for layout in _LAYOUTS.values()):
            return f"name it: --prefix {first}."
    return "name it with --prefix PREFIX"


def to_canonical(entries: Entries, layout: Layout, config: object) -> Entries:
    """The network's entries under their canonical names. Those without a canonical name keep theirs, to be reported.

    `config` is the configuration of the network, or None where none is known yet. One of another family than the checkpoint's
    counts as none.
    """
    network, known = _network(entries, layout)
    kept = {key: entry for key, entry in network.items() if not key.startswith(known.training_only)}
    return known.to_canonical(kept, config if isinstance(config, _CONFIGS[known.name]) else None)


def left_out(entries: Entries, layout: Layout) -> list[str]:
    """The names of the tensors that only the training needs, which `to_canonical` leaves out."""
    network, known = _network(entries, layout)
    return [key for key in network if key.startswith(known.training_only)]


def problems(entries: Entries, layout: Layout) -> list[str]:
    """What is wrong with a checkpoint of a layout, beyond missing and unexpected keys."""
    network, known = _network(entries, layout)
    return known.problems(network)


def autoencoder(entries: Entries) -> Entries:
    """The entries of the autoencoder that a checkpoint holds beside the network, without their prefix."""
    return {key.removeprefix(_AUTOENCODER): entry for key, entry in entries.items() if key.startswith(_AUTOENCODER)}


def _network(entries: Entries, layout: Layout) -> tuple[Entries, KeyLayout]:
    """The entries of the network alone, and their layout."""
    if layout != "dcae":
        return entries, _LAYOUTS[layout]
    inner = {key.removeprefix(_NETWORK): entry for key, entry in entries.items() if not key.startswith(_AUTOENCODER)}
    return inner, _LAYOUTS[detect(inner)]
