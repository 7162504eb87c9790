"""The card of a model that has none: its network is read off the shapes in its file, its conventions come from another card."""

from __future__ import annotations

import msgspec

from ditzoo.checkpoint import shapes as seen
from ditzoo.errors import UsageError
from ditzoo.families import Known, family_of, recognise
from ditzoo.families.tensors import Shapes
from ditzoo.records import Data
from ditzoo.zoo import CARDS
from ditzoo.zoo.card import Card


class Like(Data, frozen=True, kw_only=True):
    """What the user states about a model because shapes cannot show it. A field that is None is not stated.

    `card` is a card with the same conventions (schedule, prediction, decoder). `heads` is the number of attention heads, and
    `classes` the number of classes without the null label.
    """

    card: Card | None = None
    heads: int | None = None
    classes: int | None = None


class Derived(msgspec.Struct, frozen=True, kw_only=True):
    """A derived card, and remarks for the user. Its name and weights are still those of the card it was derived from."""

    card: Card
    remarks: tuple[str, ...] = ()


def derive(name: str, shapes: Shapes, like: Like, *, side: int | None = None) -> Derived:
    """The card of the network whose canonical tensors have these `shapes`.

    If `like` names no card, this is the only card of the zoo whose network has these shapes; cards with the same conventions
    count as one. `side` is the height and width of the latents, or None if unknown; it matters for networks whose tensors do
    not show it. Raises UsageError, with the option to add, if no card or several cards remain, or if the shapes and `like`
    contradict each other.
    """
    if like.card is None:
        return Derived(card=_fitting(name, shapes, side=side))
    try:
        return _derived(name, shapes, like, like.card, side=side)
    except UsageError as error:
        raise UsageError(f"{name}: {error}") from error
    except (LookupError, ArithmeticError) as error:
        raise UsageError(f"{name}: its tensors do not form a network like {like.card.name}: {_described(shapes)}") from error
    except ValueError as error:
        raise UsageError(f"{name} cannot be like {like.card.name}: {error}") from error


def _derived(name: str, shapes: Shapes, like: Like, base: Card, *, side: int | None) -> Derived:
    family, other = recognise(shapes), family_of(base.backbone)
    if family is not other:
        raise UsageError(f"its network is a {family.name}, but {base.name} is a {other.name}; name another card with --like")
    rows = shapes[family.label_table][0] if family.label_table in shapes else 0
    null, remarks = _null_label(name, rows, like, base)
    backbone = family.config_from(shapes, base.backbone, Known(null_row=null is not None, heads=like.heads, side=side))
    channels = base.backbone.latent_shape[0]
    if backbone.latent_shape[0] != channels:
        raise UsageError(
            f"its latents have {backbone.latent_shape[0]} channels, but the decoder of {base.name} takes {channels};"
            " name a card with the same decoder: --like CARD"
        )
    guidance = 1.0 if null is None and base.text is None else base.sampling.guidance
    card = msgspec.structs.replace(
        base,
        backbone=backbone,
        summary=f"{base.name}, own weights",
        null_label=null,
        sampling=msgspec.structs.replace(base.sampling, guidance=guidance),
        classes=base.classes if backbone.classes(null_label=null) == base.number_of_classes else None,
        published=None,
    )
    return Derived(card=card, remarks=remarks)


def _null_label(name: str, rows: int, like: Like, base: Card) -> tuple[int | None, tuple[str, ...]]:
    """The null label of a network whose label table has `rows` rows, and remarks for the user.

    If the table has one row more than there are classes, the last row is the null label. If it has as many rows as classes,
    there is no null label. If `like` does not state the number of classes, and it is not that of `base`, then there is a null
    label if and only if `base` has one.
    """
    if not rows:
        return None, ()
    usual = base.number_of_classes if rows - base.number_of_classes in (0, 1) else rows - (base.null_label is not None)
    classes = usual if like.classes is None else like.classes
    if rows == classes:
        return None, (f"{name} has {rows} classes and no row for a null label, so it cannot be guided: its guidance is 1",)
    if rows != classes + 1:
        raise UsageError(
            f"its label table has {rows} rows; {classes} classes need {classes} rows, or {classes + 1} with a null label"
        )
    said = like.classes is not None or classes == base.number_of_classes
    remark = f"{name}: assumed that the {rows} rows of its label table are {classes} classes and the null label {classes}"
    return classes, () if said else (f"{remark}; if every row is a class, add --classes {rows}",)


def _fitting(name: str, shapes: Shapes, *, side: int | None) -> Card:
    """The only card of the zoo whose network has these shapes; cards with the same conventions count as one."""
    fits = [card for card in seen.fitting(shapes, CARDS.values()) if side in (None, card.backbone.latent_shape[1])]
    kinds = {msgspec.json.encode((card.backbone, _conventions(card))): card for card in reversed(fits)}
    if len(kinds) == 1:
        return next(iter(kinds.values()))
    if kinds:
        names = ", ".join(card.name for card in fits)
        raise UsageError(
            f"{name}: several cards with different conventions have its network: {names}; name one of them with --like"
        )
    raise UsageError(
        f"{name}: no card has its network ({_described(shapes)}); name a card with the same conventions: --like CARD,"
        f" such as {', '.join(_relatives(shapes))}, or write a card (docs/models.md)"
    )


def _relatives(shapes: Shapes) -> list[str]:
    """The first card of each kind of conventions in the family of a network."""
    family = recognise(shapes)
    relatives = {_conventions(card): card.name for card in reversed(CARDS.values()) if family_of(card.backbone) is family}
    return sorted(relatives.values())


def _conventions(card: Card) -> bytes:
    """The fields that make two cards of the same network sample differently, as JSON."""
    return msgspec.json.encode((card.schedule, card.time, card.prediction, card.decoder))


def _described(shapes: Shapes) -> str:
    return ", ".join(f"{name} {value}" for name, value in seen.facts(shapes).items())
