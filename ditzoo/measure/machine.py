"""The machine of a benchmark: its description, and the measured limits of its processor and its GPU."""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ditzoo.backends.table import ROWS
from ditzoo.distributions import versions_of
from ditzoo.measure import gpu
from ditzoo.records import Data
from ditzoo.specs import Device, Precision


class Ceilings(Data, frozen=True, kw_only=True):
    """The measured limits of a device.

    `multiply_adds` is the number per second in a large matrix multiplication in `precision`. `copy` is the number of bytes per
    second, read plus written, in a large copy.
    """

    device: Device
    precision: Precision
    multiply_adds: float
    copy: float


PACKAGES = tuple(dict.fromkeys(("ditzoo", *(package for row in ROWS for package in row.packages), "numpy")))
"""The packages whose versions belong to a measurement."""


def machine() -> dict[str, str]:
    """This machine: processor, cores, system, versions of packages, and the GPU with its clocks at this moment."""
    from os import cpu_count

    found = {"processor": processor(), "cores": str(cpu_count()), "system": platform.platform()}
    return {**found, **versions_of(PACKAGES), **gpu.describe()}


def ceilings(*, side: int = 2048, repeats: int = 5) -> Ceilings:
    """Measures the processor's own limits with numpy on random numbers: a float32 matrix multiplication, a copy of 256 MB."""
    random = np.random.default_rng(0)
    a = random.standard_normal((side, side), np.float32)
    source, target = np.tile(random.standard_normal(2**16, np.float32), 2**10), np.empty(2**26, dtype=np.float32)
    product = min(seconds(lambda: a @ a) for _ in range(repeats))
    copy = min(seconds(lambda: np.copyto(target, source)) for _ in range(repeats))
    return Ceilings(device="cpu", precision="fp32", multiply_adds=side**3 / product, copy=2 * source.nbytes / copy)


def gpu_ceilings(*, side: int = 8192, repeats: int = 10, warmup: int = 5) -> list[Ceilings]:
    """Measures the GPU's own limits, if torch is loaded and has one: a bfloat16 matrix multiplication, and a copy of 1 GB.

    The numbers are random, because a GPU takes less power for equal ones, and so runs faster. `warmup` runs come first.
    """
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return []
    a = torch.randn(side, side, dtype=torch.bfloat16, device="cuda")
    source, target = (torch.randn(2**28, device="cuda") for _ in range(2))

    def best(work: Callable[[], object]) -> float:
        times = [seconds(lambda: (work(), torch.cuda.synchronize())) for _ in range(warmup + repeats)]
        return min(times[warmup:])

    product, copy = best(lambda: a @ a), best(lambda: target.copy_(source))
    return [Ceilings(device="cuda", precision="bf16", multiply_adds=side**3 / product, copy=2 * source.nbytes / copy)]


def seconds(work: Callable[[], object]) -> float:
    """The time in seconds that one call of `work` takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def processor() -> str:
    """The name of the processor, as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor())
