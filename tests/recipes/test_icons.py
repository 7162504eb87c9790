"""The pictures that the recipe of the icons draws, and the pictures of the embedded model that learned from them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import ditzoo
from ditzoo.evaluation.digits import fit_classifier
from ditzoo.zoo.icons import ICONS as NAMES
from recipes.icons.autoencoder import encode, initialise, make_autoencoder
from recipes.icons.canvas import SIDE
from recipes.icons.data import AUTOENCODER, HELD_OUT, TRAINING, draw_icon, draw_icons
from recipes.icons.evaluate import generate, nearest
from recipes.icons.icons import ICONS
from recipes.judging import judge

DRAWN = Path(__file__).parents[1] / "data" / "icons.png"
"""The first twelve pictures for training, side by side."""


def test_the_classes_are_those_of_the_card() -> None:
    assert tuple(ICONS) == NAMES
    assert ditzoo.card("dit-icons").number_of_classes == len(ICONS)
    assert ditzoo.card("dit-icons").resolution == SIDE


def test_every_picture_is_the_same_every_time() -> None:
    """Pillow may change how it fills the edge of a polygon, so a few values may differ from those of the stored pictures."""
    drawn = np.concatenate([draw_icon(TRAINING, number) for number in range(len(ICONS))], axis=1)
    assert np.array_equal(drawn[:, :SIDE], draw_icon(TRAINING, 0))
    stored = np.asarray(Image.open(DRAWN)).astype(int)
    assert np.abs(stored - drawn).mean() <= 0.5


def test_no_two_pictures_are_equal() -> None:
    pictures = [draw_icon(part, number) for part in (TRAINING, HELD_OUT, AUTOENCODER) for number in range(24)]
    assert len({picture.tobytes() for picture in pictures}) == 72


def test_labels_repeat_in_order() -> None:
    icons = draw_icons(TRAINING, range(5, 20))
    assert icons.labels.tolist() == [*range(5, 12), *range(8)]
    assert icons.images.shape == (15, 3, SIDE, SIDE)
    assert (icons.images.min(), icons.images.max()) >= (-1, 0)
    assert icons.images.max() <= 1


def test_the_first_latents_of_the_autoencoder_follow_the_colours() -> None:
    torch.manual_seed(0)
    net = make_autoencoder()
    initialise(net)
    images = torch.from_numpy(draw_icons(AUTOENCODER, range(12)).images)
    means = torch.nn.functional.avg_pool2d(images, 4)  # B 3 h w
    latents = encode(net, images)[:, :3]
    for colour in range(3):
        assert np.corrcoef(means[:, colour].flatten(), latents[:, colour].flatten())[0, 1] >= 0.9


def test_the_nearest_picture_is_found() -> None:
    known = draw_icons(TRAINING, range(24)).pixels
    number, distance = nearest(known[[7, 3]] + 0.01, known)
    assert number.tolist() == [7, 3]
    assert distance == pytest.approx([0.01, 0.01], rel=1e-2)


@pytest.mark.slow
def test_icons_of_the_model_are_readable_and_near_to_drawn_ones() -> None:
    train, held_out = draw_icons(TRAINING, range(3_000)), draw_icons(HELD_OUT, range(1_200))
    classifier = fit_classifier(train)
    assert classifier.score(held_out.pixels, held_out.labels) >= 0.98
    drawn = judge(generate(240), classifier, held_out)
    assert drawn["read"] >= 0.95
