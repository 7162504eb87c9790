"""Small random models of the kinds that need a decoder or text: folders as the Hub has them, and their cards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from safetensors.torch import save_file

from ditzoo.files import sha256
from ditzoo.zoo.card import Autoencoder, Card, Embedded, File, OnHub, Sampling, TextEncoder
from tests.support.export_models import TINY_DIT, random_model
from tests.support.golden import Golden
from tests.support.solvers_world import DISCRETE

TOKENS, WIDTH = 7, 24


def on_hub(name: str) -> OnHub:
    return OnHub(repo=f"nobody/{name}", revision=None, files=(File(path=f"{name}/config.json"),))


def autoencoder(architecture: str) -> Any:
    """A random autoencoder that makes images four times as high and wide of latents of four channels."""
    import diffusers

    torch.manual_seed(0)
    if architecture == "AutoencoderKL":
        blocks = ("DownEncoderBlock2D",) * 3, ("UpDecoderBlock2D",) * 3
        net = diffusers.AutoencoderKL(
            down_block_types=blocks[0], up_block_types=blocks[1], block_out_channels=(8, 8, 16), norm_num_groups=4
        )
    else:
        net = diffusers.AutoencoderDC(
            latent_channels=4,
            attention_head_dim=8,
            encoder_block_types=("ResBlock", "ResBlock", "EfficientViTBlock"),
            decoder_block_types=("ResBlock", "ResBlock", "EfficientViTBlock"),
            encoder_block_out_channels=(8, 16, 16),
            decoder_block_out_channels=(8, 16, 16),
            encoder_layers_per_block=(1, 1, 1),
            decoder_layers_per_block=(1, 1, 1),
            encoder_qkv_multiscales=((), (), ()),
            decoder_qkv_multiscales=((), (), ()),
        )
    return net.eval()


def text_encoder(folder: Path) -> None:
    """A random CLIP text encoder and a tokenizer of bytes, saved as the Hub has them."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(0)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([*alphabet, "<|startoftext|>", "<|endoftext|>"])}
    start, end = vocabulary["<|startoftext|>"], vocabulary["<|endoftext|>"]
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|startoftext|> $A <|endoftext|>", special_tokens=[("<|startoftext|>", start), ("<|endoftext|>", end)]
    )
    config = CLIPTextConfig(
        vocab_size=len(vocabulary),
        hidden_size=WIDTH,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=TOKENS,
        bos_token_id=start,
        eos_token_id=end,
        pad_token_id=end,
    )
    CLIPTextModel(config).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))


def latents_dit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, architecture: str = "AutoencoderKL") -> Card:
    """A DiT of ten classes on latents of 8x8, with random weights, and a random decoder, both in files in `tmp_path`."""
    model, net = random_model(TINY_DIT)
    autoencoder(architecture).save_pretrained(tmp_path / "vae")
    save_file(net.state_dict(), tmp_path / "latents.safetensors")
    monkeypatch.setattr("ditzoo.weights.local.ASSETS", tmp_path)
    for user in ("pictures.autoencoders", "weights.identity"):
        monkeypatch.setattr(f"ditzoo.{user}.fetch", lambda source: tmp_path)
    source = on_hub("vae")
    files = (*source.files, File(path="vae/diffusion_pytorch_model.safetensors"))
    return msgspec.structs.replace(
        model,
        name=f"latents-{architecture.lower()}",
        weights=Embedded(file="latents.safetensors", sha256=sha256(tmp_path / "latents.safetensors")),
        sampling=msgspec.structs.replace(model.sampling, steps=4, guided_channels=4),
        decoder=Autoencoder(
            architecture=architecture,  # type: ignore[arg-type]
            source=msgspec.structs.replace(source, files=files),
            scale=0.2301,
            factor=4,
        ),
    )


def text_to_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, architecture: str = "AutoencoderKL") -> Card:
    """A text-to-image card: the golden network, a random decoder and text encoder, fetched from folders in `tmp_path`."""
    golden, folders = Golden("uvit_t2i"), {"vae": tmp_path / "vae", "clip": tmp_path / "clip"}
    autoencoder(architecture).save_pretrained(folders["vae"])
    text_encoder(folders["clip"])
    save_file(golden.group("weights."), tmp_path / "t2i.safetensors")
    monkeypatch.setattr("ditzoo.weights.local.ASSETS", tmp_path)
    for user in ("pictures.autoencoders", "pictures.text_encoder", "weights.identity"):
        monkeypatch.setattr(f"ditzoo.{user}.fetch", lambda source: tmp_path)
    return msgspec.structs.replace(
        DISCRETE,
        name=f"t2i-{architecture.lower()}",
        backbone=golden.config,
        weights=Embedded(file="t2i.safetensors", sha256=sha256(tmp_path / "t2i.safetensors")),
        sampling=Sampling(solver="dpmpp-fast", steps=6, guidance=2.0, guided_channels=4),
        null_label=None,
        classes=None,
        decoder=Autoencoder(architecture=architecture, source=on_hub("vae"), scale=0.2301, factor=4),  # type: ignore[arg-type]
        text=TextEncoder(source=on_hub("clip"), tokens=TOKENS, width=WIDTH),
    )
