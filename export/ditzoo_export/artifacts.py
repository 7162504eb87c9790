"""Exports and engines, each made once: they are found again by a hash of all that they depend on. Imports nothing heavy."""

from __future__ import annotations

import hashlib
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

import ditzoo
from ditzoo.bundle import Bundle, provide
from ditzoo.errors import MissingPackageError
from ditzoo.files import cache_dir, digest, file_name, sha256
from ditzoo.weights.local import weights_file
from ditzoo.zoo.card import Card
from ditzoo_export.settings import EngineSettings, Settings, make_settings

if TYPE_CHECKING:
    from ditzoo.nets.network import Network

PACKAGES = ("ditzoo", "torch", "onnx", "onnxscript", "onnxruntime", "numpy")
SOURCES = ("families", "nets", "pictures", "plan", "solvers", "specs.py")
"""The packages and modules of ditzoo whose code decides what an export contains."""

DISTRIBUTIONS = {"tensorrt": "tensorrt", "tensorrt_rtx": "tensorrt-rtx"}


def export_onnx(
    card: Card, out: Path, *, settings: Settings | None = None, net: Network | None = None, overwrite: bool = False
) -> Bundle:
    """Exports the card's network, or `net` in its place, to a bundle in the folder `out`, verified before it appears.

    If the same bundle is there already, it is left as it is. Raises ExportError if the verification fails, and UsageError if
    `out` cannot be written, or something else is there.
    """
    return _provide_onnx(card, out, settings or make_settings(card), net, overwrite=overwrite)


def cached_bundle(card: Card, *, settings: Settings | None = None, net: Network | None = None) -> Bundle:
    """The card's bundle in ditzoo's cache, exported on first use."""
    settings = settings or make_settings(card)
    target = _place("bundles", card, onnx_key(card, settings, net))
    return _provide_onnx(card, target, settings, net, overwrite=True)


def export_engines(
    card: Card, out: Path, *, settings: EngineSettings, net: Network | None = None, overwrite: bool = False
) -> Bundle:
    """Builds TensorRT engines of the card's network, or of `net`, into a bundle in the folder `out`.

    The ONNX graphs that they are built from are made in the cache, or found there. Raises ExportError, with all that TensorRT
    said, if an engine cannot be built; for other errors see `export_onnx`.
    """
    key = engine_key(card, settings, net)

    def fill(folder: Path) -> None:
        from ditzoo_export.engines import fill_engines

        source = cached_bundle(card, settings=settings.onnx, net=net)
        fill_engines(folder, source, settings, key=key, made_by=made_by(settings.flavour))

    return provide(out, key, fill, overwrite=overwrite)[0]


def cached_engines(card: Card, *, settings: EngineSettings, net: Network | None = None) -> Bundle:
    """The card's engines in ditzoo's cache, built on first use."""
    target = _place("engines", card, engine_key(card, settings, net))
    return export_engines(card, target, settings=settings, net=net, overwrite=True)


def onnx_key(card: Card, settings: Settings, net: Network | None = None) -> str:
    """The hash of all that an ONNX export depends on: card, weights, settings, and the versions of what makes it."""
    return _hash(card, _weights_digest(card, net), settings, made_by())


def engine_key(card: Card, settings: EngineSettings, net: Network | None = None) -> str:
    """The hash of all that engines depend on: the ONNX export, and the version of TensorRT, the GPUs, profiles and options."""
    return _hash(onnx_key(card, settings.onnx, net), settings, made_by(settings.flavour))


def made_by(flavour: str | None = None) -> dict[str, str]:
    """The versions of all that makes an ONNX export, and of the TensorRT of that `flavour` if one is given.

    Raises MissingPackageError, with the command that installs it, for a package that is missing.
    """
    names = [*PACKAGES, DISTRIBUTIONS[flavour]] if flavour else list(PACKAGES)
    places = [Path(__file__).parent, *(Path(ditzoo.__file__).parent / name for name in SOURCES)]
    sources = [path for place in places for path in ([place] if place.is_file() else place.rglob("*.py"))]
    exporter = _hash([sha256(path) for path in sorted(sources)])[:16]
    return {"exporter": exporter, "python": platform.python_version(), **{name: _version(name, flavour) for name in names}}


def _version(name: str, flavour: str | None) -> str:
    try:
        return version(name)
    except PackageNotFoundError as error:
        extra = DISTRIBUTIONS[flavour] if flavour and name == DISTRIBUTIONS[flavour] else "export"
        raise MissingPackageError(f"exporting needs the package {name}: pip install 'ditzoo[{extra}]'") from error


def _provide_onnx(card: Card, target: Path, settings: Settings, net: Network | None, *, overwrite: bool) -> Bundle:
    key = onnx_key(card, settings, net)

    def fill(folder: Path) -> None:
        from ditzoo_export.onnx_bundle import fill_onnx

        fill_onnx(folder, card, net, settings, key=key, made_by=made_by())

    return provide(target, key, fill, overwrite=overwrite)[0]


def _place(kind: str, card: Card, key: str) -> Path:
    folder = cache_dir() / kind
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{file_name(card.name)}-{key[:16]}"


def _weights_digest(card: Card, net: Network | None) -> str:
    """The hash of the weights: of the card's file, or of every tensor of `net`."""
    if net is None:
        return digest(weights_file(card))
    state = net.state_dict()
    return _hash({name: hashlib.sha256(value.contiguous().numpy()).hexdigest() for name, value in state.items()})


def _hash(*parts: object) -> str:
    return hashlib.sha256(msgspec.json.encode(parts, order="sorted")).hexdigest()
