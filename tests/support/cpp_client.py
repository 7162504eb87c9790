"""The client in C++, built once for all processes of a run, by the commands of its page."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from filelock import FileLock

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "howto" / "cpp.md"


def why_not() -> str | None:
    """The reason that the client cannot be built here, or None. ONNXRUNTIME_ROOT names ONNX Runtime, as for CMake."""
    missing = [name for name in ("cmake", "c++") if shutil.which(name) is None]
    if missing:
        return f"the client in C++ needs {' and '.join(missing)}"
    if not os.environ.get("ONNXRUNTIME_ROOT"):
        return "the client in C++ needs `sh recipes/cpp/get_onnxruntime.sh DIR` and ONNXRUNTIME_ROOT=DIR"
    return None


def commands() -> list[str]:
    """The lines of the page that configure the build, build, and draw."""
    (block,) = re.findall(r'^```sh title="Run by another test[^\n]*\n(.*?)^```$', PAGE.read_text(), flags=re.M | re.S)
    return [*block.splitlines()]


def built_client() -> Path:
    """The program, in a folder with the names that the page uses: recipes and onnxruntime. Its first caller builds it.

    Skips the test if this machine has no compiler or no ONNX Runtime for C++.
    """
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    folder = Path(os.environ["DITZOO_CACHE"]) / "cpp-client"
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "build" / "ditzoo-client"
    with FileLock(folder / ".lock"):
        if not program.exists():
            links = {"recipes": ROOT / "recipes", "onnxruntime": Path(os.environ["ONNXRUNTIME_ROOT"]).absolute()}
            for name, target in links.items():
                (folder / name).unlink(missing_ok=True)
                (folder / name).symlink_to(target)
            for line in commands()[:2]:
                done = subprocess.run(line, shell=True, cwd=folder, capture_output=True, text=True)  # noqa: S602
                assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
                assert "warning:" not in done.stderr, done.stderr
    return program
