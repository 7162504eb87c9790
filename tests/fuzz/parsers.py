"""Every parser of data from outside, with the inputs that are tried on it.

A parser may refuse its input with an error of ditzoo's own, whose message has one line. It must not raise anything else.
"""

from __future__ import annotations

import shutil
import string
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import httpx2
import msgspec
import numpy as np
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from safetensors.torch import save

from ditzoo.backends.options import OpenOptions, check_options, parse_specs
from ditzoo.backends.table import row_of
from ditzoo.bundle import MANIFEST, Engine, open_bundle, read_manifest
from ditzoo.checkpoint import convert, shapes_of
from ditzoo.checkpoint.shapes import network_shapes
from ditzoo.errors import DitzooError
from ditzoo.files import cache_dir, file_name
from ditzoo.hub.answers import check_answers
from ditzoo.manifests import is_file_name
from ditzoo.measure.parity_run import limits_of
from ditzoo.measure.recording import read_recording
from ditzoo.model.opening import default_backend
from ditzoo.pictures.png_metadata import read_request
from ditzoo.plan.make import make_plan, parse_solver
from ditzoo.plan.table import Plan, check_plan
from ditzoo.recipes import load_recipe
from ditzoo.sampling.classes import choose_classes
from ditzoo.sampling.loop import deviation, trajectory
from ditzoo.sampling.sizes import choose_size
from ditzoo.specs import Profile, Range
from ditzoo.weights import store
from ditzoo.weights.catalogue import card_of
from ditzoo.weights.hub_reference import parse
from ditzoo.weights.likeness import Like, derive
from ditzoo.zoo import CARDS
from ditzoo.zoo.card import is_name, split_reference
from ditzoo.zoo.class_names import class_names
from ditzoo.zoo.sizes import parse_size
from ditzoo.zoo.toml import load_cards
from ditzoo_export import cached_bundle
from ditzoo_export.inspection import inspect
from ditzoo_export.matrix import read_matrix
from ditzoo_export.sizes import parse_batches, parse_resolutions
from tests.fuzz import generating, seeds

Read = Callable[[bytes, Path], object]


@dataclass(frozen=True)
class Parser:
    """A parser: `read` passes it an input, with a folder for files. `inputs` are those that are tried."""

    read: Read
    inputs: SearchStrategy[bytes]


def _file(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def _checkpoint(data: bytes, folder: Path) -> None:
    _every_use(_file(folder, "model.pt", data), folder)


def _every_use(path: Path, folder: Path) -> None:
    """Derives a card from a checkpoint, and converts the checkpoint as two networks."""
    shapes = shapes_of(path)[1]
    uses: tuple[Callable[[], object], ...] = (
        lambda: derive("x", shapes, Like(card=seeds.DIT, heads=1)),
        lambda: derive("x", shapes, Like(card=seeds.UVIT, heads=1)),
        lambda: convert(path, seeds.SMALL_DIT, folder / "out", decoder=folder / "vae", architecture="AutoencoderKL"),
        lambda: convert(path, seeds.SMALL_UVIT, folder / "out", decoder=folder / "vae", architecture="AutoencoderDC"),
    )
    refusals = [refusal for use in uses if (refusal := _refusal(use))]
    if refusals:
        raise refusals[0]


def _refusal(use: Callable[[], object]) -> DitzooError | None:
    try:
        use()
    except DitzooError as error:
        return error
    return None


def _index(data: bytes, folder: Path) -> None:
    for i, config in enumerate((seeds.SMALL_DIT, seeds.SMALL_UVIT)):
        _file(folder, f"{i}.safetensors", save(seeds.weights(config)))
    _every_use(_file(folder, "model.safetensors.index.json", data), folder)


def _card(data: bytes, folder: Path) -> None:
    _file(folder, "card.json", data)
    card = card_of(folder)
    assert Path(file_name(card.name)).name == file_name(card.name)
    assert store.folder(card).parent == cache_dir() / "weights"
    assert len(class_names(card)) == card.number_of_classes
    assert card.resolution > 0
    assert card.family
    weights = _file(folder, "model.safetensors", save(seeds.weights(seeds.SMALL_DIT)))
    refusal = _refusal(lambda: convert(weights, card.backbone, folder / "out"))
    if card.backbone.depth <= 50:
        network_shapes(card.backbone)
    if card.sampling.steps <= 20:
        make_plan(card)
    if refusal is not None:
        raise refusal


def _plan(data: bytes, folder: Path) -> None:
    plan = Plan.load(_file(folder, "plan.json", data))
    refusals = [_refusal(lambda card=card: check_plan(card, plan)) for card in (seeds.DIT, seeds.UVIT)]  # type: ignore[misc]
    if plan.channels > 64 or all(refusals):
        raise next(refusal for refusal in refusals if refusal) if all(refusals) else DitzooError("too many channels")
    x = np.zeros((1, plan.channels, 2, 2))
    with np.errstate(all="ignore"):
        for state in trajectory(plan, lambda x, row: np.concatenate([x, x], axis=1), lambda draw: x):
            assert state.shape == x.shape
        for row in plan.rows:
            deviation(row, x)


@cache
def _bundle() -> Path:
    return cached_bundle(seeds.UVIT).path


@cache
def manifests() -> list[object]:
    """The manifests of a bundle of graphs, and of one with an engine, whose file stands for it."""
    manifest = read_manifest(_bundle())
    graph = manifest.graphs["backbone"]
    engine = Engine(
        file="card.json",
        graph="backbone",
        flavour="tensorrt",
        version="10.0",
        gpus=("NVIDIA A100",),
        precision=graph.precision,
        profiles=(Profile(axes={"batch": Range(min=1, opt=2, max=4)}),),
        options=("tf32=no",),
        inputs=graph.inputs,
        outputs=graph.outputs,
        seconds=1.0,
    )
    with_engine = msgspec.structs.replace(manifest, graphs={}, engines={"backbone-a": engine})
    return [msgspec.to_builtins(each) for each in (manifest, with_engine)]


def _manifest(data: bytes, folder: Path) -> None:
    shutil.copytree(_bundle(), folder / "b")
    _file(folder / "b", MANIFEST, data)
    bundle = open_bundle(folder / "b")
    default_backend(bundle)
    choose_size(bundle, None)
    inspect(bundle.path)


def _graph(data: bytes, folder: Path) -> None:
    inspect(_file(folder, "a.onnx", data))


def _cards(data: bytes, folder: Path) -> None:
    load_cards(_file(folder, "zoo.toml", data), CARDS)


def _recipe(data: bytes, folder: Path) -> None:
    load_recipe(_file(folder, "recipe.toml", data), models=CARDS, commands=("pull", "sample"))


def _matrix(data: bytes, folder: Path) -> None:
    read_matrix(_file(folder, "matrix.toml", data))


def _picture(data: bytes, folder: Path) -> None:
    read_request(_file(folder, "a.png", data))


def _recording(data: bytes, folder: Path) -> None:
    read_recording(_file(folder, "a.npz", data), seeds.UVIT)


def _name(data: bytes, folder: Path) -> None:
    text = data.decode("utf-8", "replace")
    assert not {"/", "\0"} & set(file_name(text))
    assert not is_file_name(text) or (folder / text).parent == folder
    assert not is_name(text) or set(text) <= {*string.ascii_letters, *string.digits, *"._-"}
    if is_name(text) or split_reference(text) is not None:
        card = msgspec.structs.replace(seeds.UVIT, name=text)
        assert store.folder(card).parent == cache_dir() / "weights"
    parse(text)


def _backends(data: bytes, folder: Path) -> None:
    for spec in parse_specs(data.decode("utf-8", "replace")):
        options = {field: getattr(spec, field) for field in ("precision", "form", "compiled", "tf32")}
        check_options(row_of(spec.name), OpenOptions(device=spec.device or "cpu", **options))


_NUMBERS: tuple[Callable[[str], object], ...] = (
    lambda text: choose_classes(seeds.DIT, text),
    lambda text: choose_classes(CARDS["dit-xl-2-256"], text),
    lambda text: parse_size(CARDS["dit-xl-2-256"], text),
    lambda text: parse_resolutions(CARDS["dit-xl-2-256"], text),
    parse_batches,
    limits_of,
    parse_solver,
)
"""The parsers of texts with numbers on the command line. The first byte of an input chooses one."""


def _numbers(data: bytes, folder: Path) -> None:
    _NUMBERS[(data[0] if data else 0) % len(_NUMBERS)](data[1:].decode("utf-8", "replace"))


_HEADERS = ("ETag", "X-Linked-Etag", "X-Repo-Commit")


def _etag(data: bytes, folder: Path) -> None:
    """What the Hub's client makes of the headers of an answer. The file's name in its cache must be a plain name."""
    from huggingface_hub.utils import get_session

    check_answers()
    request = httpx2.Request("HEAD", "http://localhost/a")
    header = _HEADERS[(data[0] if data else 0) % len(_HEADERS)]
    response = httpx2.Response(200, headers=[(header.encode(), data[1:])], request=request)
    for hook in get_session().event_hooks["response"]:
        hook(response)
    name = response.headers.get(header, "").lstrip("W/").strip('"')
    assert name == "" or (folder / name).parent == folder


_TOML = (
    *(b"[[", b"]]", b"\n", b"\\n", b"x" * 5000, b" = ", b'"\\u0000"', b"0x" + b"f" * 5000, b"[" * 3000, b"a." * 3000),
    *(b"nan", b"inf", b"{", b"'", b'"""\n' + b"y" * 60 + b'!\n"""'),
)

_SMALL = (seeds.SMALL_DIT, seeds.SMALL_UVIT)
_SHAPES = {key: list(value.shape) for config in _SMALL for key, value in seeds.weights(config).items()}


def cards() -> list[object]:
    """Cards of both families: of small models, and some of the registry."""
    return [msgspec.to_builtins(card) for card in (seeds.DIT, seeds.UVIT, *(CARDS[name] for name in _CARD_NAMES))]


_CARD_NAMES = ("dit-xl-2-256", "uvit-s-2-coco", "uvit-s-4-celeba64", "sit-s-2-256", "uvit-s-dcae-f32-512")
_CARD_TOML = b"""
["x"]
base = "dit-s-2"
sampling.guidance = 2.0
[x.backbone]
num_classes = 12
[x.weights]
kind = "unreleased"
"""
_RECIPE_TOML = b"""
model = "dit-s-2"
[[steps]]
name = "pull"
command = ["pull", "dit-s-2"]
[expected]
fid = 2.0
images = 5
settings = ""
"""
_MATRIX_TOML = b"""
out = "d"
[[export]]
models = ["dit-digits"]
flavours = ["onnx"]
resolutions = ["8"]
batches = ["1-4"]
"""
_WEIGHT_MAP = {"a": "0.safetensors", "b": "1.safetensors", "c": "model.safetensors.index.json"}


def _chosen(last: int, *examples: str) -> SearchStrategy[bytes]:
    """Texts behind a byte that says which of several parsers reads them."""
    return st.tuples(st.integers(0, last), generating.lines(*examples)).map(lambda pair: bytes([pair[0]]) + pair[1])


def _lazily(make: Callable[[], SearchStrategy[bytes]]) -> SearchStrategy[bytes]:
    return st.deferred(make)


PARSERS: dict[str, Parser] = {
    "pickle": Parser(
        _checkpoint,
        _lazily(
            lambda: (
                seeds.odd_checkpoints()
                | generating.changed_bytes(seeds.torch_files())
                | generating.changed_archive([file for file in seeds.torch_files() if file.startswith(b"PK")])
                | seeds.raw_pickles()
            )
        ),
    ),
    "safetensors": Parser(_checkpoint, _lazily(lambda: generating.safetensors(_SHAPES))),
    "index": Parser(
        _index,
        generating.changed_json(
            [
                {
                    "metadata": {"total_size": 1},
                    "weight_map": {"a": "0.safetensors", "b": "1.safetensors", "c": "model.safetensors.index.json"},
                }
            ]
        ),
    ),
    "card": Parser(_card, _lazily(lambda: generating.changed_json(cards()))),
    "plan": Parser(_plan, _lazily(lambda: generating.changed_json(seeds.plans()))),
    "manifest": Parser(_manifest, _lazily(lambda: generating.changed_json(manifests()))),
    "graph": Parser(_graph, _lazily(lambda: generating.changed_bytes([(_bundle() / "backbone.onnx").read_bytes()[:9000]]))),
    "cards": Parser(_cards, generating.changed_bytes([_CARD_TOML], _TOML)),
    "recipe": Parser(_recipe, generating.changed_bytes([_RECIPE_TOML], _TOML)),
    "matrix": Parser(_matrix, generating.changed_bytes([_MATRIX_TOML], _TOML)),
    "picture": Parser(_picture, _lazily(lambda: generating.changed_bytes(seeds.pictures()))),
    "recording": Parser(
        _recording,
        _lazily(lambda: generating.changed_archive(seeds.recordings()) | generating.changed_bytes(seeds.recordings())),
    ),
    "name": Parser(_name, generating.lines("dit-xl-2", "hf:a/b@main:c/d.pt", "../x", "backbone.onnx")),
    "backends": Parser(_backends, generating.lines("torch,onnxruntime:int8:single", "tensorrt:fp16", "openvino:cuda")),
    "numbers": Parser(
        _numbers,
        _chosen(len(_NUMBERS) - 1, "0-9", "1,3,5-7", "256x384", "1-8-16", "forward=1e-4,psnr=50", "ddim:eta=0.5"),
    ),
    "etag": Parser(_etag, _chosen(len(_HEADERS) - 1, '"0123abc"', 'W/"abc"', "../../x", "a" * 40)),
}
"""The parsers by name. The inputs of `tests/data/fuzz/NAME` are tried first."""
