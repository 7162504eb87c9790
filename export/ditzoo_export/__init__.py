"""The exporter: from a card to a bundle. It needs torch, onnx and onnxruntime; the runtime never imports it."""

from __future__ import annotations

from ditzoo_export.trace import cached_bundle, export_onnx

__all__ = ["cached_bundle", "export_onnx"]
