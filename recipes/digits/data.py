"""The handwritten digits, and the classifier and the distance that judge generated digits. They are those of ditzoo."""

from __future__ import annotations

from ditzoo.evaluation.digits import Digits, Labels, features, fit_classifier, load
from ditzoo.evaluation.frechet import Floats, gaussian_of
from ditzoo.evaluation.frechet import frechet_distance as distance_of_gaussians

__all__ = ["Digits", "Floats", "Labels", "features", "fit_classifier", "frechet_distance", "load"]


def frechet_distance(a: Floats, b: Floats) -> float:
    """The Fréchet distance of two sets of vectors [N, D], taken as Gaussians (as in FID, arXiv 1706.08500, section 3)."""
    return distance_of_gaussians(gaussian_of(a), gaussian_of(b))
