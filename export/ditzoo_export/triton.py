"""Writing a bundle into a model repository of Triton Inference Server. Each graph or each engine becomes a model.

<repo>/<model>-<graph>/config.pbtxt   <repo>/<model>-<graph>/1/model.onnx or model.plan   <repo>/<model>.plan.json
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import msgspec

from ditzoo.bundle import PLAN, Bundle, Engine, Graph, consistently, owner_of_weights, provide_folder
from ditzoo.errors import UsageError, check_count
from ditzoo.files import file_name, replacing
from ditzoo.pictures.decode import SLICE
from ditzoo.records import Data
from ditzoo.specs import PRECISION_TRAITS, Precision, Profile, TensorSpec
from ditzoo.zoo.card import Card
from ditzoo.zoo.sizes import LARGEST, own_size, pixels_per_latent

CONFIG, CLIENT = "config.pbtxt", "client.py"

PROFILES = "profiles"
"""The parameter in a model's configuration that holds the profiles of its engine, as JSON. Triton itself does not show them."""

_TYPES = {"float32": "TYPE_FP32", "int64": "TYPE_INT64"}
_BACKEND = "tensorrt"
_LARGEST_BATCH = 64
_MOST_INSTANCES = 1024
_LONGEST_NAME = 230
"""The largest number of characters in the name of a model, which is the name of a folder. Most file systems limit names to 255
bytes, and the folder has a longer name while it is written."""

_OPTIMIZATION: dict[Precision, int] = {"fp8": -1}
"""The precisions that ONNX Runtime does not load with all optimizations, and the level that it loads them with.

-1 is Triton's number for the basic optimizations. The extended ones join fp8 scales with operations that take int8 only.
"""

_DELAY_MICROSECONDS = 2000


class Model(Data, frozen=True, kw_only=True):
    """One model of a repository: its file in the bundle, its precision, and how Triton serves it.

    `largest` is the largest batch. `profiles` are the profiles of an engine; a graph has none.
    """

    name: str
    file: str
    precision: Precision
    backend: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    largest: int
    profiles: tuple[Profile, ...] = ()


def export_triton(
    bundle: Bundle, repo: Path, *, client: bool = False, instances: int = 1, overwrite: bool = False
) -> list[Path]:
    """Writes the models of a bundle into a Triton model repository, and returns their folders.

    Raises UsageError if `instances` is below 1 or above 1024, if the engines are of TensorRT-RTX, if the name of a model is too
    long for a folder, or if a folder exists already and `overwrite` is not set.
    """
    check_count("--instances", instances, most=_MOST_INSTANCES)
    _check_flavour(bundle)
    made, planned = [], models(bundle)
    for name in (model.name for model in planned if len(model.name) > _LONGEST_NAME):
        raise UsageError(
            f"the name {name} has {len(name)} characters, and a folder's name has at most {_LONGEST_NAME}; give"
            f" {bundle.card.name} a shorter name and export it again"
        )
    for model in planned:
        target = repo / model.name
        with provide_folder(target, overwrite=overwrite) as folder:
            (folder / CONFIG).write_text(config(model, bundle, instances=instances), encoding="utf-8")
            (folder / "1").mkdir()
            consistently(bundle, partial(_place, model=model, folder=folder / "1"))
        made.append(target)
    copies = {f"{file_name(bundle.card.name)}.{PLAN}": bundle.path / PLAN}
    if client:
        copies[CLIENT] = Path(__file__).with_name("triton_client.py")
    for name, source in copies.items():
        with replacing(repo / name, option="--repo") as scratch:
            scratch.write_bytes(source.read_bytes())
    return made


def models(bundle: Bundle) -> list[Model]:
    """The models for a bundle: one for each engine, on TensorRT. Without engines, one for each graph, on ONNX Runtime."""
    manifest = bundle.manifest
    if not manifest.engines:
        return [_graph_model(bundle, name, graph) for name, graph in manifest.graphs.items()]
    return [_engine_model(bundle, name, engine) for name, engine in manifest.engines.items()]


def config(model: Model, bundle: Bundle, *, instances: int) -> str:
    """The text of the model's config.pbtxt: the protobuf message `ModelConfig` in text format."""
    group = f"count: {instances} kind: {'KIND_GPU' if _needs_gpu(model, bundle) else 'KIND_CPU'}"
    chosen = " ".join(f'profile: "{i}"' for i in range(len(model.profiles)) if len(model.profiles) > 1)
    level = _OPTIMIZATION.get(model.precision) if model.backend == "onnxruntime" else None
    preferred = sorted({profile.axes["batch"].opt for profile in model.profiles} or {model.largest})
    lines = [
        f'name: "{model.name}"',
        f'backend: "{model.backend}"',
        f"max_batch_size: {model.largest}",
        *(_tensor("input", spec) for spec in model.inputs),
        *(_tensor("output", spec) for spec in model.outputs),
        f"instance_group {{ {group} {chosen} }}",
        f"dynamic_batching {{ preferred_batch_size: {preferred} max_queue_delay_microseconds: {_DELAY_MICROSECONDS} }}",
        _warm_up(model, bundle),
        *([f"optimization {{ graph {{ level: {level} }} }}"] if level is not None else []),
        *([_parameter(PROFILES, msgspec.json.encode(model.profiles).decode())] if model.profiles else []),
    ]
    return "\n".join(lines) + "\n"


def _check_flavour(bundle: Bundle) -> None:
    """Raises UsageError for engines that Triton cannot load: its backend for TensorRT loads no engines of TensorRT-RTX."""
    if any(engine.flavour != _BACKEND for engine in bundle.manifest.engines.values()):
        raise UsageError(
            f"Triton cannot load the tensorrt_rtx engines in {bundle.path}; on the server's GPU, build others: `ditzoo export"
            f" tensorrt {bundle.card.name} --flavour tensorrt --out DIR`; or export ONNX graphs with `ditzoo export onnx`"
        )


def _needs_gpu(model: Model, bundle: Bundle) -> bool:
    """Whether the model runs on a GPU: an engine, and all graphs of a bundle that is for GPUs."""
    made_for_gpus = bundle.manifest.settings.get("target") == "tensorrt"
    on_cpu = all(PRECISION_TRAITS[graph.precision].on_cpu for graph in bundle.manifest.graphs.values())
    return model.backend == _BACKEND or made_for_gpus or not on_cpu


def _quoted(text: str) -> str:
    """Any text, quoted for protobuf's text format."""
    return msgspec.json.encode(text).decode()


def _parameter(key: str, text: str) -> str:
    return f'parameters {{ key: "{key}" value {{ string_value: {_quoted(text)} }} }}'


def _graph_model(bundle: Bundle, name: str, graph: Graph) -> Model:
    return Model(
        name=f"{file_name(bundle.card.name)}-{name}",
        file=graph.file,
        precision=graph.precision,
        backend="onnxruntime",
        inputs=graph.inputs,
        outputs=graph.outputs,
        largest=_largest_decoded(bundle.card, graph) if name == "decoder" else _LARGEST_BATCH,
    )


def _largest_decoded(card: Card, decoder: Graph) -> int:
    """The largest batch of a decoder, whose memory grows with the pixels of its images: as many as ditzoo decodes at once.

    A decoder for any size gets the batch for the largest images that the network makes.
    """
    largest = {axis: LARGEST * size for axis, size in zip(("height", "width"), own_size(card), strict=True)}
    height, width = decoder.inputs[0].concrete(batch=1, **largest)[2:]
    return min(_LARGEST_BATCH, max(1, SLICE // (height * width * pixels_per_latent(card) ** 2)))


def _engine_model(bundle: Bundle, name: str, engine: Engine) -> Model:
    return Model(
        name=f"{file_name(bundle.card.name)}-{name}".replace("+", "."),
        file=engine.file,
        precision=engine.precision,
        backend=_BACKEND,
        inputs=engine.inputs,
        outputs=engine.outputs,
        largest=max(profile.axes["batch"].max for profile in engine.profiles),
        profiles=engine.profiles,
    )


def _place(bundle: Bundle, model: Model, folder: Path) -> None:
    """Copies a model's file into the folder of its version.

    External weights are copied too. They keep their name, because the ONNX file refers to it. A graph with reuse reads those of
    the backbone.
    """
    owner = owner_of_weights(model.file)
    suffix = ".plan" if model.backend == _BACKEND else ".onnx"
    shutil.copyfile(bundle.path / model.file, folder / f"model{suffix}")
    for name in bundle.manifest.files:
        if name.startswith(f"{owner}."):
            shutil.copyfile(bundle.path / name, folder / name)  # onnx refuses hard links


def _dims(spec: TensorSpec) -> list[int]:
    """The shape without its batch axis. A symbolic axis is −1."""
    return [axis if isinstance(axis, int) else -1 for axis in spec.shape[1:]]


def _tensor(kind: str, spec: TensorSpec) -> str:
    """An input or output in the configuration.

    Triton has no scalars per sample. They are declared as vectors of one number, which Triton reshapes.
    """
    dims = _dims(spec)
    shape = f"dims: {dims}" if dims else "dims: [1] reshape { shape: [] }"
    return f"{kind} {{ name: {_quoted(spec.name)} data_type: {_TYPES[spec.dtype]} {shape} }}"


def _warm_up(model: Model, bundle: Bundle) -> str:
    """The warm-up in the configuration: one request of zeros that Triton runs before it reports the model as ready.

    Its batch size is the one that the engine is optimized for.
    """
    batch = model.profiles[0].axes["batch"].opt if model.profiles else 1
    height, width = _size(model, bundle)
    tensors = " ".join(_zeros(spec, {"height": height, "width": width}) for spec in model.inputs)
    return f'model_warmup {{ name: "zeros" batch_size: {batch} {tensors} }}'


def _zeros(spec: TensorSpec, sizes: dict[str, int]) -> str:
    dims = [axis if isinstance(axis, int) else sizes[axis] for axis in spec.shape[1:]] or [1]
    return f"inputs {{ key: {_quoted(spec.name)} value {{ data_type: {_TYPES[spec.dtype]} dims: {dims} zero_data: true }} }}"


def _size(model: Model, bundle: Bundle) -> Sequence[int]:
    axes = model.profiles[0].axes if model.profiles else {}
    own = bundle.card.backbone.latent_shape[1:]
    return [axes[axis].opt if axis in axes else number for axis, number in zip(("height", "width"), own, strict=True)]
