"""Fine-tunes without a card: what their shapes say, what a card that they are like says, and what has to be asked for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from safetensors.torch import load_file, save_file

from ditzoo.errors import UsageError
from ditzoo.weights import store
from ditzoo.weights.catalogue import card
from ditzoo.weights.importing import import_own
from ditzoo.weights.likeness import Like
from ditzoo.weights.load import load_network
from ditzoo.zoo import CARDS
from ditzoo.zoo.card import Card
from ditzoo.zoo.configs import BackboneConfig, DiTConfig, UViTConfig
from recipes.checkpoints import hub_server
from tests.support.faults import child
from tests.support.hub_models import Desk, diffusers, state

SMALL = DiTConfig(input_size=8, patch_size=2, in_channels=4, hidden_size=384, depth=2, num_heads=6, num_classes=12)
U_SMALL = UViTConfig(img_size=8, patch_size=2, embed_dim=512, depth=4, num_heads=8, num_classes=13)
DIT, SIT = CARDS["dit-s-2"], CARDS["sit-s-2-256"]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DITZOO_CACHE", str(tmp_path / "cache"))


def changed(config: Any, **fields: Any) -> Any:
    return msgspec.structs.replace(config, **fields)


def imported(config: BackboneConfig, folder: Path, name: str = "moths", **said: Any) -> Card:
    """The card of a model of that network, imported under a name with what is said of it."""
    file = folder / f"{name}.safetensors"
    save_file(state(config), file)
    import_own(name, file, like=Like(**said) if said else None, overwrite=True)
    return card(name)


NETWORKS = {
    "as it is": SMALL,
    "deeper, patch 4": changed(SMALL, depth=3, patch_size=4),
    "patch 1, larger": changed(SMALL, patch_size=1, input_size=12),
    "no learned variance": changed(SMALL, learn_sigma=False),
    "a wider MLP": changed(SMALL, mlp_ratio=6.0),
    "an MLP of an odd width": changed(SMALL, mlp_ratio=1027 / 384),
    "the classes of the card": changed(SMALL, num_classes=1000),
}


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("base", [DIT, SIT], ids=lambda base: base.name)
def test_a_dit_is_read_off_its_shapes(kind: str, base: Card, tmp_path: Path) -> None:
    config = NETWORKS[kind]
    found = imported(config, tmp_path, card=base)
    assert msgspec.json.encode(found.backbone) == msgspec.json.encode(config)
    assert (found.prediction, found.schedule, found.time, found.decoder) == (
        base.prediction,
        base.schedule,
        base.time,
        base.decoder,
    )
    assert (found.null_label, found.number_of_classes) == (config.num_classes, config.num_classes)
    assert found.classes == ("imagenet" if config.num_classes == 1000 else None)
    assert found.published is None
    assert found.resolution == 8 * config.input_size
    weights = state(config)
    assert all(torch.equal(value, weights[key]) for key, value in load_network(found).state_dict().items())


@pytest.mark.parametrize(
    ("fields", "base"),
    [
        ({}, "uvit-s-2-coco"),
        ({"depth": 2, "conv": False, "skip": False}, "uvit-l-2-256"),
        ({"qkv_bias": True, "mlp_time_embed": True, "mlp_ratio": 2.0}, "uvit-l-2-256"),
        ({"num_classes": 1001}, "uvit-l-2-256"),
    ],
)
def test_a_u_vit_is_read_off_its_shapes(fields: dict[str, Any], base: str, tmp_path: Path) -> None:
    config = changed(U_SMALL, **fields)
    if base == "uvit-s-2-coco":
        config = changed(config, num_classes=-1, clip_dim=768, num_clip_token=77)
    found = imported(config, tmp_path, card=CARDS[base], heads=8)
    assert found.backbone == config
    assert found.null_label == (None if config.clip_dim else config.num_classes - 1)
    assert found.sampling.guidance == CARDS[base].sampling.guidance


@pytest.mark.parametrize(
    ("rows", "said", "classes", "null"),
    [
        (13, None, 12, 12),  # as the card: the last row is the null label's
        (13, 12, 12, 12),
        (13, 13, 13, None),
        (1001, None, 1000, 1000),
        (1000, None, 1000, None),  # as many rows as the card has classes
        (1000, 999, 999, 999),
        (2001, None, 2000, 2000),
    ],
)
def test_the_null_label_is_the_row_behind_the_classes(
    rows: int, said: int | None, classes: int, null: int | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table = changed(SMALL, num_classes=rows, class_dropout_prob=0.0)
    found = imported(table, tmp_path, card=DIT, classes=said)
    assert (found.number_of_classes, found.null_label) == (classes, null)
    assert found.sampling.guidance == (1.0 if null is None else 1.5)
    assert ("cannot be guided: its guidance is 1" in caplog.text) == (null is None)
    assert (f"add --classes {rows}" in caplog.text) == (said is None and rows in (13, 2001))


def test_what_shapes_cannot_say_is_asked_for(tmp_path: Path) -> None:
    def refused(config: BackboneConfig, **said: Any) -> str:
        with pytest.raises(UsageError) as error:
            imported(config, tmp_path, **said)
        assert "\n" not in str(error.value)
        return str(error.value)

    line = refused(SMALL)
    assert "name a card with the same conventions: --like CARD" in line
    assert "dit-xl-2-256, sit-s-2-256" in line
    narrow = changed(SMALL, hidden_size=64, num_heads=4)
    assert "the number of heads is unknown: shapes do not show it, the width is 64" in refused(narrow, card=DIT)
    assert imported(narrow, tmp_path, card=DIT, heads=4).backbone == narrow
    assert "not a multiple of the number of heads 5" in refused(narrow, card=DIT, heads=5)
    assert "latents have 3 channels, but the decoder of dit-s-2 takes 4" in refused(changed(SMALL, in_channels=3), card=DIT)
    assert "is a U-ViT, but dit-s-2 is a DiT" in refused(U_SMALL, card=DIT)
    assert "20 classes need 20 rows, or 21 with a null label" in refused(SMALL, card=DIT, classes=20)
    unconditional = changed(SMALL, num_classes=1, class_dropout_prob=0.0)  # the row of a null label alone
    assert "at least 1 class" in refused(unconditional, card=DIT)


def test_a_file_in_diffusers_layout(tmp_path: Path) -> None:
    config = changed(SMALL, input_size=32)
    save_file(diffusers(state(config), config), tmp_path / "c.safetensors")
    import_own("moths", tmp_path / "c.safetensors", like=Like(card=SIT))
    assert card("moths").backbone == config
    assert card("moths").prediction == "velocity"


def test_another_import_replaces_the_first(tmp_path: Path) -> None:
    imported(SMALL, tmp_path, card=DIT)
    torch.save(state(SMALL, seed=1), tmp_path / "second.pt")
    with pytest.raises(UsageError, match="--overwrite"):
        import_own("moths", tmp_path / "second.pt", like=Like(card=card("moths")))
    stored = import_own("moths", tmp_path / "second.pt", like=Like(card=card("moths")), overwrite=True)
    assert torch.equal(
        load_file(stored.path / "model.safetensors")["final_layer.linear.bias"], state(SMALL, seed=1)["final_layer.linear.bias"]
    )
    assert len(list((tmp_path / "cache" / "weights").glob("moths-*"))) == 1


@pytest.mark.parametrize("at", [0, 1])
def test_an_error_while_the_older_weights_are_deleted_leaves_no_half_of_them(at: int, tmp_path: Path) -> None:
    imported(SMALL, tmp_path, card=DIT)
    torch.save(state(SMALL, seed=1), tmp_path / "second.pt")
    (older,) = store.everything()

    def replace() -> int:
        import_own("moths", tmp_path / "second.pt", like=Like(card=DIT), overwrite=True)
        return 0

    child(replace, home=older.path, at=at, fault="error")
    assert store.unreadable() == []
    replace()
    assert len(list((tmp_path / "cache" / "weights").iterdir())) == 1


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with hub_server.serving() as hub:
        tmp_path.joinpath("zoo.toml").touch()
        yield Desk(tmp_path, hub)


def test_the_command_line_says_what_it_took_and_asks_for_the_rest(desk: Desk) -> None:
    digits = changed(CARDS["dit-digits"].backbone, num_classes=12, depth=2)
    file = desk.home / "last.pt"
    averages = [state(digits, seed=seed) for seed in (1, 2)]
    torch.save({"model": state(digits), "model_ema1": averages[0], "model_ema2": averages[1]}, file)
    desk.hub.commit("me/moths", {"last.pt": file.read_bytes()})
    assert "choose one with --entry" in desk.fails("import", "moths", str(file), "--like", "dit-digits")
    assert "--like" in desk.fails("import", "moths", str(file), "--entry", "model_ema1")
    assert "--heads and --classes need --like" in desk.fails("import", "moths", str(file), "--heads", "4")
    assert "has a card" in desk.fails("import", "dit-s-2", str(file), "--like", "dit-digits")
    done = desk.run("import", "moths", str(file), "--like", "dit-digits", "--entry", "model_ema2")
    assert "took the averaged weights, entry 'model_ema2'" in done.stderr
    assert "are 12 classes and the null label 12; if every row is a class, add --classes 13" in done.stderr
    assert torch.equal(load_file(done.stdout.strip())["final_layer.linear.bias"], averages[1]["final_layer.linear.bias"])
    out = str(desk.home / "x.png")
    assert desk.run("sample", "moths", "--classes", "0,11", "--steps", "2", "--out", out).returncode == 0
    assert "knows 0 to 11" in desk.fails("sample", "moths", "--classes", "12", "--steps", "2", "--out", out)
    options = ("--like", "dit-digits", "--entry", "model_ema1", "--classes", "13")
    pulled = desk.run("pull", "hf:me/moths", *options)
    assert "cannot be guided" in pulled.stderr
    assert torch.equal(load_file(pulled.stdout.strip())["final_layer.linear.bias"], averages[0]["final_layer.linear.bias"])
    shown = json.loads(desk.run("info", "hf:me/moths", "--json").stdout)
    assert (shown["null_label"], shown["sampling"]["guidance"], shown["backbone"]["num_classes"]) == (None, 1.0, 13)
    assert desk.run("sample", "hf:me/moths", "--classes", "12", "--steps", "2", "--out", out).returncode == 0
