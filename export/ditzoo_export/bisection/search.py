"""The search for the place where a network goes wrong: the first block beyond the tolerance, and the first operation in it.

The reference is the network in PyTorch. Its blocks are the modules that its own code calls. For the first block beyond the
tolerance, the search first asks whether the graph was changed: then the place is the first value that differs from that of a
fresh export with the same settings. If the graph was not changed, the candidate's arithmetic is not exact enough, and the place
is the first module inside of the block that is beyond the tolerance.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

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
from ditzoo_export.artifacts import cached_bundle
from ditzoo_export.bisection.changed_graphs import error, first_change
from ditzoo_export.bisection.module_outputs import Call, GraphOutputReader, OutputReader, TorchOutputReader, Values
from ditzoo_export.engines import fill_engines
from ditzoo_export.settings import EngineSettings, Settings


def evaluations(drawn: SampledStates, work: SamplingTask, *, rows: Sequence[int]) -> list[Values]:
    """The inputs of the network at `rows` of the plan, on the latents that were sampled, with both halves of guidance."""
    return [evaluation_inputs(drawn.states[row], work.plan.rows[row], work.condition) for row in rows]


def bisect(reference: Backend, candidate: Backend, evaluations: Sequence[Values], *, tolerance: float) -> Bisection:
    """The first place where `candidate` differs from `reference` by more than `tolerance`, in each of the evaluations.

    Raises UsageError for a reference that is not torch, and for a candidate whose modules cannot be read.
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
        f"--bisect holds a backend against the modules of torch: put torch first in --backends, not {reference.name}"
    )


def _blocks(calls: Sequence[Call]) -> list[Call]:
    """The modules that the network's own code calls, and after them the network itself."""
    return [call for call in calls if len(call.within) < 2]


def _profiles(
    truth: OutputReader, other: OutputReader, calls: Sequence[Call], evaluations: Sequence[Values]
) -> list[dict[str, float]]:
    """For each evaluation, the error of every module in `calls` that both sides have, by path, in the order of `calls`."""
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
    """For each evaluation the place where it goes wrong; None where no block is beyond the tolerance."""
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
    """The place where the graph of a candidate was changed; None if it was not, or the candidate has no graph."""
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
        return GraphOutputReader(cached_bundle(candidate.card, settings=settings.onnx), partial(_on_tensorrt, settings))
    readable = ", ".join(row.name for row in ROWS if row.readable_modules)
    raise UsageError(f"--bisect can look into {readable}, not into {candidate.name}")


def _on_tensorrt(settings: EngineSettings, exposed: Bundle) -> TensorRTBackend:
    """Engines of a bundle with more outputs, built for this."""
    options = OpenOptions(precision=settings.onnx.precision)
    return open_engines(row_of(settings.flavour), build_engines(exposed, settings), options)


def build_engines(exposed: Bundle, settings: EngineSettings) -> Bundle:
    """Builds engines of a bundle in a folder inside of it. The outputs that its graphs were given are the engines' too."""
    folder = exposed.path / "engines"
    folder.mkdir()
    fill_engines(folder, exposed, settings, key="exposed", made_by={})
    return open_bundle(folder)


def engine_settings(bundle: Bundle) -> EngineSettings:
    """The settings of engines like those of a bundle, with the one profile that runs a single image of its default size."""
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
