"""Compares backends of one model by name. The arguments of the user become a parity run."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

import msgspec

from ditzoo.backends.base import Backend
from ditzoo.backends.options import BackendSpec, parse_spec, parse_specs
from ditzoo.errors import UsageError, check_flags, check_type, shortened, unknown
from ditzoo.measure.bisection import Bisection
from ditzoo.measure.parity import TIMES, SampledStates, SamplingTask, compared_rows
from ditzoo.measure.parity_run import ParityRun, limits_of, run_parity
from ditzoo.measure.recording import read_recording
from ditzoo.model.exporting import check_exporter
from ditzoo.model.opening import check_openable, open_model, sampling_batch
from ditzoo.model_names import ModelLike, find_model
from ditzoo.pictures.decode import open_decoder
from ditzoo.pictures.draw import condition_of
from ditzoo.plan.make import choose_plan
from ditzoo.plan.table import Plan
from ditzoo.progress import SILENT, Display
from ditzoo.sampling.classes import Classes
from ditzoo.sampling.noise import noise_of
from ditzoo.sampling.request import make_request
from ditzoo.sampling.sizes import check_model_size, choose_size
from ditzoo.weights.catalogue import card_of

PEER, RECORDING = "diffusers", ".npz"
"""The two values that `against` takes: the library whose own network is compared, and the suffix of a file of latents."""


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
    reuse: str | None = None,
    plan: Plan | str | os.PathLike[str] | None = None,
    resolution: str | int | None = None,
    seed: int = 0,
    times: int = TIMES,
    device: str = "cpu",
    threads: int | None = None,
    tolerance: str | Mapping[str, float] | None = None,
    bisect: bool = False,
    display: Display = SILENT,
) -> ParityRun:
    """Measures how far the results of backends differ: for single evaluations, after each step, and in the pictures.

    `backends` is a text such as "torch,onnxruntime:int8" or a list. The first backend is the reference. `exact` makes torch in
    float64 the reference and compares all `backends` with it. `against` adds a comparison. "diffusers" stands for diffusers'
    own network; it takes options like a backend. The path of an .npz file stands for latents that another system drew; the
    file then also states what was drawn, so `classes`, `prompts`, `solver`, `steps`, `guidance`, `reuse` and `resolution` must
    be left out. These arguments, `plan` and `seed` are the same as those of `Model.sample`. Single evaluations are compared at
    `times` timesteps. `tolerance` replaces limits: a text such as "forward=1e-4,psnr=50", or a dictionary. `bisect` also finds
    the first block and the first operation whose error exceeds the tolerance. Raises UsageError if the arguments are wrong or
    if the backends cannot be compared. Raises BackendError if an output is NaN or infinite.
    """
    check_flags(exact=exact, bisect=bisect)
    found = find_model(model)
    card = card_of(found)
    specs, file = contestants(backends, against, exact=exact, bisect=bisect)
    recording = None
    if file is None:
        chosen = choose_plan(found, plan, solver=solver, steps=steps, guidance=guidance, reuse=reuse)
        size = choose_size(found, resolution)
        request = make_request(card, chosen, classes=classes, prompts=prompts, seed=seed, size=size)
        noise = noise_of(request.seed, range(request.count), (card.backbone.latent_shape[0], *size))
    else:
        given = {"classes": classes, "prompts": prompts, "solver": solver, "steps": steps, "guidance": guidance}
        _check_alone(file, {**given, "reuse": reuse, "resolution": resolution})
        recording = read_recording(file, card, plan=None if plan is None else choose_plan(card, plan))
        request, noise = recording.request, recording.noise
        size = request.latent_size(card)
        check_model_size(found, size)
    rows, tolerances = compared_rows(request.plan, times), limits_of(tolerance)
    check_openable(found, specs, device=device, threads=threads)
    condition = condition_of(found, request, device=device, display=display)
    together = sampling_batch(request.count)
    measured = run_parity(
        [
            partial(
                open_model,
                found,
                spec,
                device=device,
                threads=threads,
                size=size,
                batch=together,
                plan=request.plan,
                display=display,
            )
            for spec in specs
        ],
        SamplingTask(plan=request.plan, condition=condition, noise=noise),
        rows=rows,
        decoder=open_decoder(found, device=device),
        recorded=None if recording is None else recording.drawn,
        tolerances=tolerances,
        bisect=bisect_with_exporter if bisect else None,
        display=display,
    )
    return msgspec.structs.replace(measured, request=request)


def contestants(
    backends: str | Sequence[str] | None, against: str | os.PathLike[str] | None, *, exact: bool, bisect: bool
) -> tuple[list[BackendSpec], Path | None]:
    """Returns the backends to compare, the reference first, and the file of latents to compare, or None without a file.

    Raises UsageError if there are fewer than two things to compare, if `against` names another library than diffusers, or if
    the reference of a bisection is not torch.
    """
    if against is not None:
        check_type("against", against, (str, os.PathLike), f"{PEER}, or the path of a file of latents ({RECORDING})")
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
            raise unknown("peer", peer, [PEER, f"FILE{RECORDING}"], hint="--backends takes the other backends")
        specs.append(parse_spec(peer))
    if len(specs) < 2 and file is None:
        raise UsageError(
            f"--backends needs two or more, the reference first, such as torch,onnxruntime, not {shortened(text)!r}"
        )
    if bisect and len(specs) < 2:
        raise UsageError("--bisect compares backends, not files; name a second backend, such as --backends torch,onnxruntime")
    if bisect and specs[0].name != "torch":
        raise UsageError(
            f"--bisect compares backends with the modules of torch; put torch first in --backends, not {specs[0].name}"
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
    """Finds the blocks where a candidate differs from torch. The arguments are those of `ditzoo.measure.parity_run.Bisect`.

    The exporter does the work, because it can make every value of a graph an output. Raises MissingPackageError if the extra
    `export` is not installed.
    """
    check_exporter()
    from ditzoo_export.bisection.search import bisect, evaluations

    return bisect(reference, candidate, evaluations(drawn, task, rows=rows), tolerance=tolerance)


def _check_alone(file: Path, given: Mapping[str, object]) -> None:
    """Raises UsageError if an argument is given that the file of latents already states."""
    for name, value in given.items():
        if value is not None:
            raise UsageError(f"{file} states what was drawn; leave out --{name}")
