"""The commands `ditzoo pull`, `import`, `push` and `to-diffusers`."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from ditzoo.cli import complete, output
from ditzoo.cli.options import Json, Name
from ditzoo.errors import UsageError

if TYPE_CHECKING:
    from ditzoo.checkpoint import Pick
    from ditzoo.weights.likeness import Like
    from ditzoo.weights.pull import Pulled
    from ditzoo.zoo.card import Card

TIMEOUT = 30.0

Timeout: TypeAlias = Annotated[
    float, typer.Option(help="Seconds that the server may be silent before the pull fails.", min=0.1)
]
LikeCard: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--like",
        metavar="CARD",
        help="A card with the same conventions: schedule, prediction and decoder. The file of the weights shows the rest.",
    ),
]
Heads: TypeAlias = Annotated[
    int | None,
    typer.Option(metavar="N", min=1, help="The number of attention heads. Needed if the network is not as wide as CARD's."),
]
ClassCount: TypeAlias = Annotated[
    int | None, typer.Option("--classes", metavar="N", min=1, help="The number of classes, without the null label.")
]
Entry: TypeAlias = Annotated[
    str | None, typer.Option(metavar="KEY", help="The entry of a training checkpoint to take. Default: the averaged weights.")
]
Prefix: TypeAlias = Annotated[
    str | None, typer.Option(metavar="PREFIX", help="The start of the network's keys. Tensors with other keys are left out.")
]


def pull(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME|hf:REPO",
            help="Models of `ditzoo list`, or repositories of the Hub: hf:OWNER/REPO, or hf:OWNER/REPO@REVISION:FILE.",
            show_default=False,
            autocompletion=complete.models,
        ),
    ],
    like: LikeCard = None,
    heads: Heads = None,
    classes: ClassCount = None,
    entry: Entry = None,
    prefix: Prefix = None,
    update: Annotated[bool, typer.Option("--update", help="Look up the newest revision again, if the card pins none.")] = False,
    timeout: Timeout = TIMEOUT,
    json: Json = False,
) -> None:
    """Fetch models from the Hub, verify them, and store them in one canonical form. Stored models need no request."""
    _quiet_client()
    from ditzoo.model.pulling import pull as fetch

    stated, pick = _like(like, heads, classes), _pick(entry, prefix)
    done = []
    for name in names:
        with output.transfer() as advance:
            pulled = fetch(name, like=stated, pick=pick, update=update, timeout=timeout, advance=advance, display=output)
        done.append({"model": name, "path": str(pulled.path), "source": pulled.source})
        if not json:
            _tell(name, pulled)
    if json:
        output.json(done)


def import_(
    arguments: Annotated[list[str], typer.Argument(metavar="[NAME] FILE", help="A model's name, and its checkpoint file.")],
    like: LikeCard = None,
    heads: Heads = None,
    classes: ClassCount = None,
    entry: Entry = None,
    prefix: Prefix = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace weights that are stored already.")] = False,
) -> None:
    """Import a checkpoint that is not on the Hub.

    If NAME has a card, FILE becomes its weights. Otherwise FILE becomes a model of your own. NAME defaults to the file's name.
    """
    from ditzoo.weights.importing import import_file, import_own

    if len(arguments) not in (1, 2):
        raise UsageError("import takes NAME FILE, or only FILE; `ditzoo list` shows the names")
    file = Path(arguments[-1])
    name = arguments[0] if len(arguments) == 2 else re.sub(r"[^A-Za-z0-9._-]+", "-", file.stem).strip("-.")
    card, stated, pick = _written_card(name), _like(like, heads, classes), _pick(entry, prefix)
    if card is not None and stated is not None:
        raise UsageError(f"{name} already has a card; choose another name, or leave out --like, --heads and --classes")
    if card is not None:
        stored = import_file(card, file, overwrite=overwrite, pick=pick, display=output)
    else:
        like_stated = stated or _as_before(name)
        stored = import_own(name, file, like=like_stated, overwrite=overwrite, pick=pick, display=output)
    card = stored.card
    output.talk(
        f"{name}: layout {stored.manifest.layout}, {card.number_of_classes} classes, null label"
        f" {'none' if card.null_label is None else card.null_label}, {output.size(stored.size)}"
    )
    output.data(str(stored.path / "model.safetensors"))


def push(
    name: Name,
    repo: Annotated[
        str, typer.Argument(metavar="USER/REPO", help="The repository. It is created if it does not exist.", show_default=False)
    ],
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
) -> None:
    """Upload a model's canonical weights, its card and a README to a repository of yours on the Hub."""
    from ditzoo.weights.push import push as upload

    _quiet_client()
    card = _card(name)
    with output.status(f"uploading {name} to {repo}"):
        reference = upload(card, repo, private=private)
    output.talk(f"licence of {name}: {card.licence}; your team can pull it with `ditzoo pull hf:{repo}`")
    output.data(reference)


def to_diffusers(
    name: Name,
    out: Annotated[Path, typer.Argument(metavar="DIR", help="The folder to create.", show_default=False)],
    timeout: Timeout = TIMEOUT,
) -> None:
    """Write a DiT as a folder that diffusers' DiTPipeline loads."""
    from ditzoo.weights.to_diffusers import to_diffusers as write

    _quiet_client()
    card = _card(name)
    with output.status(f"writing {out}"):
        write(card, out, patience=timeout)
    output.data(str(out))


def _like(name: str | None, heads: int | None, classes: int | None) -> Like | None:
    """The values of --like, --heads and --classes, or None if none of them was given."""
    if name is None and (heads is not None or classes is not None):
        raise UsageError("--heads and --classes need --like CARD")
    if name is None:
        return None
    from ditzoo.weights.likeness import Like

    return Like(card=_card(name), heads=heads, classes=classes)


def _pick(entry: str | None, prefix: str | None) -> Pick | None:
    """The values of --entry and --prefix, or None if neither was given."""
    if entry is None and prefix is None:
        return None
    from ditzoo.checkpoint import Pick

    return Pick(entry=entry, prefix=prefix)


def _as_before(name: str) -> Like | None:
    """The conventions of the user's own model `name` from its first import, or None if there is no such model."""
    from ditzoo.weights.catalogue import cards
    from ditzoo.weights.likeness import Like

    return Like(card=cards()[name]) if name in cards() else None


def _tell(name: str, pulled: Pulled) -> None:
    source = pulled.source
    if source is None:
        output.talk(f"{name} is stored already")
    elif pulled.resolved_now:
        output.talk(f"{name}: the newest revision of {source.repo} is {source.revision}; recorded it")
    else:
        output.talk(f"{name}: {source.repo} at {source.revision}")
    output.data(str(pulled.path))


def _quiet_client() -> None:
    """Turns off the messages of the Hub's client. Call it before the client is imported, which reads these variables."""
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


def _card(name: str) -> Card:
    from ditzoo.weights.catalogue import card

    return card(name)


def _written_card(name: str) -> Card | None:
    """The card called `name` in ditzoo or in the user's file of cards. None for models that were only imported or pulled."""
    from ditzoo.weights.aliases import find_name
    from ditzoo.weights.catalogue import written

    known = written()
    return None if (found := find_name(name, known)) is None else known[found]
