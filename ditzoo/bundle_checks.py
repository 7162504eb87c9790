"""Checks that the parts of a bundle fit each other: the tensors of its graphs and engines, its card and its manifest."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from ditzoo.specs import TensorSpec, check_specs
from ditzoo.zoo.card import Card


class HasTensors(Protocol):
    """A graph or an engine of a manifest: its file, and its inputs and outputs."""

    @property
    def file(self) -> str:
        """The name of its file."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Its inputs."""

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """Its outputs."""


def check_tensors(file: str, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> None:
    """Raises ValueError if the inputs or outputs of a graph or engine are not valid. `file` is its file, for the message."""
    check_specs(f"inputs of {file}", inputs)
    check_specs(f"outputs of {file}", outputs)


def check_network(card: Card, model: str, parts: Sequence[tuple[str, HasTensors]]) -> None:
    """Raises ValueError if the graphs or engines of a bundle are not those of the network of its card.

    `model` is the model's name in the manifest. `parts` has every graph or engine, with the name of its graph.
    """
    if model != card.name:
        raise ValueError(f"its manifest is for {model[:200]!r}, and its card for {card.name}")
    ahead = [part for name, part in parts if name == "conditioning"]
    for part in ahead:
        if {spec.name for spec in part.inputs} != _condition(card):
            raise ValueError(f"{part.file} takes {_names(part.inputs)}, not {', '.join(sorted(_condition(card)))}")
    backbones = [part for name, part in parts if name == "backbone"]
    for part in backbones:
        _check_backbone(card, part, ahead)
    for part in (part for name, part in parts if name == "backbone-reuse"):
        _check_reuse(part, backbones)


def _check_backbone(card: Card, part: HasTensors, ahead: Sequence[HasTensors]) -> None:
    """Raises ValueError unless a backbone takes latents, and the condition or the outputs of the conditioning `ahead` of it."""
    x, *rest = part.inputs
    known = {spec.name for made in ahead for spec in made.outputs} if ahead else _condition(card)
    if x.name != "x" or len(x.shape) != 4 or x.shape[1] != card.backbone.latent_shape[0]:
        raise ValueError(f"the first input of {part.file} is {x}, not latents of the channels of {card.name}")
    taken = {spec.name for spec in rest}
    if taken - known or (known - taken and not ahead):  # conditioning may have more outputs, such as those of its layers
        raise ValueError(f"{part.file} takes {_names(rest)} beside x, but there are {', '.join(sorted(known))}")


def _check_reuse(part: HasTensors, backbones: Sequence[HasTensors]) -> None:
    """Raises ValueError unless a graph takes what the backbone takes and its residual, and gives the prediction."""
    for backbone in backbones:
        prediction, *residual = backbone.outputs
        if part.inputs != (*backbone.inputs, *residual) or part.outputs != (prediction,) or len(residual) != 1:
            raise ValueError(f"{part.file} does not take the inputs of {backbone.file} and its residual")


def _condition(card: Card) -> set[str]:
    """The names of the inputs of the card's network other than the latents."""
    labels = {"y"} if card.backbone.label_rows else set()
    return {"t", *labels} if card.backbone.text_shape is None else {"t", "context"}


def _names(specs: Iterable[TensorSpec]) -> str:
    return ", ".join(spec.name for spec in specs)
