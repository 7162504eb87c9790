"""Running out of memory: noticing it, whatever the backend, and finding the batch that fits."""

from __future__ import annotations

from ditzoo.backends.base import Backend
from ditzoo.plan.table import Plan
from ditzoo.sampling.condition import Condition
from ditzoo.sampling.loop import sample_steps

_SIGNS = ("out of memory", "can't allocate memory", "failed to allocate memory", "bad allocation", "bad_alloc")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the error is that of torch, ONNX Runtime, CUDA or Python for memory that is not to be had."""
    return isinstance(error, MemoryError) or any(sign in str(error).lower() for sign in _SIGNS)


def batch_that_fits(backend: Backend, plan: Plan, *, batch: int, condition: Condition | None) -> int | None:
    """The largest of batch / 2, batch / 4 ... 1 whose first step runs, or None where not even one image does."""
    while batch > 1:
        batch //= 2
        try:
            steps = sample_steps(backend, plan, count=batch, condition=condition)
            next(step for step in steps if step.done == 1)
        except Exception as error:  # backends raise all sorts
            if not is_out_of_memory(error):
                raise
        else:
            return batch
    return None
