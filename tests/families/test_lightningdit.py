"""LightningDiT from its authors' training checkpoint to the image, against what their own code computed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import ditzoo
from ditzoo.bundle import Bundle
from ditzoo.checkpoint import convert, shapes_of
from ditzoo.checkpoint.shapes import facts, fitting, network_shapes
from ditzoo.errors import CheckpointError
from ditzoo.families import Known
from ditzoo.families.lightningdit import LIGHTNINGDIT
from ditzoo.measure.metrics import relative_l2
from ditzoo.pictures import autoencoders
from ditzoo.pictures.decode import open_decoder
from ditzoo.plan.make import make_plan
from ditzoo.zoo import CARDS
from ditzoo.zoo.card import Card
from ditzoo.zoo.configs import LightningDiTConfig
from recipes.checkpoints import hub_server
from tests.support.golden import Golden
from tests.support.hub_models import Desk
from tests.support.published import LIGHTNINGDIT_CARD, lightningdit_file, sampled, vavae_files

GOLDEN = Golden("lightningdit")
CONFIG = GOLDEN.config
WEIGHTS = GOLDEN.group("weights.")


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    """A user's machine, with the model imported; this process has its cards, weights and Hub too."""
    with hub_server.serving() as hub:
        desk = Desk(tmp_path, hub)
        commit = hub.commit("team/vavae", vavae_files(tmp_path))
        tmp_path.joinpath("zoo.toml").write_text(LIGHTNINGDIT_CARD.format(revision=commit))
        for name in ("DITZOO_CACHE", "DITZOO_ZOO", "HF_HOME"):
            monkeypatch.setenv(name, desk.env()[name])
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", desk.env()["HF_HOME"] + "/hub")
        autoencoders.load.cache_clear()
        done = desk.run("import", "lightning", str(lightningdit_file(tmp_path / "last.pt")))
        assert done.returncode == 0, done.stderr
        yield desk


def exported(desk: Desk) -> Bundle:
    """The bundle of the model, exported by a process that fetches the decoder."""
    done = desk.run("export", "onnx", "lightning", "--out", str(desk.home / "bundle"))
    assert done.returncode == 0, done.stderr
    return ditzoo.open_bundle(desk.home / "bundle")


@pytest.mark.filterwarnings("ignore")
def test_a_training_checkpoint_gives_the_authors_image(desk: Desk) -> None:
    """Imported, sampled with the card's own settings and decoded, in PyTorch and by the exported bundle."""
    pytest.importorskip("diffusers", reason="needs diffusers: pip install 'ditzoo[diffusers]'")
    models: dict[str, Card | Bundle] = {"onnxruntime": exported(desk), "torch": ditzoo.card("lightning")}
    for name, model in models.items():
        with ditzoo.open_backend(name, model) as backend:
            inputs = {spec.name: GOLDEN[f"in.{spec.name}"].numpy() for spec in backend.inputs}
            output = backend.numpy(backend({key: backend.asarray(value) for key, value in inputs.items()}))
            latents = sampled(backend, GOLDEN)
        assert np.abs(output - GOLDEN["out"].numpy()).max() <= 1e-5 * np.abs(output).max()
        assert relative_l2(latents, GOLDEN["latents"].numpy()) <= 2e-5
        assert relative_l2(open_decoder(model)(latents), GOLDEN["image"].numpy()) <= 1e-5


def test_the_cards_own_plan_is_the_authors_sampler() -> None:
    """Their times, guidance from t = 0.125 on, on three channels; the published run has 249 evaluations."""
    card = CARDS["lightningdit-xl-1-256"]
    assert card.sampling.shift == float(GOLDEN.metadata["timestep_shift"])
    plan = make_plan(card, steps=int(GOLDEN.metadata["num_sampling_steps"]) - 1)
    times = GOLDEN["model_times"].numpy()
    np.testing.assert_allclose([row.time for row in plan.rows], times, rtol=1e-6)
    scale, start = float(GOLDEN.metadata["cfg_scale"]), float(GOLDEN.metadata["cfg_interval_start"])
    assert [row.guidance for row in plan.rows] == [scale if time >= start else 1.0 for time in times]
    assert plan.guided_channels == int(GOLDEN.metadata["cfg_channels"])
    assert len(make_plan(card).rows) == 249


def written(weights: dict[str, Tensor], folder: Path) -> Path:
    save_file(weights, folder / "theirs.safetensors")
    return folder / "theirs.safetensors"


def test_rotary_positions_that_are_missing_are_computed(tmp_path: Path) -> None:
    left_out = {key: value for key, value in WEIGHTS.items() if "feat_rope" not in key}
    assert convert(written(left_out, tmp_path), CONFIG, tmp_path / "out.safetensors").layout == "lightningdit"
    found = load_file(tmp_path / "out.safetensors")
    assert found.keys() == WEIGHTS.keys()
    assert all(torch.equal(found[key], left_out[key]) for key in left_out)
    for key in found.keys() - left_out.keys():
        assert (found[key] - WEIGHTS[key]).abs().max() < 1e-6
    shapes = {key: tuple(value.shape) for key, value in left_out.items()}
    card = msgspec.structs.replace(CARDS["lightningdit-xl-1-256"], backbone=CONFIG, null_label=10)
    assert fitting(shapes, [card]) == [card]


def test_rotary_positions_of_another_kind_are_refused(tmp_path: Path) -> None:
    """As they are where halves are turned instead of neighbours; what bfloat16 has made of the paper's is let through."""
    key = "feat_rope.freqs_sin"
    rounded = WEIGHTS | {key: WEIGHTS[key].bfloat16().float()}
    convert(written(rounded, tmp_path), CONFIG, tmp_path / "out.safetensors")
    halves = WEIGHTS | {key: torch.cat([WEIGHTS[key][:, ::2], WEIGHTS[key][:, 1::2]], dim=1)}
    with pytest.raises(CheckpointError, match=r"feat_rope\.freqs_sin is not the fixed table of this network"):
        convert(written(halves, tmp_path), CONFIG, tmp_path / "out.safetensors")


OPTIONS = [{}, {"use_qknorm": True}, {"use_swiglu": False}, {"use_rmsnorm": False}, {"use_rope": False}, {"wo_shift": True}]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_shapes_tell_the_options(options: dict[str, bool]) -> None:
    config = msgspec.structs.replace(CONFIG, **options)
    seen = facts(network_shapes(config))
    told = ["hidden_size", "depth", "patch_size", "in_channels", "input_size", "mlp_ratio"]
    told += ["use_qknorm", "use_swiglu", "use_rmsnorm", "wo_shift"] + (["num_heads"] if config.use_rope else [])
    assert {name: str(seen[name]) for name in told} == {name: str(getattr(config, name)) for name in told}
    assert seen["kind"] == "LightningDiT"


@pytest.mark.parametrize("options", [*OPTIONS, {"mlp_ratio": 3.7}, {"mlp_ratio": 2.9, "use_swiglu": False}], ids=str)
def test_shapes_and_a_card_like_it_give_the_configuration(options: dict[str, Any]) -> None:
    config = msgspec.structs.replace(CONFIG, **options)
    like = LightningDiTConfig(use_rope=config.use_rope)
    found = LIGHTNINGDIT.config_from(network_shapes(config), like, Known(null_row=True, heads=3))
    assert network_shapes(found) == network_shapes(config)
    assert msgspec.structs.replace(found, mlp_ratio=config.mlp_ratio) == config
    assert found.mlp_width == config.mlp_width


def test_a_dit_is_none(tmp_path: Path) -> None:
    dit = Golden("dit_patch2_sigma").group("weights.")
    assert shapes_of(written(dit, tmp_path))[0] == "dit"
    with pytest.raises(CheckpointError, match="kind LightningDiT instead of DiT"):
        convert(written(WEIGHTS, tmp_path), Golden("dit_patch2_sigma").config, tmp_path / "out.safetensors")


def test_the_command_line_knows_the_family(desk: Desk) -> None:
    listed = json.loads(desk.run("list", "--family", "lightningdit", "--json").stdout)
    assert [card["name"] for card in listed] == ["lightning", "lightningdit-xl-1-256", "lightningdit-xl-1-256-64ep"]
    assert "did you mean lightningdit" in desk.fails("list", "--family", "lightning")
    refused = desk.fails("to-diffusers", "lightning", str(desk.home / "pipeline"))
    assert "diffusers has a pipeline only for DiTs on latents that predict noise; lightning is not one" in refused


def test_the_published_cards() -> None:
    guidance = {name: card.sampling.guidance for name, card in CARDS.items() if card.family == "lightningdit"}
    assert guidance == {"lightningdit-xl-1-256": 6.7, "lightningdit-xl-1-256-64ep": 10.0}
    assert CARDS["lightningdit-xl-1-256"].backbone == LightningDiTConfig()
