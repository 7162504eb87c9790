"""The text of devices and of a provider's options, the number of a GPU, the plugin for TensorRT-RTX, and captured runs."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

import ditzoo
from ditzoo.backends import cuda, gpus, open_backend, probing, rtx_plugin, sessions
from ditzoo.backends.captured_runs import CapturedRuns
from ditzoo.backends.onnxruntime import choosing_profile, provider_options
from ditzoo.backends.options import parse_spec
from ditzoo.errors import BackendError, MissingPackageError, UsageError
from ditzoo.model.opening import choose_backend, open_model
from ditzoo.specs import Profile, Range, TensorSpec, device_name, split_device
from ditzoo_export import cached_bundle, make_settings
from tests.support.cuda_stand_in import Cuda

UVIT = ditzoo.card("uvit-digits")
FEW, MANY = (Profile(axes={"batch": Range(min=low, opt=high, max=high)}) for low, high in ((1, 4), (5, 16)))


def test_a_device_may_have_a_number() -> None:
    assert split_device("cuda:1") == ("cuda", 1)
    assert split_device("tensorrt_rtx") == ("tensorrt_rtx", 0)
    assert [device_name(text) for text in ("cuda:0", "cuda:1", "cpu")] == ["cuda", "cuda:1", "cpu"]
    for text in ("cuda:", "cuda:-1", "cuda:first", "cuda:1:2", "cpu:0"):
        with pytest.raises(UsageError, match=f"'{text}' is not a device; use cpu, or a GPU with its number, such as cuda:1"):
            open_backend("torch", UVIT, device=text)
    with pytest.raises(UsageError, match="unknown device 'gpu:1'"):
        open_backend("torch", UVIT, device="gpu:1")


def test_a_name_may_carry_the_number_of_a_gpu() -> None:
    assert parse_spec("torch:cuda:1").device == "cuda:1"
    assert parse_spec("onnxruntime:fp16:tensorrt:2:split") == parse_spec("onnxruntime:split:tensorrt:2:fp16")
    assert parse_spec("torch:cuda:0") == parse_spec("torch:cuda")
    assert parse_spec("tensorrt-rtx:fp16") == parse_spec("tensorrt_rtx:fp16")
    assert parse_spec("onnxruntime:tensorrt-rtx:1") == parse_spec("onnxruntime:tensorrt_rtx:1")
    assert device_name("tensorrt-rtx:1") == "tensorrt_rtx:1"
    for text, message in (
        ("torch:1", "torch has no option '1'"),
        ("torch:cuda:1:2", "torch has no option '2'"),
        ("torch:cpu:1", "'cpu:1' is not a device"),
        ("torch:cuda:1:cpu", "says both cuda:1 and cpu"),
        ("tensorrt:cuda:1", "tensorrt has no option 'cuda:1'"),
    ):
        with pytest.raises(UsageError, match=message):
            parse_spec(text)


def test_a_gpu_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus.check_gpu("cuda")
    monkeypatch.setattr(gpus, "gpu_count", lambda: 2)
    gpus.check_gpu("tensorrt:1")
    assert gpus.cuda_device("tensorrt:1") == "cuda:1"
    assert gpus.cuda_device("cpu") == "cpu"
    with pytest.raises(BackendError, match="there is no GPU 2, which cuda:2 names; use --device cuda or cuda:1"):
        gpus.cuda_device("cuda:2")
    monkeypatch.setattr(gpus, "gpu_count", lambda: 0)
    with pytest.raises(BackendError, match="there is no GPU 1, which cuda:1 names; NVIDIA's driver shows none here"):
        gpus.check_gpu("cuda:1")


def test_without_a_driver_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "_DRIVER", "libcuda-of-no-machine.so")
    assert gpus.gpu_count() == 0


def test_calls_of_cuda_go_to_the_gpu_that_was_named(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Cuda()
    monkeypatch.setattr(cuda, "runtime", lambda: device)

    class OnSecond:
        index = 1

        @cuda.on_its_gpu
        def current(self) -> int:
            return int(cuda.call(device.cudaGetDevice))

    assert OnSecond().current() == 1
    with pytest.raises(ValueError, match="within"), cuda.on_gpu(3):
        raise ValueError("within")
    assert device.chosen == [1, 0, 3, 0]


def test_options_with_a_value_are_those_of_a_library() -> None:
    spec = parse_spec("onnxruntime:cuda:gpu_mem_limit=8000000000:enable_cuda_graph=1")
    assert spec.provider_options == {"gpu_mem_limit": "8000000000", "enable_cuda_graph": "1"}
    assert msgspec.structs.replace(spec, provider_options={}) == parse_spec("onnxruntime:cuda")
    with pytest.raises(UsageError, match="gives an option two values"):
        parse_spec("onnxruntime:cuda:gpu_mem_limit=1:gpu_mem_limit=2")
    with pytest.raises(
        UsageError, match=r"torch takes no options with a value, such as gpu_mem_limit; .* for onnxruntime or openvino"
    ):
        open_backend("torch:gpu_mem_limit=1", UVIT)
    with pytest.raises(UsageError, match="takes no options with a value on cpu, such as gpu_mem_limit; use --device cuda"):
        open_backend("onnxruntime", UVIT, provider_options={"gpu_mem_limit": "1"})


def test_a_backend_is_chosen_by_a_text_with_options() -> None:
    assert choose_backend(UVIT, None).name == "torch"
    spec = choose_backend(UVIT, "onnxruntime:cuda:1", precision="fp16")
    assert (spec.name, spec.device, spec.precision) == ("onnxruntime", "cuda:1", "fp16")
    with pytest.raises(UsageError, match="'torch:bf16' says bf16, and the precision is fp16; leave one out"):
        choose_backend(UVIT, "torch:bf16", precision="fp16")


def test_several_profiles_are_chosen_from() -> None:
    specs = (TensorSpec(name="x", shape=("batch", 4, 8, 8)), TensorSpec(name="t", shape=("batch",)))
    options = provider_options("tensorrt_rtx", specs, [FEW, MANY], cache=None)
    assert options["nv_multi_profile_enable"] == "1"
    assert options["nv_profile_max_shapes"] == "x:4x4x8x8,t:4,x:16x4x8x8,t:16"
    assert "nv_multi_profile_enable" not in provider_options("tensorrt_rtx", specs, [FEW], cache=None)
    assert not [name for name in provider_options("tensorrt", specs, [FEW, MANY], cache=None) if "multi" in name]
    for batch, index in ((1, "0"), (4, "0"), (5, "1"), (16, "1")):
        assert choosing_profile([FEW, MANY], {"batch": batch}).get_run_config_entry("nv_profile_index") == index
    with pytest.raises(BackendError, match=r"no profile holds batch=17; the profiles are batch=1-4.*; batch=5-16"):
        choosing_profile([FEW, MANY], {"batch": 17})


@pytest.fixture
def no_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was found before is forgotten, and TF32 is settled for this test alone."""
    rtx_plugin._register.cache_clear()
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    monkeypatch.setattr(sessions, "_load_cuda", lambda: None)


@pytest.mark.usefixtures("no_plugin")
def test_a_plugin_that_is_not_installed_names_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(rtx_plugin, "PLUGIN", "onnxruntime_ep_of_no_machine")
    message = r"needs the package onnxruntime-ep-of-no-machine: pip install 'ditzoo\[gpu-tensorrt-rtx\]'"
    with pytest.raises(MissingPackageError, match=message):
        sessions.open_session(tmp_path / "backbone.onnx", device="tensorrt_rtx")


@pytest.mark.usefixtures("no_plugin")
def test_a_plugin_that_does_not_load_or_shows_no_gpu_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """ONNX Runtime's own error for a library that is not there; without a driver, the real plugin fails alike."""
    library = tmp_path / "libprovider.so"
    (tmp_path / "plugin_of_tests.py").write_text(f"def get_library_path():\n    return {str(library)!r}\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(rtx_plugin, "PLUGIN", "plugin_of_tests")
    with pytest.raises(BackendError, match=r"cannot load the plugin plugin_of_tests: .*libprovider.so.* driver for CUDA 13"):
        sessions.open_session(tmp_path / "backbone.onnx", device="tensorrt_rtx")
    monkeypatch.setattr(rtx_plugin, "_register", lambda: None)
    with pytest.raises(BackendError, match=r"shows no GPU here: it runs on compute capability 8.6, 8.9, and 12.0 or higher"):
        rtx_plugin.plugin_device(0)
    monkeypatch.setattr(rtx_plugin, "_devices", lambda: ["first", "second"])
    assert rtx_plugin.plugin_device(1) == "second"
    with pytest.raises(BackendError, match="shows no GPU 2; use --device tensorrt_rtx or tensorrt_rtx:1"):
        rtx_plugin.plugin_device(2)


def test_the_probe_convolves() -> None:
    """On the CPU it runs; a provider that is not there is found out, and no other one takes its place."""
    node, one = helper.make_node("Conv", ["x", "w"], ["y"]), [1, 1, 1, 1]
    x, w, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, one) for name in "xwy")
    graph = helper.make_graph([node], "c", [x, w], [y])
    assert onnx.load_from_string(probing.CONVOLUTION).graph == graph
    assert probing.convolve("CPUExecutionProvider", {}) == 6
    if "CUDAExecutionProvider" in ort.get_available_providers():
        pytest.skip("this ONNX Runtime has CUDA")
    probing.probe_cuda.cache_clear()
    with (
        pytest.warns(UserWarning, match="CUDAExecutionProvider"),
        pytest.raises(BackendError, match=r"cannot convolve on GPU 0: .*; pip install 'ditzoo\[gpu\]' brings CUDA and cuDNN"),
    ):
        probing.probe_cuda(0)


def square(path: Path) -> ort.InferenceSession:
    """y = x * x for any number of rows of three."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", 3]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Mul", ["x", "x"], ["y"])], "square", [x], [y])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return ort.InferenceSession(path)


def test_captured_runs_keep_to_one_place_for_each_shape(tmp_path: Path) -> None:
    """A session on the CPU captures nothing, and shows what a captured run would read and write."""
    runs = CapturedRuns(square(tmp_path / "square.onnx"), np)
    given = [np.full((rows, 3), rows + i, dtype=np.float32) for i, rows in enumerate((2, 5, 2, 5, 2))]
    drawn = [runs.run({"x": x}, {"y": (x.shape, "float32")})[0] for x in given]
    for x, y in zip(given, drawn, strict=True):
        np.testing.assert_array_equal(y, x * x)  # no later run wrote over it
    places = runs._places
    assert [place.options.get_run_config_entry("gpu_graph_id") for place in places.values()] == ["1", "2"]
    read = {key: cuda.address(place.given["x"]) for key, place in places.items()}
    runs.run({"x": given[0]}, {"y": (given[0].shape, "float32")})
    assert read == {key: cuda.address(place.given["x"]) for key, place in runs._places.items()}


@pytest.mark.gpu
def test_a_gpu_that_no_machine_has_is_said() -> None:
    assert gpus.gpu_count() >= 1
    for name in ("torch", "onnxruntime"):
        with pytest.raises(BackendError, match="there is no GPU 99, which cuda:99 names; use --device cuda"):
            ditzoo.load("uvit-digits", backend=name, device="cuda:99")
    with ditzoo.load("uvit-digits", backend="onnxruntime:cuda:0") as model:
        assert model.backend.name == "onnxruntime fp32 cuda"


@pytest.mark.gpu
@pytest.mark.skipif(gpus.gpu_count() < 2, reason="there is no second GPU")
@pytest.mark.parametrize("name", ["torch", "onnxruntime", "tensorrt_rtx"])
def test_the_second_gpu_draws_what_the_cpu_draws(name: str) -> None:
    with ditzoo.load("dit-digits") as cpu, ditzoo.load("dit-digits", backend=name, device="cuda:1") as second:
        assert "cuda:1" in second.backend.name
        expected, drawn = (model.sample(classes=[1, 7], steps=4).latents for model in (cpu, second))
    assert np.linalg.norm(drawn - expected) <= 1e-4 * np.linalg.norm(expected)


@pytest.mark.gpu
@pytest.mark.parametrize("options", ["enable_cuda_graph=1", "gpu_mem_limit=1000000000"])
def test_options_of_cudas_provider_change_no_number(options: str) -> None:
    if "graph" in options:
        pytest.importorskip("cupy")
    plan = ditzoo.make_plan("dit-digits", steps=4)
    with (
        open_model("dit-digits", parse_spec("torch")) as cpu,
        open_model("dit-digits", parse_spec(f"onnxruntime:cuda:{options}")) as gpu,
    ):
        for classes in ([1, 7], [2], [3, 4], [5]):  # two shapes in turn
            expected, drawn = (ditzoo.sample(backend, plan, classes=classes) for backend in (cpu, gpu))
            assert np.linalg.norm(drawn - expected) <= 1e-4 * np.linalg.norm(expected)


@pytest.mark.gpu
def test_a_limit_of_memory_is_obeyed() -> None:
    with (
        pytest.raises(BackendError, match=r"(?i)memory|alloc"),
        ditzoo.load("dit-digits", backend="onnxruntime:cuda:gpu_mem_limit=1000") as model,
    ):
        model.sample(classes=[1], steps=1)


@pytest.mark.gpu
def test_the_plugin_runs_every_profile() -> None:
    try:
        rtx_plugin.plugin_device(0)
    except (MissingPackageError, BackendError) as error:
        pytest.skip(str(error))
    card = ditzoo.card("dit-digits")
    bundle = cached_bundle(card, settings=make_settings(card, target="tensorrt"))
    sides = {axis: Range(min=8, opt=8, max=8) for axis in ("height", "width")}
    profiles = [Profile(axes={**profile.axes, **sides}) for profile in (FEW, MANY)]
    plan = ditzoo.make_plan(card, steps=4)
    with (
        open_backend("torch", card) as cpu,
        open_backend("onnxruntime", bundle, device="tensorrt_rtx", profiles=profiles) as gpu,
    ):
        for count in (2, 8):
            assert ditzoo.compare(cpu, gpu, plan, classes=range(count)).report.sample_relative_l2 <= 1e-4


def test_a_capture_that_cannot_be_is_refused() -> None:
    bundle = cached_bundle(UVIT)
    for device, name, message in (
        ("tensorrt", "trt_cuda_graph_enable", "trt_cuda_graph_enable is not for --device tensorrt; use enable_cuda_graph=1"),
        ("tensorrt_rtx", "enable_cuda_graph", "enable_cuda_graph is not for --device tensorrt_rtx"),
        (
            "cuda:1",
            "enable_cuda_graph",
            r"on the first GPU, which needs .* CuPy: pip install 'ditzoo\[device\]'",
        ),
    ):
        with pytest.raises(UsageError, match=message):
            open_backend("onnxruntime", bundle, device=device, provider_options={name: "1"})
