"""Puts the weights of a fine-tune into refittable engines: a new bundle, without building the engines again."""

from __future__ import annotations

import shlex
import tempfile
from pathlib import Path
from typing import Any

import msgspec

from ditzoo.backends import cuda
from ditzoo.backends.engine_slots import present
from ditzoo.backends.refitting import put_weights
from ditzoo.backends.tensorrt import check_engines
from ditzoo.bundle import REUSE_GRAPH, Bundle, Engine, provide
from ditzoo.errors import BundleError, UsageError
from ditzoo.files import sha256
from ditzoo.nets.network import Network
from ditzoo.progress import SILENT, Display
from ditzoo.records import Data
from ditzoo.specs import PRECISION_TRAITS
from ditzoo.weights import store
from ditzoo.zoo.card import ByHand, Card
from ditzoo.zoo.sizes import in_pixels
from ditzoo_export.artifacts import cached_bundle, made_by, refit_key
from ditzoo_export.engine_bundle import finish_engines
from ditzoo_export.engines import load
from ditzoo_export.settings import Settings, make_settings


class FineTune(Data, frozen=True, kw_only=True):
    """The weights to put into engines: those of `card`, or those of `net` if they come from a file outside ditzoo's store.

    `digest` is the SHA-256 of the canonical form of that file. `name` is what the user called the weights.
    """

    name: str
    card: Card
    net: Network | None = None
    digest: str | None = None


def refit_engines(bundle: Bundle, tuned: FineTune, out: Path, *, overwrite: bool = False, display: Display = SILENT) -> Bundle:
    """Writes the engines of `bundle` with the weights of `tuned` into a new bundle in the folder `out`.

    The weights are first exported to ONNX graphs in ditzoo's cache, which are verified against torch. Engines that were built
    without weights are copied, and the new graphs are put beside them; all others are refitted on the GPU. Raises UsageError if
    the engines are not refittable or the fine-tune is of another network, BackendError if the engines do not run here or refuse
    the weights, and the errors of `export_onnx`.
    """
    check_refittable(bundle, tuned.card)
    settings = graph_settings(bundle)
    key = refit_key(bundle, tuned.card, settings, tuned.net)
    flavour = next(iter(bundle.manifest.engines.values())).flavour

    def fill(folder: Path) -> None:
        source = cached_bundle(tuned.card, settings=settings, net=tuned.net, display=display)
        if tuned.digest is not None:
            source = msgspec.structs.replace(source, manifest=msgspec.structs.replace(source.manifest, weights=tuned.digest))
        check_graphs(bundle, source)
        with display.stage(f"putting the weights of {tuned.name} into the engines"):
            refit_into(folder, bundle, source)
        command = f"ditzoo export tensorrt {shlex.quote(str(bundle.path))} --refit {shlex.quote(tuned.name)}"
        finish_engines(
            folder,
            source,
            bundle.manifest.engines,
            key=key,
            made_by=made_by(tuned.card, flavour),
            settings={**bundle.manifest.settings, "command": command},
        )

    return provide(out, key, fill, overwrite=overwrite)[0]


def fine_tune_of(path: Path, bundle: Bundle) -> FineTune:
    """The weights of a checkpoint file, for the network of a bundle.

    Raises CheckpointError, with all problems at once, if the names or shapes of its tensors are not those of the network.
    """
    from ditzoo.checkpoint import convert
    from ditzoo.weights.load import network_from
    from ditzoo.zoo import CARDS

    source = ByHand(where="a local file", file=store.record(path))
    card = msgspec.structs.replace(bundle.card, weights=source)
    with tempfile.TemporaryDirectory() as scratch:
        canonical = Path(scratch) / store.MODEL
        convert(path, card.backbone, canonical, cards=CARDS.values())
        net = network_from(canonical, card)
        net.load_state_dict({name: value.clone() for name, value in net.state_dict().items()}, assign=True)  # off the file
        return FineTune(name=str(path), card=card, net=net, digest=sha256(canonical))


def check_refittable(bundle: Bundle, card: Card) -> None:
    """Raises UsageError if the engines of a bundle cannot take the weights of a card."""
    engines = list(bundle.manifest.engines.values())
    if not engines:
        raise UsageError(f"--refit takes a bundle of engines, and {bundle.path} has none")
    if any("refittable" not in engine.options for engine in engines):
        raise UsageError(
            f"the engines in {bundle.path} keep their weights; `{bundle.manifest.settings['command']} --refittable --out DIR`"
            " builds engines that can be refitted"
        )
    precision = engines[0].precision
    if any(PRECISION_TRAITS[engine.precision].eight_bits for engine in engines):
        raise UsageError(
            f"the engines in {bundle.path} are {precision}, and hold scales that were measured with their own weights; build"
            f" engines of the fine-tune instead: ditzoo export tensorrt NAME --precision {precision} --out DIR"
        )
    if card.backbone != bundle.card.backbone:
        raise UsageError(f"{card.name} is another network than {bundle.card.name}, of which the engines in {bundle.path} are")


def graph_settings(bundle: Bundle) -> Settings:
    """The settings of the ONNX export that a bundle of engines was built from."""
    engines = bundle.manifest.engines.values()
    backbone = next(engine for engine in engines if engine.graph == "backbone")
    outer = next((engine.outer_blocks for engine in engines if engine.graph == REUSE_GRAPH), None)
    size = [length for length in backbone.inputs[0].shape[2:] if isinstance(length, int)]
    return make_settings(
        bundle.card,
        precision=backbone.precision,
        target="tensorrt",
        resolution=in_pixels(bundle.card, (size[0], size[1])) if size else "dynamic",
        split=any(engine.graph == "conditioning" for engine in engines),
        reuse=None if outer is None else f"blocks={outer}",
    )


def check_graphs(bundle: Bundle, source: Bundle) -> None:
    """Raises BundleError unless the graphs of `source` have the inputs and outputs of the engines."""
    for engine in bundle.manifest.engines.values():
        graph = source.manifest.graphs[engine.graph]
        if (engine.inputs, engine.outputs) != (graph.inputs, graph.outputs):
            raise BundleError(
                f"{engine.file} in {bundle.path} has other inputs or outputs than this version of ditzoo exports;"
                f" `{bundle.manifest.settings['command']} --out {bundle.path} --overwrite` builds it again"
            )


def refit_into(folder: Path, bundle: Bundle, source: Bundle) -> None:
    """Writes every engine of `bundle` into `folder`, with the weights of the graphs of `source`."""
    engines = list(bundle.manifest.engines.values())
    for engine in (engine for engine in engines if "stripped" in engine.options):
        (folder / engine.file).write_bytes((bundle.path / engine.file).read_bytes())
    whole = [engine for engine in engines if "stripped" not in engine.options]
    if not whole:
        return
    trt = load(whole[0].flavour)
    check_engines(bundle, flavour=whole[0].flavour, version=trt.__version__, precision=None, gpu=cuda.gpu())
    logger = trt.Logger(trt.Logger.ERROR)
    runtime = present(trt.Runtime(logger), "a runtime")
    if any("version_compatible" in engine.options for engine in whole):
        runtime.engine_host_code_allowed = True
    for engine in whole:
        graph = source.path / source.manifest.graphs[engine.graph].file
        (folder / engine.file).write_bytes(_refitted(trt, runtime, logger, bundle.path, engine, graph))


def _refitted(trt: Any, runtime: Any, logger: Any, folder: Path, engine: Engine, graph: Path) -> bytes:
    """The file of an engine with the weights of a graph. It can be refitted again."""
    loaded = runtime.deserialize_cuda_engine((folder / engine.file).read_bytes())
    if loaded is None:
        raise BundleError(f"{engine.flavour} refuses {folder / engine.file}; `ditzoo inspect {folder}` says what it is for")
    put_weights(trt, loaded, graph, logger=logger, engine=engine.file)
    serialization = loaded.create_serialization_config()
    serialization.clear_flag(trt.SerializationFlag.EXCLUDE_WEIGHTS)
    serialization.set_flag(trt.SerializationFlag.INCLUDE_REFIT)
    return bytes(present(loaded.serialize_with_config(serialization), "the engine"))
