"""The checks of the GPU acceptance, and what a check needs of the machine."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Literal, TypeAlias

import msgspec

Measured: TypeAlias = dict[str, float | int | str]

MODELS = ("dit-digits", "uvit-digits")
FLAVOURS = ("tensorrt", "tensorrt_rtx")


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """A check: its status, the measured numbers, and the reason if it was skipped or failed."""

    name: str
    status: Literal["passed", "failed", "skipped"]
    measured: Measured = {}
    reason: str = ""


class SkipError(Exception):
    """A check cannot run here; the text is the reason."""


class CheckError(Exception):
    """A check failed; the text is the reason."""


def check(name: str, work: Callable[[], Measured]) -> Check:
    """Runs a check. `work` returns what it measured, or raises an error."""
    try:
        return Check(name=name, status="passed", measured=work())
    except SkipError as reason:
        return Check(name=name, status="skipped", reason=str(reason))
    except CheckError as error:
        return Check(name=name, status="failed", reason=str(error)[:600])
    except Exception as error:  # whatever a library raises, the other checks run
        return Check(name=name, status="failed", reason=f"{type(error).__name__}: {error}"[:600])


def demand(holds: bool, reason: str) -> None:
    """Raises CheckError with the reason if a condition does not hold."""
    if not holds:
        raise CheckError(reason)


def needs_gpu(device: str) -> None:
    """Raises SkipError in a dry run."""
    if device != "cuda":
        raise SkipError("needs a GPU")


def needs(*packages: str) -> None:
    """Raises SkipError if a package is not installed."""
    for package in packages:
        if find_spec(package.partition(".")[0]) is None or find_spec(package) is None:
            raise SkipError(f"the package {package} is not installed")


def needs_flavour(flavour: str) -> None:
    """Raises SkipError if a flavour of TensorRT is not installed, or does not know this GPU."""
    needs(flavour, "cuda.bindings")
    from ditzoo.backends import cuda
    from ditzoo.backends.loading_engines import check_architecture
    from ditzoo.errors import BackendError

    gpu = cuda.gpu()
    if gpu is None:
        raise SkipError("needs a GPU")
    try:
        check_architecture(import_module(flavour), gpu)
    except BackendError as error:
        raise SkipError(str(error)) from error
