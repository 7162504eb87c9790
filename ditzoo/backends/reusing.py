"""Backends that leave out the middle blocks of their network, and the error for those that cannot."""

from __future__ import annotations

from ditzoo.backends.base import Backend, ReusesBlocks
from ditzoo.backends.table import BACKENDS
from ditzoo.errors import BackendError


def reusing(backend: Backend) -> ReusesBlocks:
    """The backend itself. Raises BackendError if it cannot leave out blocks."""
    if isinstance(backend, ReusesBlocks):
        return backend
    raise no_reuse(backend.name)


def no_reuse(name: str) -> BackendError:
    """The error for a backend that cannot leave out blocks. `name` is its name in messages."""
    others = " or ".join(row.name for row in BACKENDS.values() if row.reuses)
    return BackendError(f"{name} cannot reuse the middle blocks; use --backend {others}, or a plan without reuse")
