"""The stages of the GPU acceptance about speed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from acceptance.checks import Check, Measured, check, demand, needs

from ditzoo import Card

EAGER = ("torch:tf32", "torch:bf16", "torch:fp16", "diffusers:bf16")
COMPILED = ("torch:bf16:compile", "diffusers:bf16:compile")
GRAPHS = ("onnxruntime", "onnxruntime:tf32", "onnxruntime:fp16", "onnxruntime:bf16")
BATCHES = (1, 8, 32)
"""The backends that are timed beside torch in float32, and the batch sizes in images."""


def bench_base(device: str) -> Iterator[Check]:
    """The speed of DiT-B/2 beside diffusers; of dit-digits in a dry run."""
    if device == "cpu":
        yield from _bench("dit-digits", {"onnxruntime": (1,)}, device)
    else:
        yield from _bench("dit-b-2", dict.fromkeys((*EAGER, *COMPILED, *GRAPHS), BATCHES), device)


def bench_large(device: str) -> Iterator[Check]:
    """The speed of DiT-XL/2 beside diffusers. Compiled networks have one batch size, because each takes a minute to compile."""
    if device == "cpu":
        yield Check(name="DiT-XL/2", status="skipped", reason="needs a GPU")
    else:
        yield from _bench("dit-xl-2", {**dict.fromkeys(EAGER, BATCHES), **dict.fromkeys(COMPILED, (8,))}, device)


def bench_large_graph(device: str) -> Iterator[Check]:
    """The speed of DiT-XL/2 on ONNX Runtime."""
    if device == "cpu":
        yield Check(name="DiT-XL/2", status="skipped", reason="needs a GPU")
    else:
        yield from _bench("dit-xl-2", {"onnxruntime:fp16": BATCHES}, device)


def _bench(name: str, contestants: Mapping[str, Sequence[int]], device: str) -> Iterator[Check]:
    from random_models import random_model

    import ditzoo

    card = ditzoo.card(name) if device == "cpu" else random_model(name)
    for text, batches in contestants.items():
        yield check(f"{card.name}: {text} beside torch", lambda text=text, batches=batches: _timed(card, text, batches, device))


def _timed(card: Card, text: str, batches: Sequence[int], device: str) -> Measured:
    """Milliseconds of one guided evaluation at each batch size, the backend and torch in turns."""
    if text.startswith("diffusers"):
        needs("diffusers")
    import ditzoo
    from ditzoo.backends.options import parse_spec
    from ditzoo.measure import bench
    from ditzoo.measure.operations import multiply_adds
    from ditzoo.measure.parity import TOLERANCES
    from ditzoo.model.opening import open_model

    openers = [partial(open_model, card, parse_spec(one), device=device) for one in ("torch", text)]
    openers[1]().close()  # makes the export, so that it is not part of the loading time
    count = multiply_adds(card.backbone)
    result = bench.run(openers, ditzoo.make_plan(card, steps=4), batches=batches, repeats=10, multiply_adds=count)
    entries = [entry for entry in result.measurements if entry.backend != result.measurements[0].backend]
    times: Measured = {}
    for entry in entries:
        base = next(other for other in result.measurements if other.batch == entry.batch)
        share = result.share(entry)
        of_limit = "" if share is None else f", {share:.0%} of the limit"
        ratio = base.evaluation.median / entry.evaluation.median
        times[f"batch {entry.batch}"] = f"{1e3 * entry.evaluation.median:.2f} ms ({ratio:.2f}x{of_limit})"
    worst = max(entry.error for entry in entries)
    memory = {"load s": round(entries[0].load, 2), "GPU MB": (entries[0].device_memory or 0) // 10**6}
    if text.startswith("diffusers"):  # its arithmetic is its own
        return {**times, "forward": f"{worst:.2e}", **memory}
    limit = TOLERANCES["tf32" if "tf32" in text else parse_spec(text).precision or "fp32"].forward
    demand(worst <= limit, f"forward error {worst:.2e}, limit {limit:.1e}; {times}")
    return {**times, "forward": f"{worst:.2e} (limit {limit:.1e})", **memory}
