"""The handwritten digits, and the classifier and the distance that judge generated digits.

The digits are real 8x8 scans that scikit-learn brings (UCI "Optical Recognition of Handwritten Digits", CC BY 4.0). They are
split into a training half and a held-out half.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

Floats = npt.NDArray[np.floating]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Digits:
    """Images [N, 1, 8, 8] in float32, from −1 to 1, and their labels [N]."""

    images: Floats
    labels: Labels

    @property
    def pixels(self) -> Floats:
        return self.images.reshape(len(self.images), -1)


def load() -> tuple[Digits, Digits]:
    """The training half and the held-out half.

    The split is random but the same every time. In each half, all classes are equally frequent.
    """
    data = load_digits()
    images = (data.data / 8 - 1).reshape(-1, 1, 8, 8).astype(np.float32)
    halves = train_test_split(images, data.target.astype(np.int64), test_size=0.5, random_state=0, stratify=data.target)
    train_images, held_out_images, train_labels, held_out_labels = halves
    return Digits(images=train_images, labels=train_labels), Digits(images=held_out_images, labels=held_out_labels)


def fit_classifier(digits: Digits) -> MLPClassifier:
    """A classifier of digits: a multilayer perceptron on pixels, fitted on `digits` only."""
    classifier = MLPClassifier(hidden_layer_sizes=(256, 128), alpha=1.0, max_iter=400, random_state=0)
    return classifier.fit(digits.pixels, digits.labels)


def features(classifier: MLPClassifier, pixels: Floats) -> Floats:
    """The output [N, width] of the classifier's last hidden layer for `pixels` [N, 64]."""
    hidden = pixels
    for weights, bias in zip(classifier.coefs_[:-1], classifier.intercepts_[:-1], strict=True):
        hidden = np.maximum(hidden @ weights + bias, 0)
    return hidden


def frechet_distance(a: Floats, b: Floats) -> float:
    """The Fréchet distance of two sets of vectors [N, D], taken as Gaussians (as in FID, arXiv 1706.08500, section 3)."""
    mean_a, mean_b = a.mean(axis=0), b.mean(axis=0)
    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    values, vectors = np.linalg.eigh(cov_a)
    root = vectors * np.sqrt(np.maximum(values, 0)) @ vectors.T
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ cov_b @ root), 0)).sum()
    return float(((mean_a - mean_b) ** 2).sum() + np.trace(cov_a) + np.trace(cov_b) - 2 * cross)
