"""What the exported models draw can be read as well as what PyTorch draws in fp32."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.neural_network import MLPClassifier

import ditzoo
from ditzoo.backends.base import Backend
from ditzoo.evaluation.digits import Digits, fit_classifier, load
from ditzoo.specs import Precision
from ditzoo_export import cached_bundle, make_settings
from recipes.judging import judge

CLASSES = [i % 10 for i in range(400)]

RUN_HERE: tuple[tuple[str, Precision], ...] = (
    ("torch", "bf16"),
    ("torch", "fp16"),
    ("onnxruntime", "fp16"),
    ("onnxruntime", "int8"),
)


@pytest.fixture(scope="module")
def reader() -> tuple[MLPClassifier, Digits]:
    train, held_out = load()
    return fit_classifier(train), held_out


def _read(backend: Backend, reader: tuple[MLPClassifier, Digits]) -> float:
    """How many of the drawn digits are read as asked."""
    plan = ditzoo.make_plan(backend.card, steps=20)
    latents = ditzoo.sample(backend, plan, classes=CLASSES, batch=200)
    drawn = Digits(images=np.clip(latents, -1, 1), labels=np.array(CLASSES))
    return judge(drawn, reader[0], reader[1])["read"]


@pytest.mark.parametrize("name", ["dit-digits", "uvit-digits"])
def test_digits_are_read_as_well_in_every_precision_that_runs_here(name: str, reader: tuple[MLPClassifier, Digits]) -> None:
    card = ditzoo.card(name)
    with ditzoo.open_backend("torch", card) as backend:
        expected = _read(backend, reader)
    assert expected > 0.9
    for library, precision in RUN_HERE:
        model = card if library == "torch" else cached_bundle(card, settings=make_settings(card, precision=precision))
        with ditzoo.open_backend(library, model, precision=precision) as backend:
            assert abs(_read(backend, reader) - expected) <= 0.01, backend.name
