"""Measures the export of DiT-XL/2 with random weights: the time, the peak memory, and the sizes of ONNX graphs and engines.

    python recipes/export_xl2.py --precision fp16 --resolution 256,512 --batch 2-8 --gpu sm89 --out measured
    python recipes/export_xl2.py --precision fp32 --onnx-only --out measured

The peak memory is that of the whole process. To measure the engines alone, first run this with --onnx-only. The second run,
without it, finds the ONNX graphs in ditzoo's cache.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from pathlib import Path

from random_models import random_model

from ditzoo_export import cached_bundle, export_engines, make_engine_settings


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the export of DiT-XL/2.")
    parser.add_argument("--precision", default="fp16")
    parser.add_argument("--resolution", default="256,512")
    parser.add_argument("--batch", default="2-8")
    parser.add_argument("--gpu", default="sm89")
    parser.add_argument("--onnx-only", action="store_true")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    model = random_model("dit-xl-2")
    settings = make_engine_settings(
        model, gpu=options.gpu, resolution=options.resolution, batch=options.batch, precision=options.precision
    )
    started = time.perf_counter()
    bundle = cached_bundle(model, settings=settings.onnx)
    report = {"onnx": _files(bundle.manifest.files), "onnx_seconds": time.perf_counter() - started}
    report["verified"] = [bundle.manifest.verified.random, bundle.manifest.verified.trajectory]
    if not options.onnx_only:
        started = time.perf_counter()
        engines = export_engines(model, options.out, settings=settings, overwrite=True)
        report["engines"] = _files(engines.manifest.files)
        report["seconds"] = {name: engine.seconds for name, engine in engines.manifest.engines.items()}
        report["engines_seconds"] = time.perf_counter() - started
    report["peak_memory_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    report["weights_bytes"] = 4 * model.backbone.parameters
    print(json.dumps(report, indent=1))


def _files(files: dict[str, object]) -> dict[str, int]:
    """The sizes of the files larger than 1 MiB, in bytes."""
    return {name: record.size for name, record in files.items() if record.size > 2**20}  # type: ignore[attr-defined]


if __name__ == "__main__":
    main()
