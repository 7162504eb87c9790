"""TensorRT and TensorRT-RTX: the engines of a bundle, on an NVIDIA GPU. Needs no torch.

Both flavours have nearly the same API, so the Python module of the flavour is passed around as the value `trt`. Modulations
stay on the device for all steps of a window. Latents stay there from step to step if CuPy is installed; without it, each
evaluation copies them to the device and back (a few hundred kilobytes).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from array_api_compat import array_namespace

from ditzoo.backends import cuda
from ditzoo.backends.base import OpenedBackend
from ditzoo.backends.batching import BatchPart, chunks
from ditzoo.backends.conditioning import ModulationCache, row_bytes, window_rows
from ditzoo.backends.options import OpenOptions
from ditzoo.backends.table import BackendRow
from ditzoo.bundle import Bundle, Engine
from ditzoo.errors import BackendError, BundleError
from ditzoo.files import cache_dir, replacing
from ditzoo.specs import Array, Precision, TensorSpec, axes_of, check_inputs
from ditzoo.zoo.card import Card


def open_engines(row: BackendRow, bundle: Bundle, options: OpenOptions) -> TensorRTBackend:
    """The backend of a bundle's engines; raises BackendError, with the command to rebuild them, where they do not run."""
    trt = import_module(row.name)
    engines = check_engines(bundle, flavour=row.name, version=trt.__version__, precision=options.precision, gpu=cuda.gpu())
    return TensorRTBackend(bundle.path, engines, bundle.card, trt=trt)


def check_engines(
    bundle: Bundle, *, flavour: str, version: str, precision: Precision | None, gpu: str | None
) -> tuple[Engine, ...]:
    """The engines of a bundle; raises BackendError if they do not run with this `version` of a flavour on this `gpu`."""
    engines = tuple(bundle.manifest.engines.values())
    rebuild = f"`{bundle.manifest.settings['command']} --out {bundle.path} --overwrite` builds them again"
    if not engines:
        command = f"ditzoo export tensorrt {bundle.card.name} --flavour {flavour} --out DIR"
        raise BackendError(f"the bundle {bundle.path} has no engines; `{command}` builds some")
    first = engines[0]
    if first.version != version and "version_compatible" not in first.options:
        raise BackendError(
            f"the engines in {bundle.path} were built with {flavour} {first.version}, this is {version}; {rebuild}"
        )
    backbone = next(engine for engine in engines if engine.graph == "backbone")
    if precision not in (None, backbone.precision):
        raise BackendError(
            f"the engines in {bundle.path} are {backbone.precision}, not {precision}; leave that out, or build them with"
            f" --precision {precision}"
        )
    if gpu is None:
        raise BackendError(f"{flavour} needs an NVIDIA GPU, and no driver shows one here; use --backend onnxruntime or torch")
    if gpu not in first.gpus and "hardware_compatible" not in first.options:
        raise BackendError(f"the engines in {bundle.path} are for {', '.join(first.gpus)}, this GPU is {gpu}; {rebuild}")
    return engines


class Slot:
    """One profile of a loaded engine: its context, memory for its largest shapes, and a CUDA graph for each batch size."""

    def __init__(self, trt: Any, loaded: Any, spec: Engine, index: int, stream: cuda.Stream, config: Any) -> None:
        self.spec, self.profile, self._stream, self._trt = spec, spec.profiles[index], stream, trt
        self._context = present(loaded.create_execution_context(config), "an execution context")
        accept(self._context.set_optimization_profile_async(index, stream.handle), f"optimization profile {index}")
        tensors = (*spec.inputs, *spec.outputs)
        self.memory = {tensor.name: cuda.Buffer(_bytes(tensor, self.profile.shapes(tensor)[2])) for tensor in tensors}
        for name, buffer in self.memory.items():
            accept(self._context.set_tensor_address(name, buffer.address), f"the address of {name}")
        self._graphs: dict[tuple[tuple[int, ...], ...], Any] = {}

    def run(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Queues one execution for inputs of these shapes, which lie in `memory`."""
        for name, shape in shapes.items():
            accept(self._context.set_input_shape(name, shape), f"the shape {shape} of {name}")
        if hasattr(self._trt, "CudaGraphStrategy"):  # TensorRT-RTX captures graphs by itself
            self._enqueue()
            return
        key = tuple(shapes.values())
        if key not in self._graphs:
            self._enqueue()  # the first execution of a shape may allocate, which a capture must not
            self._stream.wait()
            self._graphs[key] = self._stream.capture(self._enqueue)
        self._stream.launch(self._graphs[key])

    def free(self) -> None:
        """Gives the device memory back."""
        for buffer in self.memory.values():
            buffer.free()

    def _enqueue(self) -> None:
        accept(self._context.execute_async_v3(self._stream.handle), f"the execution of {self.spec.file}")


class TensorRTBackend(OpenedBackend):
    """Engines of one bundle on one GPU. See `ditzoo.backends.base.Backend`. Arrays are CuPy's if it is installed, else numpy's.

    A batch that is too large for every profile is split, and one that is too small is padded. The kernels that TensorRT-RTX
    compiles for this GPU are kept in ditzoo's cache. Raises BundleError or BackendError if TensorRT refuses an engine.
    """

    def __init__(self, folder: Path, engines: Sequence[Engine], card: Card, *, trt: Any) -> None:
        graphs = {name: [engine for engine in engines if engine.graph == name] for name in ("backbone", "conditioning")}
        backbone = graphs["backbone"][0]
        self.card, self.precision, self.folder = card, backbone.precision, folder
        single = card.splits and not graphs["conditioning"]
        self.name = f"{backbone.flavour} {backbone.precision} cuda{' single' if single else ''}"
        self.outputs: tuple[TensorSpec, ...] = backbone.outputs
        conditioning = graphs["conditioning"][0] if graphs["conditioning"] else None
        self.inputs: tuple[TensorSpec, ...] = (
            backbone.inputs if conditioning is None else (backbone.inputs[0], *conditioning.inputs)
        )
        self._trt, self._open = trt, True
        self._logger = trt.Logger(trt.Logger.ERROR)
        self._runtime = present(trt.Runtime(self._logger), "a runtime")
        self._library, self._stream = cuda.arrays(), cuda.Stream()
        self._caches: list[tuple[Path, Any]] = []
        self._slots = {
            name: [slot for engine in group for slot in self._load(folder, engine)] for name, group in graphs.items()
        }
        self._modulations: dict[str, cuda.Buffer] = {}
        self._modulation_cache = (
            None if conditioning is None else ModulationCache(self._condition, window=window_rows(conditioning.outputs))
        )

    def prepare(self, times: Sequence[float], labels: Sequence[int]) -> None:
        """See `ditzoo.backends.base.PreparesConditioning`."""
        if self._modulation_cache is not None:
            self._modulation_cache.prepare(times, labels)

    def __call__(self, inputs: Mapping[str, Array]) -> Array:
        """The network's output."""
        return self.values(inputs)[self.outputs[0].name]

    def values(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """See `ditzoo.backends.base.MultiOutputBackend`; modulations that the backbone takes are not among them."""
        check_inputs(self.inputs, inputs)
        if not self._open:
            raise self.closed_error()
        batch, _, height, width = inputs["x"].shape
        slots, places = (
            self._slots["backbone"],
            self._modulation_cache(inputs["t"], inputs["y"])[1] if self._modulation_cache else [],
        )
        cuda.settle(self._library)
        parts = []
        for chunk in chunks([slot.profile for slot in slots], {"batch": batch, "height": height, "width": width}):
            given = {spec.name: inputs[spec.name] for spec in slots[0].spec.inputs if spec.name in inputs}
            parts.append(self._run(slots[chunk.profile], chunk, given, places))
        library = array_namespace(parts[0][self.outputs[0].name])
        return {**self._shown(places), **{name: library.concat([part[name] for part in parts]) for name in parts[0]}}

    def close(self) -> None:
        """See `ditzoo.backends.base.Backend`. The kernels that TensorRT-RTX compiled are kept in ditzoo's cache."""
        if not self._open:
            return
        self._open = False
        for path, cache in self._caches:
            with replacing(path) as scratch:
                scratch.write_bytes(bytes(present(cache.serialize(), "a runtime cache")))
        for slot in [slot for group in self._slots.values() for slot in group]:
            slot.free()
        for buffer in self._modulations.values():
            buffer.free()
        self._slots = {}
        self._stream.free()

    def _run(self, slot: Slot, chunk: BatchPart, inputs: Mapping[str, Array], places: Sequence[int]) -> Array:
        """Runs a chunk. Modulations come from the device, at `places`."""
        rows = chunk.filling
        given = self._fill(slot, inputs, rows)
        shapes: dict[str, tuple[int, ...]] = {name: value.shape for name, value in given.items()}
        for spec in slot.spec.inputs:
            if spec.name in given:
                continue
            shapes[spec.name] = spec.concrete(batch=chunk.rows)
            size, buffer = row_bytes([spec]), self._modulations[spec.name]
            for i, row in enumerate(rows):
                self._stream.copy(slot.memory[spec.name].address + i * size, buffer.address + places[row] * size, size)
        slot.run(shapes)
        sizes = axes_of(slot.spec.inputs[:1], given)
        results = {spec.name: self._library.empty(spec.concrete(**sizes), spec.dtype) for spec in slot.spec.outputs}
        for name, value in results.items():
            self._stream.copy(cuda.address(value), slot.memory[name].address, value.nbytes)
        self._stream.wait()
        return {name: value[: chunk.stop - chunk.start] for name, value in results.items()}

    def _fill(self, slot: Slot, inputs: Mapping[str, Array], rows: Sequence[int]) -> dict[str, Array]:
        """Queues copies of these rows of the inputs into a slot's memory; what it returns must live until they are done."""
        given = {name: array_namespace(value).ascontiguousarray(value[rows]) for name, value in inputs.items()}
        for name, value in given.items():
            self._stream.copy(slot.memory[name].address, cuda.address(value), value.nbytes)
        return given

    def _shown(self, places: Sequence[int]) -> dict[str, npt.NDArray[np.float32]]:
        """The outputs of the conditioning that the backbone does not take, the rows at `places` of the window."""
        if not places:
            return {}
        taken = {spec.name for spec in self._slots["backbone"][0].spec.inputs}
        specs = [spec for spec in self._slots["conditioning"][0].spec.outputs if spec.name not in taken]
        shown = {spec.name: np.empty(spec.concrete(batch=len(places)), np.float32) for spec in specs}
        for spec in specs:
            for row, place in zip(shown[spec.name], places, strict=True):
                self._stream.copy(cuda.address(row), self._modulations[spec.name].address + place * row.nbytes, row.nbytes)
        self._stream.wait()
        return shown

    def _condition(self, t: npt.NDArray[np.float32], y: npt.NDArray[np.int64]) -> None:
        """Computes a window of modulations into `_modulations`, on the device."""
        slots = self._slots["conditioning"]
        for spec in slots[0].spec.outputs:
            if spec.name in self._modulations:
                self._modulations.pop(spec.name).free()
            self._modulations[spec.name] = cuda.Buffer(len(t) * row_bytes([spec]))
        for chunk in chunks([slot.profile for slot in slots], {"batch": len(t)}):
            slot = slots[chunk.profile]
            given = self._fill(slot, {"t": t, "y": y}, chunk.filling)
            slot.run({name: value.shape for name, value in given.items()})
            for spec in slot.spec.outputs:
                size, target = row_bytes([spec]), self._modulations[spec.name].address
                self._stream.copy(
                    target + chunk.start * size, slot.memory[spec.name].address, (chunk.stop - chunk.start) * size
                )
            self._stream.wait()

    def _load(self, folder: Path, spec: Engine) -> list[Slot]:
        """The slots of an engine, one a profile."""
        loaded = self._runtime.deserialize_cuda_engine((folder / spec.file).read_bytes())
        if loaded is None:
            raise BundleError(
                f"{spec.flavour} refuses {folder / spec.file}; `ditzoo inspect {folder}` says what it was built for"
            )
        if "stripped" in spec.options:
            refitter = self._trt.OnnxParserRefitter(self._trt.Refitter(loaded, self._logger), self._logger)
            accept(refitter.refit_from_file(str(folder / f"{spec.graph}.onnx")), f"the weights of {spec.file}")
        config = present(loaded.create_runtime_config(), "a runtime configuration")
        if hasattr(self._trt, "CudaGraphStrategy"):
            self._configure_rtx(config, spec)
        return [Slot(self._trt, loaded, spec, i, self._stream, config) for i in range(len(spec.profiles))]

    def _configure_rtx(self, config: Any, spec: Engine) -> None:
        """CUDA graphs for whole engines, and the kernels that were compiled for this GPU before."""
        config.cuda_graph_strategy = self._trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        cache = present(config.create_runtime_cache(), "a runtime cache")
        path = cache_dir() / "runtime" / f"{spec.flavour}-{spec.version}-{cuda.gpu()}"
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_file():
            cache.deserialize(path.read_bytes())
        accept(config.set_runtime_cache(cache), "the runtime cache")
        self._caches.append((path, cache))


def accept(status: bool | None, what: str) -> None:
    """Raises BackendError if TensorRT returned False. (Some members return None in one version and True in another.)"""
    if status is False:
        raise BackendError(f"TensorRT refused {what}")


def present(value: Any, what: str) -> Any:
    """The value; raises BackendError if TensorRT gave None for it."""
    if value is None:
        raise BackendError(f"TensorRT did not give {what}")
    return value


def _bytes(spec: TensorSpec, shape: Sequence[int]) -> int:
    return int(np.prod(shape)) * np.dtype(spec.dtype).itemsize
