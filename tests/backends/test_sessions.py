"""ONNX Runtime's sessions for GPUs, as far as they can be tried without one: what is given to the provider, what is refused."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

import ditzoo
from ditzoo.backends import cuda, gpus, open_backend, sessions
from ditzoo.backends import onnxruntime as module
from ditzoo.backends.onnxruntime import OnnxRuntimeBackend
from ditzoo.bundle import Bundle
from ditzoo.errors import BackendError, UsageError
from ditzoo.specs import Device
from ditzoo_export import cached_bundle, make_settings
from tests.support import onnxruntime_stand_in as stand_in

DIT, UVIT = ditzoo.card("dit-digits"), ditzoo.card("uvit-digits")


@pytest.fixture(scope="module")
def halves() -> Bundle:
    return cached_bundle(UVIT, settings=make_settings(UVIT, precision="fp16"))


@pytest.fixture
def opened(halves: Bundle, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """The options of every provider for which a session is asked; sessions are opened on the CPU in its place."""
    given: list[dict[str, str]] = []
    cached_bundle(UVIT)  # is verified on the CPU, before sessions are replaced
    monkeypatch.setattr(sessions.ort, "get_available_providers", lambda: list(sessions.PROVIDERS.values()))
    monkeypatch.setattr(sessions.ort, "InferenceSession", stand_in.InferenceSession)
    monkeypatch.setattr(sessions.ort, "SessionOptions", stand_in.SessionOptions)
    monkeypatch.setattr(stand_in.InferenceSession, "given", given, raising=False)
    monkeypatch.setattr(sessions, "probe_cuda", lambda index: None)
    monkeypatch.setattr(sessions, "plugin_device", stand_in.DEVICES.__getitem__)
    monkeypatch.setattr(sessions, "check_placement", lambda session, path, provider: None)
    monkeypatch.setattr(sessions, "_is_loaded", lambda library: False)
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE", raising=False)
    return given


def test_cuda_computes_float32_in_float32_unless_tf32_was_asked_for(opened: list[dict[str, str]], halves: Bundle) -> None:
    bundle = cached_bundle(UVIT)
    with open_backend("onnxruntime:cuda", bundle) as plain, open_backend("onnxruntime:cuda:tf32", bundle) as fast:
        assert [options["use_tf32"] for options in opened] == ["0", "1"]  # and they share no session
        assert (plain.tf32, fast.tf32) == (False, True)
        assert fast.name == "onnxruntime fp32 cuda tf32"
    module.open_session(bundle.path / "backbone.onnx", device="cuda")  # so decoders and text encoders are opened
    assert opened[-1] == {"device_id": "0", "use_tf32": "0"}
    with pytest.raises(UsageError, match="tf32 is a way to compute fp32, and this is fp16"):
        open_backend("onnxruntime:cuda:tf32", halves)


@pytest.mark.parametrize("device", ["tensorrt", "tensorrt_rtx"])
def test_tensorrts_providers_keep_the_engines_of_each_bundle_apart(device: Device, opened: list[dict[str, str]]) -> None:
    """Two bundles whose graphs have the same names, inputs and outputs, and other weights."""
    name = "trt_engine_cache_path" if device == "tensorrt" else "nv_runtime_cache_path"
    bundle = cached_bundle(UVIT)
    for key, tf32 in (("a" * 64, False), ("b" * 64, False), ("a" * 64, True)):
        os.environ.pop("NVIDIA_TF32_OVERRIDE", None)
        OnnxRuntimeBackend(bundle.path, bundle.manifest.graphs, UVIT, device=device, key=key, tf32=tf32).close()
    folders = [Path(options[name]) for options in opened]
    assert [folder.name for folder in folders] == ["a" * 16, "b" * 16, "a" * 16 + "-tf32"]
    assert {folder.parent.name for folder in folders} == {device}
    os.environ.pop("NVIDIA_TF32_OVERRIDE", None)
    open_backend("onnxruntime", bundle, device=device).close()
    assert Path(opened[-1][name]).name == bundle.manifest.key[:16]


def test_tensorrts_providers_are_told_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "1")
    with pytest.raises(BackendError, match="must load with NVIDIA_TF32_OVERRIDE=0; start again"):
        sessions.settle_tf32("tensorrt", tf32=False)
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE")
    sessions.settle_tf32("cuda", tf32=False)
    sessions.settle_tf32("tensorrt", tf32=True)
    assert "NVIDIA_TF32_OVERRIDE" not in os.environ
    sessions.settle_tf32("tensorrt", tf32=False)
    assert os.environ["NVIDIA_TF32_OVERRIDE"] == "0"
    sessions.settle_tf32("tensorrt", tf32=False)
    with pytest.raises(BackendError, match="NVIDIA_TF32_OVERRIDE=0 forbids TF32 in this process"):
        sessions.settle_tf32("cuda", tf32=True)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="the system does not tell what is loaded")
def test_a_tensorrt_that_is_loaded_already_cannot_be_told() -> None:
    code = (
        "import tensorrt_rtx\n"
        "from ditzoo.backends.sessions import settle_tf32\n"
        "from ditzoo.errors import BackendError\n"
        "settle_tf32('tensorrt', tf32=False)\n"  # the other one is not loaded
        "import os; del os.environ['NVIDIA_TF32_OVERRIDE']\n"
        "try: settle_tf32('tensorrt_rtx', tf32=False)\n"
        "except BackendError as error: print(error)\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "NVIDIA_TF32_OVERRIDE"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert "NvTensorRTRTXExecutionProvider may compute float32 in TF32 here" in done.stdout, done.stderr


def _recorded(path: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    return ort.InferenceSession(path, options)


def test_a_cpu_in_disguise_is_found_out(tmp_path: Path) -> None:
    """What ONNX Runtime says of its own sessions: here all runs on the CPU, which a check for CUDA refuses where it matters."""
    path = cached_bundle(UVIT, settings=make_settings(UVIT, precision="int8")).path / "backbone.onnx"
    sessions.check_placement(_recorded(path), path, "CPUExecutionProvider")
    with pytest.raises(BackendError, match=r"does not run .*MatMul.* of .*backbone.onnx on CUDAExec"):
        sessions.check_placement(_recorded(path), path, "CUDAExecutionProvider")
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])
    y = helper.make_tensor_value_info("y", TensorProto.INT64, [1])
    small = helper.make_graph([helper.make_node("Shape", ["x"], ["y"])], "shapes", [x], [y])
    onnx.save(helper.make_model(small, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), tmp_path / "shapes.onnx")
    sessions.check_placement(_recorded(tmp_path / "shapes.onnx"), tmp_path, "CUDAExecutionProvider")


@pytest.mark.parametrize("device", ["cuda", "tensorrt"])
def test_int8_that_measures_as_it_runs_is_for_cpus(device: Device) -> None:
    bundle = cached_bundle(UVIT, settings=make_settings(UVIT, precision="int8"))
    with pytest.raises(BackendError, match=r"on CPUs alone; for --device cuda use `ditzoo export onnx uvit-digits .* fp16`"):
        open_backend("onnxruntime", bundle, device=device)


def test_a_gpu_has_a_number_and_a_provider_has_options(opened: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    bundle, probed = cached_bundle(UVIT), list[int]()
    monkeypatch.setattr(gpus, "gpu_count", lambda: 2)
    monkeypatch.setattr(sessions, "probe_cuda", probed.append)
    limit = {"gpu_mem_limit": "8000000000"}
    with (
        open_backend("onnxruntime:cuda:1", bundle, provider_options=limit) as backend,
        open_backend("onnxruntime", bundle, device="tensorrt:1"),
        open_backend("onnxruntime", bundle, device="tensorrt_rtx", provider_options={"nv_max_workspace_size": "5"}),
    ):
        assert opened[0] == {"device_id": "1", "use_tf32": "0", **limit}
        assert opened[1]["device_id"] == "1"
        assert {"nv_max_workspace_size", "nv_runtime_cache_path"} == {*opened[2]}  # its GPU has no number here
        assert backend.name == "onnxruntime fp32 cuda:1 gpu_mem_limit=8000000000"
        assert probed == [1]
    with pytest.raises(BackendError, match="there is no GPU 2, which cuda:2 names; use --device cuda or cuda:1"):
        open_backend("onnxruntime", bundle, device="cuda:2")
    for name, device in (("device_id", "cuda"), ("use_tf32", "cuda"), ("nv_runtime_cache_path", "tensorrt_rtx")):
        with pytest.raises(UsageError, match=f"ditzoo sets {name} of ONNX Runtime itself; leave that out"):
            open_backend("onnxruntime", bundle, device=device, provider_options={name: "1"})


def test_a_backend_that_captures_runs_has_a_session_of_its_own(
    opened: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Latents and modulations are numpy's here, in a module of another name, as CuPy's would be."""
    library = type("Library", (), {name: staticmethod(getattr(np, name)) for name in ("asarray", "empty")})
    monkeypatch.setattr(cuda, "arrays", lambda: library)
    monkeypatch.setattr(cuda, "settle", lambda library: None)
    bundle, plan = cached_bundle(DIT), ditzoo.make_plan(DIT, steps=2)
    given = {"enable_cuda_graph": "1"}
    with open_backend("onnxruntime", bundle) as cpu:
        expected = ditzoo.sample(cpu, plan, classes=[3], seed=2)
    opened.clear()
    with (
        open_backend("onnxruntime", bundle, device="cuda", provider_options=given) as first,
        open_backend("onnxruntime", bundle, device="cuda", provider_options=given) as second,
    ):
        assert ["enable_cuda_graph" in options for options in opened] == [True, False, True]  # the conditioning runs once
        for backend in (first, second, first):
            np.testing.assert_array_equal(ditzoo.sample(backend, plan, classes=[3], seed=2), expected)


def test_two_packages_of_onnx_runtime_are_refused(opened: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    both = {"onnxruntime": "1.31.1", "onnxruntime-gpu": "1.31.1"}
    monkeypatch.setattr(sessions, "distributions_of", lambda module: both)
    with pytest.raises(BackendError, match="onnxruntime and onnxruntime-gpu are installed over each other; keep one"):
        open_backend("onnxruntime", cached_bundle(UVIT), device="cuda")
    open_backend("onnxruntime", cached_bundle(UVIT)).close()  # the CPU is in either


def test_cuda_of_pip_is_loaded_first_and_nothing_is_printed(
    opened: list[dict[str, str]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sessions.ort, "preload_dlls", lambda: sys.stdout.write("Failed to load libcudnn.so.9"))
    with caplog.at_level(logging.INFO, sessions.log.name):
        sessions.open_session(cached_bundle(UVIT).path / "backbone.onnx", device="cuda")
    assert "Failed to load libcudnn.so.9" in caplog.text
    assert "libcudnn" not in capfd.readouterr().out


@pytest.mark.gpu
def test_cuda_runs_every_matrix_multiplication_itself() -> None:
    for precision in ("fp32", "fp16", "bf16"):
        bundle = cached_bundle(UVIT, settings=make_settings(UVIT, precision=precision))
        open_backend("onnxruntime", bundle, device="cuda").close()
