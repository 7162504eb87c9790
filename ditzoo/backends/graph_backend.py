"""What backends of a bundle's ONNX graphs share: the two graphs of a split network, and modulations computed ahead."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

from ditzoo.backends.base import OpenedBackend
from ditzoo.backends.conditioning import ModulationCache, window_rows
from ditzoo.backends.reusing import no_such_part
from ditzoo.bundle import REUSE_GRAPH, Bundle, Graph
from ditzoo.specs import RESIDUAL, Array, TensorSpec, check_inputs
from ditzoo.zoo.card import Card


class GraphBackend(OpenedBackend):
    """The graphs of a card in the folder of its bundle. See `ditzoo.backends.base.Backend`.

    A graph "conditioning" runs ahead of the graph "backbone", in windows (see `ditzoo.backends.conditioning`). A subclass loads
    the graphs and runs one of them; `library` is the name of what runs them.
    """

    library: ClassVar[str]

    def __init__(
        self,
        folder: Path,
        graphs: Mapping[str, Graph],
        card: Card,
        *,
        device: str = "cpu",
        threads: int | None = None,
        rows: int | None = None,
    ) -> None:
        graph, conditioning = graphs["backbone"], graphs.get("conditioning")
        self.card, self.folder, self.device, self.threads, self.rows = card, folder, device, threads, rows
        self.precision = graph.precision
        self.name = f"{self.library} {graph.precision} {device}{' single' if card.splits and conditioning is None else ''}"
        self.outputs: tuple[TensorSpec, ...] = graph.outputs[:1]
        self.inputs: tuple[TensorSpec, ...] = (graph.inputs[:1] + conditioning.inputs) if conditioning else graph.inputs
        self._graph, self._conditioning, self._reuse = graph, conditioning, graphs.get(REUSE_GRAPH)
        self._modulation_cache = None
        if conditioning is not None:
            window = window_rows(conditioning.outputs)
            self._modulation_cache = ModulationCache(lambda t, y: self._run(conditioning, {"t": t, "y": y}), window=window)

    @abstractmethod
    def _run(self, graph: Graph, inputs: Mapping[str, Array]) -> list[Array]:
        """The outputs of one graph; raises BackendError if the backend is closed."""

    def reopen(self, bundle: Bundle) -> Self:
        """The graphs of another bundle, on the same device, as many threads, and with the same options."""
        return type(self)(
            bundle.path,
            bundle.manifest.graphs,
            bundle.card,
            device=self.device,
            threads=self.threads,
            rows=self.rows,
            **self._own_options(bundle),
        )

    def _own_options(self, bundle: Bundle) -> dict[str, Any]:
        """The arguments that a subclass takes besides, for another bundle."""
        return {}

    def prepare(self, times: Sequence[float], labels: Sequence[int]) -> None:
        """See `ditzoo.backends.base.PreparesConditioning`."""
        if self._modulation_cache is not None:
            self._modulation_cache.prepare(times, labels)

    def __call__(self, inputs: Mapping[str, Array]) -> Array:
        """The network's output."""
        return self._run(self._graph, self._backbone_inputs(inputs))[0]

    def check_reuse(self, outer: int) -> None:
        """See `ditzoo.backends.base.ReusesBlocks`."""
        self._reusing(outer)

    def with_residual(self, inputs: Mapping[str, Array], outer: int) -> tuple[Array, Array]:
        """See `ditzoo.backends.base.ReusesBlocks`."""
        self._reusing(outer)
        outputs = self._run(self._graph, self._backbone_inputs(inputs))
        named = dict(zip((spec.name for spec in self._graph.outputs), outputs, strict=True))
        return outputs[0], named[RESIDUAL]

    def with_reuse(self, inputs: Mapping[str, Array], outer: int, residual: Array) -> Array:
        """See `ditzoo.backends.base.ReusesBlocks`."""
        return self._run(self._reusing(outer), {**self._backbone_inputs(inputs), RESIDUAL: residual})[0]

    def _reusing(self, outer: int) -> Graph:
        """The graph that runs the first `outer` and the last `outer` blocks. Raises BackendError if there is none."""
        if self._reuse is not None and self._reuse.outer_blocks == outer:
            return self._reuse
        there = None if self._reuse is None else self._reuse.outer_blocks
        raise no_such_part(self.folder, there, outer, command=f"ditzoo export onnx {self.card.name}")

    def values(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """See `ditzoo.backends.base.MultiOutputBackend`."""
        outputs = self._run(self._graph, self._backbone_inputs(inputs))
        return {**self._modulations(inputs), **dict(zip((spec.name for spec in self._graph.outputs), outputs, strict=True))}

    def _backbone_inputs(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """What the backbone's graph takes, for the inputs of the network: modulations for time and label, if it is split."""
        check_inputs(self.inputs, inputs)
        known = {**inputs, **self._modulations(inputs)}
        return {spec.name: known[spec.name] for spec in self._graph.inputs}

    def _modulations(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Every output of the conditioning's graph, a row for each row of the inputs."""
        if self._modulation_cache is None or self._conditioning is None:
            return {}
        rows, places = self._modulation_cache(inputs["t"], inputs["y"])
        return {spec.name: rows[i][places] for i, spec in enumerate(self._conditioning.outputs)}
