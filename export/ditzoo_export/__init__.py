"""The exporter. It makes a bundle of ONNX graphs from a card, and TensorRT engines and deployment folders from a bundle.

It needs torch, onnx and onnxruntime, but imports them only for an export. The runtime never imports the exporter.
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
