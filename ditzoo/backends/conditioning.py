"""Conditioning ahead of need: modulations depend on time and label alone, and are computed for many steps at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import product

import numpy as np
import numpy.typing as npt

from ditzoo.specs import Array, TensorSpec

Pair = tuple[float, int]

WINDOW_BYTES = 256 * 2**20
"""The largest size of one window of modulations, in bytes: 342 rows of DiT-XL/2."""


class ModulationCache:
    """The modulations of distinct (time, label) pairs, a row each. It holds one window of `window` rows at a time.

    `run` computes modulations for times [K] and labels [K]; K is larger than `window` only where one call has more distinct
    pairs. It returns one array or several, which the caller indexes by row. Pairs that `prepare` announced are computed ahead,
    as many as fit into a window. A pair that was not announced is computed when it is asked for.
    """

    def __init__(self, run: Callable[[npt.NDArray[np.float32], npt.NDArray[np.int64]], Array], *, window: int) -> None:
        self._run = run
        self._window = window
        self._coming: list[Pair] = []
        self._places: dict[Pair, int] = {}
        self._rows: Array = None

    def prepare(self, times: Sequence[float], labels: Sequence[int]) -> None:
        """Announces that every one of the labels will be asked for at each of the times, in this order."""
        pairs = product((float(np.float32(time)) for time in times), map(int, labels))
        self._coming = list(dict.fromkeys(pairs))

    def __call__(self, t: Iterable[float], y: Iterable[int]) -> tuple[Array, list[int]]:
        """The window's modulations, and the row of each (t, y) in them."""
        pairs = list(zip(map(float, t), map(int, y), strict=True))
        if any(pair not in self._places for pair in pairs):
            self._fill(list(dict.fromkeys(pairs)))
        return self._rows, [self._places[pair] for pair in pairs]

    def _fill(self, needed: list[Pair]) -> None:
        last = max((i for i, pair in enumerate(self._coming) if pair in needed), default=len(self._coming))
        ahead = self._coming[last + 1 :][: max(0, self._window - len(needed))]
        window = list(dict.fromkeys([*needed, *ahead]))
        times, labels = np.array([pair[0] for pair in window], np.float32), np.array([pair[1] for pair in window], np.int64)
        self._places = {}  # an error leaves no rows that could be taken for those of these pairs
        self._rows = self._run(times, labels)
        self._places = {pair: i for i, pair in enumerate(window)}


def window_rows(specs: Sequence[TensorSpec]) -> int:
    """How many rows of these float32 tensors fit into `WINDOW_BYTES`; 1 at least."""
    return max(1, WINDOW_BYTES // row_bytes(specs))


def row_bytes(specs: Sequence[TensorSpec]) -> int:
    """The size in bytes of one row of these float32 tensors."""
    return sum(4 * int(np.prod(spec.concrete(batch=1))) for spec in specs)
