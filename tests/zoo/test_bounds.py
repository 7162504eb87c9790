"""The bounds of a card's numbers and texts. They hold for cards of any origin."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from ditzoo.records import from_json, to_json
from ditzoo.zoo import CARDS
from ditzoo.zoo.card import Card

LABELS, HUB, TEXT = CARDS["dit-s-2"], CARDS["dit-xl-2-256"], CARDS["uvit-s-2-coco"]

WRONG: list[tuple[Card, str, Any, str]] = [
    (LABELS, "backbone.hidden_size", 10**9, "width is 1000000000, but it must be at most 65536"),
    (LABELS, "backbone.depth", 10**9, "depth is 1000000000, but it must be at most 1000"),
    (LABELS, "backbone.input_size", 4096 * 4, "size is 16384, but it must be at most 4096"),
    (LABELS, "backbone.in_channels", 10**9, "channels is 1000000000, but it must be at most 65536"),
    (LABELS, "backbone.num_classes", 10**9, "num_classes is 1000000000, but it must be at most 1000000"),
    (LABELS, "backbone.mlp_ratio", 1e-300, "mlp_ratio is so small"),
    (LABELS, "backbone.mlp_ratio", 1e300, "mlp_ratio 1e\\+300 must all be positive"),
    (LABELS, "schedule", {"kind": "continuous_vp", "beta_min": -1.0, "beta_max": 20.0}, "beta_min is -1.0"),
    (LABELS, "schedule", {"kind": "continuous_vp", "beta_min": 0.1, "beta_max": 1e9}, "beta_max is 1000000000.0"),
    (LABELS, "schedule.steps", 10**9, "the number of betas is 1000000000"),
    (LABELS, "schedule.start", -0.1, "betas from -0.1"),
    (LABELS, "time.scale", 0.0, "the scale of the time must not be 0"),
    (LABELS, "time.offset", 1e300, "the offset of the time is 1e\\+300"),
    (LABELS, "sampling.steps", 10**9, "steps is 1000000000"),
    (LABELS, "sampling.shift", -1.0, "shift must be positive and finite"),
    (LABELS, "sampling.guidance_times", [1.0, 0.0], "guidance_times must be two times"),
    (HUB, "weights.files", [], "needs at least one file"),
    (HUB, "weights.files", [{"path": "a"}, {"path": "a"}], "no file may be named twice"),
    (HUB, "weights.files", [{"path": "x" * 300}], "each name in it has at most 200 bytes"),
    (HUB, "weights.files", [{"path": "a", "size": -1}], "the size of a is -1"),
    (HUB, "weights.repo", "../..", "'../..' is not the name of a repository"),
    (HUB, "weights.repo", "a/..", "'a/..' is not the name of a repository"),
    (HUB, "weights.repo", "a/b\n", "is not the name of a repository"),
    (HUB, "decoder.factor", 0, "the factor of a decoder is 0"),
    (HUB, "decoder.factor", 10**9, "the factor of a decoder is 1000000000"),
    (HUB, "decoder.std", [0.0], "std finite and positive"),
    (HUB, "decoder.mean", [0.0, 1.0], "decoder.mean of dit-xl-2-256 has 2 numbers"),
    (HUB, "published.images", 0, "the number of images of the FID is 0"),
    (TEXT, "text.width", 10**9, "takes 77 text tokens of width 768, but the text encoder of the card gives 77 text tokens"),
    (TEXT, "text", None, "takes 77 text tokens of width 768, but the text encoder of the card gives no text"),
]


@pytest.mark.parametrize(("card", "place", "value", "message"), WRONG)
def test_a_card_with_a_number_out_of_bounds_is_refused(card: Card, place: str, value: Any, message: str) -> None:
    fields: Any = msgspec.json.decode(to_json(card))
    *outer, last = place.split(".")
    inner = fields
    for key in outer:
        inner = inner[key]
    inner[last] = value
    with pytest.raises(ValueError, match=message):
        from_json(to_json(fields), Card)
