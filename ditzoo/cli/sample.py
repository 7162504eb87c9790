"""`ditzoo sample`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ditzoo.cli import output
from ditzoo.cli.options import Classes, Device, Guidance, GuidanceInterval, Json, Prompt, Prompts, Seed, Solver, Steps, Threads
from ditzoo.cli.request import check_alone, chosen_plan, condition_of, new_drawing, shown
from ditzoo.errors import BackendError, UsageError

if TYPE_CHECKING:
    from ditzoo.backends.base import Backend
    from ditzoo.bundle import Bundle
    from ditzoo.plan.table import Plan
    from ditzoo.sampling.condition import Condition
    from ditzoo.sampling.noise import Floats
    from ditzoo.sampling.request import Drawing
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
    plan: Annotated[Path | None, typer.Option(help="A plan that `ditzoo plan save` wrote, in place of the four above.")] = None,
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
    from ditzoo.pictures.png_metadata import read_drawing
    from ditzoo.sampling.loop import check_request

    if like is not None:
        check_alone(context, "--like repeats a picture exactly")
        drawing = read_drawing(like)
        found = find(model or drawing.model)
        if card_of(found).name != drawing.model:
            raise UsageError(f"{like} shows {drawing.model}, not {card_of(found).name}")
    else:
        if model is None:
            raise UsageError("Missing argument 'NAME|DIR'; see `ditzoo list`")
        found = find(model)
        wanted = shown(card_of(found), classes, num, prompt, prompts)
        made = chosen_plan(card_of(found), solver, steps, guidance, guidance_interval, plan)
        drawing = new_drawing(card_of(found), made, seed, *wanted)
    card = card_of(found)
    condition = condition_of(found, drawing)
    check_request(count=drawing.count, batch=drawing.count if batch is None else batch, seed=drawing.seed)
    target = Path(f"{card.name}.png") if out is None else out
    check_targets(target, latents=save_latents, preview=preview, animate=animate)
    name = backend or ("onnxruntime" if isinstance(found, Bundle) else "torch")
    spec = BackendSpec(name=name, precision=precision)  # type: ignore[arg-type]  # `open_backend` checks it
    with open_on(found, spec, device=device, threads=threads) as opened:
        started = time.perf_counter()
        written = _draw(
            opened,
            found,
            drawing,
            condition,
            batch=batch,
            target=target,
            latents=save_latents,
            preview=preview,
            animate=animate,
        )
        seconds = time.perf_counter() - started
        name = opened.name
    _tell(drawing, card, name, written, seconds, json=json)


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
    drawing: Drawing,
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

    plan, size, decoder = drawing.plan, batch or drawing.count, open_decoder(model)
    folder, way, finished = (
        Folder(target, drawing),
        Trajectory(target, steps=len(plan.rows), preview=preview, animate=animate),
        [],
    )
    states = sample_steps(
        backend, plan, count=drawing.count, condition=condition, seed=drawing.seed, batch=batch, first=drawing.first
    )
    try:
        with output.progress(f"{backend.card.name} on {backend.name}", -(-drawing.count // size) * len(plan.rows)) as advance:
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
        fits = batch_that_fits(backend, plan, batch=min(size, drawing.count), condition=condition)
        remedy = f"--batch {fits} fits" if fits else "not even one image fits; use another device or precision"
        raise BackendError(
            f"out of memory with {min(size, drawing.count)} images at a time on {backend.name}: {remedy}"
        ) from error
    folder.finish()
    way.finish()
    return [*folder.written, *way.written, *_save_latents(latents, drawing, finished, backend.precision)]


def _tell(drawing: Drawing, card: Card, backend: str, written: list[Path], seconds: float, *, json: bool) -> None:
    if json:
        summary = {
            "model": card.name,
            "backend": backend,
            "solver": drawing.plan.solver,
            "steps": len(drawing.plan.rows),
            "seed": drawing.seed,
            **({"first": drawing.first} if drawing.first else {}),
            **({"classes": drawing.classes} if drawing.prompts is None else {"prompts": drawing.prompts}),
        }
        output.json({**summary, "seconds": seconds, "files": [str(path) for path in written]})
        return
    last = drawing.first + drawing.count - 1
    output.talk(
        f"{drawing.count} images of {card.name}, {drawing.plan.solver} in {len(drawing.plan.rows)} steps, {backend}:"
        f" {seconds:.1f} s; seed {drawing.seed}, images {drawing.first} to {last}"
    )
    for path in written:
        output.data(str(path))


def _save_latents(path: Path | None, drawing: Drawing, latents: list[Floats], precision: Precision) -> list[Path]:
    import numpy as np

    from ditzoo.files import replacing
    from ditzoo.measure.recording import write_recording

    if path is None:
        return []
    if path.suffix == ".npz":
        write_recording(path, drawing, np.concatenate(latents), precision=precision)
        return [path]
    with replacing(path) as scratch:
        np.save(scratch, np.concatenate(latents))
    return [path]
