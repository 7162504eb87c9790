"""Evaluating a set of pictures against a reference: one pass over each, with statistics in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import msgspec
import numpy as np

from ditzoo.errors import UsageError
from ditzoo.evaluation.digits import DigitsNetwork, Labels, load
from ditzoo.evaluation.features import FeatureNetwork, Features
from ditzoo.evaluation.frechet import Floats, Gaussian, Moments, frechet_distance
from ditzoo.evaluation.manifold import NEIGHBOURS, precision_and_recall
from ditzoo.evaluation.sources import batches_at, has_pictures, statistics_at
from ditzoo.records import Data

HELD_OUT = "held-out"
"""The reference of the digits: the scans that were held out from training."""

SPLIT = 5000
"""The number of pictures over which one Inception Score is taken, as in ADM's evaluation; the scores are averaged."""

BATCH = 50


class Scores(Data, frozen=True, kw_only=True):
    """The scores of a set of pictures. A score that the network or the reference does not allow is None.

    `fid` and `sfid` are Fréchet distances on the network's features and spatial features, `frechet_pixels` the same on pixels.
    `read` is the share of the pictures that the network reads as their class. `reference_images` is None if the reference has
    statistics only.
    """

    place: str
    images: int
    network: str
    reference: str
    reference_images: int | None
    fid: float
    sfid: float | None = None
    inception_score: float | None = None
    precision: float | None = None
    recall: float | None = None
    frechet_pixels: float | None = None
    read: float | None = None


class Collected(msgspec.Struct, frozen=True, kw_only=True):
    """What one pass over a set of pictures gives: statistics by space, and features [N, D] if they were kept."""

    count: int
    gaussians: dict[str, Gaussian]
    kept: Floats | None = None
    inception_score: float | None = None
    read: float | None = None


def evaluate(
    place: str,
    network: FeatureNetwork,
    *,
    reference: str,
    manifold: bool = True,
    batch: int = BATCH,
    advance: Callable[[int], object] = lambda count: None,
) -> Scores:
    """The scores of the pictures at `place`: a folder of shards, a folder of picture files, or a .npz file.

    `reference` is one of these too, or a .npz file of statistics, or "held-out" for the digits. Precision and recall, if
    `manifold` is set, need pictures in the reference, and keep one vector of features for each picture in memory. Everything
    else is computed batch by batch. Raises UsageError if pictures are missing or damaged, or do not fit the network.
    """
    real = _reference(reference, network, manifold=manifold, batch=batch)
    drawn = collect(_passing(place, network, batch, advance), keep=real.kept is not None)
    distances = _distances(drawn, real, reference)
    near = None
    if drawn.kept is not None and real.kept is not None and min(len(drawn.kept), len(real.kept)) > NEIGHBOURS:
        near = precision_and_recall(drawn.kept, real.kept)
    return Scores(
        place=place,
        images=drawn.count,
        network=network.name,
        reference=reference,
        reference_images=real.count or None,
        fid=distances["fid"],
        sfid=distances.get("sfid"),
        inception_score=drawn.inception_score,
        precision=None if near is None else near[0],
        recall=None if near is None else near[1],
        frechet_pixels=distances.get("pixels"),
        read=drawn.read,
    )


def collect(parts: Iterable[tuple[Features, Labels | None]], *, keep: bool) -> Collected:
    """One pass over features with their labels. `keep` keeps the features of the space "fid"."""
    moments: dict[str, Moments] = {}
    kept: list[Floats] = []
    score, right, labelled, count = _InceptionScore(), 0, 0, 0
    for features, labels in parts:
        for space, values in features.spaces.items():
            moments.setdefault(space, Moments()).add(values)
        count += len(features.spaces["fid"])
        if keep:
            kept.append(features.spaces["fid"].astype(np.float32))
        if features.log_probabilities is not None:
            score.add(features.log_probabilities)
        if features.read is not None and labels is not None:
            right, labelled = right + int((features.read == labels).sum()), labelled + len(labels)
    if count < 2:
        raise UsageError(f"scores need two or more pictures, not {count}")
    return Collected(
        count=count,
        gaussians={space: total.gaussian() for space, total in moments.items()},
        kept=np.concatenate(kept) if kept else None,
        inception_score=score.value(),
        read=right / labelled if labelled else None,
    )


class _InceptionScore:
    """exp of the mean KL divergence of p(y|x) from p(y) (arXiv 1606.03498), averaged over splits of `SPLIT` pictures."""

    def __init__(self) -> None:
        self._scores: list[float] = []
        self._count, self._entropy, self._sum = 0, 0.0, np.zeros(0)

    def add(self, log_probabilities: Floats) -> None:
        """Takes the next log p(y|x), [N, K]."""
        for row in log_probabilities:
            share = np.exp(row)
            self._sum = share if not self._count else self._sum + share
            self._entropy += float((share * row).sum())
            self._count += 1
            if self._count == SPLIT:
                self._scores.append(self._split())
                self._count, self._entropy = 0, 0.0

    def _split(self) -> float:
        mean = self._sum / self._count
        return float(np.exp(self._entropy / self._count - (mean * np.log(np.maximum(mean, np.finfo(float).tiny))).sum()))

    def value(self) -> float | None:
        """The score; None without probabilities. A last split of fewer pictures counts like the others."""
        scores = [*self._scores, *([self._split()] if self._count else [])]
        return float(np.mean(scores)) if scores else None


def _passing(
    place: str, network: FeatureNetwork, batch: int, advance: Callable[[int], object]
) -> Iterator[tuple[Features, Labels | None]]:
    """The features of the pictures at a place, with their labels, batch by batch."""
    for part in batches_at(place, size=batch):
        yield network(part.pictures), part.labels
        advance(len(part.pictures))


def _reference(reference: str, network: FeatureNetwork, *, manifold: bool, batch: int) -> Collected:
    """The statistics of the reference. Statistics in the file come before those of its pictures."""
    if reference == HELD_OUT:
        if not isinstance(network, DigitsNetwork):
            raise UsageError(f"the reference {HELD_OUT} is for --features digits, not for {network.name}")
        return collect([(network.of_scans(load()[1].pixels), None)], keep=manifold)
    stored: dict[str, Gaussian] = {}
    if reference.endswith(".npz"):
        found = statistics_at(Path(reference))
        stored = {space: Gaussian(mean=mean, covariance=covariance) for space, (mean, covariance) in found.items()}
        if stored and not (manifold and has_pictures(Path(reference))):
            return Collected(count=0, gaussians=stored)
    seen = collect(_passing(reference, network, batch, lambda count: None), keep=manifold)
    return msgspec.structs.replace(seen, gaussians={**seen.gaussians, **stored})


def _distances(drawn: Collected, real: Collected, reference: str) -> dict[str, float]:
    """The Fréchet distance in each space that both have. Raises UsageError if they have different dimensions."""
    try:
        return {
            space: frechet_distance(drawn.gaussians[space], real.gaussians[space])
            for space in drawn.gaussians
            if space in real.gaussians
        }
    except ValueError as error:
        raise UsageError(f"the reference {reference} is for another feature network: {error}") from error
