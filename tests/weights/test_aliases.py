"""The names that people have for a model find its card."""

from __future__ import annotations

from pathlib import Path

import pytest

import ditzoo
from ditzoo.weights.aliases import find_name
from ditzoo.weights.catalogue import folder_of
from ditzoo.zoo.card import OnHub


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("DiT-XL-2-256", "dit-xl-2-256"),
        ("facebook/DiT-XL-2-256", "dit-xl-2-256"),
        ("FACEBOOK/dit-xl-2-512", "dit-xl-2-512"),
        ("DiT-XL/2", "dit-xl-2-256"),
        ("U-ViT-H/2", "uvit-h-2-256"),
        ("https://hub.example/facebook/DiT-XL-2-512/", "dit-xl-2-512"),
        ("DiT-XL/2-512x512", "dit-xl-2-512"),
        ("DiT-S/4", "dit-s-4"),
        ("dit-xl-2", "dit-xl-2"),
        ("SiT-XL/2", "sit-xl-2-256"),
        ("hustvl/lightningdit-xl-imagenet256-800ep", "lightningdit-xl-1-256"),
        ("lightningdit-xl-imagenet256-64ep", "lightningdit-xl-1-256-64ep"),
    ],
)
def test_a_name_that_people_have_finds_its_card(text: str, name: str) -> None:
    assert ditzoo.card(text).name == name
    assert folder_of(text) is None


def test_every_name_and_repository_finds_its_card_in_any_case() -> None:
    for name, card in ditzoo.CARDS.items():
        assert find_name(name.upper(), ditzoo.CARDS) == name
        if isinstance(card.weights, OnHub):
            found = find_name(card.weights.repo, ditzoo.CARDS)
            assert found == name or found is None


def test_a_folder_comes_before_a_papers_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "DiT-XL" / "2").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert folder_of("DiT-XL/2") == Path("DiT-XL/2")


@pytest.mark.parametrize("text", ["Dit-Digit", "DIT-DIGIT"])
def test_suggestions_ignore_case(text: str) -> None:
    with pytest.raises(ditzoo.DitzooError, match="did you mean dit-digits"):
        ditzoo.card(text)
