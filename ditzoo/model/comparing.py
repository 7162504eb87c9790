"""Comparing backends of one model by name: from what the user asks for to a parity run."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path

from ditzoo.backends.base import Backend
from ditzoo.backends.options import BackendSpec, parse_spec, parse_specs
from ditzoo.bundle import Bundle
from ditzoo.errors import UsageError, check_type, unknown
from ditzoo.measure.bisection import Bisection
from ditzoo.measure.parity import TIMES, SampledStates, SamplingTask, compared_rows
from ditzoo.measure.parity_run import ParityRun, limits_of, run_parity
from ditzoo.measure.recording import read_recording
from ditzoo.model.exporting import check_exporter
from ditzoo.model.opening import open_model
from ditzoo.model_names import ModelLike, find_model
from ditzoo.pictures.decode import open_decoder
from ditzoo.pictures.draw import condition_of
from ditzoo.plan.make import choose_plan
from ditzoo.plan.table import Plan
from ditzoo.progress import SILENT, Display
from ditzoo.sampling.classes import Classes
from ditzoo.sampling.condition import Condition
from ditzoo.sampling.noise import noise_of
from ditzoo.sampling.request import SampleRequest, make_request
from ditzoo.sampling.sizes import check_model_size, choose_size
from ditzoo.specs import Device
from ditzoo.weights.catalogue import card_of
from ditzoo.zoo.card import Card

PEER, RECORDING = "diffusers", ".npz"
"""What `against` may be: the library whose own networks run beside ours, and how the name of a file of latents ends."""


def parity(
    model: ModelLike,
    *,
    backends: str | Sequence[str] | None = None,
    exact: bool = False,
    against: str | os.PathLike[str] | None = None,
    classes: Classes | None = None,
    prompts: str | Iterable[str] | None = None,
    solver: str | None = None,
    steps: int | None = None,
    guidance: float | None = None,
    plan: Plan | str | os.PathLike[str] | None = None,
    resolution: str | int | None = None,
    seed: int = 0,
    times: int = TIMES,
    device: Device | str = "cpu",
    threads: int | None = None,
    tolerance: str | Mapping[str, float] | None = None,
    bisect: bool = False,
    display: Display = SILENT,
) -> ParityRun:
    """Measures how far backends of one model are apart: on single evaluations, over the steps, and on the pictures.

    `backends` has the reference first, as "torch,onnxruntime:int8" or as a list. `exact` puts torch in float64 before them.
    `against` also compares diffusers' own network ("diffusers", with options as any backend), or the latents in an .npz file
    that another system drew, which then says what was drawn. `classes`, `prompts`, `solver`, `steps`, `guidance`, `plan`,
    `resolution` and `seed` are those of `Model.sample`; `times` is at how many timesteps single evaluations are compared.
    `tolerance` sets other limits, as "forward=1e-4,psnr=50" or by name. `bisect` also finds the first block and operation
    beyond the tolerance. Raises UsageError for what cannot be compared, and BackendError for a number that is not finite.
    """
    found = find_model(model)
    card = card_of(found)
    specs, file = contestants(backends, against, exact=exact, bisect=bisect)
    recording = None
    if file is None:
        chosen = choose_plan(found, plan, solver=solver, steps=steps, guidance=guidance)
        size = choose_size(found, resolution)
        request = make_request(card, chosen, classes=classes, prompts=prompts, seed=seed, size=size)
        noise = noise_of(request.seed, range(request.count), (card.backbone.latent_shape[0], *size))
    else:
        given = {"classes": classes, "prompts": prompts, "solver": solver, "steps": steps, "guidance": guidance}
        _check_alone(file, {**given, "resolution": resolution})
        recording = read_recording(file, card, plan=None if plan is None else choose_plan(card, plan))
        request, noise = recording.request, recording.noise
        size = request.latent_size(card)
        check_model_size(found, size)
    rows, tolerances = compared_rows(request.plan, times), limits_of(tolerance)
    return run_parity(
        [partial(open_model, found, spec, device=device, threads=threads, size=size, display=display) for spec in specs],
        SamplingTask(plan=request.plan, condition=_condition(found, request, device, display), noise=noise),
        rows=rows,
        decoder=open_decoder(found, device=device),  # type: ignore[arg-type]  # `open_model` checks it
        recorded=None if recording is None else recording.drawn,
        tolerances=tolerances,
        bisect=bisect_with_exporter if bisect else None,
        display=display,
    )


def contestants(
    backends: str | Sequence[str] | None, against: str | os.PathLike[str] | None, *, exact: bool, bisect: bool
) -> tuple[list[BackendSpec], Path | None]:
    """The backends that are compared, the reference first, and the file that is compared with it, if there is one.

    Raises UsageError for fewer than two to compare, for another peer than diffusers, and for a bisection that is not against
    torch.
    """
    listed = ("torch" if against else "torch,onnxruntime") if backends is None else backends
    check_type(
        "backends", listed, (str, list, tuple), "a text or a list, such as 'torch,onnxruntime' or ['torch', 'onnxruntime']"
    )
    text = listed if isinstance(listed, str) else ",".join(map(str, listed))
    specs = parse_specs(text)
    if exact:
        specs.insert(0, BackendSpec(name="torch", precision="fp64"))
    file = Path(against) if against is not None and os.fspath(against).endswith(RECORDING) else None
    if against is not None and file is None:
        peer = os.fspath(against)
        if peer.partition(":")[0] != PEER:
            raise unknown("peer", peer, [PEER, f"FILE{RECORDING}"], hint="other backends are for --backends")
        specs.append(parse_spec(peer))
    if len(specs) < 2 and file is None:
        raise UsageError(f"--backends needs two or more, the reference first, such as torch,onnxruntime; not {text!r}")
    if bisect and len(specs) < 2:
        raise UsageError("--bisect looks into backends, not into files; name one, such as --backends torch,onnxruntime")
    if bisect and specs[0].name != "torch":
        raise UsageError(
            f"--bisect holds backends against the modules of torch: put torch first in --backends, not {specs[0].name}"
        )
    return specs, file


def bisect_with_exporter(
    reference: Backend,
    candidate: Backend,
    task: SamplingTask,
    drawn: SampledStates,
    *,
    rows: Sequence[int],
    tolerance: float,
) -> Bisection:
    """Finds where a candidate departs from torch. The exporter does it, which can make every value of a graph an output.

    See `ditzoo.measure.parity_run.Bisect`; raises MissingPackageError without the extra `export`.
    """
    check_exporter()
    from ditzoo_export.bisection.search import bisect, evaluations

    return bisect(reference, candidate, evaluations(drawn, task, rows=rows), tolerance=tolerance)


def _condition(model: Card | Bundle, request: SampleRequest, device: Device | str, display: Display) -> Condition | None:
    with display.status("encoding the prompts") if request.prompts else nullcontext():
        return condition_of(model, request, device=device)  # type: ignore[arg-type]  # `open_model` checks it


def _check_alone(file: Path, given: Mapping[str, object]) -> None:
    """Raises UsageError for an argument that says again what a file of latents says."""
    for name, value in given.items():
        if value is not None:
            raise UsageError(f"{file} says what was drawn; leave out --{name}")
