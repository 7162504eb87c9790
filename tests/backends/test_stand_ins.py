"""The stand-ins of the tests take what the real libraries take, and refuse what these refuse."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from types import FunctionType
from typing import Any

import onnxruntime
import pytest
import tensorrt_rtx
from cuda.bindings import runtime
from cuda.bindings.runtime import cudaError_t, cudaMemcpyKind

from ditzoo.backends.probing import CONVOLUTION
from tests.support import onnxruntime_stand_in, tensorrt_stand_in
from tests.support.cuda_stand_in import OK, Cuda

CLASSES = {
    "RuntimeConfig": "IRuntimeConfig",
    "RuntimeCache": "IRuntimeCache",
    "CudaEngine": "ICudaEngine",
    "SerializationConfig": "ISerializationConfig",
    "Refitter": "Refitter",
    "OnnxParserRefitter": "OnnxParserRefitter",
    "Context": "IExecutionContext",
}
"""The classes of the stand-in for TensorRT, and those of tensorrt_rtx that they stand for."""

OUR_OWN = {"strategy", "take", "configs"}
"""Members of the stand-in that the real library does not have."""


def names(function: Callable[..., Any]) -> list[str]:
    """The names of a function's arguments, without self."""
    return [name for name in inspect.signature(function).parameters if name != "self"]


def overloads(function: Any) -> list[list[str]]:
    """The names of the arguments of each form of a function of tensorrt_rtx, which its documentation begins with."""
    text = re.sub(r" = <[^>]*>", "", function.__doc__)  # without defaults
    forms = re.findall(rf"^(?:\d+\. )?{function.__name__}\((.*)\) ->", text, flags=re.MULTILINE)
    return [[name for name in re.findall(r"(\w+): ", form) if name != "self"] for form in forms]


def members(kind: type) -> dict[str, Any]:
    """The public members of a stand-in's class that stand for one of the real library."""
    return {name: value for name, value in vars(kind).items() if name[0] != "_" and name not in OUR_OWN}


@pytest.mark.parametrize("name", [name for name, value in vars(Cuda).items() if name.startswith("cuda") and callable(value)])
def test_the_functions_of_cuda_take_the_same_arguments(name: str) -> None:
    real = getattr(runtime, name)
    if inspect.isclass(real):
        assert getattr(Cuda, name) is real
    else:
        assert names(getattr(Cuda, name)) == names(real)


@pytest.mark.parametrize(("stand_in", "real"), CLASSES.items())
def test_the_members_of_tensorrt_take_the_same_arguments(stand_in: str, real: str) -> None:
    ours, theirs = getattr(tensorrt_stand_in, stand_in), getattr(tensorrt_rtx, real)
    assert members(ours)
    for name, value in members(ours).items():
        assert hasattr(theirs, name), f"{real} has no {name}"
        if isinstance(value, FunctionType):
            forms = overloads(getattr(theirs, name))
            assert names(value) in forms, f"{real}.{name} takes {forms}"


def test_the_sessions_of_onnx_runtime_take_the_same_arguments() -> None:
    assert names(onnxruntime_stand_in.InferenceSession.__new__)[1:] == names(onnxruntime.InferenceSession.__init__)
    real = onnxruntime.SessionOptions.add_provider_for_devices
    assert names(onnxruntime_stand_in.SessionOptions.add_provider_for_devices) in overloads(real)


def test_the_sessions_of_onnx_runtime_refuse_what_it_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime_stand_in.InferenceSession, "given", [], raising=False)
    options, path = onnxruntime_stand_in.SessionOptions(), CONVOLUTION
    provider = "CUDAExecutionProvider"
    for wrong in ({"device_id": 1}, {1: "device_id"}):
        with pytest.raises(AssertionError, match="options of a provider are text"):
            onnxruntime_stand_in.InferenceSession(path, options, providers=[(provider, wrong)])
        with pytest.raises(TypeError, match="incompatible function arguments"):
            options.add_provider_for_devices([onnxruntime_stand_in.DEVICES[0]], wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'providers' should be a sequence"):
        onnxruntime_stand_in.InferenceSession(path, options, providers={provider})  # type: ignore[arg-type]
    with pytest.warns(UserWarning, match="not in available provider names"):
        onnxruntime_stand_in.InferenceSession(path, options, providers=[("NoExecutionProvider", {})])
    with pytest.raises(AssertionError):
        options.add_provider_for_devices([object()], {})
    assert onnxruntime_stand_in.InferenceSession.given == [{}]  # of the provider that is only warned of


def test_a_stream_that_was_not_waited_for_has_not_copied() -> None:
    cuda = Cuda()
    (_, source), (_, target), (_, stream) = cuda.cudaMalloc(4), cuda.cudaMalloc(4), cuda.cudaStreamCreateWithFlags(1)
    cuda.memory[source].raw = b"abcd"
    assert cuda.cudaMemcpyAsync(target, source, 4, cudaMemcpyKind.cudaMemcpyDefault, stream) == (OK,)
    assert cuda.memory[target].raw != b"abcd"
    assert cuda.cudaStreamSynchronize(stream) == (OK,)
    assert cuda.memory[target].raw == b"abcd"


def test_memory_that_was_given_back_or_is_too_small_is_refused() -> None:
    cuda = Cuda()
    (_, address), (_, other), (_, stream) = cuda.cudaMalloc(4), cuda.cudaMalloc(8), cuda.cudaStreamCreateWithFlags(1)
    kind = cudaMemcpyKind.cudaMemcpyDefault
    assert cuda.cudaMemcpyAsync(address, other, 5, kind, stream) == (cudaError_t.cudaErrorInvalidValue,)
    assert cuda.cudaFree(address) == (OK,)
    assert cuda.cudaMemcpyAsync(other, address, 4, kind, stream) == (cudaError_t.cudaErrorInvalidValue,)
    assert cuda.cudaFree(address) == (cudaError_t.cudaErrorInvalidValue,)
    with pytest.raises(AssertionError):
        cuda.cudaMemcpyAsync(other, other, 4, 4, stream)


def test_a_capture_refuses_memory_and_waiting() -> None:
    cuda = Cuda()
    _, stream = cuda.cudaStreamCreateWithFlags(1)
    mode = runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
    assert cuda.cudaStreamBeginCapture(stream, mode) == (OK,)
    assert cuda.cudaMalloc(4) == (cudaError_t.cudaErrorStreamCaptureUnsupported, None)
    assert cuda.cudaStreamSynchronize(stream) == (cudaError_t.cudaErrorStreamCaptureUnsupported,)
    assert cuda.cudaStreamEndCapture(stream) == (cudaError_t.cudaErrorStreamCaptureInvalidated, None)
