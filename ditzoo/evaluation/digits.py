"""The handwritten digits, and the classifier that judges drawn digits. Needs the extra `digits`, and no network connection.

The digits are real 8x8 scans that scikit-learn brings (UCI "Optical Recognition of Handwritten Digits", CC BY 4.0). They are
split into a training half and a held-out half.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from ditzoo.errors import MissingPackageError
from ditzoo.evaluation.features import Features, Pixels, check_pictures_size
from ditzoo.evaluation.frechet import Floats

Labels = npt.NDArray[np.int64]
SIDE = 8


class Digits(msgspec.Struct, frozen=True, kw_only=True):
    """Images [N, 1, 8, 8] in float32, from −1 to 1, and their labels [N]."""

    images: Floats
    labels: Labels

    @property
    def pixels(self) -> Floats:
        """The images as vectors [N, 64]."""
        return self.images.reshape(len(self.images), -1)


def load() -> tuple[Digits, Digits]:
    """The training half and the held-out half.

    The split is random but the same every time. In each half, all classes are equally frequent. Raises MissingPackageError if
    scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split
    except ModuleNotFoundError as error:
        raise MissingPackageError("the digits need a package: pip install 'ditzoo[digits]'") from error
    data = load_digits()
    images = (data.data / 8 - 1).reshape(-1, 1, SIDE, SIDE).astype(np.float32)
    halves = train_test_split(images, data.target.astype(np.int64), test_size=0.5, random_state=0, stratify=data.target)
    train_images, held_out_images, train_labels, held_out_labels = halves
    return Digits(images=train_images, labels=train_labels), Digits(images=held_out_images, labels=held_out_labels)


def fit_classifier(digits: Digits) -> Any:
    """A classifier of digits: a multilayer perceptron on pixels (scikit-learn's), fitted on `digits` only."""
    from sklearn.neural_network import MLPClassifier

    classifier = MLPClassifier(hidden_layer_sizes=(256, 128), alpha=1.0, max_iter=400, random_state=0)
    return classifier.fit(digits.pixels, digits.labels)


def features(classifier: Any, pixels: Floats) -> Floats:
    """The output [N, width] of the classifier's last hidden layer for `pixels` [N, 64]."""
    hidden = pixels
    for weights, bias in zip(classifier.coefs_[:-1], classifier.intercepts_[:-1], strict=True):
        hidden = np.maximum(hidden @ weights + bias, 0)
    return hidden


@cache
def _classifier() -> Any:
    """The classifier that is fitted on the training half. It takes about a second, once per process."""
    return fit_classifier(load()[0])


class DigitsNetwork:
    """The classifier as a feature network. Its distances are on the last hidden layer ("fid") and on the pixels ("pixels")."""

    name = "digits classifier"

    def __init__(self) -> None:
        self._classifier = _classifier()

    def __call__(self, pictures: Pixels) -> Features:
        """See `FeatureNetwork`. A value v of 8 bits stands for (v − 127.5) / 127.5, the middle of what was rounded to it."""
        check_pictures_size(self.name, pictures, SIDE, SIDE, hint="use --features inception or an ONNX file")
        return self.of_scans((pictures[..., 0].reshape(len(pictures), -1).astype(np.float32) - 127.5) / 127.5)

    def of_scans(self, pixels: Floats) -> Features:
        """The features of pixels [N, 64] from −1 to 1."""
        shares = self._classifier.predict_proba(pixels)
        return Features(
            spaces={"fid": features(self._classifier, pixels), "pixels": pixels},
            log_probabilities=np.log(np.maximum(shares, np.finfo(np.float64).tiny)),
            read=self._classifier.classes_[shares.argmax(axis=1)],
        )
