"""How a backend is named, with how it is to run, in one word: "onnxruntime:int8:single"."""

from __future__ import annotations

import msgspec

from ditzoo.errors import UsageError, unknown
from ditzoo.records import Data
from ditzoo.specs import DEVICES, FORMS, GRAPH_PRECISIONS, Device, Form, Precision

_TORCH_DEVICES, _TORCH_FLOATS = ("cpu", "cuda"), ("fp32", "bf16", "fp16")

OPTIONS: dict[str, dict[str, tuple[str, ...]]] = {
    "torch": {"precision": (*_TORCH_FLOATS, "fp64"), "form": FORMS, "device": _TORCH_DEVICES, "compiled": ("compile",)},
    "diffusers": {"precision": _TORCH_FLOATS, "device": _TORCH_DEVICES, "compiled": ("compile",)},
    "onnxruntime": {"precision": GRAPH_PRECISIONS, "form": FORMS, "device": DEVICES},
    "tensorrt": {"precision": GRAPH_PRECISIONS, "form": FORMS},
    "tensorrt_rtx": {"precision": GRAPH_PRECISIONS, "form": FORMS},
}
"""The backends, and the options of each, by what they are about."""


class BackendSpec(Data, frozen=True, kw_only=True):
    """A backend and how it is to run. None is what was not said: fp32, or what a bundle was exported in; the form that a model
    has by itself (in torch: single); the CPU. `compiled` is for torch: its compiler."""

    name: str
    precision: Precision | None = None
    form: Form | None = None
    device: Device | None = None
    compiled: bool = False


def parse_spec(text: str) -> BackendSpec:
    """The backend of "NAME[:OPTION...]", options in any order; raises UsageError for what there is not, or is said twice."""
    name, *options = (part.strip() for part in text.split(":"))
    if name not in OPTIONS:
        raise unknown("backend", name, OPTIONS)
    given: dict[str, str] = {}
    for option in options:
        field = next((field for field, values in OPTIONS[name].items() if option in values), None)
        if field is None:
            raise UsageError(f"{name} has no option {option!r}; {_valid(name)}")
        if field in given:
            raise UsageError(f"{text.strip()!r} says both {given[field]} and {option}; leave one out")
        given[field] = option
    return msgspec.convert({**given, "name": name, "compiled": "compiled" in given}, BackendSpec)


def parse_specs(text: str) -> list[BackendSpec]:
    """The backends of a list like "torch,onnxruntime:int8"."""
    return [parse_spec(part) for part in text.split(",")]


def _valid(name: str) -> str:
    fields = OPTIONS[name].values()
    example = ":".join([name, *(options[0] for options in fields)])
    return f"it takes {', '.join(option for options in fields for option in options)}, such as {example}"
