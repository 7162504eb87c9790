"""ditzoo: Diffusion Transformers by name, exported for deployment, with parity as a measured number.

card = ditzoo.card("dit-digits")
plan = ditzoo.make_plan(card, steps=50)
with ditzoo.open_backend("torch", card) as backend:
    latents = ditzoo.sample(backend, plan, classes=range(10), seed=0)
pictures = ditzoo.decode(card, latents)
"""

from ditzoo.backends import open_backend
from ditzoo.bundle import open_bundle
from ditzoo.card import Card
from ditzoo.decode import contact_sheet, decode
from ditzoo.errors import DitzooError
from ditzoo.parity import compare
from ditzoo.plan import Plan, make_plan
from ditzoo.sample import sample
from ditzoo.zoo import CARDS, card

__version__ = "0.1.0"

__all__ = [
    "CARDS",
    "Card",
    "DitzooError",
    "Plan",
    "card",
    "compare",
    "contact_sheet",
    "decode",
    "make_plan",
    "open_backend",
    "open_bundle",
    "sample",
]
