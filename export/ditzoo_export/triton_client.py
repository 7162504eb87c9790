"""Draws images with a model that Triton Inference Server serves: the plan runs here, the network there.

    python client.py dit-digits --url localhost:8001 --plan dit-digits.plan.json --classes 0,1,2 --out latents.npy

Needs `pip install "ditzoo[triton]"`, and no torch. The models are NAME-backbone and, where there is one, NAME-conditioning.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import tritonclient.grpc as triton

from ditzoo.backends.hoist import Hoisted, window_rows
from ditzoo.card import Card
from ditzoo.plan import load_plan
from ditzoo.sample import sample
from ditzoo.specs import Precision, TensorSpec, check_inputs
from ditzoo.zoo import card

TYPES = {"float32": "FP32", "int64": "INT64"}


class TritonBackend:
    """A served model as a backend of ditzoo: see `ditzoo.backends.base.Backend`. `graphs` says what is served under NAME."""

    precision: Precision = "fp32"

    def __init__(self, url: str, model: Card) -> None:
        self.card, self.name = model, f"triton {url}"
        self._client = triton.InferenceServerClient(url)
        self._largest: dict[str, int] = {}
        self._specs = {name: self._describe(name) for name in ("backbone", "conditioning") if self._serves(name)}
        self.inputs, self.outputs = self._specs["backbone"]
        self._hoisted = None
        if "conditioning" in self._specs:
            taken, given = self._specs["conditioning"]
            self.inputs = (self.inputs[0], *taken)
            self._hoisted = Hoisted(lambda t, y: self._infer("conditioning", {"t": t, "y": y}), window=window_rows(given))

    def prepare(self, times: Sequence[float], labels: Sequence[int]) -> None:
        """Announces what conditioning will be asked for."""
        if self._hoisted is not None:
            self._hoisted.prepare(times, labels)

    def __call__(self, inputs: Mapping[str, Any]) -> Any:
        """The network's output for numpy arrays."""
        check_inputs(self.inputs, inputs)
        if self._hoisted is None:
            return self._infer("backbone", inputs)[0]
        rows, places = self._hoisted(inputs["t"], inputs["y"])
        names = [spec.name for spec in self._specs["conditioning"][1]]
        modulations = {name: rows[i][places] for i, name in enumerate(names)}
        return self._infer("backbone", {"x": inputs["x"], **modulations})[0]

    def asarray(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The array itself."""
        return array

    def numpy(self, array: Any) -> npt.NDArray[np.float32]:
        """The array itself."""
        return np.asarray(array, dtype=np.float32)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._client.close()

    def _serves(self, graph: str) -> bool:
        return bool(self._client.is_model_ready(f"{self.card.name}-{graph}"))

    def _describe(self, graph: str) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
        """The inputs and outputs of a served graph; an axis of −1 is any number, a vector of one a scalar for each sample."""
        config = self._client.get_model_config(f"{self.card.name}-{graph}").config
        self._largest[graph] = config.max_batch_size
        given, taken = (tuple(_spec(tensor) for tensor in side) for side in (config.output, config.input))
        return taken, given

    def _infer(self, graph: str, inputs: Mapping[str, Any]) -> list[Any]:
        """All outputs of a served graph, asked for in batches that its server takes."""
        size, step = len(next(iter(inputs.values()))), self._largest[graph]
        parts = [
            self._request(graph, {name: value[start : start + step] for name, value in inputs.items()})
            for start in range(0, size, step)
        ]
        return [np.concatenate(outputs) for outputs in zip(*parts, strict=True)]

    def _request(self, graph: str, inputs: Mapping[str, Any]) -> list[Any]:
        specs, outputs = self._specs[graph]
        tensors = []
        for spec in specs:
            value = np.ascontiguousarray(inputs[spec.name])
            value = value.reshape(-1, 1) if value.ndim == 1 else value
            tensor = triton.InferInput(spec.name, value.shape, TYPES[spec.dtype])
            tensor.set_data_from_numpy(value)
            tensors.append(tensor)
        result = self._client.infer(f"{self.card.name}-{graph}", tensors)
        return [result.as_numpy(spec.name) for spec in outputs]


def _spec(tensor: Any) -> TensorSpec:
    scalar = tensor.HasField("reshape")
    axes = [f"axis{i}" if size < 0 else size for i, size in enumerate(() if scalar else tensor.dims)]
    dtype = "int64" if tensor.data_type == triton.model_config_pb2.TYPE_INT64 else "float32"
    return TensorSpec(name=tensor.name, shape=("batch", *axes), dtype=dtype)  # type: ignore[arg-type]


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw images with a model that Triton serves.")
    parser.add_argument("model")
    parser.add_argument("--url", default="localhost:8001")
    parser.add_argument("--plan", type=Path, required=True)
    parser.add_argument("--classes", required=True, help="one image each, such as 0,1,2")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="the latents [N, C, H, W], as a .npy file")
    options = parser.parse_args()
    with TritonBackend(options.url, card(options.model)) as backend:
        classes = [int(number) for number in options.classes.split(",")]
        np.save(options.out, sample(backend, load_plan(options.plan), classes=classes, seed=options.seed))


if __name__ == "__main__":
    main()
