"""What the page offers: the models whose weights are here, and the backends that can run them on this machine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import cache

from ditzoo.backends.gpus import gpus
from ditzoo.backends.options import parse_spec
from ditzoo.backends.table import ROWS, BackendRow
from ditzoo.errors import CheckpointError, DitzooError
from ditzoo.hub import client, offline
from ditzoo.model.opening import check_openable
from ditzoo.records import Data
from ditzoo.solvers import SOLVERS
from ditzoo.specs import PRECISION_TRAITS, Precision
from ditzoo.weights.catalogue import cards
from ditzoo.weights.local import has_decoder, weights_state
from ditzoo.zoo.card import Autoencoder, Card
from ditzoo.zoo.class_names import class_names

DEFAULT_PRECISION: Precision = "fp32"


class ClassChoice(Data, frozen=True, kw_only=True):
    """A class: its name for the reader, and the `text` that chooses it, which is a name or a number."""

    name: str
    text: str


class BackendChoice(Data, frozen=True, kw_only=True):
    """A backend by its text, such as "onnxruntime:int8". `refusal` is "" if it can run here, else the error."""

    text: str
    refusal: str


class ModelChoice(Data, frozen=True, kw_only=True):
    """A model: what it is, what can be chosen, and its own values, which a field without a value stands for.

    `reusable` is the largest number of first and last blocks that a plan with reuse can run; 0 means no reuse.
    """

    name: str
    summary: str
    state: str
    resolution: int
    classes: tuple[ClassChoice, ...]
    prompts: bool
    guided: bool
    solver: str
    solvers: tuple[str, ...]
    steps: int
    guidance: float
    reusable: int
    backends: tuple[BackendChoice, ...]


def choices() -> list[ModelChoice]:
    """The models whose weights are on this machine. No package is imported, and no weights are read."""
    here = {card.name: weights_state(card) for card in cards().values()}
    return [_model(card) for state in ("embedded", "cached") for card in cards().values() if here[card.name] == state]


def check_decoder(card: Card) -> None:
    """Raises CheckpointError if the decoder of a latent model is not on this machine. Its files are not read."""
    decoder = card.decoder
    if not isinstance(decoder, Autoencoder):
        return
    if decoder.source is None:
        if not has_decoder(card):
            raise CheckpointError(f"the checkpoint of {card.name} held no decoder")
        return
    repo, paths = decoder.source.repo, [file.path for file in decoder.source.files]
    if not any(all(client.cached(repo, path, commit=commit) for path in paths) for commit in offline.commits_of(repo)):
        raise CheckpointError(f"the decoder of {card.name} is not on this machine; `ditzoo sample {card.name}` fetches it")


def backend_texts() -> list[str]:
    """The texts of all backends in all precisions that this machine could run if all packages were installed."""
    return [text for row in ROWS for text in _texts(row)]


def _model(card: Card) -> ModelChoice:
    return ModelChoice(
        name=card.name,
        summary=card.summary,
        state=weights_state(card),
        resolution=card.resolution,
        classes=class_choices(card),
        prompts=card.text is not None,
        guided=card.null_label is not None or card.text is not None,
        solver=card.sampling.solver,
        solvers=tuple(name for name, solver in SOLVERS.items() if isinstance(card.schedule, solver.schedules)),
        steps=card.sampling.steps,
        guidance=card.sampling.guidance,
        reusable=(card.backbone.blocks - 1) // 2,
        backends=tuple(BackendChoice(text=text, refusal=_refusal(card, text)) for text in backend_texts()),
    )


def class_choices(card: Card) -> tuple[ClassChoice, ...]:
    """The classes of a model. If several have one name, or if a list of classes would not read it, the text is a number."""
    names = class_names(card)
    times = Counter(name.lower() for name in names)
    plain = card.classes is not None
    return tuple(
        ClassChoice(name=name, text=name if plain and times[name.lower()] == 1 and _is_word(name) else str(number))
        for number, name in enumerate(names)
    )


def _is_word(name: str) -> bool:
    """Whether a list of classes can hold the name: it has no comma, no space at an end, and does not begin with a digit."""
    return "," not in name and name.strip() == name and not name[:1].isdecimal()


def _refusal(card: Card, text: str) -> str:
    """The error with which a backend refuses a card, or "" if there is none."""
    try:
        check_decoder(card)
        check_openable(card, [parse_spec(text)])
    except DitzooError as error:
        return str(error)
    return ""


def _texts(row: BackendRow) -> Iterator[str]:
    """The texts of a backend. A GPU is the first one. A backend of engines needs a GPU."""
    there = _capability() > 0
    places = [place for place in row.devices if place == "cpu" or there] if row.devices else [""] if there else []
    for place in places:
        for precision in row.precisions:
            if _computes(row, precision, place or "cuda"):
                parts = (row.name, "" if place == "cpu" else place, "" if precision == DEFAULT_PRECISION else precision)
                yield ":".join(filter(None, parts))


def _computes(row: BackendRow, precision: Precision, place: str) -> bool:
    """Whether a backend computes in a precision on a device of this machine."""
    traits = PRECISION_TRAITS[precision]
    if place != "cpu":
        return _capability() >= traits.capability and (row.runs != "graphs" or _is_written(row, precision, place))
    alone_on_cpus = row.devices == ("cpu",)  # such a backend computes in all of its precisions there
    return row.runs != "graphs" or (_is_written(row, precision, place) and (traits.on_cpu or alone_on_cpus))


def _is_written(row: BackendRow, precision: Precision, place: str) -> bool:
    """Whether graphs in a precision can be written for a backend on a device."""
    return row.target(precision=precision, device=place) in PRECISION_TRAITS[precision].targets


@cache
def _capability() -> int:
    """The compute capability of the first GPU, times ten; 0 if there is no GPU."""
    return next((int(gpu.architecture.removeprefix("sm")) for gpu in gpus()), 0)
