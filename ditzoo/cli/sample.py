"""The command `ditzoo sample`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ditzoo.cli import complete, output, scale
from ditzoo.cli.options import (
    Classes,
    Device,
    Guidance,
    GuidanceEvery,
    GuidanceInterval,
    GuidanceTimes,
    Json,
    Prompt,
    Prompts,
    Resolution,
    Reuse,
    Seed,
    Solver,
    Steps,
    Threads,
    check_alone,
    parse_interval,
    read_prompts,
)
from ditzoo.errors import UsageError

if TYPE_CHECKING:
    from ditzoo.backends.base import Backend
    from ditzoo.bundle import Bundle
    from ditzoo.pictures.decode import Decoder
    from ditzoo.sampling.condition import Condition
    from ditzoo.sampling.loop import Step
    from ditzoo.sampling.request import SampleRequest
    from ditzoo.zoo.card import Card


def sample(
    context: typer.Context,
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME|DIR",
            help="A model's name (see `ditzoo list`), or a bundle's folder.",
            show_default=False,
            autocompletion=complete.models,
        ),
    ] = None,
    backend: Annotated[
        str | None,
        typer.Option(
            autocompletion=complete.backends,
            help="torch, diffusers, onnxruntime, openvino, tensorrt or tensorrt_rtx, with options, such as onnxruntime:cuda:1;"
            " or auto, the fastest. Default: torch for a name, for a bundle the one that runs it.",
        ),
    ] = None,
    classes: Classes = None,
    num: Annotated[
        int | None, typer.Option(help="The number of images; classes or prompts repeat in order. Default: one each, or 10.")
    ] = None,
    prompt: Prompt = None,
    prompts: Prompts = None,
    solver: Solver = None,
    steps: Steps = None,
    guidance: Guidance = None,
    guidance_interval: GuidanceInterval = None,
    guidance_times: GuidanceTimes = None,
    guidance_every: GuidanceEvery = None,
    reuse: Reuse = None,
    plan: Annotated[
        Path | None,
        typer.Option(help="A plan file from `ditzoo plan save`. It replaces --solver, --steps and the guidance options."),
    ] = None,
    resolution: Resolution = None,
    seed: Seed = 0,
    like: Annotated[Path | None, typer.Option(help="Repeat the request that is stored in this PNG file by ditzoo.")] = None,
    batch: Annotated[int | None, typer.Option(help="Images per batch. It changes no image. Default: all.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="A picture file for a contact sheet, or a folder for single pictures."
            " Default: NAME.png; with --save-latents, no pictures."
        ),
    ] = None,
    save_latents: Annotated[
        Path | None,
        typer.Option(
            help="Save the latents [N, C, H, W] to this .npy file; or .npz, with noise and plan, for `parity --against`."
        ),
    ] = None,
    preview: Annotated[
        int | None, typer.Option(help="Also save pictures of the first batch after every so many steps.")
    ] = None,
    animate: Annotated[Path | None, typer.Option(help="Also save the steps of the first batch as this .webp or .gif.")] = None,
    device: Device = "cpu",
    precision: Annotated[
        str | None, typer.Option(help="fp64, fp32, bf16 or fp16 (torch). Default: fp32, or that of the bundle.")
    ] = None,
    threads: Threads = None,
    decoding: Annotated[
        str | None,
        typer.Option(
            metavar="bf16|tiles",
            help="How torch decodes latents: in bfloat16, large pictures in tiles of 256x256 pixels, or bf16,tiles."
            " Default: whole pictures in float32.",
        ),
    ] = None,
    shard_size: scale.ShardSize = None,
    labels: scale.Labels = None,
    shard_format: scale.ShardFormat = None,
    ray: scale.Ray = None,
    workers: scale.Workers = None,
    json: Json = False,
) -> None:
    """Draw images with a model on any backend."""
    from ditzoo.cli.automatic import settled
    from ditzoo.files import file_name
    from ditzoo.model.opening import check_openable, open_model, sampling_batch
    from ditzoo.model_names import find_model
    from ditzoo.pictures.decode import check_decoding, open_decoder
    from ditzoo.pictures.decoding import parse_decoding
    from ditzoo.pictures.draw import condition_of
    from ditzoo.plan.make import choose_plan
    from ditzoo.sampling.loop import check_request
    from ditzoo.sampling.request import make_request
    from ditzoo.sampling.sizes import choose_size
    from ditzoo.weights.catalogue import card_of

    scale.check_shard_options(shard_size, labels=labels, shard_format=shard_format, ray=ray, workers=workers)
    if shard_size is not None:
        scale.check_no_others(like=like, classes=classes, preview=preview, animate=animate, save_latents=save_latents)
    how = parse_decoding(decoding)
    if like is not None:
        check_alone(context, "--like repeats the request of a picture")
        found, request = _repeated(like, model)
        check_decoding(found, how)
    else:
        if model is None:
            raise UsageError("Missing argument 'NAME|DIR'; see `ditzoo list`")
        found = find_model(model)
        check_decoding(found, how)
        interval = parse_interval(guidance_interval)
        times = parse_interval(guidance_times, option="--guidance-times")
        chosen = choose_plan(
            found,
            plan,
            solver=solver,
            steps=steps,
            guidance=guidance,
            guidance_interval=interval,
            guidance_times=times,
            guidance_every=guidance_every,
            reuse=reuse,
        )
        texts = read_prompts(prompt, prompts)
        if shard_size is not None:
            scale.draw_shards(
                found,
                chosen,
                settled(
                    found,
                    backend,
                    precision=precision,
                    device=device,
                    threads=threads,
                    size=choose_size(found, resolution),
                    images=batch or num or 1,
                    plan=chosen,
                ),
                num=num,
                labels=labels,
                prompts=texts,
                size=choose_size(found, resolution),
                seed=seed,
                batch=batch,
                shard_size=shard_size,
                shard_format=shard_format,
                out=out,
                device=device,
                threads=threads,
                ray=ray,
                workers=workers,
                decoding=how,
                json=json,
            )
            return
        request = make_request(
            card_of(found),
            chosen,
            classes=classes,
            prompts=texts,
            num=num,
            seed=seed,
            size=choose_size(found, resolution),
            argument="--classes",
        )
    spec = settled(
        found,
        backend,
        precision=precision,
        device=device,
        threads=threads,
        size=request.latent_size(card_of(found)),
        images=min(batch or request.count, request.count),
        plan=request.plan,
    )
    place = spec.device or device
    check_request(count=request.count, batch=request.count if batch is None else batch, seed=request.seed)
    no_pictures = save_latents is not None and (out, preview, animate) == (None, None, None)
    if no_pictures and decoding is not None:
        raise UsageError("--save-latents alone writes no pictures; add --out, or leave out --decoding")
    target = Path(f"{file_name(request.model)}.png") if out is None else out
    _check_targets(None if no_pictures else target, latents=save_latents, preview=preview, animate=animate)
    check_openable(found, [spec], device=place, threads=threads)
    condition = condition_of(found, request, device=place, display=output)
    size = request.latent_size(card_of(found))
    together = sampling_batch(min(batch or request.count, request.count))
    with open_model(
        found, spec, device=place, threads=threads, size=size, batch=together, plan=request.plan, display=output
    ) as opened:
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
            decoder=None if no_pictures else open_decoder(found, device=place, decoding=how),
        )
        seconds = time.perf_counter() - started
        name = opened.name
    _tell(request, name, written, seconds, json=json)


def _repeated(picture: Path, model: str | None) -> tuple[Card | Bundle, SampleRequest]:
    """The model and the request that a picture stores. `model` is another name or folder of the same model."""
    from ditzoo.model_names import find_model
    from ditzoo.pictures.png_metadata import read_request
    from ditzoo.sampling.request import check_repeatable
    from ditzoo.sampling.sizes import check_model_size
    from ditzoo.weights.catalogue import card, card_of

    request = read_request(picture)
    found = card(request.model) if model is None else find_model(model)
    if card_of(found).name != request.model:
        raise UsageError(f"{picture} shows {request.model}, not {card_of(found).name}")
    check_repeatable(card_of(found), request)
    check_model_size(found, request.latent_size(card_of(found)))
    return found, request


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
    decoder: Decoder | None,
) -> list[Path]:
    """Samples, decodes and writes the images batch by batch. Returns the paths of the files.

    Without a `decoder` it writes only the latents.
    """
    from ditzoo.pictures.decode import decode
    from ditzoo.pictures.draw import draw
    from ditzoo.pictures.writers import PictureWriter, TrajectoryWriter

    pictures = PictureWriter(target, request, backend.card)
    trajectory = TrajectoryWriter(target, request, backend.card, preview=preview, animate=animate)
    with output.progress(f"{backend.card.name} on {backend.name}", _steps(request, batch)) as advance:

        def on_state(state: Step) -> None:
            if state.done:
                advance()
            if decoder is not None and state.images.start == 0 and trajectory.wants(state.done):
                trajectory.take(state.done, decode(model, backend.numpy(state.x), decoder=decoder))

        finished = []
        for drawn in draw(model, backend, request, condition=condition, batch=batch, decoder=decoder, callback=on_state):
            if latents is not None:
                finished.append(drawn.latents)
            if drawn.pictures is not None:
                pictures.take(drawn.pictures)
    pictures.finish()
    trajectory.finish()
    if latents is None:
        return [*pictures.written, *trajectory.written]
    import numpy as np

    from ditzoo.measure.recording import save_latents

    save_latents(latents, request, np.concatenate(finished), precision=backend.precision)
    return [*pictures.written, *trajectory.written, latents]


def _steps(request: SampleRequest, batch: int | None) -> int:
    """The number of steps over all batches of a request."""
    return -(-request.count // (batch or request.count)) * len(request.plan.rows)


def _check_targets(target: Path | None, *, latents: Path | None, preview: int | None, animate: Path | None) -> None:
    """Raises UsageError if an output file cannot be written. Called before any work is done."""
    from ditzoo.files import check_output_file
    from ditzoo.pictures.writers import check_pictures_target

    if target is not None:
        check_pictures_target(target)
    if latents is not None:
        check_output_file(latents, "--save-latents")
        if latents.suffix not in (".npy", ".npz"):
            raise UsageError(f"--save-latents writes a .npy or .npz file, not {latents}")
    if preview is not None and preview < 1:
        raise UsageError(f"--preview takes a number of steps, 1 or more, not {preview}")
    if animate is not None:
        check_output_file(animate, "--animate")
        if animate.suffix not in (".webp", ".gif"):
            raise UsageError(f"--animate writes a .webp or .gif file, not {animate}")


def _numbers(request: SampleRequest) -> str:
    """The numbers of the images under their seed."""
    if request.count == 1:
        return f"image {request.first}"
    return f"images {request.first} to {request.first + request.count - 1}"


def _tell(request: SampleRequest, backend: str, written: list[Path], seconds: float, *, json: bool) -> None:
    if json:
        summary = {
            "model": request.model,
            "backend": backend,
            "solver": request.plan.solver,
            "steps": len(request.plan.rows),
            "seed": request.seed,
            **({"first": request.first} if request.first else {}),
            **({"classes": request.classes} if request.prompts is None else {"prompts": request.prompts}),
        }
        output.json({**summary, "seconds": seconds, "files": [str(path) for path in written]})
        return
    output.talk(
        f"{output.count(request.count, 'image')} of {request.model}, {request.plan.solver} in"
        f" {output.count(len(request.plan.rows), 'step')}, {backend}:"
        f" {seconds:.1f} s; seed {request.seed}, {_numbers(request)}"
    )
    for path in written:
        output.data(str(path))
