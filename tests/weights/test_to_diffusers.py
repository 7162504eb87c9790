"""Against diffusers itself: its DiT, converted by us, computes the same once it computes what the paper says."""

from __future__ import annotations

import json
import resource
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import torch
from safetensors.torch import load_file, save_file

import ditzoo
from ditzoo.checkpoint import convert
from ditzoo.errors import UsageError
from ditzoo.families import build
from ditzoo.weights.to_diffusers import to_diffusers
from ditzoo.zoo.card import Autoencoder
from ditzoo.zoo.configs import DiTConfig
from recipes.checkpoints import hub_server
from tests.support.hub_models import Desk, state

diffusers = pytest.importorskip("diffusers", reason="needs diffusers: pip install 'ditzoo[diffusers]'")
pytestmark = pytest.mark.filterwarnings("ignore")

from recipes.checkpoints.diffusers_dit import SIZES, SMALL, correct_eps, correct_sinusoids, random_dit  # noqa: E402


@pytest.mark.parametrize("config", SIZES, ids=["64 wide", "144 wide", "256 wide"])
def test_the_same_network_once_the_differences_are_mended(config: DiTConfig, tmp_path: Path) -> None:
    reference = random_dit(config)
    reference.save_pretrained(tmp_path)
    convert(tmp_path / "diffusion_pytorch_model.safetensors", config, tmp_path / "ours.safetensors")
    net = build(config).eval()
    net.load_state_dict(load_file(tmp_path / "ours.safetensors"))
    x = torch.randn(4, *config.latent_shape)
    t, y = torch.tensor([0, 100, 500, 999]), torch.tensor([0, 1, config.num_classes - 1, config.num_classes])

    def difference() -> torch.Tensor:
        with torch.inference_mode():
            expected = reference(x, timestep=t, class_labels=y).sample
            return (net(x, t.float(), y) - expected).abs().amax(dim=(1, 2, 3)) / expected.abs().max()

    as_published = difference()
    assert as_published[0] < 1e-4  # at t = 0 the sinusoids agree, and only the eps differs
    assert as_published[1:].min() > 1e-3
    correct_sinusoids(reference)
    correct_eps(reference)
    assert difference().max() < 1e-5


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with hub_server.serving() as server:
        yield Desk(tmp_path, server)


def test_a_pipeline_that_diffusers_loads(desk: Desk) -> None:
    config = DiTConfig(input_size=8, hidden_size=32, depth=2, num_heads=2)
    vae = diffusers.AutoencoderKL(block_out_channels=(32,), latent_channels=4)
    vae.save_pretrained(desk.home / "vae")
    names = ("config.json", "diffusion_pytorch_model.safetensors")
    desk.hub.commit("team/vae", {name: desk.home / "vae" / name for name in names})
    desk.home.joinpath("zoo.toml").write_text(
        f"""[tiny]
base = "dit-s-2"
backbone = {{input_size = 8, hidden_size = 32, depth = 2, num_heads = 2}}
[tiny.decoder.source]
repo = "team/vae"
revision = "{next(iter(desk.hub.repos["team/vae"]))}"
files = [{{path = "{names[0]}"}}, {{path = "{names[1]}"}}]
"""
    )
    weights = state(config)
    save_file(weights, desk.home / "tiny.safetensors")
    desk.run("import", "tiny", str(desk.home / "tiny.safetensors"))
    out = desk.home / "pipeline"
    assert desk.run("to-diffusers", "tiny", str(out)).stdout.strip() == str(out)
    asked = len(desk.hub.log)
    assert desk.run("to-diffusers", "tiny", str(desk.home / "offline"), HF_HUB_OFFLINE="1").returncode == 0
    assert len(desk.hub.log) == asked  # the decoder is here too
    pipeline = diffusers.DiTPipeline.from_pretrained(out)
    assert pipeline.get_label_ids(["golden retriever"]) == [207]
    correct_sinusoids(pipeline.transformer)
    correct_eps(pipeline.transformer)
    net = build(config).eval()
    net.load_state_dict(weights)
    x, t, y = torch.randn(2, 4, 8, 8), torch.tensor([10, 900]), torch.tensor([3, 1000])
    with torch.inference_mode():
        expected = net(x, t.float(), y)
        found = pipeline.transformer(x, timestep=t, class_labels=y).sample
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()
    images = pipeline([1], num_inference_steps=2, output_type="np").images
    assert images.shape == (1, 8, 8, 3)
    assert "exists already" in desk.fails("to-diffusers", "tiny", str(out))
    assert "diffusers has a pipeline only for" in desk.fails("to-diffusers", "uvit-digits", str(desk.home / "other"))


def test_a_model_that_the_pipeline_would_guide_with_a_wrong_label_is_refused(desk: Desk) -> None:
    """The pipeline's null label is 1000: with 10 classes it is out of range, with 2000 it is a class."""
    cards = "".join(
        f'[few-{count}]\nbase = "dit-s-2"\nnull_label = {count}\nbackbone.num_classes = {count}\n' for count in (10, 2000)
    )
    desk.home.joinpath("zoo.toml").write_text(cards)
    for count in (10, 2000):
        line = desk.fails("to-diffusers", f"few-{count}", str(desk.home / "pipeline"))
        assert f"few-{count} has {count} classes and the null label {count}" in line
    assert not (desk.home / "pipeline").exists()
    assert "always uses 1000 as the null label" in line


def test_a_repository_of_diffusers_is_recognised(desk: Desk) -> None:
    desk.home.joinpath("zoo.toml").touch()
    random_dit(SMALL).save_pretrained(desk.home / "net")
    published = desk.home / "net" / "diffusion_pytorch_model.safetensors"
    for side, expected in ((32, "dit-s-2, sit-s-2-256"), (64, "name a card with the same conventions: --like CARD")):
        old = {"_class_name": "Transformer2DModel", "sample_size": side, "num_embeds_ada_norm": 1000}
        files = {"config.json": json.dumps(old).encode(), "diffusion_pytorch_model.safetensors": published}
        desk.hub.commit(f"me/dit-{side}", {f"transformer/{name}": content for name, content in files.items()})
        assert expected in desk.fails("pull", f"hf:me/dit-{side}")
    path = desk.run("pull", "hf:me/dit-32", "--like", "dit-s-2").stdout.strip()
    convert(published, SMALL, desk.home / "expected.safetensors")
    assert Path(path).read_bytes() == desk.home.joinpath("expected.safetensors").read_bytes()


def test_a_full_disk_leaves_no_half_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit on the size of files stands for the disk: the weights of the decoder are too large."""
    config = DiTConfig(input_size=8, hidden_size=32, depth=2, num_heads=2)
    card = msgspec.structs.replace(ditzoo.card("dit-s-2"), backbone=config)
    save_file(state(config), tmp_path / "tiny.safetensors")
    assert isinstance(card.decoder, Autoencoder)
    assert card.decoder.source is not None
    for file in card.decoder.source.files:
        (tmp_path / file.path).parent.mkdir(exist_ok=True)
        (tmp_path / file.path).write_bytes(bytes(2_000_000))
    monkeypatch.setattr("ditzoo.weights.to_diffusers.weights_file", lambda card: tmp_path / "tiny.safetensors")
    monkeypatch.setattr("ditzoo.weights.to_diffusers.fetch", lambda source, patience: tmp_path)
    before = sorted(tmp_path.iterdir())
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limit[1]))
    try:
        with pytest.raises(UsageError, match="pipeline was not written: a file would exceed the largest size"):
            to_diffusers(card, tmp_path / "pipeline")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert sorted(tmp_path.iterdir()) == before
    to_diffusers(card, tmp_path / "pipeline")
    assert (tmp_path / "pipeline" / "model_index.json").is_file()
