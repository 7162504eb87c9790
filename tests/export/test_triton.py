"""Triton repositories: every config against tritonclient's own message, and the client against a server of the protocol."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import msgspec
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc

import ditzoo
from ditzoo.bundle import Bundle, Graph
from ditzoo.cli import run
from ditzoo.errors import UsageError
from ditzoo.manifests import FileRecord
from ditzoo.specs import Profile, TensorSpec
from ditzoo_export import cached_bundle, cached_engines, make_engine_settings, make_settings
from ditzoo_export.triton import config as config_of
from ditzoo_export.triton import export_triton, models
from tests.support.export_models import TINY_DIT, random_model

TYPES = {"FP32": np.float32, "INT64": np.int64}


def of_tensorrt(bundle: Bundle) -> Bundle:
    """The bundle, whose engines now say that they are of TensorRT. Only a machine with a GPU can build real ones."""
    engines = {name: msgspec.structs.replace(engine, flavour="tensorrt") for name, engine in bundle.manifest.engines.items()}
    return msgspec.structs.replace(bundle, manifest=msgspec.structs.replace(bundle.manifest, engines=engines))


def _configs(repo: Path) -> dict[str, Any]:
    return {
        path.parent.name: text_format.Parse(path.read_text(), model_config_pb2.ModelConfig())
        for path in sorted(repo.glob("*/config.pbtxt"))
    }


def test_a_repository_of_graphs(tmp_path: Path) -> None:
    export_triton(cached_bundle(ditzoo.card("dit-digits")), tmp_path, instances=2)
    configs = _configs(tmp_path)
    assert set(configs) == {"dit-digits-backbone", "dit-digits-conditioning"}
    for name, config in configs.items():
        assert config.name == name
        assert config.backend == "onnxruntime"
        onnx.load(tmp_path / name / "1" / "model.onnx")  # refuses weights that are hard links
        assert config.instance_group[0].count == 2
        assert config.instance_group[0].kind == model_config_pb2.ModelInstanceGroup.KIND_CPU
        assert config.dynamic_batching.max_queue_delay_microseconds > 0
        assert set(config.model_warmup[0].inputs) == {tensor.name for tensor in config.input}
    t, y = configs["dit-digits-conditioning"].input
    assert (list(t.dims), list(t.reshape.shape), t.HasField("reshape")) == ([1], [], True)
    assert y.data_type == model_config_pb2.TYPE_INT64
    assert [list(tensor.dims) for tensor in configs["dit-digits-backbone"].input] == [[1, 8, 8], [6, 384], [128]]


@pytest.mark.parametrize(
    ("precision", "target", "kind", "level"),
    [("int8", "onnxruntime", "KIND_CPU", 0), ("bf16", "onnxruntime", "KIND_GPU", 0), ("fp8", "tensorrt", "KIND_GPU", -1)],
)
def test_graphs_are_placed_where_they_run(precision: str, target: str, kind: str, level: int, tmp_path: Path) -> None:
    """ONNX Runtime has no kernels for bf16 on CPUs, and refuses fp8 graphs with all optimizations."""
    bundle = cached_bundle(
        ditzoo.card("uvit-digits"), settings=make_settings(ditzoo.card("uvit-digits"), precision=precision, target=target)
    )
    export_triton(bundle, tmp_path)
    (config,) = _configs(tmp_path).values()
    assert config.instance_group[0].kind == getattr(model_config_pb2.ModelInstanceGroup, kind)
    assert config.optimization.graph.level == level
    levels = {0: ort.GraphOptimizationLevel.ORT_ENABLE_ALL, -1: ort.GraphOptimizationLevel.ORT_ENABLE_BASIC}
    if precision != "bf16":
        options = ort.SessionOptions()
        options.graph_optimization_level = levels[level]
        ort.InferenceSession(tmp_path / config.name / "1" / "model.onnx", options)


def test_the_largest_batch_of_a_decoder_follows_the_resolution() -> None:
    """A decoder for 256 pixels gets four images at once, and one for any size what fits at the largest size."""
    card = ditzoo.card("dit-xl-2-256")
    bundle = cached_bundle(ditzoo.card("uvit-digits"))
    sizes = {(32, 32): 4, (64, 64): 1, (128, 128): 1, (16, 16): 16, (4, 8): 64, ("height", "width"): 1}
    for size, largest in sizes.items():
        latents, images = (TensorSpec(name=name, shape=("batch", 4, *size)) for name in ("latents", "images"))
        decoder = Graph(file="decoder.onnx", precision="fp32", opset=20, inputs=(latents,), outputs=(images,))
        graphs = {**bundle.manifest.graphs, "decoder": decoder}
        files = {**bundle.manifest.files, decoder.file: FileRecord(size=0, sha256="")}
        manifest = msgspec.structs.replace(bundle.manifest, graphs=graphs, files=files)
        (model,) = (
            model
            for model in models(msgspec.structs.replace(bundle, card=card, manifest=manifest))
            if model.file == decoder.file
        )
        assert model.largest == largest


def test_a_name_that_is_too_long_for_a_folder_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    card, net = random_model(TINY_DIT)
    settings = make_engine_settings(card, gpu="sm89", resolution="8,16x12", batch="1,2-4", merged=True)
    bundle = cached_engines(card, settings=settings, net=net)
    engines = {name: msgspec.structs.replace(engine, flavour="tensorrt") for name, engine in bundle.manifest.engines.items()}
    manifest = msgspec.structs.replace(bundle.manifest, engines=engines)
    bundle = msgspec.structs.replace(bundle, card=msgspec.structs.replace(card, name="n" * 200), manifest=manifest)
    with pytest.raises(UsageError, match=r"has 245 characters, and a folder's name has at most 230; give n+ a shorter name"):
        export_triton(bundle, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_repository_of_any_resolution(tmp_path: Path) -> None:
    card, net = random_model(TINY_DIT)
    export_triton(cached_bundle(card, settings=make_settings(card, resolution="dynamic"), net=net), tmp_path)
    config = _configs(tmp_path)["random-dit-backbone"]
    assert list(config.input[0].dims) == [4, -1, -1]
    assert list(config.model_warmup[0].inputs["x"].dims) == [4, 8, 8]


def test_a_repository_of_engines(tmp_path: Path) -> None:
    card, net = random_model(TINY_DIT)
    settings = make_engine_settings(card, gpu="sm89", resolution="8,16x12", batch="1,2-4", merged=True)
    bundle = cached_engines(card, settings=settings, net=net)
    with pytest.raises(UsageError, match=r"cannot load the tensorrt_rtx engines in .*; on the server's GPU, build others"):
        export_triton(bundle, tmp_path)
    assert list(tmp_path.iterdir()) == []
    export_triton(of_tensorrt(bundle), tmp_path)
    configs = _configs(tmp_path)
    (name,) = [name for name in configs if "backbone" in name]
    assert configs[name].backend == "tensorrt"
    assert configs[name].max_batch_size == 4
    assert list(configs[name].instance_group[0].profile) == ["0", "1", "2", "3"]
    assert list(configs[name].dynamic_batching.preferred_batch_size) == [1, 4]
    assert (tmp_path / name / "1" / "model.plan").is_file()


class Stub(service_pb2_grpc.GRPCInferenceServiceServicer):
    """A server that speaks Triton's protocol: it reads a repository, and runs `graphs` on ONNX Runtime, by the models' names.

    What is asked of an engine must be within one of its `profiles`. `asked` keeps the batch of every request.
    """

    def __init__(self, repo: Path, graphs: dict[str, Path], profiles: dict[str, tuple[Profile, ...]]) -> None:
        self.configs, self.profiles = _configs(repo), profiles
        self.sessions = {name: ort.InferenceSession(path) for name, path in graphs.items()}
        self.asked: list[tuple[str, int]] = []

    def RepositoryIndex(self, request: Any, context: Any) -> Any:  # noqa: N802
        response = service_pb2.RepositoryIndexResponse()
        for name in self.configs:
            response.models.add(name=name, version="1", state="READY")
        return response

    def ModelConfig(self, request: Any, context: Any) -> Any:  # noqa: N802
        return service_pb2.ModelConfigResponse(config=self.configs[request.name])

    def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802
        config = self.configs[request.model_name]
        scalars = {tensor.name for tensor in config.input if tensor.HasField("reshape")}
        inputs = {}
        for tensor, raw in zip(request.inputs, request.raw_input_contents, strict=True):
            value = np.frombuffer(raw, TYPES[tensor.datatype]).reshape(tensor.shape)
            assert value.shape[0] <= config.max_batch_size
            sizes = {"batch": value.shape[0], **dict(zip(("height", "width"), value.shape[2:4], strict=False))}
            sizes = sizes if tensor.name == "x" else {"batch": value.shape[0]}
            assert any(profile.fits(sizes) for profile in self.profiles.get(config.name, (Profile(axes={}),)))
            inputs[tensor.name] = value.reshape(-1) if tensor.name in scalars else value
        self.asked.append((request.model_name, len(next(iter(inputs.values())))))
        names = [tensor.name for tensor in config.output]
        response = service_pb2.ModelInferResponse(model_name=request.model_name)
        for name, value in zip(names, self.sessions[request.model_name].run(names, inputs), strict=True):
            response.outputs.add(name=name, datatype="FP32", shape=value.shape)
            response.raw_output_contents.append(value.tobytes())
        return response


@contextmanager
def serving(stub: Stub) -> Iterator[int]:
    """A server on a port of this machine."""
    server = grpc.server(futures.ThreadPoolExecutor(2))
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(stub, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield port
    server.stop(None).wait()


def _draw(repo: Path, port: int, name: str, classes: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(repo / "client.py"), name, "--url", f"127.0.0.1:{port}", "--classes", classes, "--seed", "5"]
    command += ["--plan", str(repo / f"{name}.plan.json"), "--out", str(repo / "latents.npy")]
    return subprocess.run(command, capture_output=True, text=True, env=_environment())


def _check_latents(repo: Path, name: str, classes: list[int]) -> None:
    card = ditzoo.card(name)
    with ditzoo.open_backend("onnxruntime", cached_bundle(card)) as backend:
        expected = ditzoo.sample(backend, ditzoo.make_plan(card), classes=classes, seed=5)
    np.testing.assert_allclose(np.load(repo / "latents.npy"), expected, atol=1e-4)


@pytest.mark.parametrize("name", ["dit-digits", "uvit-digits"])
def test_the_client_draws_what_the_local_backend_draws(name: str, tmp_path: Path) -> None:
    repo = tmp_path / "repo"
    assert run(["export", "triton", name, "--repo", str(repo), "--client"]) == 0
    with serving(Stub(repo, {model: repo / model / "1" / "model.onnx" for model in _configs(repo)}, {})) as port:
        done = _draw(repo, port, name, "0,3")
        wrong = _draw(repo, port, "dit-xl-2-256", "0") if name == "dit-digits" else None
    assert done.returncode == 0, done.stderr
    _check_latents(repo, name, [0, 3])
    if wrong is not None:
        assert wrong.returncode == 2
        assert "has no dit-xl-2-256-backbone that is ready; ready are: dit-digits-backbone, dit-digits-con" in wrong.stderr


@pytest.mark.parametrize("merged", [False, True], ids=["separate", "merged"])
def test_the_client_finds_the_engine_for_a_batch(merged: bool, tmp_path: Path) -> None:
    card = ditzoo.card("dit-digits")
    settings = make_engine_settings(card, gpu="sm89", precision="fp32", batch="2,4-5", merged=merged)
    bundle, graphs = of_tensorrt(cached_engines(card, settings=settings)), cached_bundle(card)
    export_triton(bundle, tmp_path, client=True)
    engines = {model.name: engine for model, engine in zip(models(bundle), bundle.manifest.engines.values(), strict=True)}
    files = {name: graphs.path / graphs.manifest.graphs[engine.graph].file for name, engine in engines.items()}
    stub = Stub(tmp_path, files, {name: engine.profiles for name, engine in engines.items()})
    with serving(stub) as port:
        done = _draw(tmp_path, port, card.name, "0,3,7")
    assert done.returncode == 0, done.stderr
    _check_latents(tmp_path, card.name, [0, 3, 7])
    backbones = sorted({(name, batch) for name, batch in stub.asked if "backbone" in name})
    assert [batch for _, batch in backbones] == [2, 5]  # six rows: five, and one padded to two
    assert len({name for name, _ in backbones}) == (1 if merged else 2)


def _environment() -> dict[str, str]:
    root = str(Path(ditzoo.__file__).parent.parent)
    return {**os.environ, "PYTHONPATH": root, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}


def test_a_tensors_name_cannot_leave_its_quotes() -> None:
    bundle = cached_bundle(ditzoo.card("dit-digits"))
    name = 'x" } backend: "python\n\\'
    model = models(bundle)[0]
    spec = msgspec.structs.replace(model.inputs[0], name=name)
    text = config_of(msgspec.structs.replace(model, inputs=(spec,)), bundle, instances=1)
    parsed = text_format.Parse(text, model_config_pb2.ModelConfig())
    assert (parsed.backend, parsed.input[0].name) == ("onnxruntime", name)
    assert set(parsed.model_warmup[0].inputs) == {name}


def test_what_is_there_is_not_overwritten(tmp_path: Path) -> None:
    bundle = cached_bundle(ditzoo.card("uvit-digits"))
    export_triton(bundle, tmp_path)
    with pytest.raises(UsageError, match="add --overwrite"):
        export_triton(bundle, tmp_path)
    export_triton(bundle, tmp_path, overwrite=True)
    with pytest.raises(UsageError, match="--instances must be 1 or more"):
        export_triton(bundle, tmp_path, instances=0)
