"""Splits a batch of any size into parts that engines take, each of which takes a range of sizes only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ditzoo.errors import BackendError
from ditzoo.records import Data
from ditzoo.specs import Profile


class BatchPart(Data, frozen=True, kw_only=True):
    """The rows `start` to `stop` of a batch, which run in profile number `profile` as a batch of `rows` rows.

    Profiles are numbered over all engines of a graph.
    """

    start: int
    stop: int
    profile: int
    rows: int

    @property
    def filling(self) -> list[int]:
        """The row of the whole batch for each row that runs. The last row is repeated as padding."""
        return [min(row, self.stop - 1) for row in range(self.start, self.start + self.rows)]


def chunks(profiles: Sequence[Profile], sizes: Mapping[str, int]) -> list[BatchPart]:
    """The parts that a batch is run in: one part if a profile holds the batch, else several parts in the largest profile.

    A part that is smaller than its profile's minimum is padded. `sizes` has the size of every axis, "batch" among them. Raises
    BackendError if no profile takes latents of this height and width.
    """
    rest = {axis: size for axis, size in sizes.items() if axis != "batch"}
    usable = [i for i, profile in enumerate(profiles) if profile.fits(rest)]
    if not usable:
        wanted = " ".join(f"{axis}={size}" for axis, size in rest.items())
        raise BackendError(f"no engine was built for {wanted}; there are: {'; '.join(map(str, profiles))}")
    parts, start = [], 0
    while start < sizes["batch"]:
        left = sizes["batch"] - start
        holding = [i for i in usable if profiles[i].axes["batch"].max >= left]
        if holding:
            best = min(holding, key=lambda i: (max(left, profiles[i].axes["batch"].min), profiles[i].axes["batch"].max))
        else:
            best = max(usable, key=lambda i: profiles[i].axes["batch"].max)
        batch = profiles[best].axes["batch"]
        stop = start + min(left, batch.max)
        parts.append(BatchPart(start=start, stop=stop, profile=best, rows=max(stop - start, batch.min)))
        start = stop
    return parts
