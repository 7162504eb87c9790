"""The errors that a user can cause. A message names the culprit, the valid values and the next command."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_LISTED = 20  # names in an error, at most


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


class StepError(DitzooError):
    """A step of a recipe ended with an error; its log says which."""


class CheckpointError(DitzooError):
    """Weights are missing, damaged, or do not fit the network of their card."""


def unknown(kind: str, given: str, known: Iterable[str], *, hint: str = "") -> UsageError:
    """The error for a `given` name of a `kind` that is none of the `known` ones, nearest matches first."""
    names = sorted(known)
    near = difflib.get_close_matches(given, names, n=3, cutoff=0.5)
    some = [*names[:_LISTED], "..."] if len(names) > _LISTED else names
    suggestion = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(some)}"
    return UsageError(f"unknown {kind} {given!r}; {suggestion}{f' ({hint})' if hint else ''}")
