"""Finding where a network goes wrong: the first block that is beyond the tolerance, and the first operation.

The truth is the network in PyTorch; its blocks are the modules that its own code calls. For the first one beyond the tolerance
there are two questions, in this order. Was the graph changed? Then the first value that a fresh export of the same settings has
not is the place. If it was not, the candidate's arithmetic is that far off, and the place is the first module inside of the
block that is beyond the tolerance.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from ditzoo.backends.base import Backend
from ditzoo.backends.batching import chunks
from ditzoo.backends.onnxruntime import OnnxRuntimeBackend
from ditzoo.backends.tensorrt import TensorRTBackend, open_engines
from ditzoo.backends.torch import TorchBackend
from ditzoo.bundle import Bundle, open_bundle
from ditzoo.errors import UsageError
from ditzoo.measure.bisection import OUTPUT, Bisection, BlockErrors, Fault, Place
from ditzoo.measure.parity import SampledStates, SamplingTask
from ditzoo.sampling.loop import evaluation_inputs
from ditzoo.sampling.sizes import choose_size
from ditzoo_export.artifacts import cached_bundle
from ditzoo_export.bisection.changed_graphs import error, first_change
from ditzoo_export.bisection.module_outputs import Call, GraphOutputReader, OutputReader, TorchOutputReader, Values
from ditzoo_export.engines import fill_engines
from ditzoo_export.settings import EngineSettings, Settings


def evaluations(drawn: SampledStates, work: SamplingTask, *, rows: Sequence[int]) -> list[Values]:
    """The inputs of the network at `rows` of the plan, on the latents that were drawn, both halves of guidance."""
    return [evaluation_inputs(drawn.states[row], work.plan.rows[row], work.condition) for row in rows]


def bisect(reference: Backend, candidate: Backend, evaluations: Sequence[Values], *, tolerance: float) -> Bisection:
    """Where `candidate` departs from `reference` by more than `tolerance`, in each of the evaluations.

    Raises UsageError for a reference that is not torch, and for a candidate that cannot be looked into.
    """
    truth, other = TorchOutputReader(_torch(reference)), _watcher(candidate)
    calls = truth.calls(evaluations[0])
    profiles = _profiles(truth, other, _blocks(calls), evaluations)
    firsts = [_first(profile, tolerance) for profile in profiles]
    places = _places(truth, other, calls, firsts, evaluations, tolerance)
    moments = tuple(map(_block_errors, evaluations, profiles, firsts, places))
    return Bisection(reference=reference.name, candidate=candidate.name, tolerance=tolerance, moments=moments)


def _torch(reference: Backend) -> TorchBackend:
    if isinstance(reference, TorchBackend) and reference.library == "torch":
        return reference
    raise UsageError(
        f"--bisect holds a backend against the modules of torch: put torch first in --backends, not {reference.name}"
    )


def _blocks(calls: Sequence[Call]) -> list[Call]:
    """The modules that the network's own code calls, and the network itself behind them."""
    return [call for call in calls if len(call.within) < 2]


def _profiles(
    truth: OutputReader, other: OutputReader, calls: Sequence[Call], evaluations: Sequence[Values]
) -> list[dict[str, float]]:
    """For each evaluation, the error of every module at `calls` that both have, by path, in their order."""
    return [
        {call.path: error(given[call.path], expected[call.path]) for call in calls if call.path in given}
        for expected, given in zip(truth.look(calls, evaluations), other.look(calls, evaluations), strict=True)
    ]


def _first(profile: dict[str, float], tolerance: float) -> str | None:
    """The first path beyond the tolerance. A NaN is."""
    return next((path for path, error in profile.items() if not error <= tolerance), None)


def _places(
    truth: OutputReader,
    other: OutputReader,
    calls: Sequence[Call],
    firsts: Sequence[str | None],
    evaluations: Sequence[Values],
    tolerance: float,
) -> list[Place | None]:
    """The place for each evaluation that has a first block beyond the tolerance."""
    places = {i: _changed(other, calls, evaluations[i]) for i, first in enumerate(firsts) if first is not None}
    unchanged = [i for i, place in places.items() if place is None]
    for block in dict.fromkeys(firsts[i] for i in unchanged):
        at = [i for i in unchanged if firsts[i] == block]
        inside = [call for call in calls if call.path == block or (block and block in call.within)]
        for i, profile in zip(at, _profiles(truth, other, inside, [evaluations[i] for i in at]), strict=True):
            path = _first(profile, tolerance) or inside[-1].path
            places[i] = other.place(path, profile[path])
    return [places.get(i) for i in range(len(firsts))]


def _changed(other: OutputReader, calls: Sequence[Call], evaluation: Values) -> Place | None:
    """The place where the graph of a candidate that has one was changed."""
    blocks = [call.path for call in _blocks(calls)]
    return first_change(other.bundle, evaluation, blocks) if isinstance(other, GraphOutputReader) else None


def _block_errors(evaluation: Values, profile: dict[str, float], first: str | None, place: Place | None) -> BlockErrors:
    return BlockErrors(
        time=float(evaluation["t"][0]),
        blocks={path or OUTPUT: error for path, error in profile.items()},
        fault=None if first is None or place is None else Fault(block=first or OUTPUT, place=place),
    )


def _watcher(candidate: Backend) -> OutputReader:
    if isinstance(candidate, TorchBackend) and candidate.library == "torch" and not candidate.compiled:
        return TorchOutputReader(candidate)
    if isinstance(candidate, OnnxRuntimeBackend):
        return GraphOutputReader(open_bundle(candidate.folder), partial(_on_onnxruntime, candidate))
    if isinstance(candidate, TensorRTBackend):
        settings = engine_settings(open_bundle(candidate.folder))
        return GraphOutputReader(cached_bundle(candidate.card, settings=settings.onnx), partial(_on_tensorrt, settings))
    raise UsageError(f"--bisect can look into torch, onnxruntime, tensorrt and tensorrt_rtx, not into {candidate.name}")


def _on_onnxruntime(candidate: OnnxRuntimeBackend, watched: Bundle) -> OnnxRuntimeBackend:
    """The graphs of a watched bundle, opened as the candidate's were."""
    graphs = watched.manifest.graphs
    return OnnxRuntimeBackend(watched.path, graphs, watched.card, device=candidate.device, threads=candidate.threads)


def _on_tensorrt(settings: EngineSettings, watched: Bundle) -> TensorRTBackend:
    """Engines of a watched bundle, built for this."""
    return open_engines(build_engines(watched, settings), flavour=settings.flavour, precision=settings.onnx.precision)


def build_engines(watched: Bundle, settings: EngineSettings) -> Bundle:
    """Engines of a watched bundle in a folder inside of it. What its graphs show are outputs of the engines too."""
    folder = watched.path / "engines"
    folder.mkdir()
    fill_engines(folder, watched, settings, key="watched", made_by={})
    return open_bundle(folder)


def engine_settings(bundle: Bundle) -> EngineSettings:
    """The settings of engines like those of a bundle, in the one profile that runs an image of its default size."""
    engines = list(bundle.manifest.engines.values())
    profiles = [(engine, profile) for engine in engines if engine.graph == "backbone" for profile in engine.profiles]
    height, width = choose_size(bundle, None)
    (chosen, *_) = chunks([profile for _, profile in profiles], {"batch": 1, "height": height, "width": width})
    engine, profile = profiles[chosen.profile]
    onnx = Settings(
        precision=engine.precision,
        target="tensorrt",
        size=(height, width),
        split=any(engine.graph == "conditioning" for engine in engines),
    )
    return EngineSettings(onnx=onnx, flavour=engine.flavour, gpus=engine.gpus, profiles=(profile,))
