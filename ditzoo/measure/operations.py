"""How much arithmetic a network is, counted operation by operation."""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode

from ditzoo.families import build
from ditzoo.specs import resized
from ditzoo.zoo.configs import BackboneConfig
from ditzoo.zoo.sizes import Size


def multiply_adds(config: BackboneConfig, *, batch: int = 1, size: Size | None = None) -> int:
    """The multiply-adds of one evaluation of the network on `batch` latents: what the papers' tables call Gflops, times 1e9.

    `size` is the height and width of the latents, by default those of training.

    Counts matrix products, convolutions and attention; element by element work is left out, as the papers do. Nothing is
    computed: the network runs on torch's meta device.
    """
    with torch.device("meta"):
        net = build(config).eval()
        specs = net.inputs if size is None else [resized(spec, size) for spec in net.inputs]
        inputs = {spec.name: torch.zeros(spec.concrete(batch=batch), dtype=getattr(torch, spec.dtype)) for spec in specs}
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            net(**inputs)
    return int(counter.get_total_flops()) // 2
