"""Reading the outputs of a network's modules: with hooks in PyTorch, and as additional outputs of ONNX graphs and engines."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import torch
from torch import Tensor, nn

from ditzoo.backends.base import MultiOutputBackend
from ditzoo.backends.torch import TorchBackend
from ditzoo.bundle import CARD, PLAN, Bundle, Graph
from ditzoo.errors import BackendError
from ditzoo.folders import temporary_folder
from ditzoo.measure.bisection import Place
from ditzoo.records import Data
from ditzoo.specs import TensorSpec
from ditzoo_export.scopes import scope_of

Values: TypeAlias = dict[str, npt.NDArray[Any]]

GRAPHS = ("conditioning", "backbone")
"""The graphs of a network, in the order in which they run."""

EXPOSED = "exposed."
"""The prefix of the names of additional outputs, which are added to a graph to read values inside it."""


class Call(Data, frozen=True, kw_only=True):
    """A call of a module in one evaluation of a network.

    `path` is "" for the network itself. `within` has the paths of the modules that enclose the call, the outermost first.
    `shape` is the shape of the output without the batch axis.
    """

    path: str
    within: tuple[str, ...]
    shape: tuple[int, ...]


class Node(Data, frozen=True, kw_only=True):
    """A node of a bundle's graph, and the name of its first output."""

    graph: str
    name: str
    operation: str
    module: str
    value: str


class OutputReader(Protocol):
    """A network whose modules' outputs can be read."""

    def look(self, calls: Sequence[Call], evaluations: Sequence[Values]) -> Iterator[Values]:
        """For each evaluation, the outputs of the modules in `calls`, by path. Modules that the network does not have are left
        out."""

    def place(self, path: str, error: float) -> Place:
        """The place that computes the output of the module at `path`."""


class TorchOutputReader:
    """A network in PyTorch."""

    def __init__(self, backend: TorchBackend) -> None:
        if backend.net is None:
            raise BackendError(f"{backend.name} is closed; open the backend again")
        self._backend, self._net = backend, backend.net

    def calls(self, evaluation: Values) -> list[Call]:
        """The calls of all modules, in the order in which they end. The last one is the network itself."""
        running: list[str] = []
        calls: dict[str, Call] = {}

        def end(path: str, output: Tensor) -> None:
            running.pop()
            calls[path] = Call(path=path, within=tuple(running), shape=tuple(output.shape[1:]))

        with _hooked(dict(self._net.named_modules()), begin=running.append, end=end):
            self._run(evaluation)
        return list(calls.values())

    def look(self, calls: Sequence[Call], evaluations: Sequence[Values]) -> Iterator[Values]:
        """See `OutputReader`."""
        modules = {call.path: self._net.get_submodule(call.path) for call in calls}
        for evaluation in evaluations:
            values: dict[str, Tensor] = {}
            with _hooked(modules, begin=lambda path: None, end=values.__setitem__):
                self._run(evaluation)
            yield {path: _floats(value) for path, value in values.items()}

    def place(self, path: str, error: float) -> Place:
        """See `OutputReader`."""
        kind = type(self._net.get_submodule(path)).__name__
        return Place(graph="", module=path, operation=kind, node="", relative_l2=error, changed=False)

    def _run(self, evaluation: Values) -> None:
        inputs = given(self._backend.inputs, evaluation)
        with self._backend.computing():
            self._net(**{name: torch.from_numpy(value).to(self._backend.device) for name, value in inputs.items()})


class GraphOutputReader:
    """The graphs of a bundle. `reopen` opens a backend on a copy of the bundle whose graphs have additional outputs."""

    def __init__(self, bundle: Bundle, reopen: Callable[[Bundle], MultiOutputBackend]) -> None:
        self.bundle, self._reopen = bundle, reopen
        self.ends = ends(read_nodes(bundle))

    def look(self, calls: Sequence[Call], evaluations: Sequence[Values]) -> Iterator[Values]:
        """See `OutputReader`. A module that computes nothing has no nodes in the graphs, so it is left out."""
        paths = [call.path for call in calls if call.path in self.ends]
        with temporary_folder() as scratch:
            exposed = bundle_with_outputs(self.bundle, calls, scratch)
            with self._reopen(exposed) as backend:
                for evaluation in evaluations:
                    values = backend.values(given(backend.inputs, evaluation))
                    yield {path: values[EXPOSED + path] for path in paths}

    def place(self, path: str, error: float) -> Place:
        """See `OutputReader`."""
        return place_of(self.ends[path], error, changed=False)


def given(specs: Sequence[TensorSpec], values: Values) -> Values:
    """The values for `specs`, by name, in the dtypes of the specs."""
    return {spec.name: values[spec.name].astype(spec.dtype, copy=False) for spec in specs}


def place_of(node: Node, error: float, *, changed: bool) -> Place:
    """The node as the place of a fault, for the result of a bisection."""
    return Place(
        graph=node.graph, module=node.module, operation=node.operation, node=node.name, relative_l2=error, changed=changed
    )


def read_nodes(bundle: Bundle) -> list[Node]:
    """The nodes of a bundle's network, in the order in which they run."""
    return [
        Node(graph=name, name=str(node.name), operation=node.op_type, module=scope_of(node), value=str(node.outputs[0].name))
        for name, graph in network_graphs(bundle)
        for node in ir.load(bundle.path / graph.file).graph
    ]


def network_graphs(bundle: Bundle) -> list[tuple[str, Graph]]:
    """The graphs of the network, in the order in which they run."""
    return [(name, bundle.manifest.graphs[name]) for name in GRAPHS if name in bundle.manifest.graphs]


def ends(nodes: Sequence[Node]) -> dict[str, Node]:
    """The node that computes the output of each module, by the path of the module. It is the last node of the module."""
    found: dict[str, Node] = {}
    for node in nodes:
        names = node.module.split(".") if node.module else []
        for depth in range(len(names) + 1):
            found[".".join(names[:depth])] = node
    return found


def bundle_with_outputs(bundle: Bundle, calls: Sequence[Call], folder: Path) -> Bundle:
    """Writes a copy of a bundle's network into `folder`. Its graphs have the outputs of the modules in `calls` too, in float32.

    The name of such an output is "exposed." followed by the path of the module. Modules without nodes are left out.
    """
    found, graphs = ends(read_nodes(bundle)), {}
    for name, graph in network_graphs(bundle):
        here = [call for call in calls if call.path in found and found[call.path].graph == name]
        write_with_outputs(bundle.path / graph.file, folder, {EXPOSED + call.path: found[call.path].value for call in here})
        specs = [TensorSpec(name=EXPOSED + call.path, shape=("batch", *call.shape)) for call in here]
        graphs[name] = msgspec.structs.replace(graph, outputs=(*graph.outputs, *specs))
    for name in (CARD, PLAN):
        shutil.copyfile(bundle.path / name, folder / name)
    manifest = msgspec.structs.replace(bundle.manifest, graphs=graphs)
    return msgspec.structs.replace(bundle, path=folder, manifest=manifest, identity=None)


def write_with_outputs(path: Path, folder: Path, values: Mapping[str, str]) -> None:
    """Writes the graph at `path` into `folder` with additional outputs in float32.

    `values` maps the name of each additional output to the name of a value inside the graph.
    """
    model = ir.load(path)
    known = {value.name: value for node in model.graph for value in node.outputs}
    for name, value in values.items():
        output = ir.val(name, ir.DataType.FLOAT)
        ir.node("Cast", [known[value]], {"to": ir.DataType.FLOAT.value}, outputs=[output], graph=model.graph)
        model.graph.outputs.append(output)
    ir.save(model, folder / path.name)
    for data in path.parent.glob(f"{path.name}.*"):
        shutil.copyfile(data, folder / data.name)


@contextmanager
def _hooked(
    modules: Mapping[str, nn.Module], *, begin: Callable[[str], None], end: Callable[[str, Tensor], None]
) -> Iterator[None]:
    """Hooks modules for the block. Each module calls `begin` with its path when it begins, and `end` with path and output."""

    def before(path: str) -> Callable[..., None]:
        return lambda module, arguments: begin(path)

    def after(path: str) -> Callable[..., None]:
        return lambda module, arguments, output: end(path, output)

    handles = [module.register_forward_pre_hook(before(path)) for path, module in modules.items()]
    handles += [module.register_forward_hook(after(path)) for path, module in modules.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _floats(value: Tensor) -> npt.NDArray[Any]:
    return np.asarray(value.to(torch.promote_types(value.dtype, torch.float32)).cpu())
