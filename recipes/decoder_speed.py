"""Compares ways to decode one picture with Stable Diffusion's autoencoder (random weights), side by side in one run.

    python recipes/decoder_speed.py --pixels 256 --turns 5

The ways take turns: float32 as ditzoo decodes; bfloat16; the layout channels-last; and diffusers' tiles, of 256x256 pixels. A
row has the median seconds, the factor to the first way, the peak memory of a process that decodes this way alone, and the
largest and the mean difference of the 8-bit pictures from the first one. With random weights, pictures of tiles differ from
whole ones more than trained weights would let them, or less.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from statistics import median

import numpy as np
import torch
from decoder_memory import peak, random_autoencoder
from diffusers import AutoencoderKL

from ditzoo.measure.machine import machine

SCALE = 0.18215


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pixels", type=int, default=256)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--only", choices=WAYS, help="decode once this way, and print the peak memory in MiB")
    options = parser.parse_args()
    latents = torch.from_numpy(np.random.default_rng(0).standard_normal((1, 4, options.pixels // 8, options.pixels // 8)))
    latents = latents.float() / SCALE
    if options.only:
        WAYS[options.only]()(latents)
        print(peak())
        return
    memory = {name: peak_alone(name, options.pixels) for name in WAYS}  # first: a process begins with the peak of its parent
    ways = {name: make() for name, make in WAYS.items()}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    pictures = {}
    for turn in range(1 + options.turns):
        for name, decode in ways.items():
            started = time.perf_counter()
            pictures[name] = np.clip(127.5 * decode(latents) + 128, 0, 255).astype(np.uint8).astype(int)
            if turn:
                seconds[name].append(time.perf_counter() - started)
    print(f"{options.pixels}x{options.pixels} pixels, {options.turns} turns\n")
    print("| decoder | s | times fp32 | peak MiB | largest difference | mean difference |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    first = next(iter(ways))
    for name in ways:
        off = np.abs(pictures[name] - pictures[first])
        taken = median(seconds[name])
        print(
            f"| {name} | {taken:.2f} | {median(seconds[first]) / taken:.2f} | {memory[name]} | {off.max()} | {off.mean():.2f} |"
        )
    print("\n" + ", ".join(f"{key} {value}" for key, value in machine().items()))


def peak_alone(way: str, pixels: int) -> str:
    """The peak memory in MiB of a process that decodes one picture this way."""
    command = [sys.executable, __file__, "--pixels", str(pixels), "--only", way]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


Decode = Callable[[torch.Tensor], np.ndarray]


def decoder(*, dtype: torch.dtype = torch.float32, layout: torch.memory_format | None = None, tiles: bool = False) -> Decode:
    """A function from latents to an image [1, 3, H, W], with the same random weights each time."""
    torch.manual_seed(0)
    net: AutoencoderKL = torch.nn.Module.to(random_autoencoder().eval().requires_grad_(False), dtype)
    if layout is not None:
        net = net.to(memory_format=layout)
    if tiles:
        net.enable_tiling()
        net.tile_sample_min_size, net.tile_latent_min_size = 256, 32

    def decode(latents: torch.Tensor) -> np.ndarray:
        given = latents.to(dtype)
        with torch.inference_mode():
            image: np.ndarray = net.decode(given if layout is None else given.to(memory_format=layout)).sample.float().numpy()
        return image

    return decode


WAYS: dict[str, Callable[[], Decode]] = {
    "fp32": decoder,
    "bf16": lambda: decoder(dtype=torch.bfloat16),
    "fp32, channels last": lambda: decoder(layout=torch.channels_last),
    "bf16, channels last": lambda: decoder(dtype=torch.bfloat16, layout=torch.channels_last),
    "fp32, tiles": lambda: decoder(tiles=True),
}


if __name__ == "__main__":
    main()
