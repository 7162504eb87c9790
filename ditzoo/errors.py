"""The errors that a user can cause. Each message names the culprit, the valid values and the next command."""

from __future__ import annotations

import difflib
import math
import operator
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from numbers import Real
from typing import SupportsFloat, SupportsIndex, TypeVar

T = TypeVar("T")

_SHOWN = 60  # the most characters of a value that an error shows
_LONGEST_PATH = 300  # the most characters of a path that an error shows
_LISTED = 20  # the most names that an error lists
_LARGE = 10**40  # a whole number from which on an error shows its magnitude only


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
    text = given.lower() if isinstance(given, str) else ""
    near = [lower[name] for name in difflib.get_close_matches(text, lower, n=3, cutoff=0.5)]
    some = [*names[:_LISTED], "..."] if len(names) > _LISTED else names
    suggestion = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(some)}"
    return UsageError(f"unknown {kind} {described(given)}; {suggestion}{f' ({hint})' if hint else ''}")


def check_known(kind: str, given: object, known: Iterable[str]) -> None:
    """Raises the error of `unknown` unless `given` is one of the `known` names."""
    names = list(known)
    if not (isinstance(given, str) and given in names):
        raise unknown(kind, given, names)


def shortened(text: str) -> str:
    """`text`, or its first characters if it is too long for an error message."""
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def described(given: object) -> str:
    """A value for an error message: as Python writes it, or what it is if that is long."""
    if isinstance(given, str):
        return repr(shortened(given))
    if isinstance(given, int) and abs(given) >= _LARGE:
        return f"about {'-' if given < 0 else ''}1e{round(math.log10(abs(given)))}"
    try:
        text = repr(given)
    except ValueError:  # Python writes no number of more than 4,300 digits
        text = ""
    return text if 0 < len(text) <= _SHOWN else f"an object of type {type(given).__name__}"


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
    return UsageError(f"{argument} must be {takes}, not {described(given)}")


def check_flags(**flags: object) -> None:
    """Raises UsageError, which names the argument, unless each of the arguments is True or False."""
    for argument, given in flags.items():
        check_type(argument, given, bool, "True or False (a bool)")


def check_callable(argument: str, given: object, takes: str) -> None:
    """Raises UsageError, which names the `argument`, unless `given` can be called."""
    if not callable(given):
        raise wrong_type(argument, given, takes)


def each_of(argument: str, given: Iterable[T], takes: str) -> Iterator[T]:
    """An iterator over `given`. Raises UsageError, which names the `argument`, if it has no items: a number, say."""
    try:
        return iter(given)
    except TypeError:
        raise wrong_type(argument, given, takes) from None


def whole_number(argument: str, given: SupportsIndex, takes: str) -> int:
    """`given` as an int. Raises UsageError, which names the `argument`, if it is no whole number. True and False are none."""
    if not isinstance(given, bool):
        with suppress(TypeError):
            return operator.index(given)
    raise wrong_type(argument, given, takes)


def real_number(argument: str, given: SupportsFloat, takes: str) -> float:
    """`given` as a float. Raises UsageError, which names the `argument`, if it is no number, or too large for a float."""
    if not isinstance(given, bool) and isinstance(given, Real):
        with suppress(OverflowError):
            return float(given)
    raise wrong_type(argument, given, takes)


def check_count(name: str, value: SupportsIndex, *, most: int | None = None) -> None:
    """Raises UsageError, which names `name`, unless `value` is a whole number of 1 or more, and at most `most`."""
    number = whole_number(name, value, "a whole number, 1 or more")
    if number < 1:
        raise UsageError(f"{name} must be 1 or more, not {described(number)}")
    if most is not None and number > most:
        raise UsageError(f"{name} must be at most {most:,}, not {f'{number:,}' if number < _LARGE else described(number)}")
