"""The errors that a user can cause. A message names the culprit, the valid values and the next command."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_LISTED = 20  # names in an error, at most
_SHOWN = 60  # characters of a value in an error, at most


class DitzooError(Exception):
    """The root: catch this to catch everything that ditzoo raises on purpose."""


class UsageError(DitzooError):
    """A value that was asked for cannot be: an unknown name, a class out of range, a batch of 0."""


class InputError(DitzooError):
    """A network got an input of the wrong name, dtype or shape."""


class MissingPackageError(DitzooError):
    """An optional package is not installed; the message has the pip line."""


class BackendError(DitzooError):
    """A backend cannot run as asked: no such device, provider or precision here."""


class BundleError(DitzooError):
    """An exported folder is incomplete, changed, damaged, or not one of ours."""


class PlanError(DitzooError):
    """A sampling plan is malformed, or a solver cannot be written as one."""


class ExportError(DitzooError):
    """An exported graph failed its verification; nothing of it was kept."""


class HubError(DitzooError):
    """The Hugging Face Hub, or a server in its place, did not give what was asked for."""


class CheckpointError(DitzooError):
    """Weights are missing, damaged, or do not fit the network of their card."""


def unknown(kind: str, given: object, known: Iterable[str], *, hint: str = "") -> UsageError:
    """The error for a `given` name of a `kind` that is none of the `known` ones, nearest matches first."""
    names = sorted(known)
    near = difflib.get_close_matches(str(given), names, n=3, cutoff=0.5)
    some = [*names[:_LISTED], "..."] if len(names) > _LISTED else names
    suggestion = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(some)}"
    return UsageError(f"unknown {kind} {given!r}; {suggestion}{f' ({hint})' if hint else ''}")


def check_type(argument: str, given: object, kind: type | tuple[type, ...], takes: str) -> None:
    """Raises UsageError, which names the `argument` and says what it `takes`, unless `given` is of that kind."""
    if not isinstance(given, kind):
        raise wrong_type(argument, given, takes)


def wrong_type(argument: str, given: object, takes: str) -> UsageError:
    """The error for an `argument` of a type that it does not take."""
    shown = repr(given)
    described = shown if len(shown) <= _SHOWN else f"an object of type {type(given).__name__}"
    return UsageError(f"{argument} must be {takes}, not {described}")
