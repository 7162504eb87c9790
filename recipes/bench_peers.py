"""Measures ditzoo's backends beside diffusers, with the same network and the same work: one guided image, on this machine.

    python recipes/bench_peers.py --model dit-xl-2 --json peers.json

Prints a table in Markdown. A few backends ("contestants") are open at a time and take turns. Each group also has the baseline:
diffusers in fp32 if diffusers has the network, else torch in fp32. Ratios are to the baseline in the same group.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from onnx import TensorProto, helper, numpy_helper
from random_models import MODELS, random_model

from ditzoo import Card, make_plan
from ditzoo.backends.options import parse_spec
from ditzoo.backends.table import row_of
from ditzoo.families import family_of
from ditzoo.measure import bench
from ditzoo.measure.bench import Bench, Measurement
from ditzoo.measure.machine import seconds
from ditzoo.measure.operations import multiply_adds
from ditzoo.measure.parity_run import Opener
from ditzoo.model.opening import open_model, sampling_batch
from ditzoo.plan.table import Plan

PEERS = (
    "diffusers:bf16,diffusers:compile,torch:bf16,torch:bf16:split,torch:bf16:split:compile,openvino,openvino:bf16,openvino:int8"
)
OURS = "openvino,openvino:bf16,openvino:int8,onnxruntime,onnxruntime:single,onnxruntime:int8"
REFERENCE = "torch"


def opener(card: Card, text: str) -> Opener:
    """A function that opens the backend `text`, such as "torch:bf16", for a card and one guided image."""
    return partial(open_model, card, parse_spec(text), batch=sampling_batch(1))


def measure_in_groups(card: Card, plan: Plan, texts: Sequence[str], *, base: str, together: int, repeats: int) -> list[Bench]:
    """Measures the backends `texts` in groups of `together`, each group with the reference and the baseline `base`."""
    fixed = list(dict.fromkeys([REFERENCE, base]))
    count = multiply_adds(card.backbone)
    return [
        bench.run(
            [opener(card, text) for text in [*fixed, *texts[i : i + together]]],
            plan,
            batches=[1],
            repeats=repeats,
            warmup=1,
            multiply_adds=count,
        )
        for i in range(0, len(texts), together)
    ]


def multiplication_rates(side: int = 2048) -> dict[str, float]:
    """Multiply-adds per second of a large matrix multiplication on this CPU, in bf16 (torch) and in int8 (ONNX Runtime)."""
    import onnxruntime as ort

    half = torch.ones(side, side, dtype=torch.bfloat16)
    a, b = helper.make_tensor_value_info("a", TensorProto.UINT8, (side, side)), np.ones((side, side), np.int8)
    node, c = helper.make_node("MatMulInteger", ["a", "b"], ["c"]), helper.make_tensor_value_info("c", TensorProto.INT32, None)
    graph = helper.make_graph([node], "multiplication", [a], [c], [numpy_helper.from_array(b, "b")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    given = {"a": np.ones((side, side), np.uint8)}
    works = {"bf16": lambda: half @ half, "int8": lambda: session.run(None, given)}
    return {name: side**3 / min(seconds(work) for _ in range(5)) for name, work in works.items()}


def table(results: Sequence[Bench], base: str) -> list[str]:
    """The lines of a Markdown table with one row for each backend; the reference and the baseline appear once."""
    lines = [
        f"| contestant | ms | quartiles | times {base} | GMAC/s | error | load s | MB |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    place = 0 if base == REFERENCE else 1
    for i, result in enumerate(results):
        entries = result.measurements[0 if i == 0 else place + 1 :]
        lines += [_line(entry, result.measurements[place]) for entry in entries]
    return lines


def _line(entry: Measurement, base: Measurement) -> str:
    spread = entry.evaluation
    cells: list[Any] = [entry.backend, f"{1e3 * spread.median:.0f}", f"{1e3 * spread.low:.0f}-{1e3 * spread.high:.0f}"]
    cells += [f"{base.evaluation.median / spread.median:.2f}", f"{(entry.speed or 0) / 1e9:.0f}", f"{entry.error:.1e}"]
    cells += [f"{entry.load:.1f}", "" if entry.host_memory is None else f"{entry.host_memory / 1e6:.0f}"]
    return f"| {' | '.join(map(str, cells))} |"


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure ditzoo's backends beside diffusers.")
    parser.add_argument("--model", choices=MODELS, default="dit-xl-2")
    parser.add_argument("--contestants", default=f"{PEERS},{OURS}")
    parser.add_argument("--together", type=int, default=2, help="how many are open at a time, not counting the baseline")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3, help="steps of the plan that draws the first image")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    card = random_model(options.model)
    base = "torch" if family_of(card.backbone).diffusers is None else "diffusers"
    texts = [text for text in options.contestants.split(",") if base == "diffusers" or not text.startswith("diffusers")]
    if not card.splits:
        texts = [text for text in texts if ":split" not in text and ":single" not in text]
    plan = make_plan(card, steps=options.steps)
    for text in texts:
        if row_of(parse_spec(text).name).runs == "graphs":
            opener(card, text)().close()  # makes the export, so that it is not part of the loading time
    results = measure_in_groups(card, plan, texts, base=base, together=options.together, repeats=options.repeats)
    limits = {"fp32": results[0].ceilings[0].multiply_adds, **multiplication_rates()}
    print("\n".join(table(results, base)))
    print(f"\n{options.model}, one guided image, {2 * (results[0].multiply_adds or 0) / 1e9:.1f} GMAC;", end=" ")
    print(
        "large matrix multiplications here: " + ", ".join(f"{name} {limit / 1e9:.0f} GMAC/s" for name, limit in limits.items()),
        end=". ",
    )
    print(", ".join(f"{key} {value}" for key, value in results[0].machine.items()))
    if options.json:
        options.json.write_bytes(msgspec.json.format(msgspec.json.encode({"results": results, "products": limits})))


if __name__ == "__main__":
    main()
