"""The table of backends: the name of each, its module, its options, and what it runs. A new backend is one file and one row."""

from __future__ import annotations

from typing import Literal, TypeAlias

from ditzoo.errors import unknown
from ditzoo.records import Data
from ditzoo.specs import DEVICES, FLAVOURS, FORMS, GRAPH_PRECISIONS, Device, Form, Precision, Target, split_device

Runs: TypeAlias = Literal["weights", "graphs", "engines"]
"""What a backend runs: the weights of a card, the ONNX graphs of a bundle, or the TensorRT engines of a bundle."""


class BackendRow(Data, frozen=True, kw_only=True):
    """A backend. `opener` is a function of `module` that takes this row, a card or a bundle, and `OpenOptions`.

    `packages` are the modules that must be importable, and `extra` is the extra of the distribution that installs them.
    `devices` is empty where the backend has one device only, and `forms` where a network is never split. `built_on` are the
    devices that build engines as they load a graph, and so take profiles. `fixed_scales` says that int8 graphs made for this
    backend carry scales that were measured at export. `provider_options` are the devices on which options of the library, with
    a value, may follow the name: those of an execution provider of ONNX Runtime, or properties of OpenVINO. `option_check` is a
    function of `module` that takes these options and the precision, and raises UsageError for wrong ones. It is called before a
    model is exported. `tf32` says that fp32 may be computed in TF32 where it runs on a GPU. `reuses` says that it can leave out
    the middle blocks of a network. `automatic` says that `--backend auto` may choose it.
    """

    name: str
    module: str
    opener: str
    runs: Runs
    extra: str
    packages: tuple[str, ...]
    precisions: tuple[Precision, ...]
    forms: tuple[Form, ...] = FORMS
    devices: tuple[Device, ...] = ()
    compiles: bool = False
    tf32: bool = False
    built_on: tuple[Device, ...] = ()
    fixed_scales: bool = False
    provider_options: tuple[Device, ...] = ()
    option_check: str | None = None
    readable_modules: bool = True
    reuses: bool = False
    automatic: bool = True

    @property
    def options(self) -> dict[str, tuple[str, ...]]:
        """The words that may follow the name, by the field of `BackendSpec` that they set."""
        words: dict[str, tuple[str, ...]] = {
            "precision": self.precisions,
            "form": self.forms,
            "device": self.devices,
            "compiled": ("compile",) if self.compiles else (),
            "tf32": ("tf32",) if self.tf32 else (),
        }
        return {field: values for field, values in words.items() if values}

    def target(self, *, precision: Precision, device: str) -> Target:
        """What a card's ONNX graphs are written for when this backend is to run them on a device, such as "tensorrt:1"."""
        fixed = self.fixed_scales and precision == "int8"
        return "tensorrt" if fixed or split_device(device)[0] in self.built_on else "onnxruntime"


_TORCH_DEVICES: tuple[Device, ...] = ("cpu", "cuda")
_TORCH_HALVES: tuple[Precision, ...] = ("fp32", "bf16", "fp16")

ROWS = (
    BackendRow(
        name="torch",
        module="ditzoo.backends.torch",
        opener="open_torch",
        runs="weights",
        extra="torch",
        packages=("torch",),
        precisions=(*_TORCH_HALVES, "fp64"),
        devices=_TORCH_DEVICES,
        compiles=True,
        tf32=True,
        reuses=True,
    ),
    BackendRow(
        name="diffusers",
        module="ditzoo.backends.diffusers",
        opener="open_diffusers",
        runs="weights",
        extra="diffusers",
        packages=("torch", "diffusers"),
        precisions=_TORCH_HALVES,
        forms=(),
        devices=_TORCH_DEVICES,
        compiles=True,
        readable_modules=False,
        tf32=True,
        automatic=False,
    ),
    BackendRow(
        name="onnxruntime",
        module="ditzoo.backends.onnxruntime",
        opener="open_graphs",
        runs="graphs",
        extra="onnx",
        packages=("onnxruntime",),
        precisions=GRAPH_PRECISIONS,
        devices=DEVICES,
        built_on=FLAVOURS,
        provider_options=("cuda", *FLAVOURS),
        tf32=True,
        reuses=True,
    ),
    BackendRow(
        name="openvino",
        module="ditzoo.backends.openvino",
        opener="open_graphs",
        runs="graphs",
        extra="openvino",
        packages=("openvino",),
        precisions=("fp32", "bf16", "int8"),
        devices=("cpu",),
        fixed_scales=True,
        provider_options=("cpu",),
        option_check="check_properties",
        reuses=True,
    ),
    BackendRow(
        name="tensorrt",
        module="ditzoo.backends.tensorrt",
        opener="open_engines",
        runs="engines",
        extra="tensorrt",
        packages=("tensorrt", "cuda.bindings"),
        precisions=GRAPH_PRECISIONS,
        tf32=True,
        reuses=True,
    ),
    BackendRow(
        name="tensorrt_rtx",
        module="ditzoo.backends.tensorrt",
        opener="open_engines",
        runs="engines",
        extra="tensorrt-rtx",
        packages=("tensorrt_rtx", "cuda.bindings"),
        precisions=GRAPH_PRECISIONS,
        tf32=True,
        reuses=True,
    ),
)

BACKENDS = {row.name: row for row in ROWS}
"""The backends by name."""


def row_of(name: str) -> BackendRow:
    """The row of the backend called `name`, with "-" or "_"; raises UsageError if there is none."""
    row = BACKENDS.get(name.replace("-", "_"))
    if row is None:
        raise unknown("backend", name, BACKENDS)
    return row
