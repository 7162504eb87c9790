"""A graph with 128 MB of weights. As a script, it opens three backends of it and prints the memory of each, in megabytes."""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path

import numpy as np

import ditzoo
from ditzoo.backends.onnxruntime import OnnxRuntimeBackend
from ditzoo.bundle import Graph
from ditzoo.specs import TensorSpec

WIDTH, DEPTH = 1024, 32
X, OUT = (TensorSpec(name=name, shape=("batch", WIDTH)) for name in ("x", "out"))
GRAPH = Graph(file="g.onnx", precision="fp32", opset=20, inputs=(X,), outputs=(OUT,))
STATUS = Path("/proc/self/smaps_rollup")


def write_graph(folder: Path) -> None:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    values = (rng.standard_normal((WIDTH, WIDTH), np.float32) / np.float32(WIDTH**0.5) for _ in range(DEPTH))
    weights = [numpy_helper.from_array(value, f"w{i}") for i, value in enumerate(values)]
    names = ["x", *(f"x{i}" for i in range(1, DEPTH)), "out"]
    nodes = [helper.make_node("MatMul", [names[i], f"w{i}"], [names[i + 1]]) for i in range(DEPTH)]
    x, out = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", WIDTH]) for name in ("x", "out"))
    graph = helper.make_graph(nodes, "g", [x], [out], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", GRAPH.opset)], ir_version=10)
    onnx.save(model, folder / GRAPH.file, save_as_external_data=True, location=f"{GRAPH.file}.data")


def anonymous() -> float:
    """The anonymous memory of this process, which is not mapped from files, in megabytes."""
    return next(int(line.split()[1]) / 1024 for line in STATUS.read_text().splitlines() if line.startswith("Anonymous"))


def main() -> None:
    opened, used = [], [anonymous()]
    for threads in (1, 1, 2):
        backend = OnnxRuntimeBackend(Path(sys.argv[1]), {"backbone": GRAPH}, ditzoo.card("uvit-digits"), threads=threads)
        assert 0.1 < np.std(backend({"x": np.ones((2, WIDTH), np.float32)})) < 10
        opened.append(backend)
        used.append(anonymous())
    sys.stdout.write(" ".join(str(later - earlier) for earlier, later in pairwise(used)))


if __name__ == "__main__":
    main()
