"""One profile of a loaded TensorRT engine, ready to run: its execution contexts and its CUDA graphs."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from ditzoo.backends import cuda
from ditzoo.bundle import Engine
from ditzoo.errors import BackendError
from ditzoo.records import Data

CAPTURED_SHAPES = 8
"""The number of CUDA graphs that a profile keeps, each with its own context. A further one replaces the least recently used."""


class _Captured(Data, frozen=True, kw_only=True):
    """A CUDA graph, and the execution context that it was captured from. The context must live as long, and never change."""

    graph: Any
    context: Any


class Slot:
    """One profile of a loaded engine. The caller owns `memory` and `workspace`, which several slots may share.

    `memory` has the inputs and outputs by name. The contexts compute in `workspace`. Slots that share memory run one after the
    other, on one stream. TensorRT-RTX captures CUDA graphs by itself, so there a slot has one context. With the other flavour
    it has one context and one graph for each of the last shapes. The contexts and graphs are given back when `held` is closed.
    """

    def __init__(
        self,
        trt: Any,
        loaded: Any,
        spec: Engine,
        index: int,
        *,
        stream: cuda.Stream,
        config: Any,
        memory: Mapping[str, cuda.Buffer],
        workspace: cuda.Buffer,
        held: ExitStack,
    ) -> None:
        self.spec, self.profile, self.memory = spec, spec.profiles[index], memory
        self._loaded, self._index, self._stream, self._config, self._workspace = loaded, index, stream, config, workspace
        self._captured: dict[tuple[tuple[int, ...], ...], _Captured] = {}
        held.callback(self._free)
        self._only_context = self._new_context() if hasattr(trt, "CudaGraphStrategy") else None

    def run(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Queues one execution for inputs of these shapes, which lie in `memory`."""
        if self._only_context is not None:
            self._give_shapes(self._only_context, shapes)
            self._enqueue(self._only_context)
            return
        key = tuple(shapes.values())
        captured = self._captured.pop(key, None) or self._capture(shapes)
        self._captured[key] = captured  # the last one was used last
        self._stream.launch(captured.graph)

    def _capture(self, shapes: Mapping[str, tuple[int, ...]]) -> _Captured:
        """A CUDA graph for these shapes, in place of the oldest one if there are too many."""
        self._stream.wait()
        while len(self._captured) >= CAPTURED_SHAPES:
            cuda.free_graph(self._captured.pop(next(iter(self._captured))).graph)
        context = self._new_context()
        self._give_shapes(context, shapes)
        self._enqueue(context)  # the first execution of a shape may allocate, which a capture must not
        self._stream.wait()
        return _Captured(graph=self._stream.capture(lambda: self._enqueue(context)), context=context)

    def _new_context(self) -> Any:
        context = present(self._loaded.create_execution_context(self._config), "an execution context")
        handle = int(self._stream.handle)
        accept(context.set_optimization_profile_async(self._index, handle), f"optimization profile {self._index}")
        context.set_device_memory(self._workspace.address, self._workspace.size)
        for name, buffer in self.memory.items():
            accept(context.set_tensor_address(name, buffer.address), f"the address of {name}")
        return context

    def _give_shapes(self, context: Any, shapes: Mapping[str, tuple[int, ...]]) -> None:
        for name, shape in shapes.items():
            accept(context.set_input_shape(name, shape), f"the shape {shape} of {name}")

    def _enqueue(self, context: Any) -> None:
        accept(context.execute_async_v3(int(self._stream.handle)), f"the execution of {self.spec.file}")

    def _free(self) -> None:
        while self._captured:
            cuda.free_graph(self._captured.popitem()[1].graph)
        self._only_context = None


def accept(status: bool | None, what: str) -> None:
    """Raises BackendError if TensorRT returned False. (Some members return None in one version and True in another.)"""
    if status is False:
        raise BackendError(f"TensorRT refused {what}")


def present(value: Any, what: str) -> Any:
    """The value; raises BackendError if TensorRT gave None for it."""
    if value is None:
        raise BackendError(f"TensorRT did not give {what}")
    return value
