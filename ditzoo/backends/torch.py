"""PyTorch: the network itself, on a CPU or an NVIDIA GPU."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch

from ditzoo import nets
from ditzoo.card import Card
from ditzoo.errors import BackendError
from ditzoo.specs import Array, Device, Precision, TensorSpec, check_inputs

DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class TorchBackend:
    """A network in PyTorch. See `ditzoo.backends.base.Backend`.

    `net` overrides the card's own weights; the attribute of that name is what runs, None once closed. `threads`, where given,
    is a setting of the whole process, as torch has it.
    Raises BackendError where there is no such device, or the device cannot compute in that precision.
    """

    def __init__(
        self,
        card: Card,
        *,
        net: nets.Net | None = None,
        device: Device = "cpu",
        precision: Precision = "fp32",
        threads: int | None = None,
    ) -> None:
        _check_device(device, precision)
        if threads is not None:
            torch.set_num_threads(threads)
        self.card = card
        self.precision: Precision = precision
        self.name = f"torch {precision} {device}"
        net = nets.load(card) if net is None else net
        self.inputs: tuple[TensorSpec, ...] = net.inputs
        self.outputs: tuple[TensorSpec, ...] = net.outputs
        self._device = torch.device(device)
        self.net: nets.Net | None = net.eval().requires_grad_(False).to(self._device, DTYPES[precision])

    def __call__(self, inputs: Mapping[str, Array]) -> Array:
        """The network's output for tensors on the backend's device."""
        check_inputs(self.inputs, inputs)
        if self.net is None:
            raise BackendError(f"{self.name} is closed; open the backend again")
        with torch.inference_mode():
            return self.net(**inputs)

    def asarray(self, array: npt.NDArray[Any]) -> torch.Tensor:
        """A numpy array as a tensor on the backend's device."""
        return torch.from_numpy(np.ascontiguousarray(array)).to(self._device)

    def numpy(self, array: Array) -> npt.NDArray[np.float32]:
        """A tensor as a numpy array."""
        return np.asarray(array.cpu().numpy(), dtype=np.float32)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.net = None


def _check_device(device: Device, precision: Precision) -> None:
    if precision not in DTYPES:
        raise BackendError(
            f"torch computes in {', '.join(DTYPES)}, not in {precision}; use --backend onnxruntime for {precision}"
        )
    if device not in ("cpu", "cuda"):
        raise BackendError(f"torch runs on cpu and cuda, not on {device}; use --backend onnxruntime for {device}")
    if device == "cuda" and not torch.cuda.is_available():
        raise BackendError(
            "torch sees no CUDA device here; use --device cpu, or install a CUDA build of torch on a machine with a GPU"
        )
    try:
        probe = torch.ones(1, 1, 4, 4, dtype=DTYPES[precision], device=device)
        torch.nn.functional.conv2d(probe, probe) @ probe[..., :1, :]
    except RuntimeError as error:
        raise BackendError(f"torch cannot compute in {precision} on this {device}: {error}; use --precision fp32") from error
