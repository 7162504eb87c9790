"""Puts the weights of an ONNX graph into a TensorRT engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ditzoo.backends.engine_slots import present
from ditzoo.errors import BackendError


def put_weights(trt: Any, loaded: Any, graph: Path, *, logger: Any, engine: str) -> None:
    """Puts the weights of the ONNX graph at `graph` into the loaded engine whose file is called `engine`.

    The graph must have the network that the engine was built from, and may have other weights. The parser holds the weights
    until the engine has taken them, so both it and the refitter must live until the end. Raises BackendError if weights are
    missing, or if TensorRT refuses them.
    """
    refitter = present(trt.Refitter(loaded, logger), "a refitter")
    parser_refitter = trt.OnnxParserRefitter(refitter, logger)
    if not parser_refitter.refit_from_file(str(graph)):
        errors = [parser_refitter.get_error(i).desc() for i in range(parser_refitter.num_errors)]
        raise BackendError(f"TensorRT refused the weights of {engine}: {'; '.join(errors) or 'it does not say why'}")
    if missing := refitter.get_missing_weights():
        raise BackendError(f"{graph.name} lacks weights of {engine}: {', '.join(missing)}")
    if not refitter.refit_cuda_engine():
        raise BackendError(f"TensorRT refused the weights of {engine} as it put them in")
