"""`ditzoo sample`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ditzoo.cli import output
from ditzoo.cli.options import Classes, Device, Guidance, Json, Model, Seed, Solver, Steps, Threads, parse_numbers
from ditzoo.errors import UsageError

if TYPE_CHECKING:
    from ditzoo.backends.base import Backend
    from ditzoo.card import Card
    from ditzoo.plan import Plan
    from ditzoo.sample import Floats

DEFAULT_IMAGES, SHEET_COLUMNS = 10, 10


def sample(
    model: Model,
    backend: Annotated[
        str | None, typer.Option(help="torch or onnxruntime. [default: torch for a name, onnxruntime for a bundle]")
    ] = None,
    classes: Classes = None,
    solver: Solver = None,
    steps: Steps = None,
    guidance: Guidance = None,
    seed: Seed = 0,
    batch: Annotated[int | None, typer.Option(help="Images at a time; changes no image. [default: all at once]")] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="A picture file for a contact sheet, or a folder for single pictures. [default: NAME.png]"),
    ] = None,
    save_latents: Annotated[
        Path | None, typer.Option(help="Also save the latents [N, C, H, W], float32, as this .npy file.")
    ] = None,
    device: Device = "cpu",
    precision: Annotated[str, typer.Option(help="fp32, bf16 or fp16 (torch).")] = "fp32",
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Draw images with a model, on any backend."""
    from ditzoo.bundle import Bundle
    from ditzoo.cli.models import card_of, find, open_on
    from ditzoo.plan import make_plan
    from ditzoo.sample import check_request, class_condition

    found = find(model)
    card = card_of(found)
    chosen = choose_classes(card, classes)
    class_condition(card, chosen)
    check_request(count=len(chosen), batch=len(chosen) if batch is None else batch, seed=seed)
    plan = make_plan(card, solver=solver, steps=steps, guidance=guidance)
    target = Path(f"{card.name}.png") if out is None else out
    _check_out(target, save_latents)
    backend = backend or ("onnxruntime" if isinstance(found, Bundle) else "torch")
    with open_on(found, backend, device=device, precision=precision, threads=threads) as opened:
        started = time.perf_counter()
        latents = draw(opened, plan, chosen, seed=seed, batch=batch)
        seconds = time.perf_counter() - started
        name = opened.name
    written = _write(target, card, chosen, latents)
    if save_latents is not None:
        _save_latents(save_latents, latents)
        written.append(save_latents)
    summary = {
        "model": card.name,
        "backend": name,
        "solver": plan.solver,
        "steps": len(plan.rows),
        "seed": seed,
        "classes": chosen,
    }
    if json:
        output.json({**summary, "seconds": seconds, "files": [str(path) for path in written]})
        return
    output.talk(f"{len(chosen)} images of {card.name}, {plan.solver} in {len(plan.rows)} steps, {name}: {seconds:.1f} s")
    for path in written:
        output.data(str(path))


def choose_classes(card: Card, text: str | None) -> list[int]:
    """The classes that `--classes` names, or the model's first ten."""
    return list(range(min(DEFAULT_IMAGES, card.number_of_classes))) if text is None else parse_numbers(text)


def draw(backend: Backend, plan: Plan, classes: list[int], *, seed: int, batch: int | None) -> Floats:
    """The latents of one image a class, with a progress bar."""
    import numpy as np

    from ditzoo.sample import class_condition, sample_steps

    batches = -(-len(classes) // (batch or len(classes)))
    condition, finished = class_condition(backend.card, classes), []
    with output.progress(f"{backend.card.name} on {backend.name}", batches * len(plan.rows)) as advance:
        for step in sample_steps(backend, plan, count=len(classes), condition=condition, seed=seed, batch=batch):
            if step.done:
                advance()
            if step.done == len(plan.rows):
                finished.append(backend.numpy(step.x))
    return np.concatenate(finished)


def _check_out(target: Path, latents: Path | None) -> None:
    """Everything that could go wrong with the files, before the work."""
    from ditzoo.decode import check_picture_path
    from ditzoo.files import check_writable

    check_writable(target if target.is_dir() else target.parent)
    if not _is_folder(target):
        check_picture_path(target)
    if latents is not None:
        check_writable(latents.parent, "--save-latents")
        if latents.suffix != ".npy" or latents.is_dir():
            raise UsageError(f"--save-latents writes a .npy file, not {latents}")


def _is_folder(target: Path) -> bool:
    return target.is_dir() or not target.suffix


def _write(target: Path, card: Card, classes: list[int], latents: Floats) -> list[Path]:
    """The pictures, on one sheet or each in its own file; returns what was written."""
    from ditzoo.decode import contact_sheet, decode, save_picture, to_image

    pictures = decode(card, latents)
    if not _is_folder(target):
        save_picture(contact_sheet(pictures, columns=min(len(pictures), SHEET_COLUMNS)), target)
        return [target]
    target.mkdir(exist_ok=True)
    paths = [target / f"{i:04d}-class{number}.png" for i, number in enumerate(classes)]
    for path, picture in zip(paths, pictures, strict=True):
        save_picture(to_image(picture), path)
    return paths


def _save_latents(path: Path, latents: Floats) -> None:
    import numpy as np

    from ditzoo.files import replacing

    with replacing(path) as scratch:
        np.save(scratch, latents)
