"""The embedded latent model: its card and files, its classes by name, and its pictures."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from safetensors.numpy import load_file

import ditzoo
from ditzoo.cli import run
from ditzoo.errors import CheckpointError, UsageError
from ditzoo.files import sha256
from ditzoo.measure.metrics import relative_l2
from ditzoo.measure.provenance import provenance
from ditzoo.pictures.decode import pixel_values
from ditzoo.pictures.png_metadata import read_request
from ditzoo.sampling.classes import choose_classes
from ditzoo.sampling.request import make_request
from ditzoo.weights.local import ASSETS, decoder_file, has_decoder, weights_file
from ditzoo.zoo.card import Embedded
from ditzoo.zoo.class_names import captions, class_names
from ditzoo.zoo.icons import ICONS
from ditzoo_export import cached_bundle

CARD = ditzoo.card("dit-icons")
GOLDEN = Path(__file__).parents[1] / "data" / "icons.safetensors"
"""What the model drew with four steps on torch when it was embedded: `latents` and `pictures` of a star and a cat."""


def test_the_files_are_small_and_have_the_checksums_of_the_card() -> None:
    assert isinstance(CARD.weights, Embedded)
    assert CARD.weights.decoder is not None
    assert has_decoder(CARD)
    assert sha256(weights_file(CARD)) == CARD.weights.sha256
    assert sha256(decoder_file(CARD)) == CARD.weights.decoder.sha256
    assert weights_file(CARD).stat().st_size + decoder_file(CARD).stat().st_size <= 8_000_000
    assert (ASSETS / "dit-icons.md").is_file()


def test_a_damaged_decoder_is_an_error() -> None:
    assert isinstance(CARD.weights, Embedded)
    assert CARD.weights.decoder is not None
    wrong = msgspec.structs.replace(CARD.weights.decoder, sha256="0" * 64)
    damaged = msgspec.structs.replace(CARD, weights=msgspec.structs.replace(CARD.weights, decoder=wrong))
    with pytest.raises(CheckpointError, match=r"dit-icons-decoder\.safetensors has the wrong sha256; reinstall ditzoo"):
        decoder_file(damaged)


def test_the_cards_of_the_digits_are_written_as_before() -> None:
    assert set(msgspec.to_builtins(ditzoo.card("dit-digits").weights)) == {"kind", "file", "sha256"}


def test_the_classes_have_names() -> None:
    assert class_names(CARD) == ICONS
    assert choose_classes(CARD, "star,Heart,0-1") == [9, 6, 0, 1]
    with pytest.raises(UsageError, match="star"):
        choose_classes(CARD, "stars")


def test_a_model_with_twelve_other_classes_has_numbers_for_names() -> None:
    """Neither the names of the icons nor those of ImageNet belong to such a model."""
    backbone = msgspec.structs.replace(ditzoo.card("dit-xl-2-256").backbone, num_classes=12)
    other = msgspec.structs.replace(ditzoo.card("dit-xl-2-256"), backbone=backbone, null_label=12)
    assert class_names(other) == tuple(map(str, range(12)))
    assert captions(other, [0, 11]) == ["0", "11"]


def test_a_report_names_the_classes() -> None:
    request = make_request(CARD, ditzoo.make_plan(CARD, steps=1), classes="star,cat")
    assert provenance(CARD, request, command="")["classes"] == "star (9), cat (3)"
    digits = ditzoo.card("dit-digits")
    request = make_request(digits, ditzoo.make_plan(digits, steps=1), classes="3")
    assert provenance(digits, request, command="")["classes"] == "3"


def test_info_lists_the_names(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["info", "dit-icons"]) == 0
    assert "apple, boat, car" in capfd.readouterr().out
    assert run(["info", "dit-xl-2-256"]) == 0
    assert "and 988 more" in capfd.readouterr().out


def test_the_model_draws_what_it_drew_when_it_was_embedded() -> None:
    golden = load_file(GOLDEN)
    with ditzoo.open_backend("torch", CARD) as backend:
        latents = ditzoo.sample(backend, ditzoo.make_plan(CARD, steps=4), classes=[9, 3])
    assert relative_l2(latents, golden["latents"]) <= 1e-5
    pictures = ditzoo.decode(CARD, latents)
    assert np.abs(pictures.astype(int) - golden["pictures"]).max() <= 1


def test_a_sheet_shows_the_names(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["sample", "dit-icons", "--classes", "star,cat", "--steps", "1", "--out", str(tmp_path / "sheet.png")]) == 0
    sheet = ditzoo.contact_sheet(np.zeros((2, 32, 32, 3), np.uint8), columns=2, captions=["star", "cat"])
    plain = ditzoo.contact_sheet(np.zeros((2, 32, 32, 3), np.uint8), columns=2)
    from PIL import Image

    written = np.asarray(Image.open(tmp_path / "sheet.png"))
    above = sheet.height - plain.height
    assert written.shape == np.asarray(sheet).shape
    assert np.array_equal(written[:above], np.asarray(sheet)[:above])
    assert read_request(tmp_path / "sheet.png").classes == (9, 3)


def test_a_bundle_holds_the_decoder() -> None:
    bundle = cached_bundle(CARD)
    latents = load_file(GOLDEN)["latents"]
    assert "decoder" in bundle.manifest.graphs
    ours, theirs = pixel_values(CARD, latents), pixel_values(bundle, latents)
    assert np.abs(ours - theirs).max() <= 0.01
