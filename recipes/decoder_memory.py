"""Measures the memory that decoding takes, with Stable Diffusion's autoencoder (random weights) on 512x512 pictures.

    python recipes/decoder_memory.py 1
    python recipes/decoder_memory.py 16

The argument is the number of pictures. Prints the peak memory of the process before and after decoding, in MiB. ditzoo decodes
as many latents at once as make 512x512 pixels together, so the peak should not grow with the number of pictures.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from diffusers import AutoencoderKL

import ditzoo
from ditzoo.pictures import autoencoders
from ditzoo.zoo.card import OnHub

SIZES = (128, 256, 512, 512)


def random_autoencoder() -> AutoencoderKL:
    """Stable Diffusion's autoencoder with random weights."""
    blocks = len(SIZES)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * blocks,
        up_block_types=("UpDecoderBlock2D",) * blocks,
        block_out_channels=SIZES,
        layers_per_block=2,
        latent_channels=4,
        sample_size=512,
    )


def peak() -> int:
    """The peak memory of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def main() -> None:
    count = int(sys.argv[1])
    card = ditzoo.card("dit-xl-2-512")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        random_autoencoder().save_pretrained(folder)

        def local(source: OnHub, **_: object) -> Path:
            return folder

        autoencoders.fetch = local
        latents = np.random.default_rng(0).standard_normal((count, *card.backbone.latent_shape)).astype(np.float32)
        loaded, started = peak(), time.perf_counter()
        pictures = ditzoo.decode(card, 0.18215 * latents)
    print(
        f"{count} pictures {pictures.shape[1:]}: peak {peak()} MiB ({loaded} MiB before), {time.perf_counter() - started:.0f} s"
    )


if __name__ == "__main__":
    main()
