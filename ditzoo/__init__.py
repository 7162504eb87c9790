"""Diffusion Transformers by name, exported for deployment, with parity as a measured number.

Load a model and draw with it:

    model = ditzoo.load("dit-digits")
    images = model.sample(classes=[3, "seven"], num=4, seed=0, steps=20, guidance=1.5)

`list_models` names the models, `pull` fetches their weights, `export_onnx` and `export_tensorrt` export them, and `parity`
measures how far backends are apart. Wherever a model is meant, a name, `hf:OWNER/REPO`, a bundle's folder, a `Card` and an
opened bundle will do.

The same in its parts, for full control:

    plan = ditzoo.make_plan("dit-digits", steps=50)
    with ditzoo.open_backend("torch", "dit-digits") as backend:
        latents = ditzoo.sample(backend, plan, classes=range(10), seed=0)
    pictures = ditzoo.decode("dit-digits", latents)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ditzoo.backends import open_backend as open_backend
    from ditzoo.bundle import Bundle as Bundle
    from ditzoo.bundle import open_bundle as open_bundle
    from ditzoo.errors import DitzooError as DitzooError
    from ditzoo.measure.parity import compare as compare
    from ditzoo.model.comparing import parity as parity
    from ditzoo.model.exporting import export_onnx as export_onnx
    from ditzoo.model.exporting import export_tensorrt as export_tensorrt
    from ditzoo.model.loaded import Model as Model
    from ditzoo.model.loaded import load as load
    from ditzoo.model.pulling import list_models as list_models
    from ditzoo.model.pulling import pull as pull
    from ditzoo.model.tuning import tune_reuse as tune_reuse
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
    "Bundle": "ditzoo.bundle",
    "CARDS": "ditzoo.zoo",
    "Card": "ditzoo.zoo.card",
    "DitzooError": "ditzoo.errors",
    "Model": "ditzoo.model.loaded",
    "Plan": "ditzoo.plan.table",
    "card": "ditzoo.weights.catalogue",
    "compare": "ditzoo.measure.parity",
    "contact_sheet": "ditzoo.pictures.sheets",
    "decode": "ditzoo.pictures.decode",
    "export_onnx": "ditzoo.model.exporting",
    "export_tensorrt": "ditzoo.model.exporting",
    "list_models": "ditzoo.model.pulling",
    "load": "ditzoo.model.loaded",
    "make_plan": "ditzoo.plan.make",
    "open_backend": "ditzoo.backends",
    "open_bundle": "ditzoo.bundle",
    "parity": "ditzoo.model.comparing",
    "pull": "ditzoo.model.pulling",
    "sample": "ditzoo.sampling.loop",
    "tune_reuse": "ditzoo.model.tuning",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    """A public name, imported from its home when it is first used, so that `ditzoo --help` loads no numpy (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
