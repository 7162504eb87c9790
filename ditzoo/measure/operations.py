"""Counts the multiply-adds of a network, operation by operation."""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode

from ditzoo.families import build
from ditzoo.specs import resized
from ditzoo.zoo.configs import BackboneConfig
from ditzoo.zoo.sizes import Size


def multiply_adds(config: BackboneConfig, *, batch: int = 1, size: Size | None = None) -> int:
    """The number of multiply-adds of one evaluation of the network on `batch` latents.

    The tables of the papers give this number, divided by 1e9, as Gflops. `size` is the height and width of the latents; the
    default is that of training. Matrix multiplications, convolutions and attention are counted. Elementwise operations are
    not, as in the papers. Nothing is computed: the network runs on torch's meta device.
    """
    with torch.device("meta"):
        net = build(config).eval()
        specs = net.inputs if size is None else [resized(spec, size) for spec in net.inputs]
        inputs = {spec.name: torch.zeros(spec.concrete(batch=batch), dtype=getattr(torch, spec.dtype)) for spec in specs}
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            net(**inputs)
    return int(counter.get_total_flops()) // 2
