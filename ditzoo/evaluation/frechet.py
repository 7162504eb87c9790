"""The Fréchet distance of two sets of features, from float64 statistics that are collected batch by batch."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]


class Gaussian(msgspec.Struct, frozen=True, kw_only=True):
    """The mean [D] and the covariance [D, D] of features, in float64. The covariance is divided by N − 1."""

    mean: Floats
    covariance: Floats


class Moments:
    """Mean and covariance of features that come in batches. Only sums are kept: [D] and [D, D].

    The batches are merged with the formula of Chan, Golub and LeVeque ("Updating formulae", 1979), so no digits are lost when
    the mean is large.
    """

    def __init__(self) -> None:
        self.count = 0
        self._mean: Floats = np.zeros(0)
        self._scatter: Floats = np.zeros((0, 0))

    def add(self, features: Floats) -> None:
        """Takes the next features [N, D]."""
        x = features.astype(np.float64)  # N D
        mean, count = x.mean(axis=0), len(x)
        if not self.count:
            self._mean, self._scatter = np.zeros_like(mean), np.zeros((x.shape[1], x.shape[1]))
        x -= mean
        shift, total = mean - self._mean, self.count + count
        self._scatter += x.T @ x + np.outer(shift, shift) * (self.count * count / total)  # D D
        self._mean, self.count = self._mean + shift * (count / total), total

    def gaussian(self) -> Gaussian:
        """Mean and covariance of everything so far. Raises ValueError if there are fewer than two vectors."""
        if self.count < 2:
            raise ValueError(f"a covariance needs two or more vectors, not {self.count}")
        return Gaussian(mean=self._mean, covariance=self._scatter / (self.count - 1))


def gaussian_of(features: Floats) -> Gaussian:
    """Mean and covariance of features [N, D]."""
    moments = Moments()
    moments.add(features)
    return moments.gaussian()


def frechet_distance(a: Gaussian, b: Gaussian) -> float:
    """The Fréchet distance of two normal distributions (FID: arXiv 1706.08500, section 3).

    It is |m_a − m_b|² + tr(A + B − 2 (A B)^½). The trace of the root is the sum of the roots of the eigenvalues of A^½ B A^½.
    Raises ValueError if the two have different dimensions.
    """
    if a.mean.shape != b.mean.shape:
        raise ValueError(f"features of {len(a.mean)} dimensions have no distance from features of {len(b.mean)}")
    values, vectors = np.linalg.eigh(a.covariance)
    root = vectors * np.sqrt(np.maximum(values, 0)) @ vectors.T  # D D
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ b.covariance @ root), 0)).sum()
    distance = ((a.mean - b.mean) ** 2).sum() + np.trace(a.covariance) + np.trace(b.covariance) - 2 * cross
    return max(float(distance), 0.0)  # rounding can make it slightly negative
