"""Precision and recall of generated pictures, from the nearest neighbours of their features (arXiv 1904.06991)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]

NEIGHBOURS = 3
"""The neighbour whose distance is the radius of a feature's ball, as in ADM's evaluation (arXiv 2105.05233)."""

ROWS = 1000
"""The number of features whose distances are in memory at once."""


def precision_and_recall(drawn: Floats, real: Floats, *, neighbours: int = NEIGHBOURS) -> tuple[float, float]:
    """The share of the `drawn` features [N, D] inside a ball of the `real` ones [M, D], and the share of the real ones inside a
    ball of the drawn ones. A feature's ball reaches to its `neighbours`-th neighbour of the same set.

    Raises ValueError if a set has not more features than `neighbours`.
    """
    if min(len(drawn), len(real)) <= neighbours:
        raise ValueError(f"precision and recall need more than {neighbours} pictures in each set")
    radii_drawn, radii_real = _radii(drawn, neighbours), _radii(real, neighbours)
    in_real = np.zeros(len(drawn), dtype=bool)
    in_drawn = np.zeros(len(real), dtype=bool)
    for start in range(0, len(drawn), ROWS):
        rows = slice(start, start + ROWS)
        distances = _squared_distances(drawn[rows], real)  # n M
        in_real[rows] = (distances <= radii_real).any(axis=1)
        in_drawn |= (distances <= radii_drawn[rows, None]).any(axis=0)
    return float(in_real.mean()), float(in_drawn.mean())


def _radii(features: Floats, neighbours: int) -> Floats:
    """The squared distance of each feature to its neighbour of that number; the feature itself is number 0."""
    radii = np.empty(len(features))
    for start in range(0, len(features), ROWS):
        distances = _squared_distances(features[start : start + ROWS], features)
        radii[start : start + ROWS] = np.partition(distances, neighbours, axis=1)[:, neighbours]
    return radii


def _squared_distances(a: Floats, b: Floats) -> Floats:
    """‖a_i − b_j‖² in float64, [N, M]."""
    x, y = a.astype(np.float64), b.astype(np.float64)
    squares: Floats = (x**2).sum(axis=1)[:, None] - 2 * (x @ y.T) + (y**2).sum(axis=1)
    return np.maximum(squares, 0)
