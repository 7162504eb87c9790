"""Which size the latents of a sampling run have: the one that was asked for, or the one that a bundle or a backend takes."""

from __future__ import annotations

from ditzoo.backends.base import Backend
from ditzoo.bundle import Bundle
from ditzoo.errors import UsageError, check_type
from ditzoo.zoo.card import Card
from ditzoo.zoo.sizes import Size, check_size, in_pixels, own_size, parse_size


def choose_size(model: Card | Bundle, resolution: str | int | None) -> Size:
    """The size of the latents for images of a `resolution` in pixels: 256, or "256x384" (height x width).

    Without a resolution it is the size that the model was trained on, or for a bundle of another size the bundle's. Raises
    UsageError, with the sizes that there are, for one that the model's network or the bundle does not take.
    """
    card = model.card if isinstance(model, Bundle) else model
    if resolution is None:
        taken = None if isinstance(model, Card) else sizes_of(model)
        return own_size(card) if taken is None or own_size(card) in taken else taken[0]
    check_type("resolution", resolution, (str, int), "pixels, such as 256 or '256x384' (height x width)")
    size = parse_size(card, str(resolution))
    check_model_size(model, size)
    return size


def sizes_of(bundle: Bundle) -> list[Size] | None:
    """The sizes of latents that a bundle takes, or None if it takes any.

    They are those of its ONNX graph, or without one the sizes that its engines are best at.
    """
    graph = bundle.manifest.graphs.get("backbone")
    if graph is not None:
        height, width = graph.inputs[0].shape[2:]
        return [(height, width)] if isinstance(height, int) and isinstance(width, int) else None
    engines = [engine for engine in bundle.manifest.engines.values() if engine.graph == "backbone"]
    axes = [profile.axes for engine in engines for profile in engine.profiles if {"height", "width"} <= set(profile.axes)]
    return list(dict.fromkeys((sizes["height"].opt, sizes["width"].opt) for sizes in axes)) or None


def check_model_size(model: Card | Bundle, size: Size) -> None:
    """Raises UsageError, with the sizes that there are, if a model's network or a bundle does not take latents of that size."""
    card = model.card if isinstance(model, Bundle) else model
    check_size(card, size)
    taken = sizes_of(model) if isinstance(model, Bundle) else None
    if isinstance(model, Bundle) and taken is not None and size not in taken:
        raise UsageError(
            f"the bundle {model.path} is for {', '.join(in_pixels(card, there) for there in taken)} pixels, not"
            f" {in_pixels(card, size)}; `{model.manifest.settings['command'].partition(' --')[0]}"
            f" --resolution {in_pixels(card, size)} --out DIR` makes one for those"
        )


def latent_shape(backend: Backend, size: Size | None = None) -> tuple[int, int, int]:
    """Channels, height and width of the latents on a backend: of that `size`, or else of the one that the backend takes.

    A backend that takes any size gets the one of training. Raises UsageError if the backend takes another size.
    """
    card = backend.card
    height, width = next(spec.shape[2:] for spec in backend.inputs if spec.name == "x")
    fixed = (height, width) if isinstance(height, int) and isinstance(width, int) else None
    wanted = size or fixed or own_size(card)
    if fixed not in (None, wanted):
        raise UsageError(
            f"{backend.name} takes latents for {in_pixels(card, fixed)} pixels, not for {in_pixels(card, wanted)};"
            f" `ditzoo export onnx {card.name} --resolution {in_pixels(card, wanted)} --out DIR` makes a bundle for those"
        )
    return card.backbone.latent_shape[0], *wanted


def common_shape(*backends: Backend) -> tuple[int, int, int]:
    """Channels, height and width of latents for all of the backends of one model.

    They are those of a backend that takes only another size than that of training, if there is one.
    """
    shapes = [latent_shape(backend) for backend in backends]
    return next((shape for shape in shapes if shape[1:] != own_size(backends[0].card)), shapes[0])
