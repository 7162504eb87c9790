"""TensorRT and TensorRT-RTX: the engines of a bundle, on an NVIDIA GPU. Needs no torch.

Both flavours have nearly the same API, so the Python module of the flavour is passed around as the value `trt`. Modulations
stay on the device for all steps of a window. Latents stay there from step to step if CuPy is installed; without it, each
evaluation copies them to the device and back (a few hundred kilobytes).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, nullcontext
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ditzoo.arrays import library_of
from ditzoo.backends import cuda
from ditzoo.backends.base import OpenedBackend
from ditzoo.backends.batching import BatchPart, chunks
from ditzoo.backends.conditioning import ModulationCache, row_bytes, window_rows
from ditzoo.backends.engine_slots import Slot
from ditzoo.backends.gpus import check_gpu
from ditzoo.backends.loading_engines import EngineLoader, check_architecture
from ditzoo.backends.options import OpenOptions
from ditzoo.backends.reusing import no_such_part
from ditzoo.backends.table import BackendRow
from ditzoo.bundle import REUSE_GRAPH, Bundle, Engine
from ditzoo.errors import BackendError
from ditzoo.specs import RESIDUAL, Array, Precision, TensorSpec, axes_of, check_inputs, device_name, split_device
from ditzoo.zoo.card import Card


def open_engines(row: BackendRow, bundle: Bundle, options: OpenOptions) -> TensorRTBackend:
    """The backend of a bundle's engines; raises BackendError, with the command to rebuild them, where they do not run."""
    trt, index = import_module(row.name), split_device(options.device)[1]
    check_gpu(options.device)
    with nullcontext() if cuda.gpu() is None else cuda.on_gpu(index):
        if gpu := cuda.gpu():
            check_architecture(trt, gpu)
        engines = check_engines(
            bundle,
            flavour=row.name,
            version=trt.__version__,
            precision=options.precision,
            gpu=gpu,
            tf32=options.tf32,
        )
        return TensorRTBackend(bundle.path, engines, bundle.card, trt=trt, index=index)


def check_engines(
    bundle: Bundle, *, flavour: str, version: str, precision: Precision | None, gpu: str | None, tf32: bool = False
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
    if tf32 and "tf32" not in backbone.options:
        raise BackendError(f"the engines in {bundle.path} compute in float32; leave tf32 out, or build them with --tf32")
    if gpu is None:
        others = "onnxruntime or torch" if "backbone" in bundle.manifest.graphs else "torch"
        raise BackendError(f"{flavour} needs an NVIDIA GPU, and no driver shows one here; use --backend {others}")
    if gpu not in first.gpus and "hardware_compatible" not in first.options:
        raise BackendError(f"the engines in {bundle.path} are for {', '.join(first.gpus)}, this GPU is {gpu}; {rebuild}")
    return engines


class TensorRTBackend(OpenedBackend):
    """Engines of one bundle on the GPU of the number `index`, which must be current as this is made: see `cuda.on_gpu`.

    See `ditzoo.backends.base.Backend`. Arrays are CuPy's on the first GPU if it is installed, else numpy's.
    A batch that is too large for every profile is split, and one that is too small is padded. The kernels that TensorRT-RTX
    compiles for this GPU are kept in ditzoo's cache. Raises BundleError or BackendError if TensorRT refuses an engine.
    """

    def __init__(self, folder: Path, engines: Sequence[Engine], card: Card, *, trt: Any, index: int = 0) -> None:
        graphs = {engine.graph: engine for engine in reversed(engines)}
        backbone, conditioning = graphs["backbone"], graphs.get("conditioning")
        self.card, self.precision, self.folder, self.index = card, backbone.precision, folder, index
        single = card.splits and conditioning is None
        self.tf32 = "tf32" in backbone.options
        words = {device_name(f"cuda:{index}"): True, "tf32": self.tf32, "single": single}
        self.name = " ".join([backbone.flavour, backbone.precision, *(word for word, said in words.items() if said)])
        self.outputs: tuple[TensorSpec, ...] = backbone.outputs[:1]
        self.inputs: tuple[TensorSpec, ...] = (
            backbone.inputs if conditioning is None else (backbone.inputs[0], *conditioning.inputs)
        )
        self._outer = graphs[REUSE_GRAPH].outer_blocks if REUSE_GRAPH in graphs else None
        self._command = f"ditzoo export tensorrt {card.name} --flavour {backbone.flavour}"
        self._library, self._open = np if index else cuda.arrays(), True  # CuPy computes on the first GPU
        self._modulations: dict[str, cuda.Buffer] = {}
        with ExitStack() as held:  # gives all back if an engine cannot be loaded
            self._stream = cuda.Stream(self._library)
            held.callback(self._stream.free)
            held.callback(self._free_modulations)
            self._loader = EngineLoader(trt, folder, engines, self._stream)
            self._slots = self._loader.load(held=held)
            self._held = held.pop_all()
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
        return self._values("backbone", inputs)

    def check_reuse(self, outer: int) -> None:
        """See `ditzoo.backends.base.ReusesBlocks`."""
        if self._outer != outer:
            raise no_such_part(self.folder, self._outer, outer, command=self._command)

    def with_residual(self, inputs: Mapping[str, Array], outer: int) -> tuple[Array, Array]:
        """See `ditzoo.backends.base.ReusesBlocks`."""
        self.check_reuse(outer)
        values = self._values("backbone", inputs)
        return values[self.outputs[0].name], values[RESIDUAL]

    def with_reuse(self, inputs: Mapping[str, Array], outer: int, residual: Array) -> Array:
        """See `ditzoo.backends.base.ReusesBlocks`."""
        self.check_reuse(outer)
        return self._values(REUSE_GRAPH, inputs, residual)[self.outputs[0].name]

    @cuda.on_its_gpu
    def close(self) -> None:
        """See `ditzoo.backends.base.Backend`. The kernels that TensorRT-RTX compiled are kept in ditzoo's cache."""
        if not self._open:
            return
        self._open = False
        try:
            self._loader.keep_kernels()
        finally:
            self._slots = {}
            self._held.close()

    def _free_modulations(self) -> None:
        while self._modulations:
            self._modulations.popitem()[1].free()

    @cuda.on_its_gpu
    def _values(self, graph: str, inputs: Mapping[str, Array], residual: Array = None) -> dict[str, Array]:
        """The outputs of the engines of a graph, and the modulations that they do not take."""
        check_inputs(self.inputs, inputs)
        if not self._open:
            raise self.closed_error()
        cuda.settle(self._library)  # the inputs are the work of the caller's stream
        with self._stream.arrays():
            try:
                return self._evaluate(self._slots[graph], inputs if residual is None else {**inputs, RESIDUAL: residual})
            finally:
                self._stream.wait()  # after an error too: what is queued reads these inputs

    def _evaluate(self, slots: Sequence[Slot], inputs: Mapping[str, Array]) -> dict[str, Array]:
        batch, _, height, width = inputs["x"].shape
        places = self._modulation_cache(inputs["t"], inputs["y"])[1] if self._modulation_cache else []
        parts = []
        for chunk in chunks([slot.profile for slot in slots], {"batch": batch, "height": height, "width": width}):
            given = {spec.name: inputs[spec.name] for spec in slots[0].spec.inputs if spec.name in inputs}
            parts.append(self._run(slots[chunk.profile], chunk, given, places))
        library = library_of(parts[0][self.outputs[0].name])
        return {**self._shown(places), **{name: library.concat([part[name] for part in parts]) for name in parts[0]}}

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
        given = {name: library_of(value).ascontiguousarray(value[rows]) for name, value in inputs.items()}
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
