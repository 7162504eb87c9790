"""The size of the latents in a sampling run. The user chooses it, or the bundle or the backend takes only one size."""

from __future__ import annotations

from ditzoo.backends.base import Backend
from ditzoo.bundle import Bundle
from ditzoo.errors import UsageError, check_count, wrong_type
from ditzoo.zoo.card import Card
from ditzoo.zoo.sizes import LARGEST, Size, check_size, in_pixels, own_size, parse_size, resolution_text


def choose_size(model: Card | Bundle, resolution: str | int | None) -> Size:
    """The size of the latents for images of a `resolution` in pixels: 256, or "256x384" (height x width).

    Without a resolution, it is the size of training. If a bundle does not take that size, it is the first size that the bundle
    takes. Raises UsageError, with the valid sizes, if the model's network or the bundle does not take the resolution.
    """
    card = model.card if isinstance(model, Bundle) else model
    if resolution is None:
        taken = None if isinstance(model, Card) else sizes_of(model)
        return own_size(card) if taken is None or own_size(card) in taken else taken[0]
    size = parse_size(card, resolution_text(resolution))
    check_model_size(model, size)
    return size


def sizes_of(bundle: Bundle) -> list[Size] | None:
    """The sizes of latents that a bundle takes, or None if it takes any size.

    The ONNX graph of the bundle gives the size. A bundle without an ONNX graph has the sizes that its engines are optimized
    for.
    """
    graph = bundle.manifest.graphs.get("backbone")
    if graph is not None:
        height, width = graph.inputs[0].shape[2:]
        return [(height, width)] if isinstance(height, int) and isinstance(width, int) else None
    engines = [engine for engine in bundle.manifest.engines.values() if engine.graph == "backbone"]
    axes = [profile.axes for engine in engines for profile in engine.profiles if {"height", "width"} <= set(profile.axes)]
    return list(dict.fromkeys((sizes["height"].opt, sizes["width"].opt) for sizes in axes)) or None


def check_model_size(model: Card | Bundle, size: Size) -> None:
    """Raises UsageError, with the valid sizes, if a model's network or a bundle does not take latents of `size`."""
    card = model.card if isinstance(model, Bundle) else model
    check_size(card, size)
    taken = sizes_of(model) if isinstance(model, Bundle) else None
    if isinstance(model, Bundle) and taken is not None and size not in taken:
        raise UsageError(
            f"the bundle {model.path} is for {', '.join(in_pixels(card, there) for there in taken)} pixels, not"
            f" {in_pixels(card, size)}; `{model.manifest.settings['command'].partition(' --')[0]}"
            f" --resolution {in_pixels(card, size)} --out DIR` makes a bundle for {in_pixels(card, size)} pixels"
        )


def latent_shape(backend: Backend, size: Size | None = None) -> tuple[int, int, int]:
    """Channels, height and width of the latents on a backend.

    Height and width are those of `size`. Without `size`, they are those that the backend takes, or those of training if the
    backend takes any size. Raises UsageError if `size` is none, or if the network or the backend does not take it.
    """
    card = backend.card
    height, width = next(spec.shape[2:] for spec in backend.inputs if spec.name == "x")
    fixed = (height, width) if isinstance(height, int) and isinstance(width, int) else None
    wanted = _checked(card, size) if size is not None else fixed or own_size(card)
    if fixed not in (None, wanted):
        raise UsageError(
            f"{backend.name} takes latents for {in_pixels(card, fixed)} pixels, not for {in_pixels(card, wanted)};"
            f" `ditzoo export onnx {card.name} --resolution {in_pixels(card, wanted)} --out DIR` makes such a bundle"
        )
    return card.backbone.latent_shape[0], *wanted


def _checked(card: Card, size: Size) -> Size:
    """`size` as two ints. Raises UsageError if it is no height and width, or if the card's network does not take them."""
    try:
        height, width = size
    except (TypeError, ValueError):
        raise wrong_type("size", size, "the height and width of the latents, such as (8, 8)") from None
    for side in (height, width):
        check_count("each side of size", side, most=LARGEST * max(own_size(card)))
    checked = int(height), int(width)
    check_size(card, checked)
    return checked


def common_shape(*backends: Backend) -> tuple[int, int, int]:
    """Channels, height and width of the latents for several backends of one model.

    If a backend takes only a size that is not the size of training, it is that size. Otherwise it is the size of training.
    """
    shapes = [latent_shape(backend) for backend in backends]
    return next((shape for shape in shapes if shape[1:] != own_size(backends[0].card)), shapes[0])
