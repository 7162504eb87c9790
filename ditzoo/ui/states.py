"""What the page shows of a job: its progress, and the numbers and pictures at its end."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from ditzoo.measure.differences import Difference
from ditzoo.pictures.decode import Pictures
from ditzoo.records import Data

Phase: TypeAlias = Literal["waiting", "running", "finished", "failed", "cancelled"]


class SideSummary(Data, frozen=True, kw_only=True):
    """One backend of a finished job: its name, such as "torch fp32 cpu", and its times in seconds.

    `opening` is the time until the backend was ready, with an export that was made first. `sampling` is the time of all steps,
    without the previews.
    """

    backend: str
    opening: float
    sampling: float


class Measured(Data, frozen=True, kw_only=True):
    """The difference of the second backend from the first, with the limits of parity.

    `sample` is the relative L2 error of the final latents, and `largest_latent` their largest absolute difference. `psnr` is in
    dB, and `largest_pixel` is the largest difference of two pixel values from 0 to 255. `psnr` is None if all pixels are equal.
    `gain` is the factor by which the picture of the difference is amplified.
    """

    sample: float
    sample_limit: float
    psnr: float | None
    psnr_limit: float
    largest_latent: float
    largest_pixel: float
    gain: float
    passed: bool


class Summary(Data, frozen=True, kw_only=True):
    """The numbers of a finished job. `labels` has the class or the prompt of each image; "" if the model has neither.

    `evaluations` is the number of steps of each backend over all batches. `decoding` is the time in seconds that all
    latents together took.
    """

    images: int
    evaluations: int
    labels: tuple[str, ...]
    sides: tuple[SideSummary, ...]
    decoding: float
    measured: Measured | None


class Drawn(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a job: its summary, the pictures [N, H, W, C] of each backend, and their difference if there are two."""

    summary: Summary
    pictures: tuple[Pictures, ...]
    difference: Difference | None


class State(Data, frozen=True, kw_only=True):
    """The state of a job.

    `doing` says in words what it does now. `done` of `total` steps are finished. `previews` counts the previews of each backend
    so far. `error` is the message if the job failed, and `summary` is there if it finished.
    """

    phase: Phase = "waiting"
    doing: str = ""
    done: int = 0
    total: int = 0
    previews: tuple[int, ...] = ()
    error: str = ""
    summary: Summary | None = None

    @property
    def final(self) -> bool:
        """Whether the state will not change again."""
        return self.phase in ("finished", "failed", "cancelled")
