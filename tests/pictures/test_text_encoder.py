"""Prompts, decoders and bundles that bring both: with torch, and in an environment that has none."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ditzoo
from ditzoo.cli import run
from ditzoo.errors import CheckpointError, UsageError
from ditzoo.measure.metrics import relative_l2
from ditzoo.measure.parity import psnr
from ditzoo.pictures import autoencoders
from ditzoo.pictures import text_encoder as text
from ditzoo.pictures.decode import SLICE, open_decoder, pixel_values
from ditzoo.pictures.decoding import WHOLE, Decoding
from ditzoo.pictures.text_encoder import open_encoder, prompt_condition, tokenize
from ditzoo.sampling.loop import sample_steps
from ditzoo.zoo.card import Card
from ditzoo_export import export_onnx
from tests.support.bare import bare
from tests.support.latents_models import TOKENS, WIDTH, autoencoder, text_to_image

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")

PROMPTS = ["a red cat", "a much longer prompt than fits"]


@pytest.fixture(scope="module", params=["AutoencoderKL", "AutoencoderDC"])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Card, Path]]:
    """A card with its files in a folder, and, as "bundle" in there, its export."""
    folder = tmp_path_factory.mktemp("world")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DITZOO_CACHE", str(folder / "cache"))
        card = text_to_image(folder, patch, architecture=request.param)
        export_onnx(card, folder / "bundle")
        yield card, folder


@pytest.fixture
def card(world: tuple[Card, Path]) -> Card:
    return world[0]


@pytest.fixture
def folder(world: tuple[Card, Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(world[1])
    return world[1]


def test_tokens_are_those_of_transformers(card: Card, folder: Path) -> None:
    from transformers import PreTrainedTokenizerFast

    theirs = PreTrainedTokenizerFast(tokenizer_file=str(folder / "clip/tokenizer.json"), pad_token="<|endoftext|>")
    expected = theirs([*PROMPTS, ""], truncation=True, max_length=TOKENS, padding="max_length", return_tensors="np")
    assert card.text is not None
    ours = tokenize(folder / "clip/tokenizer.json", card.text, [*PROMPTS, ""])
    assert ours.shape == (3, TOKENS)
    assert np.array_equal(ours, expected["input_ids"])


def test_embeddings_are_cached(card: Card, monkeypatch: pytest.MonkeyPatch) -> None:
    first = prompt_condition(card, PROMPTS)
    monkeypatch.setattr(text, "open_encoder", lambda model: pytest.fail("encoded again"))
    again = prompt_condition(card, PROMPTS[::-1])
    assert first.values.shape == (2, TOKENS, WIDTH)
    assert np.array_equal(first.values, again.values[::-1])
    assert first.null is not None
    assert np.array_equal(first.null, again.null)  # type: ignore[arg-type]


def test_decoders_agree_with_their_class(card: Card) -> None:
    import torch

    latents = np.random.default_rng(0).standard_normal((3, 4, 8, 8)).astype(np.float32)
    expected = autoencoder(card.decoder.architecture).decode(torch.from_numpy(latents) / 0.2301).sample.detach().numpy()  # type: ignore[union-attr]
    assert relative_l2(open_decoder(card)(latents), expected) <= 1e-6
    values = pixel_values(card, latents)
    assert values.shape == (3, 32, 32, 3)
    assert np.array_equal(values, np.clip(127.5 * open_decoder(card)(latents).transpose(0, 2, 3, 1) + 128, 0, 255))


def test_large_batches_are_decoded_in_slices(card: Card) -> None:
    """So that the memory that it takes does not grow with the number of images."""
    net, sizes = autoencoders.load(card, WHOLE), list[int]()
    hook = net.register_forward_hook(lambda module, args, output: sizes.append(output.numel() // 3))
    count = SLICE // (32 * 32) + 5
    images = open_decoder(card)(np.zeros((count, 4, 8, 8), dtype=np.float32))
    hook.remove()
    assert len(images) == count
    assert len(sizes) == 2
    assert max(sizes) <= SLICE


def test_a_decoder_in_bf16_is_that_of_its_class(card: Card) -> None:
    import torch

    latents = np.random.default_rng(0).standard_normal((3, 4, 8, 8)).astype(np.float32)
    net = torch.nn.Module.to(autoencoder(card.decoder.architecture), torch.bfloat16)  # type: ignore[union-attr]
    theirs = net.decode((torch.from_numpy(latents) / 0.2301).bfloat16()).sample.float().detach().numpy()
    ours, in_fp32 = open_decoder(card, decoding=Decoding(precision="bf16"))(latents), open_decoder(card)(latents)
    assert ours.dtype == np.float32
    assert relative_l2(ours, theirs) <= 1e-2
    assert 1e-4 <= relative_l2(ours, in_fp32) <= 2e-2


def test_tiles_are_decoded_one_by_one(card: Card, monkeypatch: pytest.MonkeyPatch) -> None:
    """What no other tile overlaps is what the tile alone decodes to. A picture of one tile is decoded whole."""
    monkeypatch.setattr(autoencoders, "TILE", 16)
    latents = np.random.default_rng(0).standard_normal((2, 4, 8, 8)).astype(np.float32)
    whole, tiled = open_decoder(card)(latents), open_decoder(card, decoding=Decoding(tiles=True))
    images = tiled(latents)
    assert images.shape == whole.shape == (2, 3, 32, 32)
    assert relative_l2(images, whole) >= 1e-3
    first = tiled(latents[:, :, :4, :4])
    assert first.shape == (2, 3, 16, 16)
    assert relative_l2(images[:, :, :12, :12], first[:, :, :12, :12]) <= 1e-6
    assert relative_l2(first, open_decoder(card)(latents[:, :, :4, :4])) <= 1e-6


def test_a_bundle_with_a_decoder_takes_no_way_of_decoding(card: Card, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match=r"has its own graph of the decoder; leave out the decoding bf16, or use .* name"):
        open_decoder(ditzoo.open_bundle(folder / "bundle"), decoding=Decoding(precision="bf16"))
    assert run(["sample", "bundle", "--prompt", "a cat", "--decoding", "tiles"]) == 2
    assert "leave out the decoding fp32,tiles" in capfd.readouterr().err


def test_a_bundle_turns_a_prompt_into_the_same_image_without_torch(card: Card, folder: Path, bare_python: Path) -> None:
    bundle = ditzoo.open_bundle(folder / "bundle")
    assert set(bundle.manifest.graphs) == {"backbone", "decoder", "text_encoder"}
    assert relative_l2(open_encoder(bundle)(PROMPTS), open_encoder(card)(PROMPTS)) <= 1e-5
    latents = np.random.default_rng(0).standard_normal((2, 4, 8, 8)).astype(np.float32)
    assert relative_l2(open_decoder(bundle)(latents), open_decoder(card)(latents)) <= 1e-5

    with ditzoo.open_backend("torch", card) as backend:
        steps = sample_steps(backend, bundle.plan, count=2, condition=prompt_condition(card, PROMPTS), seed=3)
        (*_, last) = steps
        expected = pixel_values(card, backend.numpy(last.x))
    prompts = [option for prompt in PROMPTS for option in ("--prompt", prompt)]
    typed = ["sample", "bundle", *prompts, "--seed", "3", "--out", "pictures"]
    done = bare(bare_python, *typed, cwd=folder)
    assert done.returncode == 0, done.stderr
    pictures = [np.asarray(Image.open(folder / path), dtype=np.float32) for path in done.stdout.split()]
    assert (psnr(np.stack(pictures), np.floor(expected)) or np.inf) >= 50


def test_the_command_line_draws_from_a_file_of_prompts(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    Path("prompts.txt").write_text("a red cat\n\nétoile\n", encoding="utf-8")
    assert run(["sample", "bundle", "--prompts", "prompts.txt", "--num", "3", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["prompts"] == ["a red cat", "étoile", "a red cat"]


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("sample bundle", "draws from text: give prompts (--prompt"),
        ("sample bundle --classes 3", "draws from text"),
        ("sample bundle --prompts missing.txt", "--prompts: cannot read missing.txt"),
        ("sample dit-digits --prompt cat", "dit-digits takes no prompts; choose classes (--classes)"),
    ],
)
def test_wrong_prompts_are_one_clear_line(typed: str, message: str, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(typed.split()) == 2
    error = capfd.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ")
    assert message in error


def test_a_model_without_text_takes_no_prompt() -> None:
    with pytest.raises(UsageError, match="takes no prompt"):
        prompt_condition(ditzoo.card("dit-digits"), ["a cat"])


def test_a_damaged_decoder_is_one_clear_error(
    card: Card, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(folder / "vae", tmp_path / "vae")
    (tmp_path / "vae/diffusion_pytorch_model.safetensors").write_bytes(b"damaged")
    monkeypatch.setattr("ditzoo.pictures.autoencoders.fetch", lambda source: tmp_path)
    autoencoders.load.cache_clear()
    with pytest.raises(CheckpointError, match="does not load"):
        open_decoder(card)
