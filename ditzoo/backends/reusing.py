"""Backends that leave out the middle blocks of their network, and the error for those that cannot."""

from __future__ import annotations

from pathlib import Path

from msgspec import UnsetType

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


def no_such_part(bundle: Path, there: int | UnsetType | None, outer: int, *, command: str) -> BackendError:
    """The error for a bundle that cannot run the first `outer` and the last `outer` blocks only.

    `there` is the number of such blocks in what the bundle has. `command` makes a bundle, and takes `--reuse`.
    """
    has = f"graphs with reuse of blocks={there}" if isinstance(there, int) else "no graph with reuse"
    return BackendError(
        f"the bundle {bundle} has {has}, and the plan needs blocks={outer}; `{command} --reuse blocks={outer} --out DIR` makes"
        " one"
    )
