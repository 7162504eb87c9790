"""A feature network in an ONNX file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ditzoo.errors import BackendError, MissingPackageError, UsageError
from ditzoo.evaluation.features import Features, Pixels, check_pictures_size, log_softmax
from ditzoo.files import check_path

FEATURES, SPATIAL, LOGITS = "features", "spatial", "logits"
_TYPES = {"tensor(uint8)": np.uint8, "tensor(float)": np.float32}
_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


class OnnxNetwork:
    """A network with one input: pictures [N, 3, H, W] or [N, H, W, 3], uint8 or float32, with values from 0 to 255.

    The output "features", or the only output, gives "fid". The outputs "spatial" and "logits", if there are any, give "sfid"
    and the Inception Score. Outputs with more than two axes are flattened. Resizing and normalization are the graph's own work.
    """

    def __init__(self, path: Path, *, device: str = "cpu") -> None:
        """Raises UsageError if the graph cannot be read, or if it has not these inputs and outputs."""
        try:
            import onnxruntime
        except ModuleNotFoundError as error:
            raise MissingPackageError("an ONNX feature network needs a package: pip install 'ditzoo[onnx]'") from error
        check_path(path, "--features")
        if not path.is_file():
            raise UsageError(f"--features: there is no file {path}")
        kind = device.partition(":")[0]
        if _PROVIDERS.get(kind) not in onnxruntime.get_available_providers():
            raise BackendError(f"onnxruntime has no {kind} here for {path}; use --device cpu")
        try:
            self._session: Any = onnxruntime.InferenceSession(path, providers=[_PROVIDERS[kind]])
        except Exception as error:  # each cause has a class of its own
            raise UsageError(f"--features: {path} is not an ONNX graph that runs here: {error}") from error
        self.name = path.name
        inputs, outputs = self._session.get_inputs(), [value.name for value in self._session.get_outputs()]
        shape = inputs[0].shape
        if len(inputs) != 1 or len(shape) != 4 or 3 not in (shape[1], shape[3]) or inputs[0].type not in _TYPES:
            raise UsageError(f"{path} takes {[(i.name, i.shape, i.type) for i in inputs]}; it must take pictures [N, 3, H, W]")
        if FEATURES not in outputs and len(outputs) != 1:
            raise UsageError(f"{path} gives {', '.join(outputs)}; one output must be called {FEATURES}")
        self._input, self._first = inputs[0], shape[1] == 3
        named = {"fid": FEATURES if FEATURES in outputs else outputs[0], "sfid": SPATIAL, LOGITS: LOGITS}
        self._outputs = {key: name for key, name in named.items() if name in outputs}

    def __call__(self, pictures: Pixels) -> Features:
        """See `FeatureNetwork`."""
        height, width = self._input.shape[2:] if self._first else self._input.shape[1:3]
        if isinstance(height, int) and isinstance(width, int):
            check_pictures_size(self.name, pictures, height, width, hint="let the graph take any size, and resize in it")
        x = (pictures.transpose(0, 3, 1, 2) if self._first else pictures).astype(_TYPES[self._input.type])
        results = self._session.run(list(self._outputs.values()), {self._input.name: np.ascontiguousarray(x)})
        found = {key: result.reshape(len(x), -1) for key, result in zip(self._outputs, results, strict=True)}
        logits = found.pop(LOGITS, None)
        return Features(spaces=found, log_probabilities=None if logits is None else log_softmax(logits))
