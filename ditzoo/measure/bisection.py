"""Records of a bisection: the error of every block of a network, and the operation where it first exceeds the tolerance."""

from __future__ import annotations

import math

from ditzoo.records import Data

OUTPUT = "prediction"
"""The name under which the output of the whole network is listed, after its blocks."""


class Place(Data, frozen=True, kw_only=True):
    """An operation of a network, and the relative L2 error of its output.

    `module` is a path in the network, such as "blocks.3.mlp.fc1". It is empty for code outside the submodules. In an ONNX
    graph, `operation` is the type of a node, `node` its name, and `graph` the name of the graph. In PyTorch, `operation` is the
    class of a module, and `node` and `graph` are empty. If `changed` is True, the value differs from that in a fresh export of
    the same network, so somebody changed the graph. Otherwise this is the last operation of the first module whose error
    exceeds the tolerance.
    """

    graph: str
    module: str
    operation: str
    node: str
    relative_l2: float
    changed: bool

    def __str__(self) -> str:
        node = f" {self.node}" if self.node else ""
        return f"{self.operation}{node} in {self.module or 'the code around the blocks'}"


class Fault(Data, frozen=True, kw_only=True):
    """The first block whose error exceeds the tolerance, and the operation that causes it."""

    block: str
    place: Place


class BlockErrors(Data, frozen=True, kw_only=True):
    """The relative L2 error of each block's output in one evaluation, in execution order, and the fault, if any."""

    time: float
    blocks: dict[str, float]
    fault: Fault | None


class Bisection(Data, frozen=True, kw_only=True):
    """The errors of `candidate` against `reference`, block by block, at some times of a trajectory."""

    reference: str
    candidate: str
    tolerance: float
    moments: tuple[BlockErrors, ...]

    @property
    def finite(self) -> bool:
        """Whether every block's output is free of NaN and infinity."""
        return all(math.isfinite(error) for moment in self.moments for error in moment.blocks.values())

    @property
    def verdict(self) -> str:
        """The result in one sentence."""
        faults = [(moment, moment.fault) for moment in self.moments if moment.fault is not None]
        for moment, fault in faults:
            first = f"{fault.block} is the first block beyond {self.tolerance:.1e}"
            seen = f"{_state(moment.blocks[fault.block])} at time {moment.time:g}"
            often = f"{len(faults)} of {len(self.moments)} times exceed it"
            return f"{self.candidate}: {first} ({seen}; {often}), {_cause(fault.place)}"
        errors = [(error, block, moment.time) for moment in self.moments for block, error in moment.blocks.items()]
        worst, block, time = max(errors)
        furthest = f"the largest error is {worst:.1e}, in {block} at time {time:g}"
        return f"{self.candidate}: no block is beyond {self.tolerance:.1e}; {furthest}"


def _state(error: float) -> str:
    return f"{error:.1e}" if math.isfinite(error) else "NaN or infinity"


def _cause(place: Place) -> str:
    if place.changed:
        return f"because the graph was changed: {place} is the first operation that differs from a fresh export"
    return f"and the first module in it beyond the tolerance ends with {place}"
