"""`ditzoo sample`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ditzoo.cli import output
from ditzoo.cli.options import (
    Classes,
    Device,
    Guidance,
    GuidanceInterval,
    GuidanceTimes,
    Json,
    Prompt,
    Prompts,
    Seed,
    Solver,
    Steps,
    Threads,
)
from ditzoo.cli.request import check_alone, chosen_plan, condition_of, new_request, shown
from ditzoo.errors import BackendError, UsageError

if TYPE_CHECKING:
    from ditzoo.backends.base import Backend
    from ditzoo.bundle import Bundle
    from ditzoo.plan.table import Plan
    from ditzoo.sampling.condition import Condition
    from ditzoo.sampling.noise import Floats
    from ditzoo.sampling.request import SampleRequest
    from ditzoo.specs import Precision
    from ditzoo.zoo.card import Card


def sample(
    context: typer.Context,
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME|DIR", help="A model's name (see `ditzoo list`), or a bundle's folder.", show_default=False
        ),
    ] = None,
    backend: Annotated[
        str | None, typer.Option(help="torch or onnxruntime. [default: torch for a name, onnxruntime for a bundle]")
    ] = None,
    classes: Classes = None,
    num: Annotated[
        int | None, typer.Option(help="How many images; classes and prompts take turns. [default: one each, or 10]")
    ] = None,
    prompt: Prompt = None,
    prompts: Prompts = None,
    solver: Solver = None,
    steps: Steps = None,
    guidance: Guidance = None,
    guidance_interval: GuidanceInterval = None,
    guidance_times: GuidanceTimes = None,
    plan: Annotated[Path | None, typer.Option(help="A plan that `ditzoo plan save` wrote, in place of the five above.")] = None,
    seed: Seed = 0,
    like: Annotated[Path | None, typer.Option(help="Repeat what made this PNG file of ours.")] = None,
    batch: Annotated[int | None, typer.Option(help="Images at a time; changes no image. [default: all at once]")] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="A picture file for a contact sheet, or a folder for single pictures. [default: NAME.png]"),
    ] = None,
    save_latents: Annotated[
        Path | None,
        typer.Option(
            help="Also save the latents [N, C, H, W] as this .npy file, or .npz: with what made them, for `parity --against`."
        ),
    ] = None,
    preview: Annotated[int | None, typer.Option(help="Also save the first batch after every so many steps.")] = None,
    animate: Annotated[Path | None, typer.Option(help="Also save the first batch's way as this .webp or .gif.")] = None,
    device: Device = "cpu",
    precision: Annotated[
        str | None, typer.Option(help="fp64, fp32, bf16 or fp16 (torch). [default: fp32, or what the bundle was exported in]")
    ] = None,
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Draw images with a model, on any backend."""
    from ditzoo.backends.options import BackendSpec
    from ditzoo.bundle import Bundle
    from ditzoo.cli.models import card_of, find, open_on
    from ditzoo.cli.pictures import check_targets
    from ditzoo.pictures.png_metadata import read_request
    from ditzoo.sampling.loop import check_request

    if like is not None:
        check_alone(context, "--like repeats a picture exactly")
        request = read_request(like)
        found = find(model or request.model)
        if card_of(found).name != request.model:
            raise UsageError(f"{like} shows {request.model}, not {card_of(found).name}")
    else:
        if model is None:
            raise UsageError("Missing argument 'NAME|DIR'; see `ditzoo list`")
        found = find(model)
        wanted = shown(card_of(found), classes, num, prompt, prompts)
        made = chosen_plan(card_of(found), solver, steps, guidance, guidance_interval, guidance_times, plan)
        request = new_request(card_of(found), made, seed, *wanted)
    card = card_of(found)
    condition = condition_of(found, request)
    check_request(count=request.count, batch=request.count if batch is None else batch, seed=request.seed)
    target = Path(f"{card.name}.png") if out is None else out
    check_targets(target, latents=save_latents, preview=preview, animate=animate)
    name = backend or ("onnxruntime" if isinstance(found, Bundle) else "torch")
    spec = BackendSpec(name=name, precision=precision)  # type: ignore[arg-type]  # `open_backend` checks it
    with open_on(found, spec, device=device, threads=threads) as opened:
        started = time.perf_counter()
        written = _draw(
            opened,
            found,
            request,
            condition,
            batch=batch,
            target=target,
            latents=save_latents,
            preview=preview,
            animate=animate,
        )
        seconds = time.perf_counter() - started
        name = opened.name
    _tell(request, card, name, written, seconds, json=json)


def draw(backend: Backend, plan: Plan, classes: list[int], *, seed: int, batch: int | None) -> Floats:
    """The latents of one image a class, with a progress bar."""
    import numpy as np

    from ditzoo.sampling.condition import class_condition
    from ditzoo.sampling.loop import sample_steps

    batches = -(-len(classes) // (batch or len(classes)))
    condition, finished = class_condition(backend.card, classes), []
    with output.progress(f"{backend.card.name} on {backend.name}", batches * len(plan.rows)) as advance:
        for step in sample_steps(backend, plan, count=len(classes), condition=condition, seed=seed, batch=batch):
            if step.done:
                advance()
            if step.done == len(plan.rows):
                finished.append(backend.numpy(step.x))
    return np.concatenate(finished)


def _draw(
    backend: Backend,
    model: Card | Bundle,
    request: SampleRequest,
    condition: Condition | None,
    *,
    batch: int | None,
    target: Path,
    latents: Path | None,
    preview: int | None,
    animate: Path | None,
) -> list[Path]:
    """Samples, decodes and writes, batch by batch; returns what was written."""
    from ditzoo.cli.pictures import Folder, Trajectory
    from ditzoo.pictures.decode import decode, open_decoder
    from ditzoo.sampling.loop import sample_steps
    from ditzoo.sampling.memory import batch_that_fits, is_out_of_memory

    plan, size, decoder = request.plan, batch or request.count, open_decoder(model)
    folder, way, finished = (
        Folder(target, request),
        Trajectory(target, steps=len(plan.rows), preview=preview, animate=animate),
        [],
    )
    states = sample_steps(
        backend, plan, count=request.count, condition=condition, seed=request.seed, batch=batch, first=request.first
    )
    try:
        with output.progress(f"{backend.card.name} on {backend.name}", -(-request.count // size) * len(plan.rows)) as advance:
            for step in states:
                if step.done:
                    advance()
                if step.images.start == 0 and way.wants(step.done):
                    way.take(step.done, decode(model, backend.numpy(step.x), decoder=decoder))
                if step.done == len(plan.rows):
                    finished.append(backend.numpy(step.x))
                    folder.take(decode(model, finished[-1], decoder=decoder))
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        fits = batch_that_fits(backend, plan, batch=min(size, request.count), condition=condition)
        remedy = f"--batch {fits} fits" if fits else "not even one image fits; use another device or precision"
        raise BackendError(
            f"out of memory with {min(size, request.count)} images at a time on {backend.name}: {remedy}"
        ) from error
    folder.finish()
    way.finish()
    return [*folder.written, *way.written, *_save_latents(latents, request, finished, backend.precision)]


def _tell(request: SampleRequest, card: Card, backend: str, written: list[Path], seconds: float, *, json: bool) -> None:
    if json:
        summary = {
            "model": card.name,
            "backend": backend,
            "solver": request.plan.solver,
            "steps": len(request.plan.rows),
            "seed": request.seed,
            **({"first": request.first} if request.first else {}),
            **({"classes": request.classes} if request.prompts is None else {"prompts": request.prompts}),
        }
        output.json({**summary, "seconds": seconds, "files": [str(path) for path in written]})
        return
    last = request.first + request.count - 1
    output.talk(
        f"{request.count} images of {card.name}, {request.plan.solver} in {len(request.plan.rows)} steps, {backend}:"
        f" {seconds:.1f} s; seed {request.seed}, images {request.first} to {last}"
    )
    for path in written:
        output.data(str(path))


def _save_latents(path: Path | None, request: SampleRequest, latents: list[Floats], precision: Precision) -> list[Path]:
    import numpy as np

    from ditzoo.files import replacing
    from ditzoo.measure.recording import write_recording

    if path is None:
        return []
    if path.suffix == ".npz":
        write_recording(path, request, np.concatenate(latents), precision=precision)
        return [path]
    with replacing(path) as scratch:
        np.save(scratch, np.concatenate(latents))
    return [path]
