"""What every test has: a cache that all processes of this run share, no network, and one thread where several processes run."""

from __future__ import annotations

import atexit
import importlib.metadata
import os
import shutil
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from packaging.requirements import Requirement

from tests.support.bare import link_distribution
from tests.support.torchlib import build_registries_once

if "PYTEST_XDIST_WORKER" not in os.environ:
    os.environ["DITZOO_CACHE"] = tempfile.mkdtemp(prefix="ditzoo-tests-")
    atexit.register(shutil.rmtree, os.environ["DITZOO_CACHE"], ignore_errors=True)
else:
    os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
settings.register_profile(  # a busy machine takes long to make an example, and to run it
    "without deadline", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("without deadline")


def pytest_collection_finish() -> None:
    """The tests of this process share the registries of torch's exporter, if they use torch at all."""
    if "torch" in sys.modules:
        build_registries_once()


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", str(out), str(Path(__file__).parents[1])]
    subprocess.run(command, check=True, capture_output=True)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="session")
def bare_python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh virtual environment with the built wheel, `ditzoo[onnx]`'s requirements, OpenVINO and tokenizers: no torch, no
    onnx."""
    home = tmp_path_factory.mktemp("bare")
    venv.create(home, symlinks=True)
    (site,) = home.glob("lib/python*/site-packages")
    zipfile.ZipFile(wheel).extractall(site)
    done = {"ditzoo"}
    for text in importlib.metadata.distribution("ditzoo").requires or ():
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": "onnx"}):
            link_distribution(requirement.name, requirement.extras, site, done)
    for name in ("tokenizers", "openvino"):
        link_distribution(name, set(), site, done)
    return home / "bin" / "python"
