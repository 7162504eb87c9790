"""Finding models and fetching their weights."""

from __future__ import annotations

from fnmatch import fnmatchcase

from ditzoo.errors import UsageError, check_type, unknown
from ditzoo.hub.client import PATIENCE, Advance, silent
from ditzoo.weights.catalogue import card, card_of, cards
from ditzoo.weights.hub_reference import PREFIX, pull_reference
from ditzoo.weights.likeness import Like
from ditzoo.weights.local import STATES, weights_state
from ditzoo.weights.pull import Pulled
from ditzoo.weights.pull import pull as pull_card
from ditzoo.zoo.card import Card


def list_models(
    pattern: str | None = None, *, family: str | None = None, resolution: int | None = None, state: str | None = None
) -> list[str]:
    """The names of the models, in the order of the tables in the documentation.

    `pattern` is one such as "dit-xl-*", or a part of a name. `family` is that of the network and its prediction, such as "sit".
    `resolution` is the side of the images in pixels. `state` is where the weights are: embedded, cached, damaged, hub, by-hand
    or architecture. Raises UsageError for an unknown family or state.
    """
    return [card.name for card in matching_cards(pattern, family=family, resolution=resolution, state=state)]


def matching_cards(
    pattern: str | None = None, *, family: str | None = None, resolution: int | None = None, state: str | None = None
) -> list[Card]:
    """The cards of the models that `list_models` names."""
    known = list(cards().values())
    if pattern is not None:
        check_type("pattern", pattern, str, "a text: a pattern such as 'dit-xl-*', or a part of a name")
    if family not in (None, *(families := [card.family for card in known])):
        raise unknown("family", str(family), set(families))
    if state not in (None, *STATES):
        raise unknown("state", str(state), STATES)
    wanted = pattern if pattern and any(sign in pattern for sign in "*?[") else f"*{pattern or ''}*"
    return [
        card
        for card in known
        if fnmatchcase(card.name, wanted)
        and family in (None, card.family)
        and resolution in (None, card.resolution)
        and state in (None, weights_state(card))
    ]


def pull(
    model: str | Card,
    *,
    like: str | Card | None = None,
    update: bool = False,
    timeout: float = PATIENCE,
    advance: Advance = silent,
) -> Pulled:
    """Fetches the weights of a model from the Hub, verified, in one canonical form. What is here already makes no request.

    `model` is a name, a card, or `hf:OWNER/REPO[@REVISION][:PATH]`. If the repository of such a reference does not say the
    conventions of its weights (schedule, prediction, decoder), `like` is a model that has the same ones. `update` asks for the
    newest revision again, if the card pins none. `timeout` is how many seconds the server may be silent. `advance` is called
    with every part of a download. Raises UsageError for an unknown name, HubError if the server does not deliver, and
    CheckpointError if the weights do not fit.
    """
    check_type("model", model, (str, Card), "a model's name, hf:OWNER/REPO or a Card")
    base = None if like is None else card_of(like, argument="like")
    known = model if isinstance(model, Card) else cards().get(model)
    if isinstance(model, str) and model.startswith(PREFIX) and (known is None or update or base is not None):
        return pull_reference(model, like=None if base is None else Like(card=base), patience=timeout, advance=advance)
    if base is not None:
        raise UsageError(f"like goes with hf:OWNER/REPO; {model} has a card of its own")
    return pull_card(known or card(str(model)), update=update, patience=timeout, advance=advance)
