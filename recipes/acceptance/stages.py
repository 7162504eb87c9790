"""The stages of the GPU acceptance. Each is run in a process of its own: python -m acceptance.stages NAME ..."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
from acceptance.checks import Check
from acceptance.engines import engines
from acceptance.machine import facts, raw
from acceptance.memory import memory
from acceptance.results import parity, placement, tests
from acceptance.speed import bench_base, bench_large, bench_large_graph


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    """A stage: its generator of checks, which takes the device ("cuda", or "cpu" for a dry run), what it does in one line, and
    its limit in seconds."""

    run: Callable[[str], Iterator[Check]]
    summary: str
    limit: int


STAGES = {
    "facts": Stage(run=facts, summary="the machine, and what is installed", limit=60),
    "raw": Stage(run=raw, summary="memory, copies, streams and graphs of CUDA", limit=60),
    "tests": Stage(run=tests, summary="the tests that need a GPU", limit=240),
    "parity": Stage(run=parity, summary="every backend against torch in float32 on the CPU", limit=240),
    "placement": Stage(run=placement, summary="where ONNX Runtime places the nodes of every graph", limit=120),
    "engines": Stage(run=engines, summary="engines in all their forms", limit=300),
    "memory": Stage(run=memory, summary="memory that is given back, and memory that is full", limit=120),
    "bench-base": Stage(run=bench_base, summary="the speed of DiT-B/2 beside diffusers", limit=240),
    "bench-large": Stage(run=bench_large, summary="the speed of DiT-XL/2 beside diffusers", limit=120),
    "bench-large-graph": Stage(run=bench_large_graph, summary="the speed of DiT-XL/2 on ONNX Runtime", limit=120),
}
"""The stages by name, in their order."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Runs one stage of the GPU acceptance.")
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("--device", choices=("cuda", "cpu"), required=True)
    parser.add_argument("--checks", type=Path, required=True, help="the file that gets a line of JSON for each check")
    options = parser.parse_args()
    with options.checks.open("ab") as file:
        for result in STAGES[options.stage].run(options.device):
            file.write(msgspec.json.encode(result) + b"\n")
            file.flush()


if __name__ == "__main__":
    main()
