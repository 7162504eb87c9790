"""How a batch of any size is run by engines, each of which takes only some sizes: split, and padded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ditzoo.errors import BackendError
from ditzoo.records import Data
from ditzoo.specs import Profile


class BatchPart(Data, frozen=True, kw_only=True):
    """A part of a batch: which rows of it, which profile (a number over all engines of a graph), and how many rows it runs."""

    start: int
    stop: int
    profile: int
    rows: int

    @property
    def filling(self) -> list[int]:
        """The row of the batch for each row that runs: its own, and then its last one again and again."""
        return [min(row, self.stop - 1) for row in range(self.start, self.start + self.rows)]


def chunks(profiles: Sequence[Profile], sizes: Mapping[str, int]) -> list[BatchPart]:
    """How a batch is run: in one profile that it fits, or split over the largest; what is too small for any is padded.

    `sizes` are those of the axes, "batch" among them. Raises BackendError where no profile takes such latents.
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
