"""Chooses the network among the tensors of a file, and removes the prefixes that wrappers add to its keys.

Training scripts save several networks in one file. The average of the weights has many names: `ema`, `model_ema`,
`state_dict_ema`. Published figures are computed with the average, so the average is chosen.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TypeAlias

import msgspec

from ditzoo.checkpoint import layouts
from ditzoo.errors import CheckpointError
from ditzoo.families.tensors import Entries, Entry, listed
from ditzoo.records import Data

Tree: TypeAlias = "dict[str, Entry | Tree]"
"""The tensors of a file, with the same nesting of dictionaries as in the file."""

_WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
"""The segments that torch's wrappers add to a key: DistributedDataParallel and AveragedModel, compile, FSDP, checkpointing."""

_LIGHTNING = "model."
_COUNTER = "n_averaged"
_AVERAGE = {"ema", "emas", "avg", "average", "averaged", "swa"}


class Pick(Data, frozen=True, kw_only=True):
    """The user's choice of the network in a file. None: no choice.

    `entry` is the name of a dictionary in the file; the names of nested dictionaries are joined with dots. `prefix` is the
    start of the network's keys. Tensors with other keys are left out.
    """

    entry: str | None = None
    prefix: str | None = None


class Chosen(msgspec.Struct, frozen=True, kw_only=True):
    """The chosen tensors, the entry that they come from ("" for the whole file), and remarks for the user."""

    entries: Entries
    entry: str
    remarks: tuple[str, ...]


def choose(tree: Tree, pick: Pick, *, file: str) -> Chosen:
    """The network in a file: the entry that `pick` names, else the only entry, else the only average.

    If there are several entries, those of a known layout are preferred. `file` is the name of the file in messages. Raises
    CheckpointError, with the names of the entries, if several remain or if there is no entry of the given name.
    """
    found = _entries(tree)
    networks = {name: entries for name, entries in found.items() if _is_network(entries)} or {"": found.get("", {})}
    if pick.entry is not None:
        if pick.entry not in networks:
            raise CheckpointError(f"{file} has no entry {pick.entry!r} with weights; it has {_quoted(networks)}")
        name = pick.entry
    else:
        name = _decided(tree, _recognised(networks, pick), file=file)
    entries, left_out = _behind(networks[name], pick.prefix, file=file)
    remarks = [_taken(file, name, networks)] if name else []
    if left_out:
        remarks.append(f"{file}: left out the keys that do not begin with {pick.prefix}: {listed(left_out)}")
    return Chosen(entries=entries, entry=name, remarks=tuple(remarks))


def is_average(name: str) -> bool:
    """Whether `name` is a usual name for an average of weights."""
    words = re.findall(r"[A-Z]?[a-z]+|[A-Z]+", name)
    return any(word.lower() in _AVERAGE for word in words)


def unwrapped(entries: Entries, *, file: str) -> Entries:
    """The tensors with the segments that wrappers add removed from their keys, and without the counter of AveragedModel.

    `file` is the name of the file in messages. Raises CheckpointError if two keys become equal.
    """
    plain: Entries = {}
    for key, entry in entries.items():
        name = _plain(key)
        if name in plain:
            raise CheckpointError(f"{file} has the tensor {name} twice: with and without a wrapper's prefix")
        if name != _COUNTER:
            plain[name] = entry
    while plain and all(key.startswith(_LIGHTNING) for key in plain):
        plain = {key.removeprefix(_LIGHTNING): entry for key, entry in plain.items()}
    return plain


def _plain(key: str) -> str:
    return ".".join(segment for segment in key.split(".") if segment not in _WRAPPERS)


def _entries(tree: Tree, path: tuple[str, ...] = ()) -> dict[str, Entries]:
    """Every dictionary of tensors in a file, by its dotted name.

    A dictionary that holds several networks, for example with the prefixes `model.` and `model_ema.`, counts as several.
    """
    tensors = {key: value for key, value in tree.items() if isinstance(value, Entry)}
    found: dict[str, Entries] = {}
    for name, group in _groups(tensors).items():
        found[".".join((*path, name) if name else path)] = group
    for key, value in tree.items():
        if not isinstance(value, Entry):
            found |= _entries(value, (*path, key))
    return found


def _groups(tensors: Entries) -> dict[str, Entries]:
    groups: dict[str, Entries] = {}
    for key, entry in tensors.items():
        first, _, rest = _plain(key).partition(".")
        groups.setdefault(first, {})[rest] = entry
    if any(is_average(name) and _is_network(group) for name, group in groups.items()):
        return groups
    return {"": tensors} if tensors else {}


def _is_network(entries: Entries) -> bool:
    """Whether tensors can be a network: one of them is a matrix with a dotted name. An optimizer's state has no such tensor."""
    return any("." in key and len(entry.shape) >= 2 for key, entry in entries.items())


def _recognised(networks: Mapping[str, Entries], pick: Pick) -> list[str]:
    """The names of the networks with a layout that ditzoo knows. If there is none, the names of all."""
    known = []
    for name, entries in networks.items():
        try:
            layouts.detect(_behind(entries, pick.prefix, file="")[0])
        except CheckpointError:
            continue
        known.append(name)
    return known or list(networks)


def _decided(tree: Tree, names: list[str], *, file: str) -> str:
    """The name of the only network, or of the only average. Raises CheckpointError if several remain."""
    averages = [name for name in names if is_average(name)]
    if not averages and (nameless := _nameless_average(tree)):
        raise CheckpointError(
            f"{file}: the tensors of its average {nameless!r} have no names, so they cannot be assigned to layers;"
            f" save them with names, or choose other weights with --entry: {_quoted(names)}"
        )
    best = averages or names
    if len(best) > 1:
        kind = "averages" if averages else "networks"
        raise CheckpointError(f"{file} holds several {kind}: {_quoted(best)}; choose one with --entry")
    return best[0]


def _nameless_average(tree: Tree) -> str:
    """The name of an average whose matrices have no names; "" if there is none."""
    for key, value in tree.items():
        if not isinstance(value, Entry) and is_average(key) and not any(map(_is_network, _entries(value).values())):
            matrices = [entry for part in _entries(value).values() for entry in part.values() if len(entry.shape) >= 2]
            if matrices:
                return key
    return ""


def _behind(entries: Entries, prefix: str | None, *, file: str) -> tuple[Entries, list[str]]:
    """The tensors whose keys begin with `prefix`, with the prefix removed, and the names of all other tensors."""
    if prefix is None:
        return unwrapped(entries, file=file), []
    plain = {_plain(key): entry for key, entry in entries.items()}
    start = _plain(prefix.rstrip(".")) + "."
    chosen = {key.removeprefix(start): entry for key, entry in plain.items() if key.startswith(start)}
    if not chosen:
        first = sorted({f"{key.partition('.')[0]}." for key in plain if "." in key})
        raise CheckpointError(f"no key of {file} begins with {prefix}; they begin with {listed(first)}")
    return unwrapped(chosen, file=file), [key for key in plain if not key.startswith(start) and key != _COUNTER]


def _taken(file: str, name: str, networks: Mapping[str, Entries]) -> str:
    others = [other for other in networks if other != name]
    kind = "averaged weights, " if is_average(name) else ""
    return f"{file}: took the {kind}entry {name!r}{f', not {_quoted(others)}' if others else ''}"


def _quoted(names: Iterable[str]) -> str:
    return listed([repr(name) if name else "the file's own tensors" for name in names])
