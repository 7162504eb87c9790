"""Draws images with a model on Triton Inference Server. The plan runs in this process, and the network on the server.

    python client.py dit-digits --url localhost:8001 --plan dit-digits.plan.json --classes 0,1,2 --out latents.npy

It needs `pip install "ditzoo[triton]"`, but no torch. The models on the server are found by the name of the card.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from ditzoo.backends.base import OpenedBackend
from ditzoo.backends.batching import chunks
from ditzoo.backends.conditioning import ModulationCache, window_rows
from ditzoo.errors import BackendError, DitzooError
from ditzoo.files import file_name
from ditzoo.plan.table import Plan
from ditzoo.records import Data, from_json
from ditzoo.sampling.loop import sample
from ditzoo.specs import RESIDUAL, Precision, Profile, Range, TensorSpec, check_inputs
from ditzoo.weights.catalogue import card
from ditzoo.zoo.card import Card

TYPES = {"float32": "FP32", "int64": "INT64"}


class Served(Data, frozen=True, kw_only=True):
    """A model on the server, and the sizes that it takes."""

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    profiles: tuple[Profile, ...]


class TritonBackend(OpenedBackend):
    """A backend that runs a card's network on the server. See `ditzoo.backends.base.Backend`.

    The graphs of a card NAME are the models NAME-backbone and NAME-conditioning. Engines may be several models, whose names
    begin like this. Each part of a batch goes to the engine that fits it best. Raises BackendError if no backbone is ready.
    """

    precision: Precision = "fp32"

    def __init__(self, url: str, model: Card) -> None:
        self.card, self.name = model, f"triton {url}"
        self._client = triton.InferenceServerClient(url)
        ready = [entry.name for entry in self._client.get_model_repository_index().models if entry.state == "READY"]
        backbones, conditioning = (self._find(ready, graph) for graph in ("backbone", "conditioning"))
        self._reuse = [served for served in backbones if any(spec.name == RESIDUAL for spec in served.inputs)]
        self._backbone = [served for served in backbones if served not in self._reuse]
        if not self._backbone:
            raise BackendError(f"{url} has no {model.name}-backbone that is ready; ready are: {', '.join(ready) or 'none'}")
        x, *rest = self._backbone[0].inputs
        self.inputs = (TensorSpec(name=x.name, shape=("batch", model.backbone.latent_shape[0], "height", "width")), *rest)
        self.outputs = self._backbone[0].outputs[:1]
        self._modulation_cache = None
        if conditioning:
            self.inputs = (self.inputs[0], *conditioning[0].inputs)
            window = window_rows(conditioning[0].outputs)
            self._modulation_cache = ModulationCache(lambda t, y: self._infer(conditioning, {"t": t, "y": y}), window=window)

    def prepare(self, times: Sequence[float], labels: Sequence[int]) -> None:
        """Announces the times and labels of a run, so that conditioning is evaluated in large batches."""
        if self._modulation_cache is not None:
            self._modulation_cache.prepare(times, labels)

    def __call__(self, inputs: Mapping[str, Any]) -> Any:
        """The prediction for inputs that are numpy arrays. Raises InputError if they do not fit the specs in `inputs`."""
        return self._infer(self._backbone, self._backbone_inputs(inputs))[0]

    def check_reuse(self, outer: int) -> None:
        """See `ditzoo.backends.base.ReusesBlocks`. The server does not say for how many blocks its graphs were exported."""
        if not self._reuse:
            raise BackendError(
                f"{self.name} has no {self.card.name}-backbone-reuse that is ready; `ditzoo export onnx {self.card.name}"
                f" --reuse blocks={outer} --out DIR` makes one, and `ditzoo export triton DIR --repo REPO` serves it"
            )

    def with_residual(self, inputs: Mapping[str, Any], outer: int) -> tuple[Any, Any]:
        """See `ditzoo.backends.base.ReusesBlocks`."""
        given = self._infer(self._backbone, self._backbone_inputs(inputs))
        outputs = {spec.name: value for spec, value in zip(self._backbone[0].outputs, given, strict=True)}
        return outputs[self.outputs[0].name], outputs[RESIDUAL]

    def with_reuse(self, inputs: Mapping[str, Any], outer: int, residual: Any) -> Any:
        """See `ditzoo.backends.base.ReusesBlocks`."""
        return self._infer(self._reuse, {**self._backbone_inputs(inputs), RESIDUAL: residual})[0]

    def _backbone_inputs(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """What the backbone takes for the inputs of the network: modulations for time and label, if it is split."""
        check_inputs(self.inputs, inputs)
        if self._modulation_cache is None:
            return dict(inputs)
        rows, places = self._modulation_cache(inputs["t"], inputs["y"])
        names = [spec.name for spec in self._backbone[0].inputs[1:]]
        return {"x": inputs["x"], **{name: rows[i][places] for i, name in enumerate(names)}}

    def close(self) -> None:
        """Closes the connection to the server."""
        self._client.close()

    def _find(self, ready: Sequence[str], graph: str) -> list[Served]:
        """The ready models that serve the graph `graph` of the card."""
        own = f"{file_name(self.card.name)}-{graph}"
        return [self._describe(name) for name in sorted(ready) if name == own or name.startswith(f"{own}-")]

    def _describe(self, name: str) -> Served:
        config = self._client.get_model_config(name).config
        given, taken = (tuple(_spec(tensor) for tensor in side) for side in (config.output, config.input))
        return Served(name=name, inputs=taken, outputs=given, profiles=_profiles(config))

    def _infer(self, models: Sequence[Served], inputs: Mapping[str, Any]) -> list[Any]:
        """All outputs of a graph. The batch is divided into parts that fit the profiles of its models."""
        sizes = {"batch": len(next(iter(inputs.values())))}
        if "x" in inputs:
            sizes |= dict(zip(("height", "width"), inputs["x"].shape[2:], strict=True))
        places = [(model, profile) for model in models for profile in model.profiles]
        parts = []
        for chunk in chunks([profile for _, profile in places], sizes):
            outputs = self._request(places[chunk.profile][0], {name: value[chunk.filling] for name, value in inputs.items()})
            parts.append([output[: chunk.stop - chunk.start] for output in outputs])
        return [np.concatenate(outputs) for outputs in zip(*parts, strict=True)]

    def _request(self, model: Served, inputs: Mapping[str, Any]) -> list[Any]:
        tensors = []
        for spec in model.inputs:
            value = np.ascontiguousarray(inputs[spec.name])
            value = value.reshape(-1, 1) if value.ndim == 1 else value
            tensor = triton.InferInput(spec.name, value.shape, TYPES[spec.dtype])
            tensor.set_data_from_numpy(value)
            tensors.append(tensor)
        result = self._client.infer(model.name, tensors)
        return [result.as_numpy(spec.name) for spec in model.outputs]


def _spec(tensor: Any) -> TensorSpec:
    """An input or output as a spec. An axis of −1 becomes symbolic. A reshaped vector of one becomes a scalar per sample."""
    scalar = tensor.HasField("reshape")
    axes = [f"axis{i}" if size < 0 else size for i, size in enumerate(() if scalar else tensor.dims)]
    dtype = "int64" if tensor.data_type == triton.model_config_pb2.TYPE_INT64 else "float32"
    return TensorSpec(name=tensor.name, shape=("batch", *axes), dtype=dtype)  # type: ignore[arg-type]


def _profiles(config: Any) -> tuple[Profile, ...]:
    """The sizes that a model takes. An engine has its own profiles. A graph takes any batch up to the largest one."""
    if "profiles" in config.parameters:
        return from_json(config.parameters["profiles"].string_value, tuple[Profile, ...])
    largest, dims = config.max_batch_size, config.input[0].dims
    fixed = {axis: size for axis, size in zip(("height", "width"), dims[1:], strict=False) if size > 0}
    axes = {axis: Range(min=size, opt=size, max=size) for axis, size in fixed.items()}
    return (Profile(axes={"batch": Range(min=1, opt=largest, max=largest), **axes}),)


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw images with a model that Triton serves.")
    parser.add_argument("model")
    parser.add_argument("--url", default="localhost:8001")
    parser.add_argument("--plan", type=Path, required=True)
    parser.add_argument("--classes", required=True, help="one image for each class, such as 0,1,2")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="the latents [N, C, H, W], as a .npy file")
    options = parser.parse_args()
    try:
        with TritonBackend(options.url, card(options.model)) as backend:
            classes = [int(number) for number in options.classes.split(",")]
            np.save(options.out, sample(backend, Plan.load(options.plan), classes=classes, seed=options.seed))
    except (DitzooError, InferenceServerException, ValueError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
