"""The stages of the GPU acceptance about results: the tests, parity, and the placement of nodes."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from acceptance.checks import (
    FLAVOURS,
    MODELS,
    Check,
    CheckError,
    Measured,
    SkipError,
    check,
    demand,
    needs,
    needs_flavour,
    needs_gpu,
)

ROOT = Path(__file__).parents[2]
NETWORKS = ("torch", "torch:fp16", "torch:bf16", "torch:split", "torch:bf16:split", "torch:bf16:compile", "torch:tf32")
GRAPHS = ("onnxruntime", "onnxruntime:fp16", "onnxruntime:bf16", "onnxruntime:tf32")
BUILT = ("onnxruntime:tensorrt", "onnxruntime:tensorrt:fp16", "onnxruntime:tensorrt_rtx")
ENGINES = ("tensorrt", "tensorrt:fp16", "tensorrt_rtx", "tensorrt_rtx:fp16")
"""The backends whose parity is measured, by what they run: networks, graphs, graphs that build engines, and engines."""


def tests(device: str) -> Iterator[Check]:
    """The tests that need a GPU."""
    yield check("pytest -m gpu", lambda: _pytest(device))


def _pytest(device: str) -> Measured:
    needs_gpu(device)
    needs("pytest", "hypothesis")
    files = [str(path) for path in sorted((ROOT / "tests").rglob("test_*.py")) if "mark.gpu" in path.read_text()]
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "-rs", "--tb=short", *files]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    said = ran.stdout.decode(errors="replace")
    print(said)
    summary = said.strip().splitlines()[-1]
    demand(ran.returncode == 0, summary)
    return {"summary": summary}


def parity(device: str) -> Iterator[Check]:
    """Every backend against torch in float32 on the CPU, for both embedded models."""
    for model in MODELS:
        for text in (*NETWORKS, *GRAPHS, *BUILT, *ENGINES):
            yield check(f"{model} on {text}", lambda model=model, text=text: _parity(model, text, device))


def _parity(model: str, text: str, device: str) -> Measured:
    from ditzoo.backends.options import parse_spec

    spec = parse_spec(text)
    if device == "cpu" and (spec.device or spec.tf32 or spec.name in FLAVOURS or spec.precision in ("fp16", "bf16")):
        raise SkipError("needs a GPU")
    if device == "cpu" and spec.compiled:
        raise SkipError("compiling takes too long for a dry run")
    if ":split" in text and model == "uvit-digits":
        raise SkipError("torch does not split this network")
    built = spec.device or spec.name
    if built in FLAVOURS:
        needs_flavour(built)
    candidate = text if spec.device or spec.name in FLAVOURS else f"{text}:{device}"
    return _measured(model, candidate, device)


def _measured(model: str, candidate: str, device: str) -> Measured:
    import ditzoo

    dry = {"steps": 5, "threads": 1} if device == "cpu" else {}
    run = ditzoo.parity(model, backends=f"torch:cpu,{candidate}", classes=range(10), **dry)
    report = run.comparisons[0].report
    numbers: Measured = {
        "forward": f"{report.worst_forward:.2e} (limit {report.tolerance.forward:.1e})",
        "sample": f"{report.sample_relative_l2:.2e} (limit {report.tolerance.sample:.1e})",
        "psnr": "equal" if report.psnr is None else f"{report.psnr:.1f} dB (limit {report.tolerance.psnr:g})",
    }
    demand(report.passed, f"outside the limits: {numbers}")
    return numbers


def placement(device: str) -> Iterator[Check]:
    """Where ONNX Runtime places the nodes of every graph."""
    for model in MODELS:
        for precision in ("fp32", "fp16", "bf16"):
            yield check(
                f"{model} in {precision}", lambda model=model, precision=precision: _placement(model, precision, device)
            )
        yield check(f"{model} in int8 is refused on a GPU", lambda model=model: _refused(model, device))


def _placement(model: str, precision: Literal["fp32", "fp16", "bf16"], device: str) -> Measured:
    if device == "cpu" and precision != "fp32":
        raise SkipError("needs a GPU")
    import ditzoo
    from ditzoo.backends.sessions import open_session
    from ditzoo_export import cached_bundle, make_settings

    card = ditzoo.card(model)
    bundle = cached_bundle(card, settings=make_settings(card, precision=precision))
    recorded = {"session.record_ep_graph_assignment_info": "1"}
    counts: Measured = {}
    for graph in bundle.manifest.graphs.values():
        session = open_session(bundle.path / graph.file, device=device, entries=recorded)  # type: ignore[arg-type]
        for part in session.get_provider_graph_assignment_info():
            nodes = Counter(node.op_type for node in part.get_nodes())
            kinds = f" ({', '.join(sorted(nodes))})" if device == "cuda" and part.ep_name.startswith("CPU") else ""
            key = f"{graph.file} on {part.ep_name}{kinds}"
            counts[key] = int(counts.get(key, 0)) + nodes.total()
    return counts


def _refused(model: str, device: str) -> Measured:
    needs_gpu(device)
    import ditzoo
    from ditzoo.errors import BackendError
    from ditzoo_export import cached_bundle, make_settings

    card = ditzoo.card(model)
    bundle = cached_bundle(card, settings=make_settings(card, precision="int8"))
    try:
        ditzoo.open_backend("onnxruntime", bundle, device="cuda").close()
    except BackendError as error:
        return {"said": str(error)}
    raise CheckError("a graph that runs on CPUs alone was opened on a GPU")
