"""How the recipes judge drawn pictures: a classifier of real pictures reads them, and Fréchet distances compare them."""

from __future__ import annotations

from typing import Any, Protocol

from ditzoo.evaluation.digits import Labels, features
from ditzoo.evaluation.frechet import Floats, gaussian_of
from ditzoo.evaluation.frechet import frechet_distance as distance_of_gaussians


class Labelled(Protocol):
    """Pictures as vectors [N, D], and their labels [N]."""

    @property
    def pixels(self) -> Floats: ...

    @property
    def labels(self) -> Labels: ...


def frechet_distance(a: Floats, b: Floats) -> float:
    """The Fréchet distance of two sets of vectors [N, D], taken as Gaussians (as in FID, arXiv 1706.08500, section 3)."""
    return distance_of_gaussians(gaussian_of(a), gaussian_of(b))


def judge(drawn: Labelled, classifier: Any, held_out: Labelled) -> dict[str, float]:
    """The share of the `drawn` pictures that are read as their label, and their distances to the `held_out` pictures."""
    return {
        "read": float(classifier.score(drawn.pixels, drawn.labels)),
        "frechet_pixels": frechet_distance(drawn.pixels, held_out.pixels),
        "frechet_features": frechet_distance(features(classifier, drawn.pixels), features(classifier, held_out.pixels)),
    }
