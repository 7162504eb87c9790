"""Finds models and fetches their weights."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from ditzoo.errors import UsageError, check_callable, check_count, check_flags, check_known, check_type
from ditzoo.hub.client import PATIENCE, Advance, check_patience, silent
from ditzoo.progress import SILENT, Display
from ditzoo.weights.aliases import find_name
from ditzoo.weights.catalogue import card, card_of, cards
from ditzoo.weights.hub_reference import PREFIX, pull_reference
from ditzoo.weights.local import STATES, weights_state
from ditzoo.weights.pull import Pulled
from ditzoo.weights.pull import pull as pull_card
from ditzoo.zoo.card import Card

if TYPE_CHECKING:
    from ditzoo.checkpoint import Pick
    from ditzoo.weights.likeness import Like


def list_models(
    pattern: str | None = None, *, family: str | None = None, resolution: int | None = None, state: str | None = None
) -> list[str]:
    """The names of the models, in the order of the tables in the documentation.

    `pattern` is a pattern such as "dit-xl-*", or a part of a name. `family` is the family of the models, such as "sit"; it
    depends on the network and on its prediction. `resolution` is the side of the images in pixels. `state` tells where the
    weights are: embedded, cached, damaged, hub, by-hand or architecture. Raises UsageError for an unknown family or state,
    and for an argument of a wrong type.
    """
    return [card.name for card in matching_cards(pattern, family=family, resolution=resolution, state=state)]


def matching_cards(
    pattern: str | None = None, *, family: str | None = None, resolution: int | None = None, state: str | None = None
) -> list[Card]:
    """The cards of the models that match. The arguments are those of `list_models`."""
    known = list(cards().values())
    if pattern is not None:
        check_type("pattern", pattern, str, "a text: a pattern such as 'dit-xl-*', or a part of a name")
    if family is not None:
        check_known("family", family, {card.family for card in known})
    if state is not None:
        check_known("state", state, STATES)
    if resolution is not None:
        check_count("resolution", resolution)
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
    like: str | Card | Like | None = None,
    pick: Pick | None = None,
    update: bool = False,
    timeout: float = PATIENCE,
    advance: Advance = silent,
    display: Display = SILENT,
) -> Pulled:
    """Fetches the weights of a model from the Hub, verifies them, and stores them in ditzoo's canonical form.

    If the weights are stored already, no request is made. `model` is a name, a card, or `hf:OWNER/REPO[@REVISION][:PATH]`.
    If the repository of such a reference does not state the conventions of its weights (schedule, prediction, decoder), `like`
    names a model with the same conventions. As a `Like`, it also states the number of heads or classes. `pick` selects the
    network among the tensors of the checkpoint. `update` asks for the newest revision again if the card pins none. `timeout`
    is the number of seconds that the server may be silent. `advance` is called with every part of a download;
    the other stages of the work appear on `display`. Raises UsageError
    if the name is unknown or if `like` is given for a model that has a card, HubError if the download fails, and
    CheckpointError if the weights do not fit.
    """
    check_type("model", model, (str, Card), "a model's name, hf:OWNER/REPO or a Card")
    check_patience(timeout)
    check_flags(update=update)
    check_callable("advance", advance, "a function of a file, the bytes so far, and its size")
    stated = None if like is None else _likeness(like)
    if pick is not None:
        _check_pick(pick)
    known = model if isinstance(model, Card) else _known(model)
    if isinstance(model, str) and model.startswith(PREFIX) and (known is None or update or stated or pick):
        return pull_reference(model, like=stated, pick=pick, patience=timeout, advance=advance, display=display)
    if stated is not None:
        raise UsageError(f"like, heads and classes are only for hf:OWNER/REPO; {model} has its own card")
    return pull_card(known or card(str(model)), update=update, patience=timeout, advance=advance, pick=pick, display=display)


def _known(name: str) -> Card | None:
    """The card that `name` means, or None."""
    known = cards()
    return None if (found := find_name(name, known)) is None else known[found]


def _check_pick(pick: object) -> None:
    from ditzoo.checkpoint import Pick  # imports torch

    check_type("pick", pick, Pick, "a Pick (ditzoo.checkpoint)")


def _likeness(like: str | Card | Like) -> Like:
    """`like` itself, or that of the card that it names. Raises UsageError if it is of another type."""
    from ditzoo.weights.likeness import Like  # imports torch

    return like if isinstance(like, Like) else Like(card=card_of(like, argument="like"))
