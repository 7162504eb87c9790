"""PyTorch: the network itself, on a CPU or an NVIDIA GPU."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import torch

from ditzoo.backends.base import OpenedBackend
from ditzoo.backends.conditioning import ModulationCache, window_rows
from ditzoo.backends.gpus import check_gpu
from ditzoo.backends.options import OpenOptions
from ditzoo.backends.reusing import no_reuse
from ditzoo.backends.table import BackendRow
from ditzoo.backends.torch_threads import AdaptedThreads
from ditzoo.errors import BackendError
from ditzoo.families import family_of
from ditzoo.nets.network import BlockNetwork, ConditionedNetwork, Network
from ditzoo.nets.precision import in_dtype, placed
from ditzoo.nets.reuse import conditions, run_outer
from ditzoo.plan.table import check_outer_blocks
from ditzoo.specs import PRECISION_TRAITS, Array, Form, Precision, TensorSpec, check_inputs, resized, split_device
from ditzoo.weights.load import load_network
from ditzoo.zoo.card import Card

DTYPES: dict[Precision, torch.dtype] = {
    name: getattr(torch, traits.torch) for name, traits in PRECISION_TRAITS.items() if traits.torch
}


def open_torch(row: BackendRow, card: Card, options: OpenOptions) -> TorchBackend:
    """The backend of a card's own network."""
    return TorchBackend(
        card,
        device=options.device,
        precision=options.precision or "fp32",
        form=options.form,
        compiled=options.compiled,
        tf32=options.tf32,
        threads=options.threads,
    )


class TorchBackend(OpenedBackend):
    """A network in PyTorch. See `ditzoo.backends.base.Backend`.

    `net` is a network to run in place of the card's own, and stays as and where it is; the attribute `net` is the network that
    runs, or None once the backend is closed. `library` names the library that the network comes from. `half_precision` names
    the modules that compute in half precision; by default, they are those of the network's family. In the form "split", the
    part that depends on time and label alone runs ahead, in windows (see `ditzoo.backends.conditioning`). `compiled` passes the
    network through `torch.compile`, which compiles at the first evaluation of a new batch size, and on a GPU runs CUDA graphs.
    `tf32` lets a GPU compute fp32 in TF32. `threads` sets the number of threads of the whole process, because torch has no
    other setting. Without it, a network on the CPU has as many as `ditzoo.backends.torch_threads` says, until it is closed.
    `resizable` says whether the network takes latents of any size; by default, the card says so.

    Raises BackendError if there is no such device, if the device cannot compute in that precision, or if the network cannot be
    split.
    """

    def __init__(
        self,
        card: Card,
        *,
        net: Network | None = None,
        library: str = "torch",
        half_precision: Collection[str] | None = None,
        device: str = "cpu",
        precision: Precision = "fp32",
        form: Form | None = None,
        threads: int | None = None,
        compiled: bool = False,
        tf32: bool = False,
        resizable: bool | None = None,
    ) -> None:
        _check_device(device, precision)
        if threads is not None:
            torch.set_num_threads(threads)
        self.card = card
        self.net: Network | None
        self.precision: Precision = precision
        switches = {"tf32": tf32, "split": form == "split", "compiled": compiled}
        self.name, self.tf32 = " ".join([library, precision, device, *(word for word, on in switches.items() if on)]), tf32
        net = load_network(card) if net is None else net
        any_size = card.backbone.resizable if resizable is None else resizable
        self.inputs: tuple[TensorSpec, ...] = _as_run(net.inputs, precision, any_size=any_size)
        self.outputs: tuple[TensorSpec, ...] = _as_run(net.outputs, precision, any_size=any_size)
        self.device, self.compiled = torch.device(device), compiled
        modules = family_of(card.backbone).half_precision if half_precision is None else half_precision
        net = placed(in_dtype(net, DTYPES[precision], modules=modules), self.device).eval()
        self.library, self.net = library, net
        self._split = form == "split"
        self._modulation_cache = self._cache_modulations(net, precision) if self._split else None
        run: Callable[..., torch.Tensor] = (
            net.denoise if self._modulation_cache and isinstance(net, ConditionedNetwork) else net
        )
        self._run: Callable[..., torch.Tensor] | None = _compiled(run, device) if compiled else run
        adapts = threads is None and device == "cpu" and not compiled  # compiled code is for one number of threads
        self._threads = AdaptedThreads() if adapts and torch.get_num_threads() > 1 else None
        self._outer = _compiled(self._run_outer, device) if compiled else self._run_outer

    def prepare(self, times: Sequence[float], labels: Sequence[int]) -> None:
        """See `ditzoo.backends.base.PreparesConditioning`."""
        if self._modulation_cache is not None:
            self._modulation_cache.prepare(times, labels)

    def __call__(self, inputs: Mapping[str, Array]) -> Array:
        """The network's output for tensors on the backend's device."""
        check_inputs(self.inputs, inputs)
        if self._run is None:
            raise self.closed_error()
        with self.computing(), self._threads.evaluating(len(inputs["x"])) if self._threads else nullcontext():
            if self._modulation_cache is None:
                return self._run(**inputs)
            modulations, places = self._modulation_cache(inputs["t"].tolist(), inputs["y"].tolist())
            return self._run(inputs["x"], *(rows[places] for rows in modulations))

    def check_reuse(self, outer: int) -> None:
        """See `ditzoo.backends.base.ReusesBlocks`."""
        self._blocks()
        check_outer_blocks(self.card, outer)

    def with_residual(self, inputs: Mapping[str, Array], outer: int) -> tuple[Array, Array]:
        """See `ditzoo.backends.base.ReusesBlocks`."""
        prediction, residual = self._evaluate_outer(inputs, outer, None)
        return prediction, residual

    def with_reuse(self, inputs: Mapping[str, Array], outer: int, residual: Array) -> Array:
        """See `ditzoo.backends.base.ReusesBlocks`."""
        return self._evaluate_outer(inputs, outer, residual)

    def _evaluate_outer(self, inputs: Mapping[str, Array], outer: int, residual: Array) -> Array:
        check_inputs(self.inputs, inputs)
        self.check_reuse(outer)
        with self.computing():
            if self._modulation_cache is None:
                return self._outer(outer, residual, *(inputs[spec.name] for spec in self.inputs))
            modulations, places = self._modulation_cache(inputs["t"].tolist(), inputs["y"].tolist())
            return self._outer(outer, residual, inputs["x"], *(rows[places] for rows in modulations))

    def _run_outer(self, outer: int, residual: Array, x: torch.Tensor, *rest: torch.Tensor) -> Array:
        """See `ditzoo.nets.reuse.run_outer`. `rest` are modulations in the form "split", else time and condition."""
        net = self._blocks()
        return run_outer(net.stack(x, *(rest if self._split else conditions(net, *rest))), outer, residual)

    def _blocks(self) -> BlockNetwork:
        if self.net is None:
            raise self.closed_error()
        if not isinstance(self.net, BlockNetwork):
            raise no_reuse(self.name)
        return self.net

    def asarray(self, array: npt.NDArray[Any]) -> torch.Tensor:
        """A numpy array as a tensor on the device. In the form "split", times and labels stay on the host."""
        device = "cpu" if self._split and array.ndim < 2 else self.device
        return torch.from_numpy(np.ascontiguousarray(array)).to(device)

    def numpy(self, array: Array) -> npt.NDArray[np.floating[Any]]:
        """A tensor as a numpy array."""
        return np.asarray(array.cpu().numpy())

    def close(self) -> None:
        """See `ditzoo.backends.base.Backend`."""
        self.net = self._run = self._modulation_cache = None
        if self._threads is not None:
            self._threads.close()
            self._threads = None

    @contextmanager
    def computing(self) -> Iterator[None]:
        """How the network runs: without gradients, and on a GPU in TF32 only if that was asked for. The switch is the whole
        process's, and is put back."""
        with torch.inference_mode(), float32_arithmetic(tf32=self.tf32) if self.device.type == "cuda" else nullcontext():
            yield

    def _cache_modulations(self, net: Network, precision: Precision) -> ModulationCache:
        if not isinstance(net, ConditionedNetwork) or precision == "fp64":  # times of a window are float32
            raise BackendError(f"{self.card.name} in {precision} cannot be split on torch; use torch:{precision}:single")

        def condition(t: npt.NDArray[np.float32], y: npt.NDArray[np.int64]) -> tuple[torch.Tensor, ...]:
            return net.condition(torch.from_numpy(t).to(self.device), torch.from_numpy(y).to(self.device))

        return ModulationCache(condition, window=window_rows(net.modulations))


@contextmanager
def float32_arithmetic(*, tf32: bool) -> Iterator[None]:
    """Lets GPUs multiply matrices and convolve in float32, or in TF32. By itself, torch multiplies in the one and convolves in
    the other."""
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in _float32_switches(tf32)]
    try:
        for owner, name, value in _float32_switches(tf32):
            setattr(owner, name, value)
        yield
    finally:
        for owner, name, value in before:
            setattr(owner, name, value)


def _float32_switches(tf32: bool) -> list[tuple[Any, str, str | bool]]:
    """Torch's switches as (owner, attribute, value)."""
    if not hasattr(torch.backends.cudnn, "conv"):  # before torch 2.9
        return [(owner, "allow_tf32", tf32) for owner in (torch.backends.cudnn, torch.backends.cuda.matmul)]
    owners = (torch.backends.cudnn.conv, torch.backends.cudnn.rnn, torch.backends.cuda.matmul)
    return [(owner, "fp32_precision", "tf32" if tf32 else "ieee") for owner in owners]


def _compiled(run: Callable[..., torch.Tensor], device: str) -> Callable[..., torch.Tensor]:
    if device == "cpu":
        return torch.compile(run)
    graphs = torch.compile(run, mode="reduce-overhead")
    return lambda *args, **kwargs: _cloned(graphs(*args, **kwargs))  # the next run writes over what a CUDA graph gave


def _cloned(outputs: Array) -> Array:
    """A copy of a tensor, or of each tensor of a tuple."""
    return tuple(map(torch.clone, outputs)) if isinstance(outputs, tuple) else outputs.clone()


def _as_run(specs: tuple[TensorSpec, ...], precision: Precision, *, any_size: bool) -> tuple[TensorSpec, ...]:
    """The inputs or outputs of a network in float32 as they are in `precision`, and for latents of any size if `any_size`."""
    if any_size:
        specs = tuple(resized(spec) for spec in specs)
    dtype = PRECISION_TRAITS[precision].inputs
    return tuple(msgspec.structs.replace(spec, dtype=dtype) if spec.dtype == "float32" else spec for spec in specs)


def _check_device(device: str, precision: Precision) -> None:
    if split_device(device)[0] == "cuda" and not torch.cuda.is_available():
        raise BackendError(
            "torch sees no CUDA device here; use --device cpu, or install a CUDA build of torch on a machine with a GPU"
        )
    check_gpu(device)
    try:
        probe = torch.ones(1, 1, 4, 4, dtype=DTYPES[precision], device=device)
        torch.nn.functional.conv2d(probe, probe) @ probe[..., :1, :]
    except RuntimeError as error:
        raise BackendError(f"torch cannot compute in {precision} on {device} here: {error}; use --precision fp32") from error
