"""The errors that a user can cause. Each message names the culprit, the valid values and the next command."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable

_SHOWN = 60  # the most characters of a value that an error shows
_LONGEST_PATH = 300  # the most characters of a path that an error shows
_LISTED = 20  # the most names that an error lists


class DitzooError(Exception):
    """The base class of all errors that ditzoo raises on purpose."""


class UsageError(DitzooError):
    """A value is not valid: an unknown name, a class out of range, a batch of 0. The cure is a value that the message names."""


class InputError(DitzooError):
    """An input of a network has the wrong name, dtype or shape. The cure is the one that the message states as expected."""


class MissingPackageError(DitzooError):
    """An optional package is not installed. The cure is the pip command in the message."""


class BackendError(DitzooError):
    """A backend cannot run as asked: this machine lacks the device, the provider or the precision.

    The cure is another backend or device, a package that the message names, or a bundle that was exported as asked.
    """


class BundleError(DitzooError):
    """An exported folder is incomplete, changed or damaged, or is no bundle. The cure is to export or to copy it again."""


class PlanError(DitzooError):
    """A sampling plan is malformed, or a solver cannot be expressed as one.

    The cure is a plan from `ditzoo plan save`, or another solver or grid.
    """


class ExportError(DitzooError):
    """An exported graph failed its verification. Nothing of it was kept. The cure is a wider precision: fp16 for int8."""


class HubError(DitzooError):
    """A request to the Hugging Face Hub, or to a server in its place, failed.

    The cure is in the message: a token, another revision, a longer `--timeout`, or files that are downloaded by hand.
    """


class StepError(DitzooError):
    """A step of a recipe ended with an error; its log says which. The cure is that of this error; the same command goes on."""


class CheckpointError(DitzooError):
    """Weights are missing, damaged, or do not fit the network of their card.

    The cure is to pull or to import them, another file, or a card with the hyperparameters that the message lists.
    """


def unknown(kind: str, given: object, known: Iterable[str], *, hint: str = "") -> UsageError:
    """The error for an unknown name `given` of a `kind`. It suggests the nearest of the `known` names, or lists them."""
    names = sorted(known)
    lower = {name.lower(): name for name in names}
    near = [lower[name] for name in difflib.get_close_matches(str(given).lower(), lower, n=3, cutoff=0.5)]
    some = [*names[:_LISTED], "..."] if len(names) > _LISTED else names
    suggestion = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(some)}"
    shown = repr(shortened(given) if isinstance(given, str) else given)
    return UsageError(f"unknown {kind} {shown}; {suggestion}{f' ({hint})' if hint else ''}")


def shortened(text: str) -> str:
    """`text`, or its first characters if it is too long for an error message."""
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def shown_path(path: str | os.PathLike[str]) -> str:
    """A path for an error message. Its middle is left out if it is very long, because its end says what it is."""
    text = os.fspath(path)
    return text if len(text) <= _LONGEST_PATH else f"{text[: _LONGEST_PATH // 2]}...{text[-_LONGEST_PATH // 2 :]}"


def is_whole_number(text: str) -> bool:
    """Whether `text` is a whole number that a user may write: 1 to 18 of the digits 0 to 9."""
    return re.fullmatch("[0-9]{1,18}", text) is not None


def check_type(argument: str, given: object, kind: type | tuple[type, ...], takes: str) -> None:
    """Raises UsageError, which names the `argument` and says what it `takes`, unless `given` is of that kind."""
    if not isinstance(given, kind):
        raise wrong_type(argument, given, takes)


def wrong_type(argument: str, given: object, takes: str) -> UsageError:
    """The error for an `argument` of a type that it does not take."""
    shown = repr(given)
    described = shown if len(shown) <= _SHOWN else f"an object of type {type(given).__name__}"
    return UsageError(f"{argument} must be {takes}, not {described}")
