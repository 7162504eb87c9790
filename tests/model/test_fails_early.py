"""A request that cannot be fulfilled is refused before a large library is loaded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

LARGE = ("torch", "onnxruntime", "openvino", "diffusers", "transformers", "tensorrt_rtx", "onnx", "onnxscript")

REFUSED = {
    "sample dit-xl-2-256": "ditzoo pull dit-xl-2-256",
    "sample dit-xl-2-256 --backend onnxruntime:fp16": "ditzoo pull dit-xl-2-256",
    "sample uvit-s-2-coco --prompt cat": "ditzoo import uvit-s-2-coco",
    "parity dit-xl-2-256": "ditzoo pull dit-xl-2-256",
    "bench dit-xl-2-256": "ditzoo pull dit-xl-2-256",
    "export onnx dit-xl-2-256 --out x": "ditzoo pull dit-xl-2-256",
    "export triton dit-xl-2-256 --repo x": "ditzoo pull dit-xl-2-256",
    "bench dit-digits --backends torch,tensorrt": "pip install 'ditzoo[tensorrt]'",
    "parity dit-digits --backends torch,tensorrt": "pip install 'ditzoo[tensorrt]'",
    "sample dit-digits --backend tensorrt": "pip install 'ditzoo[tensorrt]'",
    "sample dit-digits --out nowhere/x.png": "there is no folder nowhere",
    "parity dit-digits --html nowhere/x.html": "there is no folder nowhere",
    "export onnx dit-digits --out nowhere/x": "there is no folder nowhere",
}


def test_nothing_large_is_loaded_for_a_request_that_is_refused(tmp_path: Path) -> None:
    code = (
        "import importlib.util, shlex, sys\n"
        "real = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *rest: None if name == 'tensorrt' else real(name, *rest)\n"
        "from ditzoo.cli import run\n"
        f"for typed in {list(REFUSED)!r}:\n"
        "    print(typed, run(shlex.split(typed)), file=sys.stderr)\n"
        f"    loaded = [name for name in {LARGE!r} if name in sys.modules]\n"
        "    assert not loaded, (typed, loaded)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 2 * len(REFUSED)
    for (typed, part), error, status in zip(REFUSED.items(), lines[::2], lines[1::2], strict=True):
        assert part in error, typed
        assert status == f"{typed} 2"
    assert list(tmp_path.iterdir()) == []
