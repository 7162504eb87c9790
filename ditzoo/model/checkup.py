"""A check of this machine for `ditzoo doctor`: Python, packages, GPUs, caches, the Hub, and what can run."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, TypeAlias

from ditzoo.backends.gpus import driver_version, gpus
from ditzoo.backends.table import ROWS, BackendRow
from ditzoo.distributions import distributions_of
from ditzoo.errors import DitzooError, MissingPackageError
from ditzoo.files import cache_dir
from ditzoo.hub import client
from ditzoo.model.exporting import check_exporter
from ditzoo.model.requirements import unmet_requirements
from ditzoo.progress import SILENT, Display
from ditzoo.records import Data

Outcome: TypeAlias = Literal["ok", "absent", "note", "problem"]
"""The outcome of a check. "absent" is an optional part that is not installed. Only a "problem" needs a remedy."""


class Finding(Data, frozen=True, kw_only=True):
    """The outcome of one check: its area and subject, what was found, and what to do about it, or "" for nothing."""

    area: Literal["python", "packages", "gpu", "cache", "hub", "runs"]
    subject: str
    outcome: Outcome
    found: str
    remedy: str = ""


HUB_PATIENCE = 5.0
"""The time, in seconds, that the Hub gets for its answer."""

_IMPORT_SECONDS = 120.0
_LITTLE_SPACE = 10e9

_SHARED_FOLDERS = ("onnxruntime", "tensorrt", "tensorrt_bindings", "tensorrt_libs", "cupy", "torch")
"""The modules that several distributions bring, which then write over each other."""

_PARTS = {
    "plots and reports": ("report", ("jinja2", "matplotlib")),
    "decoders and schedulers of diffusers": ("diffusers", ("torch", "diffusers", "scipy")),
    "prompts": ("text", ("tokenizers", "transformers")),
    "LPIPS": ("lpips", ("torch", "lpips")),
    "the client for Triton": ("triton", ("tritonclient", "grpc", "google.protobuf")),
    "the local web page": ("ui", ("starlette", "uvicorn")),
    "latents on the GPU (CuPy)": ("device", ("cupy",)),
}
"""The parts that need packages of their own: the extra that installs them, and their modules."""


def checkup(*, hub: bool = True, display: Display = SILENT) -> list[Finding]:
    """Checks this machine. Each installed backend is imported in a process of its own, so that a crash is a finding too.

    Without `hub`, no request is made. With it, the Hub is asked once, and waited for `HUB_PATIENCE` seconds at most.
    """
    checks = [_python(), *_packages(), *_gpu(), *_caches()]
    if hub:
        with display.status("asking the Hub"):
            checks.append(_hub())
    for row in ROWS:
        with display.status(f"importing the packages of {row.name}"):
            checks.append(checkup_backend(row))
    return [*checks, _exporter(), *_parts()]


def _python() -> Finding:
    found = f"Python {platform.python_version()} at {sys.executable}, ditzoo {version('ditzoo')}, {platform.platform()}"
    return Finding(area="python", subject="python", outcome="ok", found=found)


def _packages() -> Iterator[Finding]:
    for module in _SHARED_FOLDERS:
        several = distributions_of(module)
        if len(several) > 1:
            yield Finding(
                area="packages",
                subject=module,
                outcome="problem",
                found=f"{' and '.join(f'{name} {number}' for name, number in several.items())} are installed over each other",
                remedy=f"pip uninstall {' '.join(several)}, then install the one that you need",
            )
    for unmet in unmet_requirements():
        extra = f"[{unmet.extra}]" if unmet.extra else ""
        if unmet.extra == "gpu-tensorrt" and "onnxruntime-gpu" not in distributions_of("onnxruntime"):
            continue  # that TensorRT is for ONNX Runtime on GPUs only
        yield Finding(
            area="packages",
            subject=unmet.package,
            outcome="problem",
            found=f"{unmet.package} {unmet.version} is installed, but ditzoo{extra} needs {unmet.package}{unmet.limits}",
            remedy=f"pip install '{unmet.package}{unmet.limits}'",
        )


def _gpu() -> Iterator[Finding]:
    driver = driver_version()
    if driver is None:
        yield Finding(area="gpu", subject="driver", outcome="absent", found="there is no NVIDIA driver here")
        return
    yield Finding(area="gpu", subject="driver", outcome="ok", found=f"NVIDIA's driver runs CUDA up to {driver}")
    there = gpus()
    for index, gpu in enumerate(there):
        found = f"{gpu.name}, {gpu.architecture}, {gpu.memory / 2**30:.0f} GiB"
        yield Finding(area="gpu", subject=f"cuda:{index}", outcome="ok", found=found)
    if not there:
        yield Finding(
            area="gpu", subject="gpus", outcome="note", found="the driver shows no GPU", remedy="see CUDA_VISIBLE_DEVICES"
        )
    for package, needed in _cuda_of_packages():
        if int(needed.partition(".")[0]) > int(driver.partition(".")[0]):
            yield Finding(
                area="gpu",
                subject=package,
                outcome="problem",
                found=f"{package} is made for CUDA {needed}, and the driver runs CUDA up to {driver}",
                remedy=f"install a newer driver, or a {package} for CUDA {driver.partition('.')[0]}",
            )
    if there and list(distributions_of("onnxruntime")) == ["onnxruntime"]:
        yield Finding(
            area="gpu",
            subject="onnxruntime",
            outcome="note",
            found="the installed ONNX Runtime has no GPU support",
            remedy="pip uninstall onnxruntime && pip install 'ditzoo[gpu]'",
        )


def _cuda_of_packages() -> Iterator[tuple[str, str]]:
    """The installed packages that are made for one version of CUDA, each with this version."""
    for package in ("cuda-python", "cuda-bindings"):
        try:
            yield package, version(package)
        except PackageNotFoundError:
            continue
    for name in distributions_of("cupy"):
        if found := re.search(r"cuda(\d+)x", name):
            yield name, f"{found[1]}.0"
    torch = find_spec("torch")
    if torch is not None and torch.origin is not None:
        stated = re.search(r"^cuda[^=]*= '([\d.]+)'", (Path(torch.origin).parent / "version.py").read_text(), re.MULTILINE)
        if stated:
            yield "torch", stated[1]


def _caches() -> Iterator[Finding]:
    yield _cache("ditzoo's cache", cache_dir(), "DITZOO_CACHE")
    yield _cache("the Hub's cache", client.cache_folder(), "HF_HOME")


def _cache(subject: str, folder: Path, variable: str) -> Finding:
    there = next(path for path in (folder, *folder.absolute().parents) if path.is_dir())
    free = shutil.disk_usage(there).free
    found = f"{folder}, {free / 1e9:.1f} GB free"
    try:
        tempfile.TemporaryFile(dir=there).close()
    except OSError as error:
        return Finding(
            area="cache",
            subject=subject,
            outcome="problem",
            found=f"{found}, but it cannot be written: {error.strerror}",
            remedy=f"set {variable} to a folder of yours",
        )
    if free < _LITTLE_SPACE:
        found += ": a large model may not fit"
        remedy = f"`ditzoo cache ls` shows what takes space; {variable} moves it to another disk"
        return Finding(area="cache", subject=subject, outcome="note", found=found, remedy=remedy)
    return Finding(area="cache", subject=subject, outcome="ok", found=found)


def _hub() -> Finding:
    try:
        return Finding(area="hub", subject="hub", outcome="ok", found=f"{client.reach(patience=HUB_PATIENCE)} answers")
    except DitzooError as error:
        problem = str(error).partition("; ")[0]  # its advice is for pulls
        remedy = "check the network, proxies, HF_ENDPOINT and HF_HUB_OFFLINE; stored models work without the Hub"
        return Finding(area="hub", subject="hub", outcome="note", found=f"the Hub did not answer: {problem}", remedy=remedy)


def checkup_backend(row: BackendRow) -> Finding:
    """Whether the packages of a backend can be imported."""
    missing = [package for package in row.packages if not _is_installed(package)]
    if missing:
        return _absent(row.name, missing, row.extra)
    code = f"from ditzoo.backends import load_module; load_module({row.name!r})"
    try:
        done = subprocess.run(  # noqa: S603  # our own interpreter and code
            [sys.executable, "-P", "-c", code],
            capture_output=True,
            text=True,
            check=False,
            timeout=_IMPORT_SECONDS,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
    except subprocess.TimeoutExpired:
        problem = f"importing {', '.join(row.packages)} took more than {_IMPORT_SECONDS:g} s"
    else:
        if done.returncode == 0:
            return Finding(area="runs", subject=row.name, outcome="ok", found=_versions(row.packages))
        last = (done.stderr.strip().splitlines() or [f"the process ended with status {done.returncode}"])[-1]
        problem = f"{', '.join(row.packages)} cannot be imported: {last}"
    remedy = f"pip install --upgrade 'ditzoo[{row.extra}]'"
    return Finding(area="runs", subject=row.name, outcome="problem", found=problem, remedy=remedy)


def _exporter() -> Finding:
    try:
        check_exporter()
    except MissingPackageError as error:
        problem, _, remedy = str(error).partition(": ")
        return Finding(area="runs", subject="export", outcome="absent", found=problem, remedy=remedy)
    return Finding(area="runs", subject="export", outcome="ok", found=_versions(("torch", "onnx", "onnxscript", "onnxruntime")))


def _parts() -> Iterator[Finding]:
    for subject, (extra, modules) in _PARTS.items():
        missing = [module for module in modules if not _is_installed(module)]
        if missing:
            yield _absent(subject, missing, extra)
        else:
            yield Finding(area="runs", subject=subject, outcome="ok", found=_versions(modules))


def _absent(subject: str, missing: list[str], extra: str) -> Finding:
    found = f"not installed: {', '.join(missing)}"
    return Finding(area="runs", subject=subject, outcome="absent", found=found, remedy=f"pip install 'ditzoo[{extra}]'")


def _is_installed(module: str) -> bool:
    """Whether a module can be found. Of a dotted name, the packages above it are imported."""
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _versions(modules: tuple[str, ...]) -> str:
    """The distributions that bring the modules, with their versions."""
    found = {name: number for module in modules for name, number in distributions_of(module.partition(".")[0]).items()}
    return ", ".join(f"{name} {number}" for name, number in found.items())
