"""Where the numbers of a report come from: what has to be known to measure them again."""

from __future__ import annotations

from datetime import UTC, datetime
from hashlib import sha256

from ditzoo.bundle import Bundle
from ditzoo.digests import digest
from ditzoo.measure.machine import machine
from ditzoo.ranges import ranges_text
from ditzoo.sampling.request import SampleRequest
from ditzoo.weights.local import weights_file
from ditzoo.zoo.card import Card
from ditzoo.zoo.class_names import labels_of


def provenance(model: Card | Bundle, request: SampleRequest, *, command: str) -> dict[str, str]:
    """The date, the command line, the model and its weights, what was drawn, the machine and the versions of packages."""
    plan = request.plan
    drawn = {"prompts": ", ".join(request.prompts)} if request.prompts else {}
    if request.classes is not None:
        card = model.card if isinstance(model, Bundle) else model
        drawn = {"classes": ", ".join(labels_of(card, request.classes))}
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "command": command,
        **_origin(model),
        "plan": f"{plan.solver}, {len(plan.rows)} steps, guidance {_guidance(request)}{_reuse(request)}",
        "SHA-256 of the plan": sha256(plan.to_json()).hexdigest(),
        "seed": f"{request.seed}, images {request.first} to {request.first + request.count - 1}",
        **drawn,
        **machine(),
    }


def _origin(model: Card | Bundle) -> dict[str, str]:
    if isinstance(model, Card):
        return {"model": model.name, "SHA-256 of the weights": digest(weights_file(model))}
    origin = {"model": model.card.name, "bundle": str(model.path), "key of the bundle": model.manifest.key}
    return {**origin, **({"SHA-256 of the weights": model.manifest.weights} if model.manifest.weights else {})}


def _reuse(request: SampleRequest) -> str:
    """What rows of the plan take from earlier rows. It is empty if they take nothing."""
    rows = request.plan.rows
    full = ranges_text(i for i, row in enumerate(rows) if not row.reuses)
    guided = ranges_text(i for i, row in enumerate(rows) if row.evaluates_null)
    blocks = f", reuse full={full},blocks={request.plan.outer_blocks}" if any(row.reuses for row in rows) else ""
    return blocks + (f", both conditions in rows {guided}" if any(row.difference == "reuse" for row in rows) else "")


def _guidance(request: SampleRequest) -> str:
    """The scale of guidance, or the lowest and the highest of all steps."""
    scales = sorted({row.guidance for row in request.plan.rows})
    return f"{scales[0]:g}" if len(scales) == 1 else f"{scales[0]:g} to {scales[-1]:g}"
