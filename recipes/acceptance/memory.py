"""The stage of the GPU acceptance about memory."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from acceptance.checks import FLAVOURS, Check, CheckError, Measured, check, demand, needs_flavour, needs_gpu

from ditzoo.measure.gpu import free_memory


def memory(device: str) -> Iterator[Check]:
    """Opening and closing ten times, and a GPU that is full."""
    for text in ("torch", "onnxruntime", *FLAVOURS):
        yield check(f"{text} opened and closed ten times", lambda text=text: _opened_often(text, device))
    for text in ("torch", "onnxruntime"):
        yield check(f"{text} on a full GPU", lambda text=text: _full(text, device))


def _opened_often(text: str, device: str) -> Measured:
    needs_gpu(device)
    if text in FLAVOURS:
        needs_flavour(text)
    import ditzoo
    from ditzoo.backends.options import parse_spec
    from ditzoo.model.opening import open_model

    plan, left = ditzoo.make_plan("dit-digits", steps=2), []
    for _ in range(10):
        with open_model("dit-digits", parse_spec(text), device="cpu" if text in FLAVOURS else device) as backend:
            ditzoo.sample(backend, plan, classes=range(10))
        left.append(free_memory() >> 20)
    lost = left[1] - left[-1]
    demand(lost <= 2, f"{lost} MiB are lost in eight rounds: {left}")
    return {"free MiB after the second": left[1], "after the tenth": left[-1]}


def _full(text: str, device: str) -> Measured:
    """Takes all but 600 MiB. A batch that needs more must be an error of memory, and the next batch must be right."""
    needs_gpu(device)
    import ditzoo
    from ditzoo.backends import cuda
    from ditzoo.backends.options import parse_spec
    from ditzoo.model.opening import open_model
    from ditzoo.sampling.memory import is_out_of_memory

    plan, classes = ditzoo.make_plan("dit-digits", steps=2), [0] * 2**16
    with open_model("dit-digits", parse_spec(text), device=device) as backend:
        expected = ditzoo.sample(backend, plan, classes=[3], seed=0)
        taken = cuda.Buffer(max(1, free_memory() - 600 * 2**20))
        try:
            ditzoo.sample(backend, plan, classes=classes)
        except Exception as error:  # each library has its own class of error
            demand(is_out_of_memory(error), f"not recognised: {error}")
            said = str(error)[:200]
        else:
            raise CheckError("the batch fits, so nothing was tested")
        finally:
            taken.free()
        demand(np.array_equal(ditzoo.sample(backend, plan, classes=[3], seed=0), expected), "the images differ afterwards")
    return {"said": said}
