"""Every solver draws digits that can be read, at the number of steps recommended for it, or in 100.

Fifty of them: the share on 300 is in the table of docs/samplers.md.
"""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.neural_network import MLPClassifier

import ditzoo
from ditzoo.evaluation.digits import fit_classifier, load
from ditzoo.solvers import SOLVERS
from ditzoo.zoo.card import DiscreteBetas

CLASSES = np.arange(50) % 10


@pytest.fixture(scope="module")
def classifier() -> MLPClassifier:
    return fit_classifier(load()[0])


@pytest.mark.slow
@pytest.mark.parametrize("solver", [name for name, solver in SOLVERS.items() if DiscreteBetas in solver.schedules])
def test_digits_are_read_as_asked(solver: str, classifier: MLPClassifier) -> None:
    card = ditzoo.card("dit-digits")
    plan = ditzoo.make_plan(card, solver=solver, steps=min(SOLVERS[solver].steps, 100))
    with ditzoo.open_backend("torch", card) as backend:
        latents = ditzoo.sample(backend, plan, classes=CLASSES.tolist())
    assert classifier.score(np.clip(latents, -1, 1).reshape(len(latents), -1), CLASSES) >= 0.9
