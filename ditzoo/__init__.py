"""ditzoo: Diffusion Transformers by name, exported for deployment, with parity as a measured number.

card = ditzoo.card("dit-digits")
plan = ditzoo.make_plan(card, steps=50)
with ditzoo.open_backend("torch", card) as backend:
    latents = ditzoo.sample(backend, plan, classes=range(10), seed=0)
pictures = ditzoo.decode(card, latents)
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
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
    "CARDS": "zoo",
    "Card": "card",
    "DitzooError": "errors",
    "Plan": "plan",
    "card": "zoo",
    "compare": "parity",
    "contact_sheet": "decode",
    "decode": "decode",
    "make_plan": "plan",
    "open_backend": "backends",
    "open_bundle": "bundle",
    "sample": "sample",
}

__all__ = list(_HOMES)


class _Package(ModuleType):
    """This package. A public name is imported from its home when it is first used, so that `ditzoo --help` loads no numpy."""

    def __getattr__(self, name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
        setattr(self, name, value)
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOMES and isinstance(value, ModuleType)):  # ditzoo.sample is the function, whatever was imported
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
