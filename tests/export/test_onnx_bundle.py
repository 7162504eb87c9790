"""ONNX exports: every precision and form verifies, agrees with torch, and says clearly what it cannot do."""

from __future__ import annotations

import gc
import weakref
from collections import Counter
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import msgspec
import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

import ditzoo
from ditzoo.backends.onnxruntime import OnnxRuntimeBackend, provider_options
from ditzoo.errors import BackendError, ExportError, UsageError
from ditzoo.families import build
from ditzoo.measure.metrics import relative_l2
from ditzoo.specs import Precision, Profile, Range, TensorSpec
from ditzoo.zoo.configs import BackboneConfig
from ditzoo_export import artifacts, cached_bundle, cached_engines, export_onnx, make_engine_settings, make_settings
from ditzoo_export.network_graphs import write_network_graphs
from ditzoo_export.sizes import parse_batches, parse_resolution
from tests.support.export_models import TINY_DIT, TINY_LIGHTNINGDIT, TINY_UVIT, random_model


@pytest.mark.parametrize("config", [TINY_DIT, TINY_LIGHTNINGDIT], ids=["dit", "lightningdit"])
def test_dynamic_resolution_and_guidance_inside(config: BackboneConfig, tmp_path: Path) -> None:
    card, net = random_model(config)
    settings = make_settings(card, resolution="dynamic", guided=True)
    bundle = export_onnx(card, tmp_path / "b", settings=settings, net=net)
    assert len(bundle.manifest.verified.sizes) == 2
    rng = np.random.default_rng(0)
    x, t, y = rng.standard_normal((2, 4, 12, 10)).astype(np.float32), np.float32([3, 900]), np.array([1, 2])
    with torch.no_grad(), ditzoo.open_backend("onnxruntime", bundle) as backend:
        expected = net(*map(torch.from_numpy, (x, t, y))).numpy()
        null = net(*map(torch.from_numpy, (x, t, np.array([10, 10])))).numpy()
        assert relative_l2(backend({"x": x, "t": t, "y": y}), expected) < 1e-5
    scale = np.float32([1.5, 4])
    session = ort.InferenceSession(bundle.path / bundle.manifest.graphs["guided"].file)
    (guided,) = session.run(None, {"x": x, "t": t, "y": y, "guidance": scale})
    mixed = null[:, :3] + scale[:, None, None, None] * (expected[:, :3] - null[:, :3])
    assert relative_l2(guided, np.concatenate([mixed, expected[:, 3:]], axis=1)) < 1e-5


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("resolution", ["16", "4x12"])
def test_one_other_resolution(precision: str, resolution: str) -> None:
    """Its trajectory is that of the card's own resolution, cut or repeated."""
    card, net = random_model(TINY_DIT)
    settings = make_settings(card, precision=precision, target="tensorrt", resolution=resolution)
    verified = cached_bundle(card, settings=settings, net=net).manifest.verified
    assert verified.sizes == (settings.size,)
    assert len(set(verified.times)) == 5
    assert 0 < max(verified.random, verified.trajectory) <= verified.tolerance


def test_the_split_backbone_lacks_the_conditioning_weights_and_draws_the_same() -> None:
    card = ditzoo.card("dit-digits")
    split, single = (cached_bundle(card, settings=make_settings(card, split=split)) for split in (True, False))
    sizes = [bundle.manifest.files["backbone.onnx.data"].size for bundle in (split, single)]
    assert sizes[0] < 0.8 * sizes[1]
    plan = ditzoo.make_plan(card, steps=6)
    drawn = []
    for bundle in (split, single):
        with ditzoo.open_backend("onnxruntime", bundle) as backend:
            drawn.append(ditzoo.sample(backend, plan, classes=[0, 1, 2], batch=2))
    assert relative_l2(*drawn) < 1e-4


def test_conditioning_runs_once_for_all_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    card = ditzoo.card("dit-digits")
    bundle = cached_bundle(card)
    ran: list[str] = []
    run = OnnxRuntimeBackend._run
    monkeypatch.setattr(
        OnnxRuntimeBackend, "_run", lambda self, graph, inputs: (ran.append(graph.file), run(self, graph, inputs))[1]
    )
    with ditzoo.open_backend("onnxruntime", bundle) as backend:
        ditzoo.sample(backend, ditzoo.make_plan(card, steps=7), classes=[0, 1])
    assert ran.count("conditioning.onnx") == 1
    assert ran.count("backbone.onnx") == 7


def test_graphs_hold_no_trace_of_this_machine() -> None:
    for name in ("dit-digits", "uvit-digits"):
        bundle = cached_bundle(ditzoo.card(name))
        for graph in bundle.manifest.graphs.values():
            text = (bundle.path / graph.file).read_bytes()
            assert str(Path(ditzoo.__file__).parent).encode() not in text


def test_opset_and_attention_go_by_target() -> None:
    """One operation a block: ONNX's own, which TensorRT fuses in half precision, or ONNX Runtime's, with flash attention."""
    card = ditzoo.card("uvit-digits")
    for target, opset, attention in (("onnxruntime", 20, "MultiHeadAttention"), ("tensorrt", 23, "Attention")):
        bundle = cached_bundle(card, settings=make_settings(card, precision="int8", target=target))
        nodes = onnx.load(bundle.path / "backbone.onnx").graph.node
        assert bundle.manifest.graphs["backbone"].opset == opset
        assert sum(node.op_type == attention for node in nodes) == sum(node.op_type == "Gelu" for node in nodes) > 0
        assert not any(node.op_type == "Softmax" for node in nodes)
    bundle = cached_bundle(card, settings=make_settings(card, precision="fp32", target="tensorrt"))
    operations = {node.op_type for node in onnx.load(bundle.path / "backbone.onnx").graph.node}
    assert bundle.manifest.graphs["backbone"].opset == 20
    assert "Softmax" in operations
    assert not {"Attention", "MultiHeadAttention"} & operations


def test_bf16_for_onnx_runtime_rounds_a_linear_layer_once() -> None:
    """Its kernels for GPUs round the result of each operation."""
    card = ditzoo.card("dit-digits")
    bundle = cached_bundle(card, settings=make_settings(card, precision="bf16"))
    for name in ("backbone", "conditioning"):
        model = onnx.load(bundle.path / f"{name}.onnx")
        counts = Counter(node.op_type for node in model.graph.node)
        types = {value.name: value.type.tensor_type.elem_type for value in model.graph.value_info}
        sigmoids = [types[node.input[0]] for node in model.graph.node if node.op_type == "Sigmoid"]
        assert (counts["MatMul"], sigmoids) == (0, [onnx.TensorProto.FLOAT] * len(sigmoids))
        assert counts["Gemm"] > 0


def test_attention_of_quantized_graphs_for_tensorrt_is_in_half_precision() -> None:
    card = ditzoo.card("uvit-digits")
    for precision in ("int8", "fp8"):
        bundle = cached_bundle(card, settings=make_settings(card, precision=precision, target="tensorrt"))
        nodes = onnx.load(bundle.path / "backbone.onnx").graph.node
        made_by = {name: node for node in nodes for name in node.output}
        taken_by = {name: node for node in nodes for name in node.input}
        for attention in (node for node in nodes if node.op_type == "Attention"):
            casts = [made_by[name] for name in attention.input]
            assert [cast.attribute[0].i for cast in casts] == [onnx.TensorProto.FLOAT16] * 3
            assert taken_by[attention.output[0]].attribute[0].i == onnx.TensorProto.FLOAT


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_attention_is_one_operation_only_if_tensorrt_has_a_kernel_for_its_width(heads: int, tmp_path: Path) -> None:
    """It has none for heads of width 8."""
    card, net = random_model(msgspec.structs.replace(TINY_DIT, num_heads=heads))
    graphs = write_network_graphs(tmp_path, card, net, make_settings(card, precision="fp16", target="tensorrt"))
    operations = {node.op_type for node in onnx.load(tmp_path / "backbone.onnx").graph.node}
    assert graphs["backbone"].opset == (20 if heads == 4 else 23)
    assert operations & {"Attention", "Softmax"} == {"Softmax" if heads == 4 else "Attention"}


def test_rotary_attention_is_one_operation_too() -> None:
    card, net = random_model(TINY_LIGHTNINGDIT)
    for target, attention in (("onnxruntime", "MultiHeadAttention"), ("tensorrt", "Attention")):
        bundle = cached_bundle(card, settings=make_settings(card, precision="fp16", target=target), net=net)
        operations = [node.op_type for node in onnx.load(bundle.path / "backbone.onnx").graph.node]
        assert operations.count(attention) == card.backbone.depth
        assert "Softmax" not in operations


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("config", [TINY_DIT, TINY_LIGHTNINGDIT, TINY_UVIT], ids=["dit", "lightningdit", "uvit"])
def test_tracing_lets_go_of_the_weights(config: BackboneConfig, precision: Precision, tmp_path: Path) -> None:
    """The exporter's rules keep the last graph that they saw: its weights would lie beside ONNX Runtime's copies."""
    card, net = random_model(config)
    weights = [weakref.ref(tensor) for tensor in (*net.parameters(), *net.buffers())]
    write_network_graphs(tmp_path, card, net, make_settings(card, precision=precision))
    del net
    gc.collect()
    assert [weight() for weight in weights if weight() is not None] == []


def test_a_failed_verification_keeps_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card, net = random_model(TINY_UVIT)
    other = build(TINY_UVIT).eval()
    monkeypatch.setattr("ditzoo_export.network_graphs.with_fused_attention", lambda net: other)
    with pytest.raises(ExportError, match=r"the output prediction of random-uvit in fp32 is off by .* at time"):
        export_onnx(card, tmp_path / "b", net=net)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("target", ["onnxruntime", "tensorrt"])
def test_what_overflows_on_a_gpu_fails_the_verification(target: str) -> None:
    """ONNX Runtime computes fp16 in float32 on a CPU, where nothing overflows and bf16 is refused."""
    card, net = random_model(TINY_DIT)
    mlp = net.get_submodule("blocks.0.mlp")
    with torch.no_grad():
        mlp.fc1.weight.mul_(3e5)
        mlp.fc2.weight.mul_(2e-3)
    with pytest.raises(ExportError, match=r"in fp16 is off by (nan|inf)"):
        cached_bundle(card, settings=make_settings(card, precision="fp16", target=target), net=net)
    bf16 = cached_bundle(card, settings=make_settings(card, precision="bf16", target=target), net=net).manifest
    assert 1e-4 < bf16.verified.random < bf16.verified.tolerance


def test_bf16_is_refused_on_a_cpu() -> None:
    card = ditzoo.card("uvit-digits")
    bundle = cached_bundle(card, settings=make_settings(card, precision="bf16"))
    with pytest.raises(BackendError, match="no bf16 arithmetic on CPUs"):
        ditzoo.open_backend("onnxruntime", bundle, precision="bf16")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"precision": "fp7"}, "unknown precision 'fp7'"),
        ({"target": "gpu"}, "unknown target 'gpu'"),
        ({"precision": "fp8"}, "fp8 is for GPUs; add --target tensorrt"),
        ({"resolution": "9"}, "a resolution of 9 is no multiple of 2"),
        ({"resolution": "0"}, "no multiple"),
        ({"resolution": "8x34"}, "a resolution of 8x34 is more than 4 times that of training; at most 32 pixels a side"),
        ({"resolution": "big"}, "write 256, 256x384 or dynamic"),
    ],
)
def test_bad_settings(arguments: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_settings(ditzoo.card("dit-digits"), **arguments)  # type: ignore[arg-type]


def test_a_uvit_takes_no_other_resolution_and_no_split() -> None:
    card = ditzoo.card("uvit-digits")
    for resolution in ("dynamic", "16"):
        with pytest.raises(UsageError, match="learned the positions of 8x8 pixels"):
            parse_resolution(card, resolution)
    with pytest.raises(UsageError, match="leave --split out"):
        make_settings(card, split=True)


def test_batches() -> None:
    assert [str(item) for item in parse_batches("1,4,8-16,2-8-32")] == ["1", "4", "8-16", "2-8-32"]
    for text, message in (
        ("0", "1 or more"),
        ("8-4", "runs backwards; write 4-8"),
        ("1-2-3-4", "is not a batch size"),
        ("x", "is not a batch size"),
    ):
        with pytest.raises(UsageError, match=message):
            parse_batches(text)


def test_any_distribution_of_onnx_runtime_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = artifacts.version

    def only_gpu(name: str) -> str:
        if name == "onnxruntime":
            raise PackageNotFoundError(name)
        return "1.31.1" if name == "onnxruntime-gpu" else installed(name)

    assert artifacts.made_by(ditzoo.card("uvit-digits"))["onnxruntime"] == ort.__version__
    monkeypatch.setattr(artifacts, "version", only_gpu)
    monkeypatch.setattr(artifacts, "distributions_of", lambda module: {"onnxruntime-gpu": "1.31.1"})
    assert artifacts.made_by(ditzoo.card("uvit-digits"))["onnxruntime-gpu"] == "1.31.1"


def test_provider_options_come_from_profiles() -> None:
    specs = (TensorSpec(name="x", shape=("batch", 4, "height", "width")), TensorSpec(name="t", shape=("batch",)))
    size = Range(min=32, opt=32, max=64)
    profile = Profile(axes={"batch": Range(min=1, opt=2, max=8), "height": size, "width": size})
    assert provider_options("cuda", specs, [profile], cache=Path("kept")) == {}
    options = provider_options("tensorrt", specs, [profile], cache=Path("kept"))
    assert options["trt_profile_min_shapes"] == "x:1x4x32x32,t:1"
    assert options["trt_profile_max_shapes"] == "x:8x4x64x64,t:8"
    assert (options["trt_engine_cache_enable"], options["trt_engine_cache_path"]) == ("1", "kept")
    assert not [name for name in provider_options("tensorrt", specs, [profile], cache=None) if "cache" in name]
    assert provider_options("tensorrt_rtx", specs, [profile], cache=None)["nv_profile_opt_shapes"] == "x:2x4x32x32,t:2"


@pytest.mark.parametrize("device", ["cuda", "tensorrt"])
def test_a_missing_provider_is_said(device: str) -> None:
    bundle = cached_bundle(ditzoo.card("uvit-digits"))
    if ort.get_available_providers() != ["AzureExecutionProvider", "CPUExecutionProvider"]:
        pytest.skip("this ONNX Runtime has more providers")
    with pytest.raises(BackendError, match=r"this ONNX Runtime has no .*ExecutionProvider"):
        ditzoo.open_backend("onnxruntime", bundle, device=device)


def test_an_engine_bundle_is_no_onnx_bundle() -> None:
    bundle = cached_bundle(ditzoo.card("uvit-digits"))
    engines = cached_engines(bundle.card, settings=make_engine_settings(bundle.card, gpu="sm89", precision="fp16"))
    with pytest.raises(BackendError, match="has no ONNX graph"):
        ditzoo.open_backend("onnxruntime", engines)
    with pytest.raises(BackendError, match="has no engines"):
        ditzoo.open_backend("tensorrt_rtx", bundle)
