"""What the torch backend does with a network that the caller keeps, with its weights once it is closed, and with TF32."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch

import ditzoo
from ditzoo.backends import open_backend
from ditzoo.backends import torch as module
from ditzoo.backends.torch import TorchBackend, float32_arithmetic
from ditzoo.errors import BackendError, UsageError
from ditzoo.measure.parity import TOLERANCES, arithmetic
from ditzoo.weights.load import load_network

DIT = ditzoo.card("dit-digits")


def _switches() -> tuple[str, str]:
    return torch.backends.cudnn.conv.fp32_precision, torch.backends.cuda.matmul.fp32_precision


@pytest.mark.parametrize("tf32", [False, True])
def test_float32_is_float32_on_a_gpu_unless_tf32_was_asked_for(tf32: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The switches as they are while the network runs on a device of the kind "cuda"; they are put back after an error too."""
    before, seen = _switches(), []
    with TorchBackend(DIT, tf32=tf32) as backend:
        with backend.computing():
            assert _switches() == before  # a CPU has no such switch
        backend.device = torch.device("cuda")
        with pytest.raises(ZeroDivisionError), backend.computing():
            seen.append(_switches())
            raise ZeroDivisionError
    assert seen == [("tf32", "tf32") if tf32 else ("ieee", "ieee")]
    assert _switches() == before


def test_torch_before_2_9_has_the_older_switches(monkeypatch: pytest.MonkeyPatch) -> None:
    class Switch:
        allow_tf32 = True

    old = type("Backends", (), {"cudnn": Switch(), "cuda": type("Cuda", (), {"matmul": Switch()})})
    monkeypatch.setattr(module.torch, "backends", old)
    with float32_arithmetic(tf32=False):
        assert not old.cudnn.allow_tf32
        assert not old.cuda.matmul.allow_tf32
    assert old.cudnn.allow_tf32


def test_tf32_is_an_option_with_limits_of_its_own() -> None:
    with open_backend("torch", DIT) as plain, TorchBackend(DIT, tf32=True) as backend:
        assert (arithmetic(plain), arithmetic(backend)) == ("fp32", "tf32")
        assert (backend.name, plain.name) == ("torch fp32 cpu tf32", "torch fp32 cpu")
    assert TOLERANCES["fp32"].forward < 4e-4 < TOLERANCES["tf32"].forward  # what TF32 costs by emulation
    for name, error, message in (
        ("torch:tf32", UsageError, "tf32 is arithmetic of NVIDIA GPUs, not of CPUs; use --device cuda, or leave tf32 out"),
        ("torch:tf32:cuda:bf16", UsageError, "tf32 is a way to compute fp32, and this is bf16; leave tf32 out"),
        ("openvino:tf32", UsageError, "openvino has no option 'tf32'"),
    ):
        with pytest.raises(error, match=message):
            open_backend(name, DIT)
    with pytest.raises(BackendError, match="openvino has no TF32; use --backend torch or diffusers or onnxruntime"):
        open_backend("openvino", DIT, tf32=True)


@pytest.mark.parametrize("form", ["single", "split"])
def test_a_closed_backend_holds_no_weights(form: ditzoo.specs.Form) -> None:
    backend = TorchBackend(DIT, form=form)
    assert backend.net is not None
    held = weakref.ref(next(backend.net.parameters()))
    backend.close()
    gc.collect()
    assert held() is None
    with pytest.raises(BackendError, match="is closed"):
        backend({"x": torch.zeros(1, 1, 8, 8), "t": torch.zeros(1), "y": torch.zeros(1, dtype=torch.int64)})


def test_the_callers_network_stays_as_and_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """The device "meta" is one that torch can move to on any machine."""
    monkeypatch.setattr(module, "_check_device", lambda device, precision: None)
    net = load_network(DIT).train().requires_grad_(True)
    with TorchBackend(DIT, net=net, device="meta") as backend:  # type: ignore[arg-type]
        assert backend.net is not None
        assert {parameter.device.type for parameter in backend.net.parameters()} == {"meta"}
        assert {tensor.device.type for tensor in (*net.parameters(), *net.buffers())} == {"cpu"}
    with TorchBackend(DIT, net=net) as backend:
        assert backend.net is not None
        assert not backend.net.training
        ours = dict(backend.net.named_parameters())
        assert all(ours[name].data_ptr() == theirs.data_ptr() for name, theirs in net.named_parameters())  # no second copy
    assert net.training
    assert all(parameter.requires_grad for parameter in net.parameters())
