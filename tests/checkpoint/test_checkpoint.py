"""Every published layout becomes the same canonical file; what does not fit, or would do harm, is refused by name."""

from __future__ import annotations

import json
import os
import pickle
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from ditzoo.checkpoint import convert, shapes_of
from ditzoo.checkpoint.shapes import facts, fitting, network_shapes
from ditzoo.errors import CheckpointError
from ditzoo.families import build
from ditzoo.zoo import CARDS
from ditzoo.zoo.configs import BackboneConfig, DiTConfig, UViTConfig
from tests.support.hub_models import TINY, TINY_UVIT, dcae, diffusers, state, training_checkpoint

DATA = Path(__file__).parents[1] / "data"
DIT = state(TINY)
UVIT = state(TINY_UVIT)

GOLDEN = sorted(path.stem for pattern in ("dit_p*", "uvit_*") for path in DATA.glob(f"{pattern}.safetensors"))


def converted(path: Path, config: BackboneConfig = TINY, **options: Any) -> dict[str, Tensor]:
    out = path.parent / "canonical.safetensors"
    convert(path, config, out, **options)
    return load_file(out)


def refused(path: Path, config: BackboneConfig = TINY, **options: Any) -> str:
    with pytest.raises(CheckpointError) as error:
        converted(path, config, **options)
    return str(error.value)


def sharded(weights: dict[str, Tensor], folder: Path, suffix: str) -> Path:
    keys = sorted(weights)
    parts = {f"part-1{suffix}": keys[::2], f"part-2{suffix}": keys[1::2]}
    for name, part in parts.items():
        tensors = {key: weights[key] for key in part}
        save_file(tensors, folder / name) if suffix == ".safetensors" else torch.save(tensors, folder / name)
    index = folder / f"model{suffix}.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": {key: name for name, part in parts.items() for key in part}}))
    return index


def layouts(folder: Path) -> dict[str, Path]:
    """The same DiT, as it may come."""
    theirs = diffusers(DIT, TINY)
    paths = {
        name: folder / name for name in ("original.pt", "old.pth", "diffusers.bin", "diffusers.safetensors", "ours.safetensors")
    }
    torch.save(DIT, paths["original.pt"])
    torch.save(DIT, paths["old.pth"], _use_new_zipfile_serialization=False)
    torch.save(theirs, paths["diffusers.bin"])
    save_file(theirs, paths["diffusers.safetensors"])
    save_file(DIT, paths["ours.safetensors"])
    paths["training.pt"] = training_checkpoint(DIT, folder / "training.pt")
    for suffix in (".safetensors", ".bin"):
        (folder / suffix[1:]).mkdir()
        paths[f"sharded{suffix}"] = sharded(theirs, folder / suffix[1:], suffix)
    return paths


def test_all_layouts_give_the_same_bytes(tmp_path: Path) -> None:
    written = {}
    for name, path in layouts(tmp_path).items():
        out = tmp_path / "canonical.safetensors"
        convert(path, TINY, out)
        written[name] = out.read_bytes()
    assert len(written) == 8
    assert len(set(written.values())) == 1
    found = load_file(out)
    assert found.keys() == DIT.keys()
    assert all(torch.equal(found[key], DIT[key]) for key in DIT)


@pytest.mark.parametrize("name", GOLDEN)
def test_the_authors_own_checkpoints(name: str, tmp_path: Path) -> None:
    tensors = load_file(DATA / f"{name}.safetensors")
    weights = {key.removeprefix("weights."): value for key, value in tensors.items() if key.startswith("weights.")}
    torch.save(weights, tmp_path / "theirs.pth")
    with safe_open(DATA / f"{name}.safetensors", "pt") as file:
        kind = DiTConfig if name.startswith("dit") else UViTConfig
        config = msgspec.convert(json.loads(file.metadata()["config"]), kind, strict=False)
    found = converted(tmp_path / "theirs.pth", config)
    assert found.keys() == weights.keys()
    assert all(torch.equal(found[key], weights[key]) for key in weights)


def test_the_average_of_a_training_checkpoint_is_taken(tmp_path: Path) -> None:
    expected = load_file(DATA / "dit_training_checkpoint_expected.safetensors")
    config = DiTConfig(input_size=8, patch_size=2, in_channels=4, hidden_size=64, depth=2, num_heads=4, num_classes=10)
    out = tmp_path / "canonical.safetensors"
    assert convert(DATA / "dit_training_checkpoint.pt", config, out).layout == "dit"
    net = build(config).eval()
    net.load_state_dict(load_file(out))
    inputs = {key.removeprefix("in."): value for key, value in expected.items() if key.startswith("in.")}
    with torch.inference_mode():
        result = net(**inputs)
    assert (result - expected["out"]).abs().max() <= 1e-5 * expected["out"].abs().max()


def test_a_network_and_its_autoencoder_in_one_file(tmp_path: Path) -> None:
    path, decoder = dcae(UVIT, tmp_path / "dcae.safetensors"), tmp_path / "decoder.safetensors"
    found = converted(path, TINY_UVIT, decoder=decoder, architecture="AutoencoderDC")
    assert all(torch.equal(found[key], UVIT[key]) for key in UVIT)
    theirs, ours = load_file(path), load_file(decoder)
    assert not [key for key in ours if not key.startswith("decoder.")]
    name = "autoencoder.decoder.project_in.main.conv.weight"
    assert torch.equal(ours["decoder.conv_in.weight"], theirs[name])


def test_repas_projectors_are_left_out_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A checkpoint of REPA's training (arXiv 2410.06940): the network, and three linear maps to each kind of features."""
    others = {f"projectors.0.{i}.{kind}": torch.ones(3) for i in (0, 2, 4) for kind in ("weight", "bias")}
    torch.save({"model": DIT | others, "ema": DIT | others, "opt": {}, "steps": 7}, tmp_path / "repa.pt")
    found = converted(tmp_path / "repa.pt")
    assert found.keys() == DIT.keys()
    assert all(torch.equal(found[key], DIT[key]) for key in DIT)
    assert "left out these tensors, which only the training needs: projectors.0.0.weight, projectors.0.0.bias" in caplog.text
    assert "and 1 more" in caplog.text


def test_everything_wrong_is_said_at_once(tmp_path: Path) -> None:
    weights = {key: value.clone() for key, value in DIT.items()}
    del weights["blocks.1.attn.proj.bias"]
    weights["stranger"] = torch.zeros(1)
    weights["blocks.2.adaLN_modulation.1.bias"] = torch.zeros(7)
    weights["blocks.0.mlp.fc1.bias"][3] = torch.nan
    weights["final_layer.linear.bias"][0] = torch.inf
    save_file(weights, tmp_path / "bad.safetensors")
    message = refused(tmp_path / "bad.safetensors")
    assert "missing: blocks.1.attn.proj.bias" in message
    assert "unexpected: stranger" in message
    assert "misshapen: blocks.2.adaLN_modulation.1.bias [7] instead of [576]" in message
    assert "NaN or Inf: blocks.0.mlp.fc1.bias, final_layer.linear.bias" in message
    assert not (tmp_path / "canonical.safetensors").exists()


def test_copies_of_the_embedders_must_agree(tmp_path: Path) -> None:
    theirs = diffusers(DIT, TINY)
    key = "transformer_blocks.2.norm1.emb.class_embedder.embedding_table.weight"
    theirs[key] = theirs[key] + 1e-7
    save_file(theirs, tmp_path / "bad.safetensors")
    assert f"differ from those of block 0: {key}" in refused(tmp_path / "bad.safetensors")


@pytest.mark.parametrize(
    "dtype",
    [torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn, torch.float8_e5m2],
)
def test_other_precisions_are_reported(dtype: torch.dtype, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save_file({key: value.to(dtype) for key, value in DIT.items()}, tmp_path / "half.safetensors")
    found = converted(tmp_path / "half.safetensors")
    assert all(torch.equal(found[key], DIT[key].to(dtype).float()) for key in DIT if key != "pos_embed")
    assert torch.equal(found["pos_embed"], DIT["pos_embed"])
    assert f"is not float32 in {len(DIT) - 1} tensors: blocks.0.adaLN_modulation.1.bias ({str(dtype)[6:]})" in caplog.text


def test_another_network_is_recognised(tmp_path: Path) -> None:
    other = msgspec.structs.replace(TINY, depth=2, learn_sigma=False)
    save_file(state(other), tmp_path / "other.safetensors")
    card = msgspec.structs.replace(CARDS["dit-s-2"], name="mine", backbone=other, null_label=10)
    message = refused(tmp_path / "other.safetensors", cards=[*CARDS.values(), card])
    assert "depth 2 instead of 3, output channels 4 instead of 8 (it fits mine)" in message
    save_file(UVIT, tmp_path / "other.safetensors")
    assert "kind U-ViT instead of DiT" in refused(tmp_path / "other.safetensors")


@pytest.mark.parametrize("name", CARDS)
def test_shapes_tell_the_card(name: str) -> None:
    card = CARDS[name]
    shapes = network_shapes(card.backbone)
    assert [fit.backbone for fit in fitting(shapes, [card])] == [card.backbone]
    assert sum(int(np.prod(shape)) for shape in shapes.values()) == card.backbone.parameters
    seen = facts(shapes)
    if isinstance(card.backbone, UViTConfig):
        expected = {key: getattr(card.backbone, key) for key in ("embed_dim", "depth", "patch_size", "in_chans", "num_classes")}
    else:
        expected = {
            key: getattr(card.backbone, key) for key in ("hidden_size", "depth", "patch_size", "in_channels", "input_size")
        }
    assert {key: seen[key] for key in expected} == expected


class Harmful:
    """Pickled, it would make a folder when loaded."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("ditzoo-was-here",)


def test_a_pickle_that_would_run_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"ema": Harmful()}, "zip.pt")
    Path("raw.bin").write_bytes(pickle.dumps({"x_embedder.proj.weight": Harmful()}))
    torch.save({"x_embedder.proj.weight": Harmful()}, "old.pt", _use_new_zipfile_serialization=False)
    for name in ("zip.pt", "raw.bin", "old.pt"):
        message = refused(Path(name).absolute())
        assert "was not loaded" in message
        assert "\n" not in message
    assert not Path("ditzoo-was-here").exists()


def test_files_that_lie_about_themselves(tmp_path: Path) -> None:
    huge = tmp_path / "huge.safetensors"
    huge.write_bytes((2**60).to_bytes(8, "little") + b"{" * 100)
    assert "is not a safetensors file" in refused(huge)
    short = tmp_path / "short.safetensors"
    save_file(DIT, short)
    os.truncate(short, short.stat().st_size - 1)
    assert "whose end is missing; download it again" in refused(short)
    torch.save(DIT, tmp_path / "cut.pt")
    os.truncate(tmp_path / "cut.pt", 10_000)
    assert "damaged torch file: its end is missing" in refused(tmp_path / "cut.pt")
    index = tmp_path / "model.index.json"
    for name in ("../secret.safetensors", "/etc/passwd", "a/b.safetensors", ".."):
        index.write_text(json.dumps({"weight_map": {"key": name}}))
        assert "outside its folder" in refused(index)
    assert "cannot read" in refused(tmp_path / "nothing.pt")


@given(st.binary(max_size=200) | st.binary(max_size=200).map(lambda content: b"\x80\x02" + content))
def test_random_bytes_are_refused(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "random"
        path.write_bytes(content)
        with pytest.raises(CheckpointError):
            shapes_of(path)


def test_a_network_of_another_family_is_recognised_in_any_layout(tmp_path: Path) -> None:
    save_file(diffusers(DIT, TINY), tmp_path / "other.safetensors")
    assert "kind DiT instead of U-ViT" in refused(tmp_path / "other.safetensors", TINY_UVIT)
