"""The embedded models against the quality that their cards state. The functions are the recipe's own."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.neural_network import MLPClassifier

import ditzoo
from ditzoo.evaluation.digits import Digits, features, fit_classifier, load
from ditzoo.zoo import digits
from recipes.digits.evaluate import generate
from recipes.judging import frechet_distance, judge


@pytest.fixture(scope="module")
def halves() -> tuple[Digits, Digits]:
    return load()


@pytest.fixture(scope="module")
def classifier(halves: tuple[Digits, Digits]) -> MLPClassifier:
    return fit_classifier(halves[0])


def test_the_halves_share_no_scan_and_are_balanced(halves: tuple[Digits, Digits]) -> None:
    train, held_out = halves
    assert len(train.images) + len(held_out.images) == 1797
    assert np.abs(np.bincount(train.labels) - np.bincount(held_out.labels)).max() <= 1
    assert (train.images.min(), train.images.max()) == (-1, 1)


def test_the_classifier_reads_real_digits(halves: tuple[Digits, Digits], classifier: MLPClassifier) -> None:
    assert classifier.score(halves[1].pixels, halves[1].labels) >= 0.97


def test_features_are_what_the_classifier_decides_on(halves: tuple[Digits, Digits], classifier: MLPClassifier) -> None:
    scores = features(classifier, halves[1].pixels) @ classifier.coefs_[-1] + classifier.intercepts_[-1]
    assert np.array_equal(classifier.classes_[scores.argmax(axis=1)], classifier.predict(halves[1].pixels))


def test_the_frechet_distance_of_known_gaussians() -> None:
    """Between N(0, I) and N(m, s² I) in d dimensions it is |m|² + d (1 − s)²."""
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((200_000, 3)), 1.0 + 2.0 * rng.standard_normal((200_000, 3))
    assert frechet_distance(a, b) == pytest.approx(3 * 1.0 + 3 * (1 - 2) ** 2, rel=0.02)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("card", list(digits.CARDS), ids=lambda card: card.name)
def test_drawn_digits_are_readable_and_near_to_real_ones(
    card: ditzoo.Card, halves: tuple[Digits, Digits], classifier: MLPClassifier
) -> None:
    train, held_out = halves
    real, drawn = judge(train, classifier, held_out), judge(generate(card.name), classifier, held_out)
    assert drawn["read"] >= 0.98
    assert drawn["frechet_pixels"] <= 5 * real["frechet_pixels"]
    assert drawn["frechet_features"] <= 5 * real["frechet_features"]
