"""What `ditzoo parity` compares: who with whom, and what they draw."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from ditzoo.cli import output
from ditzoo.errors import UsageError, unknown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ditzoo.backends.options import BackendSpec
    from ditzoo.bundle import Bundle
    from ditzoo.measure.bisection import Bisection
    from ditzoo.measure.parity import Comparison, SampledStates, SamplingTask
    from ditzoo.specs import Precision, Tolerance
    from ditzoo.zoo.card import Card

PEER, FILE = "diffusers", ".npz"


def contestants(
    backends: str | None, against: str | None, *, exact: bool, bisect: bool
) -> tuple[list[BackendSpec], Path | None]:
    """The backends, the reference first, and the file to compare with it, if there is one."""
    from ditzoo.backends.options import BackendSpec, parse_spec, parse_specs

    text = backends or ("torch" if against else "torch,onnxruntime")
    specs = parse_specs(text)
    if exact:
        specs.insert(0, BackendSpec(name="torch", precision="fp64"))
    file = Path(against) if against is not None and against.endswith(FILE) else None
    if against is not None and file is None:
        if against.partition(":")[0] != PEER:
            raise unknown("peer", against, [PEER, f"FILE{FILE}"], hint="other backends are for --backends")
        specs.append(parse_spec(against))
    if len(specs) < 2 and file is None:
        raise UsageError(f"--backends needs two or more, the reference first, such as torch,onnxruntime; not {text!r}")
    if bisect and len(specs) < 2:
        raise UsageError("--bisect looks into backends, not into files; name one, such as --backends torch,onnxruntime")
    if bisect and specs[0].name != "torch":
        raise UsageError(
            f"--bisect holds backends against the modules of torch: put torch first in --backends, not {specs[0].name}"
        )
    return specs, file


def comparisons(
    model: Card | Bundle,
    specs: Sequence[BackendSpec],
    work: SamplingTask,
    *,
    recorded: SampledStates | None,
    rows: Sequence[int],
    device: str,
    threads: int | None,
    tolerance: str | None,
    bisect: bool,
) -> tuple[list[Comparison], list[Bisection]]:
    """Each backend but the first, and what was `recorded` elsewhere, compared with the first; its images are drawn once.

    With `bisect`, also where each backend departs from the first, in the order of the comparisons.
    """
    from ditzoo.cli.bisect import bisect_all
    from ditzoo.cli.models import card_of, open_on
    from ditzoo.measure.parity import check_comparable, follow, forward_errors, measure

    card, limits, found = card_of(model), limits_of(tolerance), []
    with ExitStack() as stack:
        opened = [stack.enter_context(open_on(model, spec, device=device, threads=threads)) for spec in specs]
        reference, *others = opened
        for backend in others:
            check_comparable(reference, backend)
        steps = len(work.plan.rows)
        with output.progress(f"{card.name}: {reference.name}", steps) as advance:
            ours = follow(reference, work, advance=advance)
        candidates = [(backend, limits[backend.precision]) for backend in others]
        bisections = bisect_all(reference, candidates, work, ours, rows=rows) if bisect else []
        for backend, limit in candidates:
            with output.progress(f"{card.name}: {backend.name}", steps) as advance:
                theirs = follow(backend, work, advance=advance)
            forward = forward_errors(reference, backend, work, ours, rows=rows)
            found.append(measure(card, ours, theirs, work, forward=forward, tolerance=limit))
    if recorded is not None:
        found.append(measure(card, ours, recorded, work, tolerance=limits[recorded.precision]))
    return found, bisections


def limits_of(text: str | None) -> dict[Precision, Tolerance]:
    """The tolerances of every precision, with the limits that "name=value,..." sets; raises UsageError for what is none."""
    import msgspec

    from ditzoo.measure.parity import TOLERANCES
    from ditzoo.specs import Tolerance

    known = Tolerance.__struct_fields__
    given: dict[str, float] = {}
    for item in (text or "").split(",") if text else ():
        name, _, value = item.strip().partition("=")
        if name not in known:
            raise unknown("limit", name, known, hint="--tolerance forward=1e-4,psnr=50")
        try:
            given[name] = float(value)
        except ValueError:
            raise UsageError(f"--tolerance {name} takes a number, not {value!r}") from None
    return {precision: msgspec.structs.replace(limits, **given) for precision, limits in TOLERANCES.items()}
