"""The parts that several cards share: decoders, the text encoder, data sets.

Repositories, revisions and sizes come from third parties. A pull checks them.
"""

from __future__ import annotations

from ditzoo.zoo.card import Autoencoder, File, OnHub, TextEncoder

VAE_FILES = (
    File(path="config.json"),
    File(path="diffusion_pytorch_model.safetensors", size=334_643_276),
)

VAE_EMA = Autoencoder(
    architecture="AutoencoderKL",
    source=OnHub(repo="stabilityai/sd-vae-ft-ema", revision="f04b2c4b98319346dad8c65879f680b1997b204a", files=VAE_FILES),
    scale=0.18215,
    factor=8,
)
"""Stable Diffusion's autoencoder with a decoder fine-tuned with an average of weights. The FIDs were measured with it."""

VAE_V1_SOURCE = OnHub(
    repo="CompVis/stable-diffusion-v1-4",
    revision=None,
    files=(File(path="vae/config.json"), File(path="vae/diffusion_pytorch_model.safetensors")),
)
VAE_V1 = Autoencoder(architecture="AutoencoderKL", source=VAE_V1_SOURCE, scale=0.18215, factor=8)
VAE_COCO = Autoencoder(architecture="AutoencoderKL", source=VAE_V1_SOURCE, scale=0.23010, factor=8)
"""Stable Diffusion's first autoencoder. The scale for the COCO models comes from their authors' evaluation script."""

DCAE_F32 = Autoencoder(architecture="AutoencoderDC", source=None, scale=0.3189, factor=32)
DCAE_F64 = Autoencoder(architecture="AutoencoderDC", source=None, scale=0.2889, factor=64)
"""The deep compression autoencoders (DC-AE, arXiv 2410.10733). Their weights are in the files of the diffusion models."""

CLIP = TextEncoder(
    source=OnHub(
        repo="openai/clip-vit-large-patch14",
        revision="32bd64288804d66eefd0ccbe215aa642df71cc41",
        files=tuple(
            File(path=path)
            for path in (
                "config.json",
                "model.safetensors",
                "vocab.json",
                "merges.txt",
                "tokenizer.json",
                "tokenizer_config.json",
                "special_tokens_map.json",
            )
        ),
    )
)

IMAGENET_256 = "ImageNet-1k, 256x256"
IMAGENET_512 = "ImageNet-1k, 512x512"
