"""Torch's exporter builds its registry of ONNX functions anew for each graph: a quarter of the work for a small network."""

from __future__ import annotations

from functools import cache


def build_registries_once() -> None:
    """Lets torch's exporter build its registry once for each opset in this process. The exported bytes stay the same.

    Commands in other processes, such as those of the users, build it each time.
    """
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    ONNXRegistry.from_torchlib = classmethod(cache(ONNXRegistry.from_torchlib.__func__))
