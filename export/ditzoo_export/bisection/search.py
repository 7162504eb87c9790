"""The search for the place of a fault in a network: the first block beyond the tolerance, and the first operation in it.

The reference is the network in PyTorch. Its blocks are the modules that its `forward` calls itself. The search finds the first
block beyond the tolerance. If the graph was changed, the place is the first value that differs from a fresh export with the
same settings. Otherwise the candidate's arithmetic is not exact enough, and the place is the first module inside the block that
is beyond the tolerance.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from ditzoo.backends import cuda
from ditzoo.backends.base import Backend
from ditzoo.backends.batching import chunks
from ditzoo.backends.graph_backend import GraphBackend
from ditzoo.backends.options import OpenOptions
from ditzoo.backends.table import ROWS, row_of
from ditzoo.backends.tensorrt import TensorRTBackend, open_engines
from ditzoo.backends.torch import TorchBackend
from ditzoo.bundle import Bundle, open_bundle
from ditzoo.errors import UsageError
from ditzoo.measure.bisection import OUTPUT, Bisection, BlockErrors, Fault, Place
from ditzoo.measure.parity import SampledStates, SamplingTask
from ditzoo.sampling.loop import evaluation_inputs
from ditzoo.sampling.sizes import choose_size
from ditzoo.specs import device_name
from ditzoo_export.artifacts import cached_bundle
from ditzoo_export.bisection.changed_graphs import error, first_change
from ditzoo_export.bisection.module_outputs import Call, GraphOutputReader, OutputReader, TorchOutputReader, Values
from ditzoo_export.engines import fill_engines
from ditzoo_export.settings import EngineSettings, Settings


def evaluations(drawn: SampledStates, work: SamplingTask, *, rows: Sequence[int]) -> list[Values]:
    """The inputs of the network for each of `rows` of the plan, on the sampled latents, with and without the condition."""
    return [evaluation_inputs(drawn.states[row], work.plan.rows[row], work.condition) for row in rows]


def bisect(reference: Backend, candidate: Backend, evaluations: Sequence[Values], *, tolerance: float) -> Bisection:
    """Finds, for each evaluation, the first place where `candidate` differs from `reference` by more than `tolerance`.

    Raises UsageError if the reference is not torch, or if the modules of the candidate cannot be read.
    """
    truth, other = TorchOutputReader(_torch(reference)), _output_reader(candidate)
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
        f"--bisect compares a backend with the modules of torch: put torch first in --backends, not {reference.name}"
    )


def _blocks(calls: Sequence[Call]) -> list[Call]:
    """The modules that the network's `forward` calls itself, followed by the network."""
    return [call for call in calls if len(call.within) < 2]


def _profiles(
    truth: OutputReader, other: OutputReader, calls: Sequence[Call], evaluations: Sequence[Values]
) -> list[dict[str, float]]:
    """For each evaluation, the errors of the modules in `calls`, by path, in the order of `calls`.

    Modules that `other` does not have are left out.
    """
    return [
        {call.path: error(given[call.path], expected[call.path]) for call in calls if call.path in given}
        for expected, given in zip(truth.look(calls, evaluations), other.look(calls, evaluations), strict=True)
    ]


def _first(profile: dict[str, float], tolerance: float) -> str | None:
    """The first path whose error is beyond the tolerance, or is NaN."""
    return next((path for path, error in profile.items() if not error <= tolerance), None)


def _places(
    truth: OutputReader,
    other: OutputReader,
    calls: Sequence[Call],
    firsts: Sequence[str | None],
    evaluations: Sequence[Values],
    tolerance: float,
) -> list[Place | None]:
    """For each evaluation, the place of the fault. It is None if no block is beyond the tolerance."""
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
    """The place where the graph of a candidate was changed. None if it was not changed, or if the candidate has no graph."""
    blocks = [call.path for call in _blocks(calls)]
    return first_change(other.bundle, evaluation, blocks) if isinstance(other, GraphOutputReader) else None


def _block_errors(evaluation: Values, profile: dict[str, float], first: str | None, place: Place | None) -> BlockErrors:
    return BlockErrors(
        time=float(evaluation["t"][0]),
        blocks={path or OUTPUT: error for path, error in profile.items()},
        fault=None if first is None or place is None else Fault(block=first or OUTPUT, place=place),
    )


def _output_reader(candidate: Backend) -> OutputReader:
    if isinstance(candidate, TorchBackend) and candidate.library == "torch" and not candidate.compiled:
        return TorchOutputReader(candidate)
    if isinstance(candidate, GraphBackend):
        return GraphOutputReader(open_bundle(candidate.folder), candidate.reopen)
    if isinstance(candidate, TensorRTBackend):
        settings = engine_settings(open_bundle(candidate.folder))
        return GraphOutputReader(
            cached_bundle(candidate.card, settings=settings.onnx), partial(_on_tensorrt, settings, candidate.index)
        )
    readable = ", ".join(row.name for row in ROWS if row.readable_modules)
    raise UsageError(f"--bisect can look into {readable}, not into {candidate.name}")


def _on_tensorrt(settings: EngineSettings, index: int, exposed: Bundle) -> TensorRTBackend:
    """Builds engines of a bundle with additional outputs, and opens them, on the GPU of this number."""
    options = OpenOptions(device=device_name(f"cuda:{index}"), precision=settings.onnx.precision)
    with cuda.on_gpu(index):
        built = build_engines(exposed, settings)
    return open_engines(row_of(settings.flavour), built, options)


def build_engines(exposed: Bundle, settings: EngineSettings) -> Bundle:
    """Builds engines of a bundle in a folder inside it. They have the additional outputs of the bundle's graphs too."""
    folder = exposed.path / "engines"
    folder.mkdir()
    fill_engines(folder, exposed, settings, key="exposed", made_by={})
    return open_bundle(folder)


def engine_settings(bundle: Bundle) -> EngineSettings:
    """The settings for engines like those of a bundle, but with one profile: the one that runs an image of the default size."""
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
