"""ONNX Runtime's sessions on a machine without a GPU: they are asked for as on one, and run on the CPU.

The installed library judges every argument, so the stand-in refuses what the library refuses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

import onnxruntime as ort
import pytest
from onnxruntime.capi.onnxruntime_inference_collection import check_and_normalize_provider_args
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument

from ditzoo.backends import sessions

DEVICES = ("a GPU", "another GPU")
"""They stand for the devices of a plugin. The library makes none without a GPU."""

_RealSession = ort.InferenceSession


class SessionOptions(ort.SessionOptions):
    """Options that take a device of DEVICES. `plugin` has what was given with it."""

    plugin: tuple[str, dict[str, str]] | None = None

    def add_provider_for_devices(self, arg0: Sequence[object], arg1: Mapping[str, str]) -> None:
        assert [*arg0] in [[device] for device in DEVICES]
        with pytest.raises(InvalidArgument, match="Must provide one or more"):  # a TypeError if the options are not text
            super().add_provider_for_devices([], arg1)
        self.plugin = (sessions.PROVIDER, dict(arg1))


class InferenceSession:
    """A real session on the CPU, which says that it runs on the provider that was asked for."""

    given: list[dict[str, str]]
    """The options of the provider of each session, in order. A test replaces it."""

    def __new__(
        cls,
        path_or_bytes: str | PathLike[str],
        sess_options: SessionOptions,
        providers: Sequence[tuple[str, dict[Any, Any]]] | None = None,
        provider_options: None = None,
        **kwargs: Any,
    ) -> Any:
        made = _RealSession(path_or_bytes, sess_options, providers=["CPUExecutionProvider"], **kwargs)
        names, options = check_and_normalize_provider_args(providers, provider_options, [*sessions.PROVIDERS.values()])
        assert options == [chosen for _, chosen in providers or ()], "options of a provider are text"
        provider, chosen = (names[0], options[0]) if names else sess_options.plugin or ("CPUExecutionProvider", {})
        cls.given.append(chosen)
        made.get_providers = lambda: [provider]
        return made
