"""The commands `ditzoo export`: bundles of ONNX graphs or TensorRT engines, Triton repositories, and archives."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from ditzoo.cli import complete, output
from ditzoo.cli.help import described, show_help
from ditzoo.cli.options import Json, Model, Name, OutFolder, Overwrite
from ditzoo.errors import UsageError

if TYPE_CHECKING:
    from ditzoo.bundle import Bundle

app = typer.Typer(help="Export a model for deployment.", invoke_without_command=True)

Precision: TypeAlias = Annotated[str, typer.Option(help="fp32, fp16, bf16, int8 or fp8.", autocompletion=complete.precisions)]
Split: TypeAlias = Annotated[
    bool | None,
    typer.Option("--split/--single", help="Put conditioning into its own graph, or all into one. Default: split if possible."),
]
Reuse: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="blocks=K", help="Also write a graph that runs the first K and the last K blocks only, for plans with reuse."
    ),
]


@app.callback()
def matrix(
    context: typer.Context,
    matrix: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Make all exports that this TOML file lists; see recipes/.")
    ] = None,
    json: Json = False,
) -> None:
    """Export a model for deployment, or a whole matrix of exports."""
    if matrix is None:
        show_help(context)
        return
    if context.invoked_subcommand is not None:
        raise UsageError(f"--matrix FILE takes no subcommand; leave out {context.invoked_subcommand}")
    from ditzoo.model.exporting import check_exporter

    check_exporter()
    from ditzoo_export.matrix import cells, read_matrix, run_matrix

    asked = read_matrix(matrix)
    outcomes = []
    with output.progress(str(matrix), len(cells(asked))) as bar:
        for outcome in run_matrix(asked, matrix.parent, display=bar):
            outcomes.append(outcome)
            bar()
    if json:
        output.json(outcomes)
    else:
        rows = [(o.cell, o.state, f"{o.seconds:.1f}", f"{o.size:,}", o.message) for o in outcomes]
        output.table(["export", "state", ">seconds", ">bytes", "~why"], rows)
    if any(outcome.state == "failed" for outcome in outcomes):
        raise typer.Exit(1)


@app.command("onnx", **described("export onnx"))
def onnx(
    name: Name,
    out: OutFolder,
    precision: Precision = "fp32",
    target: Annotated[
        str,
        typer.Option(help="The runtime that the graphs are for: onnxruntime or tensorrt.", autocompletion=complete.targets),
    ] = "onnxruntime",
    resolution: Annotated[
        str | None, typer.Option(help="In pixels: 256, 256x384 (height x width), or dynamic. Default: the model's.")
    ] = None,
    split: Split = None,
    guided: Annotated[
        bool, typer.Option("--guided", help="Also write a graph that contains guidance and takes one label per image.")
    ] = False,
    reuse: Reuse = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Export a model to a bundle of ONNX graphs, plan, card and manifest. The graphs are verified against torch."""
    from ditzoo.model.exporting import export_onnx
    from ditzoo.weights.catalogue import card

    chosen, began = card(name), time.monotonic()
    bundle = export_onnx(
        chosen,
        out,
        precision=precision,
        target=target,
        resolution=resolution,
        split=split,
        guided=guided,
        reuse=reuse,
        overwrite=overwrite,
        display=output,
    )
    checked = bundle.manifest.verified
    output.talk(f"{name}: ready after {output.seconds(time.monotonic() - began)}")
    output.talk(
        f"verified against torch in fp32: the error is {checked.random:.1e} on random inputs and {checked.trajectory:.1e} in"
        f" sampling (tolerance {checked.tolerance:.1e})"
    )
    _tell(bundle, json=json)


@app.command("tensorrt", **described("export tensorrt"))
def tensorrt(
    context: typer.Context,
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME|DIR",
            help="A model's name; with --refit, the folder of its engines.",
            show_default=False,
            autocompletion=complete.models,
        ),
    ],
    out: OutFolder,
    resolution: Annotated[str | None, typer.Option(help="In pixels: 256,512 or 256x384. Default: the model's.")] = None,
    batch: Annotated[str, typer.Option(help="Rows of the input (two per guided image): 1,4,8-16 or 2-8-16.")] = "1-4",
    precision: Precision = "fp16",
    flavour: Annotated[str, typer.Option(help="tensorrt or tensorrt_rtx.", autocompletion=complete.flavours)] = "tensorrt_rtx",
    gpu: Annotated[str, typer.Option(help="A list such as sm89,H100; or current, the GPU of this machine.")] = "current",
    profiles: Annotated[
        str, typer.Option(help="separate: one engine for each profile; merged: one engine for all.")
    ] = "separate",
    split: Split = None,
    stripped: Annotated[
        bool, typer.Option("--stripped", help="Leave out the weights; they are read from the ONNX file beside the engine.")
    ] = False,
    refittable: Annotated[bool, typer.Option("--refittable", help="Allow the weights to be replaced.")] = False,
    hardware_compatible: Annotated[
        bool, typer.Option("--hardware-compatible", help="Run on sm80 and newer (tensorrt only).")
    ] = False,
    version_compatible: Annotated[
        bool, typer.Option("--version-compatible", help="Run on newer TensorRT versions (tensorrt only).")
    ] = False,
    tf32: Annotated[bool, typer.Option("--tf32", help="fp32 is computed in TF32: faster, with limits of its own.")] = False,
    weight_streaming: Annotated[
        bool, typer.Option("--weight-streaming", help="Keep weights on the host that do not fit into the GPU's memory.")
    ] = False,
    reuse: Reuse = None,
    workspace: Annotated[
        int | None, typer.Option(metavar="MB", help="The most GPU memory for one layer's intermediate results. Default: all.")
    ] = None,
    refit: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|NAME",
            help="Build nothing: put these weights, of a file or of a model, into the refittable engines in DIR.",
        ),
    ] = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Build TensorRT engines for each resolution and batch size from a verified ONNX export."""
    from ditzoo.model.exporting import export_tensorrt, refit_tensorrt
    from ditzoo.weights.catalogue import card

    if refit is not None:
        _check_refit(context)
        output.data(str(refit_tensorrt(name, refit, out, overwrite=overwrite, display=output).path))
        return
    if profiles not in ("separate", "merged"):
        raise UsageError(f"--profiles must be separate or merged, not {profiles!r}")
    chosen, began = card(name), time.monotonic()
    given = {
        "stripped": stripped,
        "refittable": refittable,
        "hardware_compatible": hardware_compatible,
        "version_compatible": version_compatible,
        "tf32": tf32,
        "weight_streaming": weight_streaming,
    }
    bundle = export_tensorrt(
        chosen,
        out,
        precision=precision,
        flavour=flavour,
        gpu=gpu,
        resolution=resolution,
        batch=batch,
        merged=profiles == "merged",
        split=split,
        options=[option for option, on in given.items() if on],
        workspace=workspace,
        reuse=reuse,
        overwrite=overwrite,
        display=output,
    )
    output.talk(f"{name}: ready after {output.seconds(time.monotonic() - began)}")
    for engine in bundle.manifest.engines.values():
        output.talk(f"{engine.file}: {engine.graph} {engine.precision} for {', '.join(engine.gpus)}, {engine.seconds:.1f} s")
    _tell(bundle, json=json)


def _tell(bundle: Bundle, *, json: bool) -> None:
    """Prints the path of a bundle; as JSON, also its manifest."""
    import msgspec

    if json:
        output.json({"path": str(bundle.path), **msgspec.to_builtins(bundle.manifest)})
    else:
        output.data(str(bundle.path))


def _check_refit(context: typer.Context) -> None:
    """Raises UsageError for options that only a build has."""
    for name in context.params:
        source = context.get_parameter_source(name)
        if name not in ("name", "out", "refit", "overwrite") and source is not None and source.name == "COMMANDLINE":
            raise UsageError(f"--refit keeps the engines as they were built; leave out --{name.replace('_', '-')}")


@app.command("triton", **described("export triton"))
def triton(
    model: Model,
    repo: Annotated[
        Path, typer.Option(metavar="DIR", help="The model repository. Other models in it are kept.", show_default=False)
    ],
    precision: Precision = "fp32",
    instances: Annotated[int, typer.Option(help="The number of instances of each model.")] = 1,
    client: Annotated[
        bool, typer.Option("--client", help="Also write client.py, which runs the plan and calls the server.")
    ] = False,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Write a Triton model repository. A name gives ONNX graphs; a bundle gives its graphs or its engines."""
    from ditzoo.model.exporting import write_triton_repository

    written = write_triton_repository(
        model, repo, precision=precision, client=client, instances=instances, overwrite=overwrite, display=output
    )
    if json:
        output.json({"repository": str(repo), "models": [str(path) for path in written]})
        return
    for path in written:
        output.data(str(path))


@app.command("bundle", **described("export bundle"))
def bundle(
    model: Model,
    tar: Annotated[Path, typer.Option(metavar="FILE", help="The archive to write, ending in .tar.", show_default=False)],
    json: Json = False,
) -> None:
    """Check every file of a bundle, then pack it into an archive."""
    from ditzoo.archives import pack
    from ditzoo.bundle import Bundle
    from ditzoo.model_names import find_model

    found = find_model(model)
    if not isinstance(found, Bundle):
        raise UsageError(f"{model} is a name, not a bundle; first run `ditzoo export onnx {model} --out DIR`, then pack DIR")
    pack(found, tar)
    if json:
        output.json({"archive": str(tar), "model": found.card.name, "bytes": tar.stat().st_size})
    else:
        output.data(str(tar))
