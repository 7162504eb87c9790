"""How a backend is named and how it is to run, in one word: "onnxruntime:int8:single" or "onnxruntime:cuda:1:fp16"."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from ditzoo.backends.table import BACKENDS, BackendRow, row_of
from ditzoo.errors import BackendError, UsageError, check_count, check_known, check_type, is_whole_number, shortened
from ditzoo.records import Data
from ditzoo.specs import DEVICES, PRECISIONS, Form, Precision, Profile, device_name, split_device

MOST_THREADS = 1024
"""The largest number of CPU threads. Libraries start as many as they are told."""


class BackendSpec(Data, frozen=True, kw_only=True):
    """A backend and the options that its text named. None means that the text named none: then the precision is fp32, or that
    of the bundle; the form is the one that the model has by itself (in torch: single); and the device is the CPU.
    `provider_options` are those of the text that have a value, such as "gpu_mem_limit=8000000000"."""

    name: str
    precision: Precision | None = None
    form: Form | None = None
    device: str | None = None
    compiled: bool = False
    tf32: bool = False
    provider_options: dict[str, str] = msgspec.field(default_factory=dict)


class OpenOptions(Data, frozen=True, kw_only=True):
    """How a backend is to run; see `ditzoo.backends.open_backend`. `device` is a name that `device_name` gives."""

    device: str = "cpu"
    precision: Precision | None = None
    form: Form | None = None
    compiled: bool = False
    tf32: bool = False
    threads: int | None = None
    rows: int | None = None
    profiles: tuple[Profile, ...] = ()
    provider_options: dict[str, str] = msgspec.field(default_factory=dict)


def parse_spec(text: str) -> BackendSpec:
    """The backend of "NAME[:OPTION...]", options in any order; raises UsageError for an unknown or a repeated one."""
    name, *options = (part.strip() for part in text.split(":"))
    row = row_of(name)
    given: dict[str, str] = {}
    with_value = [option for option in options if "=" in option]
    for option in _with_numbers(option.replace("-", "_") for option in options if "=" not in option):
        field = next((field for field, words in row.options.items() if option.partition(":")[0] in words), None)
        if field is None:
            raise UsageError(f"{name} has no option {shortened(option)!r}; {_valid(row)}")
        if field in given:
            raise UsageError(f"{shortened(text.strip())!r} says both {given[field]} and {option}; leave one out")
        given[field] = option
    if "device" in given:
        given["device"] = device_name(given["device"])
    switches = {field: field in given for field in ("compiled", "tf32")}
    values = {key.strip(): value.strip() for key, _, value in (option.partition("=") for option in with_value)}
    if len(values) != len(with_value):
        raise UsageError(f"{shortened(text.strip())!r} gives an option two values; leave one out")
    return msgspec.convert({**given, **switches, "name": row.name, "provider_options": values}, BackendSpec)


def parse_specs(text: str) -> list[BackendSpec]:
    """The backends of a list like "torch,onnxruntime:int8"."""
    return [parse_spec(part) for part in text.split(",")]


def _with_numbers(options: Iterable[str]) -> list[str]:
    """The options, with each number put back to the device before it: "cuda", "1" is "cuda:1"."""
    joined: list[str] = []
    for option in options:
        if is_whole_number(option) and joined and joined[-1] in DEVICES:
            joined[-1] += f":{option}"
        else:
            joined.append(option)
    return joined


def check_options(row: BackendRow, options: OpenOptions) -> None:
    """Raises UsageError for an option that no backend has, and BackendError for one that this backend has not."""
    kind, _ = split_device(options.device)
    if options.precision is not None:
        check_known("precision", options.precision, PRECISIONS)
    check_threads(options.threads)
    if options.rows is not None:
        check_count("rows", options.rows)
    if options.profiles and kind not in row.built_on:
        takers = "; ".join(f"{other.name} on {' or '.join(other.built_on)}" for other in BACKENDS.values() if other.built_on)
        raise UsageError(f"profiles are for {takers}, not for {row.name} on {options.device}")
    if row.devices and kind not in row.devices:
        raise _lacks(row, f"runs on {' and '.join(row.devices)}, not on {kind}", "device", kind)
    check_precision(row, options.precision)
    _check_switches(row, options)


def _check_switches(row: BackendRow, options: OpenOptions) -> None:
    if options.compiled and not row.compiles:
        raise _lacks(row, "has no compiler", "compiled", "compile")
    if options.form is not None and options.form not in row.forms:
        raise _lacks(row, "has no choice of form", "form", options.form)
    if options.tf32:
        _check_tf32(row, options)
    if options.provider_options:
        _check_provider_options(row, options)


def check_threads(threads: int | None) -> None:
    """Raises UsageError unless `threads` is None or a number of threads from 1 to `MOST_THREADS`."""
    if threads is not None:
        check_count("threads", threads, most=MOST_THREADS)


def check_provider_options(given: Mapping[str, str]) -> None:
    """Raises UsageError unless `given` has texts by name."""
    takes = "a dictionary of texts, such as {'gpu_mem_limit': '8000000000'}"
    check_type("provider_options", given, Mapping, takes)
    for text in (*given.keys(), *given.values()):
        check_type("provider_options", text, str, takes)


def check_precision(row: BackendRow, precision: Precision | None) -> None:
    """Raises BackendError where a backend does not compute in a precision."""
    if precision is not None and precision not in row.precisions:
        raise _lacks(row, f"computes in {', '.join(row.precisions)}, not in {precision}", "precision", precision)


def check_tf32(precision: Precision | None) -> None:
    """Raises UsageError for TF32 in a precision that is not computed in float32."""
    if precision not in (None, "fp32"):
        raise UsageError(f"tf32 is a way to compute fp32, and this is {precision}; leave tf32 out")


def _check_tf32(row: BackendRow, options: OpenOptions) -> None:
    if not row.tf32:
        raise _lacks(row, "has no TF32", "tf32", "tf32")
    if row.devices and options.device == "cpu":
        raise UsageError("tf32 is arithmetic of NVIDIA GPUs, not of CPUs; use --device cuda, or leave tf32 out")
    check_tf32(options.precision)


def _check_provider_options(row: BackendRow, options: OpenOptions) -> None:
    named = shortened(", ".join(options.provider_options))
    if not row.provider_options:
        takers = " or ".join(other.name for other in BACKENDS.values() if other.provider_options)
        raise UsageError(f"{row.name} takes no options with a value, such as {named}; they are for {takers}")
    if split_device(options.device)[0] not in row.provider_options:
        raise UsageError(
            f"{row.name} takes no options with a value on {options.device}, such as {named}; use --device"
            f" {row.provider_options[0]}, or leave them out"
        )


def _lacks(row: BackendRow, fact: str, field: str, word: str) -> BackendError:
    """The error for an option `word` that other backends have."""
    others = [other.name for other in BACKENDS.values() if word in other.options.get(field, ())]
    return BackendError(f"{row.name} {fact}; use --backend {' or '.join(others)} for {word}")


def _valid(row: BackendRow) -> str:
    example = ":".join([row.name, *(words[0] for field, words in row.options.items() if field != "tf32")])
    return f"it takes {', '.join(word for words in row.options.values() for word in words)}, such as {example}"
