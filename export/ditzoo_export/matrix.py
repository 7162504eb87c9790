"""An export matrix: all combinations of the models, resolutions, batch sizes, precisions and flavours in a TOML file.

    out = "deployed"

    [[export]]
    models = ["dit-xl-2-256"]
    flavours = ["onnx", "tensorrt_rtx"]
    precisions = ["fp16", "bf16"]
    resolutions = ["256", "512"]
    batches = ["1", "4", "8-16"]
    gpus = ["sm89", "sm120"]

Bundles that exist already are not made again, so a second run continues an interrupted one.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Literal

from ditzoo.bundle import Bundle, find_bundle
from ditzoo.errors import UsageError, shown_path
from ditzoo.files import make_folder
from ditzoo.progress import SILENT, Display
from ditzoo.records import Data, convert, from_toml, read_limited
from ditzoo.tasks import Task, run_tasks
from ditzoo.weights.catalogue import card
from ditzoo_export.artifacts import engine_key, export_engines, export_onnx, onnx_key
from ditzoo_export.gpus import CURRENT
from ditzoo_export.settings import EngineSettings, Settings, make_engine_settings, make_settings


class Block(Data, frozen=True, kw_only=True):
    """One [[export]] of the file: all combinations of its lists.

    `target` is for the flavour "onnx". `gpus` and `profiles` are for engines.
    """

    models: tuple[str, ...]
    flavours: tuple[str, ...] = ("onnx",)
    precisions: tuple[str, ...] = ("fp32",)
    resolutions: tuple[str, ...] = ()
    batches: tuple[str, ...] = ("1-4",)
    gpus: tuple[str, ...] = ("current",)
    target: str = "onnxruntime"
    profiles: Literal["separate", "merged"] = "separate"


class Matrix(Data, frozen=True, kw_only=True):
    """The content of the file: the folder for the bundles, and the exports."""

    out: str
    export: tuple[Block, ...]


class Cell(Data, frozen=True, kw_only=True):
    """One bundle of the matrix: ONNX graphs of one resolution, or engines of all resolutions and batch sizes for one GPU."""

    model: str
    folder: str
    settings: Settings | EngineSettings


class Outcome(Data, frozen=True, kw_only=True):
    """The result of a cell: "made", "found" or "failed". `message` is the error. `size` is in bytes."""

    cell: str
    state: Literal["made", "found", "failed"]
    seconds: float
    size: int
    message: str = ""


def read_matrix(path: Path) -> Matrix:
    """The matrix in a TOML file. Raises UsageError, with the place of the error, if the file is missing or not a matrix."""
    try:
        return convert(from_toml(read_limited(path)), Matrix)
    except FileNotFoundError as error:
        raise UsageError(f"--matrix: there is no file {path}") from error
    except OSError as error:
        raise UsageError(f"--matrix: cannot read {shown_path(path)}: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"{path} is not an export matrix: {error}") from error


def cells(matrix: Matrix) -> list[Cell]:
    """All cells of a matrix. Raises UsageError if one of them has invalid settings, before any bundle is made."""
    return [cell for block in matrix.export for cell in _block_cells(block)]


def run_matrix(matrix: Matrix, folder: Path, *, display: Display = SILENT) -> Iterator[Outcome]:
    """Makes every cell in the folder `matrix.out`, relative to `folder`, and yields its outcome.

    If a cell fails, the others are made all the same. The stages of each export appear on `display`.
    """
    planned, out = cells(matrix), folder / matrix.out
    make_folder(out, "out of the matrix")
    for done in run_tasks((_task(cell, out / cell.folder, display) for cell in planned), stop_at_failure=False):
        size = sum(record.size for record in done.result.manifest.files.values()) if done.result else 0
        yield Outcome(cell=done.name, state=done.state, seconds=done.seconds, size=size, message=str(done.error or ""))


def _block_cells(block: Block) -> Iterator[Cell]:
    for model, flavour, precision in product(block.models, block.flavours, block.precisions):
        chosen = card(model)
        if flavour == "onnx":
            for resolution in block.resolutions or (None,):
                settings = make_settings(chosen, precision=precision, target=block.target, resolution=resolution)
                name = f"{model}-onnx-{block.target}-{precision}{f'-{resolution}' if resolution else ''}"
                yield Cell(model=model, folder=name, settings=settings)
            continue
        for gpu in block.gpus:
            engines = make_engine_settings(
                chosen,
                flavour=flavour,
                gpu=gpu,
                resolution=",".join(block.resolutions) or None,
                batch=",".join(block.batches),
                precision=precision,
                merged=block.profiles == "merged",
            )
            gpus = ",".join(engines.gpus or (CURRENT,))
            yield Cell(model=model, folder=f"{model}-{engines.flavour}-{precision}-{gpus}", settings=engines)


def _task(cell: Cell, target: Path, display: Display) -> Task[Bundle]:
    """A cell as a task. It finds the bundle at `target` by its key, or exports it."""
    chosen, settings = card(cell.model), cell.settings
    if isinstance(settings, Settings):
        return Task(
            name=cell.folder,
            find=lambda: find_bundle(target, onnx_key(chosen, settings)),
            make=lambda: export_onnx(chosen, target, settings=settings, overwrite=True, display=display),
        )
    return Task(
        name=cell.folder,
        find=lambda: find_bundle(target, engine_key(chosen, settings)),
        make=lambda: export_engines(chosen, target, settings=settings, overwrite=True, display=display),
    )
