"""What `--backend auto` tells: the backend that was chosen, and the times that decided."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ditzoo.cli import output

if TYPE_CHECKING:
    from ditzoo.backends.options import BackendSpec
    from ditzoo.bundle import Bundle
    from ditzoo.choices import Choice
    from ditzoo.plan.table import Plan
    from ditzoo.zoo.card import Card
    from ditzoo.zoo.sizes import Size


def settled(
    model: Card | Bundle,
    backend: str | None,
    *,
    precision: str | None,
    device: str,
    threads: int | None,
    size: Size,
    images: int,
    plan: Plan,
) -> BackendSpec:
    """The backend of `--backend`. If it is auto, the choice is told on stderr."""
    from ditzoo.model.opening import choose_backend, is_automatic

    if backend is None or not is_automatic(backend):
        return choose_backend(model, backend, precision=precision)
    from ditzoo.model.automatic import fastest_backend

    choice = fastest_backend(
        model,
        backend,
        precision=precision,
        device=device,
        threads=threads,
        size=size,
        images=images,
        plan=plan,
        display=output,
    )
    tell(choice)
    return choose_backend(model, choice.backend)


def tell(choice: Choice) -> None:
    """Tells a choice: the backend, the milliseconds of all that were measured, and why others were not."""
    there = choice.situation
    times = ", ".join(f"{name} {1e3 * seconds:.2f} ms" for name, seconds in choice.measured.items())
    threads = "" if there.threads is None else f", {output.count(there.threads, 'thread')}"
    output.talk(
        f"auto: {choice.chosen} for {there.model} in {there.precision} on {there.device}{threads}; {times} for"
        f" {output.count(there.rows, 'row')} of the network ({output.count(there.images, 'image')}), measured {choice.date}"
    )
    for timing in choice.timings:
        if timing.seconds is None:
            output.talk(f"auto: not {timing.backend}: {timing.why}")
