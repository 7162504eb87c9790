"""Where two backends part: the error of every block of a network, and the place where it goes beyond the tolerance."""

from __future__ import annotations

import math

from ditzoo.records import Data

OUTPUT = "prediction"
"""What the network itself is called among its blocks: its output, behind all of them."""


class Place(Data, frozen=True, kw_only=True):
    """An operation of a network, and how far its output is off (relative L2).

    `module` is a path in the network, such as "blocks.3.mlp.fc1"; empty for the network's own code. `operation` is the kind of
    an ONNX node, `node` its name and `graph` where it is; or, in PyTorch, a kind of module, the others being empty.
    `changed`: a fresh export of the same network has another value there, so that the graph was changed. Else it is what ends
    the first module beyond the tolerance.
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
    """The first block beyond the tolerance, and the place that this comes from."""

    block: str
    place: Place


class BlockErrors(Data, frozen=True, kw_only=True):
    """One evaluation: the relative L2 error of each block's output, in the order in which they ran, and the fault, if any."""

    time: float
    blocks: dict[str, float]
    fault: Fault | None


class Bisection(Data, frozen=True, kw_only=True):
    """How `candidate` departs from `reference`, block by block, at some times of a trajectory."""

    reference: str
    candidate: str
    tolerance: float
    moments: tuple[BlockErrors, ...]

    @property
    def finite(self) -> bool:
        """Whether no block gave a NaN or infinity."""
        return all(math.isfinite(error) for moment in self.moments for error in moment.blocks.values())

    @property
    def verdict(self) -> str:
        """What was found, in a sentence."""
        faults = [(moment, moment.fault) for moment in self.moments if moment.fault is not None]
        for moment, fault in faults:
            first = f"{fault.block} is the first block beyond {self.tolerance:.1e}"
            seen = f"{_state(moment.blocks[fault.block])} at time {moment.time:g}"
            often = f"{len(faults)} of {len(self.moments)} times have one"
            return f"{self.candidate}: {first} ({seen}; {often}), {_cause(fault.place)}"
        errors = [(error, block, moment.time) for moment in self.moments for block, error in moment.blocks.items()]
        worst, block, time = max(errors)
        furthest = f"the furthest off is {block}, {worst:.1e} at time {time:g}"
        return f"{self.candidate}: no block is beyond {self.tolerance:.1e}; {furthest}"


def _state(error: float) -> str:
    return f"{error:.1e}" if math.isfinite(error) else "NaN or infinity"


def _cause(place: Place) -> str:
    if place.changed:
        return f"because the graph was changed: {place} is the first operation that differs from a fresh export"
    return f"and the first module in it beyond that ends with {place}"
