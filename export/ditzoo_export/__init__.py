"""The exporter: from a card to a bundle of ONNX graphs, and from there to engines and deployment folders.

It needs torch, onnx and onnxruntime, but imports them only when something is made; the runtime never imports it.
"""

from __future__ import annotations

from ditzoo_export.artifacts import cached_bundle, cached_engines, export_engines, export_onnx
from ditzoo_export.settings import EngineSettings, Settings, make_engine_settings, make_settings

__all__ = [
    "EngineSettings",
    "Settings",
    "cached_bundle",
    "cached_engines",
    "export_engines",
    "export_onnx",
    "make_engine_settings",
    "make_settings",
]
