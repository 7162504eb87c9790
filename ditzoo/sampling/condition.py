"""The condition of a sampling run: class labels or the embeddings of prompts, and the null condition for guidance."""

from __future__ import annotations

import msgspec
import numpy as np
import numpy.typing as npt

from ditzoo.sampling.classes import Classes, choose_classes
from ditzoo.zoo.card import Card


class Condition(msgspec.Struct, frozen=True, kw_only=True):
    """The condition of N images.

    `name` is the name of the network's input. `values` has one row for each image: labels [N], or embeddings [N, tokens,
    width]. `null` is the row of the null condition. It is None if the network has no null condition.
    """

    name: str
    values: npt.NDArray[np.generic]
    null: npt.NDArray[np.generic] | None


def class_condition(card: Card, classes: Classes) -> Condition:
    """The condition for images of `classes`. Raises UsageError if the model does not have a class."""
    labels = np.array(choose_classes(card, classes), dtype=np.int64)
    null = None if card.null_label is None else np.array(card.null_label)
    return Condition(name="y", values=labels, null=null)


def has_null(condition: Condition | None) -> bool:
    """Whether there is a null condition. If there is one, guidance evaluates the network twice for each image."""
    return condition is not None and condition.null is not None


def condition_inputs(condition: Condition | None, *, halves: bool) -> dict[str, npt.NDArray[np.generic]]:
    """The condition as an input of the network, by name. It is empty for an unconditional network.

    It has one row for each image. With `halves`, the same number of rows with the null condition follows.
    """
    if condition is None:
        return {}
    values = condition.values
    if halves and condition.null is not None:
        values = np.concatenate([values, np.broadcast_to(condition.null, values.shape)])
    return {condition.name: values}
