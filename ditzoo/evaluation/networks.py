"""Opening a feature network by name."""

from __future__ import annotations

from pathlib import Path

from ditzoo.errors import unknown
from ditzoo.evaluation.features import FeatureNetwork

DIGITS, INCEPTION, ONNX = "digits", "inception", ".onnx"


def open_network(text: str, *, weights: Path | None = None, device: str = "cpu") -> FeatureNetwork:
    """The feature network that a text names: "digits", "inception", or the path of an ONNX file.

    `weights` is the file of Inception's weights. Raises UsageError for another text, and MissingPackageError if a package or
    the weights are not on this machine. Nothing is downloaded.
    """
    if text == DIGITS:
        from ditzoo.evaluation.digits import DigitsNetwork

        return DigitsNetwork()
    if text == INCEPTION:
        from ditzoo.evaluation.inception import InceptionNetwork

        return InceptionNetwork(weights, device=device)
    if text.endswith(ONNX):
        from ditzoo.evaluation.onnx_network import OnnxNetwork

        return OnnxNetwork(Path(text), device=device)
    raise unknown("feature network", text, [DIGITS, INCEPTION, f"FILE{ONNX}"])
