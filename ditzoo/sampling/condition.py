"""What the images are to show, as the network takes it: class labels or the tokens of prompts, and the null condition."""

from __future__ import annotations

import msgspec
import numpy as np
import numpy.typing as npt

from ditzoo.sampling.classes import Classes, choose_classes
from ditzoo.zoo.card import Card


class Condition(msgspec.Struct, frozen=True, kw_only=True):
    """What the images are to show: the network's input of that `name`, [N, ...] for N images, and the null one, [...]."""

    name: str
    values: npt.NDArray[np.generic]
    null: npt.NDArray[np.generic] | None


def class_condition(card: Card, classes: Classes) -> Condition:
    """The condition for images of `classes`; raises UsageError for a class that the model does not have."""
    labels = np.array(choose_classes(card, classes), dtype=np.int64)
    null = None if card.null_label is None else np.array(card.null_label)
    return Condition(name="y", values=labels, null=null)


def has_null(condition: Condition | None) -> bool:
    """Whether there is a null condition, so that guidance takes two evaluations for each image."""
    return condition is not None and condition.null is not None


def condition_inputs(condition: Condition | None, *, halves: bool) -> dict[str, npt.NDArray[np.generic]]:
    """The condition as input of the network: a row for each image; with `halves`, as many rows of the null condition follow."""
    if condition is None:
        return {}
    values = condition.values
    if halves and condition.null is not None:
        values = np.concatenate([values, np.broadcast_to(condition.null, values.shape)])
    return {condition.name: values}
