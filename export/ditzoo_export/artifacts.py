"""Exports and engines that are made once and then found again, by a hash of everything that they depend on.

This module imports no large library.
"""

from __future__ import annotations

import hashlib
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

import ditzoo
from ditzoo.bundle import Bundle, provide
from ditzoo.digests import digest
from ditzoo.distributions import distributions_of
from ditzoo.errors import MissingPackageError
from ditzoo.files import cache_dir, file_name, make_cache_folder, sha256
from ditzoo.plan.make import DIFFUSERS
from ditzoo.progress import SILENT, Display
from ditzoo.weights.identity import part_digests
from ditzoo.weights.local import weights_file
from ditzoo.zoo.card import Autoencoder, Card
from ditzoo_export.settings import EngineSettings, Settings, make_settings

if TYPE_CHECKING:
    from ditzoo.nets.network import Network

PACKAGES = ("ditzoo", "torch", "onnx", "onnx-ir", "onnxscript", "numpy")
DECODER_PACKAGES, TEXT_PACKAGES = ("diffusers",), ("transformers", "tokenizers")
"""The additional packages that an export of a model with a decoder needs, and of a model with a text encoder."""

ABOVE = ("cli", "model")
"""The packages of ditzoo that the exporter cannot import. All other packages may change an export or its verification."""

DISTRIBUTIONS = {"tensorrt": "tensorrt", "tensorrt_rtx": "tensorrt-rtx"}


def export_onnx(
    card: Card,
    out: Path,
    *,
    settings: Settings | None = None,
    net: Network | None = None,
    overwrite: bool = False,
    display: Display = SILENT,
) -> Bundle:
    """Exports the card's network, or `net` instead, to a bundle in the folder `out`. It is verified before it appears there.

    If `out` already holds the same bundle, it stays as it is. Raises ExportError if the verification fails, and UsageError if
    `out` cannot be written or holds something else. With `overwrite`, whatever `out` holds is replaced. The stages appear on
    `display`.
    """
    settings = settings or make_settings(card)
    with display.status(f"looking for the export of {card.name}"):
        key = onnx_key(card, settings, net)
    return _provide_onnx(card, out, settings, net, key=key, overwrite=overwrite, display=display)


def cached_bundle(
    card: Card, *, settings: Settings | None = None, net: Network | None = None, display: Display = SILENT
) -> Bundle:
    """The card's bundle in ditzoo's cache, exported on first use."""
    settings = settings or make_settings(card)
    with display.status(f"looking for the export of {card.name}"):
        key = onnx_key(card, settings, net)
    return _provide_onnx(card, _place("bundles", card, key), settings, net, key=key, overwrite=True, display=display)


def export_engines(
    card: Card,
    out: Path,
    *,
    settings: EngineSettings,
    net: Network | None = None,
    overwrite: bool = False,
    display: Display = SILENT,
) -> Bundle:
    """Builds TensorRT engines of the card's network, or of `net`, into a bundle in the folder `out`.

    They are built from ONNX graphs in the cache, which are exported if they are missing. Raises ExportError, with TensorRT's
    error messages, if an engine cannot be built. Raises the errors of `export_onnx` too. The stages appear on
    `display`.
    """
    with display.status(f"looking for the engines of {card.name}"):
        key = engine_key(card, settings, net)
    return _provide_engines(card, out, settings, net, key=key, overwrite=overwrite, display=display)


def cached_engines(card: Card, *, settings: EngineSettings, net: Network | None = None, display: Display = SILENT) -> Bundle:
    """The card's engines in ditzoo's cache, built on first use."""
    with display.status(f"looking for the engines of {card.name}"):
        key = engine_key(card, settings, net)
    return _provide_engines(card, _place("engines", card, key), settings, net, key=key, overwrite=True, display=display)


def onnx_key(card: Card, settings: Settings, net: Network | None = None) -> str:
    """The hash of everything that an ONNX export depends on.

    It covers the card, the weights of the network, the decoder and the text encoder, the settings, and all versions of code.
    """
    return _hash(card, _weights_digest(card, net), part_digests(card), settings, made_by(card))


def engine_key(card: Card, settings: EngineSettings, net: Network | None = None) -> str:
    """The hash of everything that engines depend on: the ONNX export, the version of TensorRT, GPUs, profiles and options.

    The GPU "current" is the GPU of this machine. Raises UsageError if the machine has no GPU, and if TensorRT cannot build for
    a GPU, or on this machine: so nothing is exported for a request that cannot be fulfilled.
    """
    from ditzoo_export.engines import targets

    made = made_by(card, settings.flavour)
    return _hash(onnx_key(card, settings.onnx, net), msgspec.structs.replace(settings, gpus=targets(settings)), made)


def refit_key(bundle: Bundle, card: Card, settings: Settings, net: Network | None = None) -> str:
    """The hash of everything that refitted engines depend on: the engines of `bundle`, and the export of the new weights."""
    return _hash("refit", bundle.manifest.key, onnx_key(card, settings, net))


def made_by(card: Card, flavour: str | None = None) -> dict[str, str]:
    """The versions of the exporter, of Python, and of all packages that an ONNX export of a card depends on.

    With a `flavour`, the version of that TensorRT is there too. Raises MissingPackageError, with the command that installs the
    package, if one is missing.
    """
    runtime = distributions_of("onnxruntime") or ("onnxruntime",)  # onnxruntime-gpu will do as well
    names = [*PACKAGES, *runtime, *([DISTRIBUTIONS[flavour]] if flavour else [])]
    if isinstance(card.decoder, Autoencoder) or card.sampling.solver.startswith(DIFFUSERS):
        names += DECODER_PACKAGES
    if card.text is not None:
        names += TEXT_PACKAGES
    exporter = _hash([sha256(path) for path in sorted(sources())])[:16]
    return {"exporter": exporter, "python": platform.python_version(), **{name: _version(name, flavour) for name in names}}


def sources() -> list[Path]:
    """The source files of the exporter, and of all packages of ditzoo that it can import."""
    below = Path(ditzoo.__file__).parent
    return [
        *Path(__file__).parent.rglob("*.py"),
        *(path for path in below.rglob("*.py") if path.relative_to(below).parts[0] not in ABOVE),
    ]


def _version(name: str, flavour: str | None) -> str:
    try:
        return version(name)
    except PackageNotFoundError as error:
        extra = DISTRIBUTIONS[flavour] if flavour and name == DISTRIBUTIONS[flavour] else "export"
        raise MissingPackageError(f"exporting needs the package {name}: pip install 'ditzoo[{extra}]'") from error


def _provide_onnx(
    card: Card, target: Path, settings: Settings, net: Network | None, *, key: str, overwrite: bool, display: Display
) -> Bundle:
    def fill(folder: Path) -> None:
        from ditzoo_export.onnx_bundle import fill_onnx

        fill_onnx(folder, card, net, settings, key=key, made_by=made_by(card), display=display)

    return provide(target, key, fill, overwrite=overwrite)[0]


def _provide_engines(
    card: Card, target: Path, settings: EngineSettings, net: Network | None, *, key: str, overwrite: bool, display: Display
) -> Bundle:
    def fill(folder: Path) -> None:
        from ditzoo_export.engines import fill_engines

        source = cached_bundle(card, settings=settings.onnx, net=net, display=display)
        fill_engines(folder, source, settings, key=key, made_by=made_by(card, settings.flavour), display=display)

    return provide(target, key, fill, overwrite=overwrite)[0]


def _place(kind: str, card: Card, key: str) -> Path:
    folder = cache_dir() / kind
    make_cache_folder(folder)
    return folder / f"{file_name(card.name)}-{key[:16]}"


def _weights_digest(card: Card, net: Network | None) -> str:
    """The hash of the card's weights file, or of every tensor of `net`."""
    if net is None:
        return digest(weights_file(card))
    state = net.state_dict()
    return _hash({name: hashlib.sha256(value.contiguous().numpy()).hexdigest() for name, value in state.items()})


def _hash(*parts: object) -> str:
    return hashlib.sha256(msgspec.json.encode(parts, order="sorted")).hexdigest()
