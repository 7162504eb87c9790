"""ditzoo: Diffusion Transformers by name, exported for deployment, with parity as a measured number.

card = ditzoo.card("dit-digits")
plan = ditzoo.make_plan(card, steps=50)
with ditzoo.open_backend("torch", card) as backend:
    latents = ditzoo.sample(backend, plan, classes=range(10), seed=0)
pictures = ditzoo.decode(card, latents)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ditzoo.backends import open_backend as open_backend
    from ditzoo.bundle import open_bundle as open_bundle
    from ditzoo.errors import DitzooError as DitzooError
    from ditzoo.measure.parity import compare as compare
    from ditzoo.pictures.decode import decode as decode
    from ditzoo.pictures.sheets import contact_sheet as contact_sheet
    from ditzoo.plan.make import make_plan as make_plan
    from ditzoo.plan.table import Plan as Plan
    from ditzoo.sampling.loop import sample as sample
    from ditzoo.weights.catalogue import card as card
    from ditzoo.zoo import CARDS as CARDS
    from ditzoo.zoo.card import Card as Card

__version__ = "0.1.0"

_HOMES = {
    "CARDS": "ditzoo.zoo",
    "Card": "ditzoo.zoo.card",
    "DitzooError": "ditzoo.errors",
    "Plan": "ditzoo.plan.table",
    "card": "ditzoo.weights.catalogue",
    "compare": "ditzoo.measure.parity",
    "contact_sheet": "ditzoo.pictures.sheets",
    "decode": "ditzoo.pictures.decode",
    "make_plan": "ditzoo.plan.make",
    "open_backend": "ditzoo.backends",
    "open_bundle": "ditzoo.bundle",
    "sample": "ditzoo.sampling.loop",
}

__all__ = list(_HOMES)  # names, all of them


def __getattr__(name: str) -> Any:
    """A public name, imported from its home when it is first used, so that `ditzoo --help` loads no numpy (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
