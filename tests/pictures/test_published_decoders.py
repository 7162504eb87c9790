"""The files of DC-AE and of VA-VAE, from the file to the image, against what their authors' own code computed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import ditzoo
from ditzoo.bundle import Bundle
from ditzoo.errors import CheckpointError
from ditzoo.measure.metrics import relative_l2
from ditzoo.pictures import autoencoders
from ditzoo.pictures.decode import open_decoder
from ditzoo.pictures.decoding import WHOLE
from ditzoo.zoo.card import Autoencoder, Card
from ditzoo_export import export_onnx
from recipes.checkpoints import hub_server
from tests.support.golden import Golden
from tests.support.hub_models import Desk, state
from tests.support.latents_models import latents_dit
from tests.support.published import DCAE_CARD, VAVAE_CARD, dcae_file, sampled, vavae_files

pytest.importorskip("diffusers", reason="needs diffusers: pip install 'ditzoo[diffusers]'")
pytestmark = pytest.mark.filterwarnings("ignore")

DCAE, VAVAE = Golden("dcae_uvit_f32"), Golden("lightningdit")


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """A user's machine, whose cards, weights and cache of the Hub this process has too."""
    home = tmp_path_factory.mktemp("desk")
    with hub_server.serving() as hub, pytest.MonkeyPatch.context() as patch:
        desk = Desk(home, hub)
        commit = hub.commit("team/vavae", vavae_files(home))
        cards = [DCAE_CARD.format(name="imported"), DCAE_CARD.format(name="pulled"), VAVAE_CARD.format(revision=commit)]
        home.joinpath("zoo.toml").write_text("".join(cards))
        for name in ("DITZOO_CACHE", "DITZOO_ZOO"):
            patch.setenv(name, desk.env()[name])
        patch.setattr("huggingface_hub.constants.HF_HUB_CACHE", desk.env()["HF_HOME"] + "/hub")
        autoencoders.load.cache_clear()
        yield desk


@pytest.fixture(scope="module")
def cards(desk: Desk) -> dict[str, Card]:
    """The card of the DC-AE file, once it was imported and once it was pulled."""
    file = dcae_file(desk.home / "model.safetensors")
    desk.hub.commit("team/dcae", {"model.safetensors": file})
    for typed in (("import", "imported", str(file)), ("pull", "pulled")):
        done = desk.run(*typed)
        assert done.returncode == 0, done.stderr
    return {name: ditzoo.card(name) for name in ("imported", "pulled")}


@pytest.mark.parametrize("way", ["imported", "pulled"])
def test_the_dcae_file_gives_the_authors_image(way: str, cards: dict[str, Card]) -> None:
    card = cards[way]
    inputs = {name: DCAE[f"in.{name}"].numpy() for name in "xty"}
    with ditzoo.open_backend("torch", card) as backend:
        output = backend.numpy(backend({name: backend.asarray(value) for name, value in inputs.items()}))
        latents = sampled(backend, DCAE)
    assert np.abs(output - DCAE["out"].numpy()).max() <= 1e-5 * np.abs(output).max()
    assert relative_l2(latents, DCAE["latents"].numpy()) <= 2e-5
    assert relative_l2(open_decoder(card)(DCAE["latents"].numpy()), DCAE["image"].numpy()) <= 1e-5
    assert relative_l2(open_decoder(card)(latents), DCAE["image"].numpy()) <= 1e-5  # the whole way


def test_the_bundle_of_the_dcae_file_gives_the_authors_image(cards: dict[str, Card], tmp_path: Path) -> None:
    bundle = export_onnx(cards["imported"], tmp_path / "bundle")
    with ditzoo.open_backend("onnxruntime", bundle) as backend:
        latents = sampled(backend, DCAE)
    assert relative_l2(latents, DCAE["latents"].numpy()) <= 2e-5
    for each in (latents, DCAE["latents"].numpy()):
        assert relative_l2(open_decoder(bundle)(each), DCAE["image"].numpy()) <= 1e-5


def test_of_the_autoencoder_the_decoder_alone_is_kept_and_pushed(desk: Desk, cards: dict[str, Card]) -> None:
    reference = desk.run("push", cards["imported"].name, "me/team", HF_TOKEN="hf_secret").stdout.strip()
    pulled = Path(desk.run("pull", reference).stdout.strip()).with_name("decoder.safetensors")
    found = load_file(pulled)
    theirs = [key for key in DCAE.tensors if ".autoencoder.decoder." in key and not key.endswith("num_batches_tracked")]
    assert len(found) == len(theirs) + 2 * sum(".qkv." in key for key in theirs)  # q, k and v are apart
    assert all(key.startswith("decoder.") for key in found)
    assert relative_l2(open_decoder(ditzoo.card(reference))(DCAE["latents"].numpy()), DCAE["image"].numpy()) <= 1e-5


@pytest.fixture(scope="module")
def vavae(desk: Desk) -> tuple[Card, Bundle]:
    """The card of the VA-VAE with a random network, and its bundle, exported by a process that fetched the decoder."""
    config = ditzoo.card("vavae").backbone
    save_file(state(config), desk.home / "net.safetensors")
    assert desk.run("import", "vavae", str(desk.home / "net.safetensors")).returncode == 0
    done = desk.run("export", "onnx", "vavae", "--out", str(desk.home / "bundle"))
    assert done.returncode == 0, done.stderr
    return ditzoo.card("vavae"), ditzoo.open_bundle(desk.home / "bundle")


def test_the_vavae_file_gives_the_authors_image(vavae: tuple[Card, Bundle]) -> None:
    latents, image = VAVAE["latents"].numpy(), VAVAE["image"].numpy()
    for model in vavae:
        assert relative_l2(open_decoder(model)(latents), image) <= 1e-5


def test_statistics_travel_in_the_card_of_a_bundle(vavae: tuple[Card, Bundle], monkeypatch: pytest.MonkeyPatch) -> None:
    card, bundle = vavae
    assert isinstance(card.decoder, Autoencoder)
    assert isinstance(bundle.card.decoder, Autoencoder)
    assert (card.decoder.mean, card.decoder.std) == ((), ())
    assert bundle.card.decoder.mean == tuple(VAVAE["latents_stats.mean"].flatten().tolist())
    assert bundle.card.decoder.std == tuple(VAVAE["latents_stats.std"].flatten().tolist())
    monkeypatch.setattr(autoencoders, "fetch", lambda source: pytest.fail("the bundle has them"))
    assert autoencoders.with_statistics(bundle.card) == bundle.card


def test_a_shift_is_one_mean_for_all_channels() -> None:
    """image = decoder(latent / scale · std + mean), element by element."""

    class Identity(torch.nn.Module):
        def decode(self, latents: torch.Tensor, *, return_dict: bool) -> tuple[torch.Tensor]:
            return (latents,)

    config = Autoencoder(architecture="AutoencoderKL", scale=0.25, factor=1, mean=(0.5,), std=(2.0, 3.0))
    decoded = autoencoders.LatentDecoder(Identity(), config)(torch.tensor([1.0, -1.0])[None, :, None, None])
    assert decoded.flatten().tolist() == [1 / 0.25 * 2 + 0.5, -1 / 0.25 * 3 + 0.5]


@pytest.mark.parametrize(
    ("statistics", "message"),
    [
        ({"mean": torch.zeros(8)}, "does not hold 8 numbers, one per latent channel, as std"),
        ({"mean": torch.zeros(4), "std": torch.ones(1, 9, 1, 1)}, "as mean and as std"),
    ],
)
def test_wrong_statistics_are_refused(
    statistics: dict[str, torch.Tensor], message: str, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(statistics, desk.home / "latents_stats.pt")
    monkeypatch.setattr(autoencoders, "fetch", lambda source: desk.home)
    with pytest.raises(CheckpointError, match=message):
        autoencoders.with_statistics(ditzoo.card("vavae"))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("block_out_channels", [8, 8, 16_000], r"describes [\d,]+ parameters, but its files have [\d,]+ bytes"),
        ("layers_per_block", 10**9, "its config.json has the number 1000000000"),
        ("latent_channels", "four", "does not load"),
    ],
)
def test_a_configuration_that_describes_more_than_its_file_holds(
    field: str, value: object, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = latents_dit(tmp_path, monkeypatch)
    path = tmp_path / "vae" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), field: value}))
    with pytest.raises(CheckpointError, match=message):
        autoencoders.load(msgspec.structs.replace(card, summary=field), WHOLE)


def test_a_card_with_a_wrong_number_of_means_is_refused() -> None:
    card = ditzoo.card("sit-s-2-256")
    decoder = msgspec.structs.replace(card.decoder, mean=(0.0, 1.0, 2.0))
    with pytest.raises(ValueError, match=r"decoder.mean of sit-s-2-256 has 3 numbers; write one for all latent channels, or 4"):
        msgspec.structs.replace(card, decoder=decoder)
