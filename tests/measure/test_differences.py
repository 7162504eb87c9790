"""The difference of two sets of pictures as a picture."""

from __future__ import annotations

import numpy as np

from ditzoo.measure.differences import picture_difference


def test_the_largest_difference_is_white() -> None:
    reference = np.full((1, 1, 3, 1), 100.0, dtype=np.float32)
    value = reference + np.array([0.0, -0.25, 0.5], dtype=np.float32)[None, None, :, None]
    difference = picture_difference(value, reference)
    assert (difference.largest, difference.gain) == (0.5, 510.0)
    assert difference.values.ravel().tolist() == [0.0, 0.25, 0.5]
    assert difference.pictures.ravel().tolist() == [0, 127, 255]


def test_equal_pictures_have_a_black_difference() -> None:
    pixels = np.full((2, 1, 1, 3), 7.0)
    difference = picture_difference(pixels, pixels)
    assert (difference.largest, difference.gain, difference.pictures.max()) == (0.0, 1.0, 0)
