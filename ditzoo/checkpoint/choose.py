"""Which tensors of a file are the network: the entry of a training checkpoint, behind the names that wrappers put before them.

Training scripts save several networks in one file, and give the average of the weights many names: `ema`, `model_ema`,
`state_dict_ema`. The published figures are the average's, so that is what is taken.
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
"""The tensors of a file, nested as they are in it."""

_WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
"""The segments of a key that torch's wrappers add: DistributedDataParallel and AveragedModel, compile, FSDP, checkpointing."""

_LIGHTNING = "model."
_COUNTER = "n_averaged"
_AVERAGE = {"ema", "emas", "avg", "average", "averaged", "swa"}


class Pick(Data, frozen=True, kw_only=True):
    """Where in a file the network is, if the user says so.

    `entry` is the name of a dictionary in the file, with dots between the names of nested ones. `prefix` is what the keys of
    the network begin with; keys that do not begin with it are left out.
    """

    entry: str | None = None
    prefix: str | None = None


class Chosen(msgspec.Struct, frozen=True, kw_only=True):
    """The tensors that were taken, the entry that they come from ("" for the whole file), and what there is to say about it."""

    entries: Entries
    entry: str
    remarks: tuple[str, ...]


def choose(tree: Tree, pick: Pick, *, file: str) -> Chosen:
    """The network of a file: the entry that `pick` names, else the only one, else the only average.

    Among several entries, only those count whose keys ditzoo knows. Raises CheckpointError, with the entries that there are,
    where that does not decide.
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
        remarks.append(f"{file}: left out what does not begin with {pick.prefix}: {listed(left_out)}")
    return Chosen(entries=entries, entry=name, remarks=tuple(remarks))


def is_average(name: str) -> bool:
    """Whether an entry of that name holds an average of weights."""
    words = re.findall(r"[A-Z]?[a-z]+|[A-Z]+", name)
    return any(word.lower() in _AVERAGE for word in words)


def unwrapped(entries: Entries, *, file: str) -> Entries:
    """The same without the segments that wrappers add to keys, wherever they stand, and without AveragedModel's counter.

    Raises CheckpointError where two keys become the same.
    """
    plain: Entries = {}
    for key, entry in entries.items():
        name = _plain(key)
        if name in plain:
            raise CheckpointError(f"{file} has the tensor {name} twice, with and without a wrapper's prefix")
        if name != _COUNTER:
            plain[name] = entry
    while plain and all(key.startswith(_LIGHTNING) for key in plain):
        plain = {key.removeprefix(_LIGHTNING): entry for key, entry in plain.items()}
    return plain


def _plain(key: str) -> str:
    return ".".join(segment for segment in key.split(".") if segment not in _WRAPPERS)


def _entries(tree: Tree, path: tuple[str, ...] = ()) -> dict[str, Entries]:
    """Every dictionary of tensors in a file, by its dotted name. One whose keys begin with the names of averages and of others,
    such as `model.` and `model_ema.`, is several."""
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
    """Whether tensors can be those of a network: a matrix with a dotted name. The state of an optimizer has none."""
    return any("." in key and len(entry.shape) >= 2 for key, entry in entries.items())


def _recognised(networks: Mapping[str, Entries], pick: Pick) -> list[str]:
    """The networks of a layout that ditzoo knows; all where that is none."""
    known = []
    for name, entries in networks.items():
        try:
            layouts.detect(_behind(entries, pick.prefix, file="")[0])
        except CheckpointError:
            continue
        known.append(name)
    return known or list(networks)


def _decided(tree: Tree, names: list[str], *, file: str) -> str:
    """The only network, or the only average among several."""
    averages = [name for name in names if is_average(name)]
    if not averages and (nameless := _nameless_average(tree)):
        raise CheckpointError(
            f"{file}: its average {nameless!r} holds tensors without names, so that nobody can tell which is which;"
            f" save it with names, or take other weights with --entry: {_quoted(names)}"
        )
    best = averages or names
    if len(best) > 1:
        kind = "averages" if averages else "networks"
        raise CheckpointError(f"{file} holds several {kind}: {_quoted(best)}; say with --entry which to take")
    return best[0]


def _nameless_average(tree: Tree) -> str:
    """The name of an average that is a mere list of matrices; "" where there is none."""
    for key, value in tree.items():
        if not isinstance(value, Entry) and is_average(key) and not any(map(_is_network, _entries(value).values())):
            matrices = [entry for part in _entries(value).values() for entry in part.values() if len(entry.shape) >= 2]
            if matrices:
                return key
    return ""


def _behind(entries: Entries, prefix: str | None, *, file: str) -> tuple[Entries, list[str]]:
    """The tensors whose keys begin with `prefix`, without it, and the names of all others."""
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
