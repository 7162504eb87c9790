"""Out-of-memory errors: recognizing those of every backend, and finding the batch that fits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ditzoo.backends.base import Backend
from ditzoo.errors import BackendError
from ditzoo.plan.table import Plan
from ditzoo.sampling.condition import Condition
from ditzoo.sampling.loop import sample_steps
from ditzoo.zoo.sizes import Size

_SIGNS = (
    "out of memory",
    "can't allocate memory",
    "failed to allocate memory",
    "bad allocation",
    "bad_alloc",
    "cudaerrormemoryallocation",
    "did not give an execution context",  # the context takes the memory of all layers, and TensorRT says no more than that
)


@contextmanager
def explaining_memory(
    backend: Backend, plan: Plan, *, batch: int, condition: Condition | None, size: Size | None = None
) -> Iterator[None]:
    """Turns an out-of-memory error in the block, of any library, into a BackendError that says which batch fits.

    `batch` is the number of images that the block samples at a time. `size` is the height and width of their latents.
    """
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        fits = batch_that_fits(backend, plan, batch=batch, condition=condition, size=size)
        remedy = f"a batch of {fits} fits" if fits else "not even one image fits; use another device or precision"
        raise BackendError(f"out of memory with a batch of {batch} on {backend.name}: {remedy}") from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the error is an out-of-memory error of torch, ONNX Runtime, CUDA or Python."""
    return isinstance(error, MemoryError) or any(sign in str(error).lower() for sign in _SIGNS)


def batch_that_fits(
    backend: Backend, plan: Plan, *, batch: int, condition: Condition | None, size: Size | None = None
) -> int | None:
    """The largest batch that runs the first step: batch / 2, batch / 4 and so on. None if not even a single image fits."""
    while batch > 1:
        batch //= 2
        try:
            steps = sample_steps(backend, plan, count=batch, condition=condition, size=size)
            next(step for step in steps if step.done == 1)
        except Exception as error:  # each library has its own class of error
            if not is_out_of_memory(error):
                raise
        else:
            return batch
    return None
