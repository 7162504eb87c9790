"""Measures the export of DiT-XL/2 (random weights): time, peak memory and sizes of the ONNX graphs and of the engines.

    python recipes/xl2/measure.py --precision fp16 --resolution 256,512 --batch 2-8 --gpu sm89 --out measured
    python recipes/xl2/measure.py --precision fp32 --onnx-only --out measured

The weights are made once, by a process of its own, and stay in ditzoo's cache as an imported checkpoint (2.7 GB). The process's
peak memory is that of all that it did, so measure ONNX and engines in runs of their own: the second finds the graphs of the
first in the cache. The model has no decoder: what is measured is the network.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import save_file

from ditzoo import hub, nets
from ditzoo.card import Autoencoder, Card, DiscreteBetas, DiTConfig, Sampling, TimeInput, Unreleased
from ditzoo_export import cached_bundle, export_engines, make_engine_settings

XL2 = Card(
    name="dit-xl-2-random",
    summary="DiT-XL/2 with random weights, to measure with",
    backbone=DiTConfig(),
    weights=Unreleased(),
    schedule=DiscreteBetas(spacing="linear", start=1e-4, end=0.02),
    time=TimeInput(offset=-1.0),
    prediction="noise",
    sampling=Sampling(solver="ddpm", steps=250, guidance=1.5, guided_channels=3),
    null_label=1000,
    classes="imagenet",
    decoder=Autoencoder(architecture="AutoencoderKL", source=None, scale=0.18215, factor=8),
    licence="none",
    citation="https://arxiv.org/abs/2212.09748",
    data="none",
)


def random_net() -> nets.Net:
    """A DiT whose every weight is random: a fresh one gives zeros, which verify nothing."""
    torch.manual_seed(0)
    net = nets.build(XL2.backbone).eval().requires_grad_(False)
    for name, weight in net.named_parameters():
        if "adaLN" in name or "final_layer" in name:
            weight.normal_(0, 0.02)
    return net


def keep_weights() -> None:
    """Takes the random network into ditzoo's cache, as a user's own checkpoint."""
    from ditzoo.hub.pull import import_file

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "random.safetensors"
        save_file(dict(random_net().named_parameters()), file)
        import_file(XL2, file)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the export of DiT-XL/2.")
    parser.add_argument("--precision", default="fp16")
    parser.add_argument("--resolution", default="256,512")
    parser.add_argument("--batch", default="2-8")
    parser.add_argument("--gpu", default="sm89")
    parser.add_argument("--onnx-only", action="store_true")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    settings = make_engine_settings(
        XL2, gpu=options.gpu, resolution=options.resolution, batch=options.batch, precision=options.precision
    )
    if hub.state(XL2) != "cached":
        making = multiprocessing.get_context("spawn").Process(target=keep_weights)
        making.start()
        making.join()
    started = time.perf_counter()
    bundle = cached_bundle(XL2, settings=settings.onnx)
    report = {"onnx": _files(bundle.manifest.files), "onnx_seconds": time.perf_counter() - started}
    report["verified"] = [bundle.manifest.verified.random, bundle.manifest.verified.trajectory]
    if not options.onnx_only:
        started = time.perf_counter()
        engines = export_engines(XL2, options.out, settings=settings, overwrite=True)
        report["engines"] = _files(engines.manifest.files)
        report["seconds"] = {name: engine.seconds for name, engine in engines.manifest.engines.items()}
        report["engines_seconds"] = time.perf_counter() - started
    report["peak_memory_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    report["weights_bytes"] = 4 * XL2.backbone.parameters
    print(json.dumps(report, indent=1))


def _files(files: dict[str, object]) -> dict[str, int]:
    return {name: record.size for name, record in files.items() if record.size > 2**20}  # type: ignore[attr-defined]


if __name__ == "__main__":
    main()
