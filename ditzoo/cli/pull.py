"""`ditzoo pull`, `import`, `push` and `to-diffusers`."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from ditzoo.cli import output
from ditzoo.cli.options import Json, Name
from ditzoo.errors import UsageError

if TYPE_CHECKING:
    from ditzoo.hub.client import Advance
    from ditzoo.weights.pull import Pulled
    from ditzoo.zoo.card import Card

TIMEOUT = 30.0

Timeout: TypeAlias = Annotated[
    float, typer.Option(help="Seconds that the server may be silent before the pull fails.", min=0.1)
]
Arch: TypeAlias = Annotated[
    str | None, typer.Option(metavar="ARCH", help="The card whose network and conventions the weights have.")
]


def pull(
    names: Annotated[
        list[str], typer.Argument(metavar="NAME|hf:OWNER/REPO[@REV][:PATH]...", help="Models.", show_default=False)
    ],
    arch: Arch = None,
    update: Annotated[
        bool, typer.Option("--update", help="Resolve the newest revision anew, where the card pins none.")
    ] = False,
    timeout: Timeout = TIMEOUT,
    json: Json = False,
) -> None:
    """Fetch models from the Hub, verified, in one canonical form; what is here already makes no request."""
    _quiet_client()
    base = _card(arch) if arch else None
    done = []
    for name in names:
        with _showing(name) as advance:
            pulled = _pull(name, base, update=update, timeout=timeout, advance=advance)
        done.append({"model": name, "path": str(pulled.path), "source": pulled.source})
        if not json:
            _tell(name, pulled)
    if json:
        output.json(done)


def import_(
    arguments: Annotated[list[str], typer.Argument(metavar="[NAME] FILE", help="A model's name, and its checkpoint.")],
    arch: Arch = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace weights that are there already.")] = False,
) -> None:
    """Take in a checkpoint that is not on the Hub; with --arch, as a model of your own (NAME, or the file's)."""
    from ditzoo.weights.importing import import_file, local_card
    from ditzoo.zoo import CARDS

    if len(arguments) not in (1, 2) or (len(arguments) == 1 and arch is None):
        raise UsageError("import takes NAME FILE, or --arch ARCH FILE; `ditzoo list` shows the names")
    file = Path(arguments[-1])
    name = arguments[0] if len(arguments) == 2 else re.sub(r"[^A-Za-z0-9._-]+", "-", file.stem).strip("-.")
    if arch is not None and name in CARDS:
        raise UsageError(f"{name} is a model of ditzoo; choose another name, or leave out --arch")
    card = local_card(_card(arch), name, file) if arch else _card(name)
    with output.status(f"converting {file}"):
        stored = import_file(card, file, overwrite=overwrite)
    output.talk(f"{name}: layout {stored.manifest.layout}, {stored.size / 1e9:.2f} GB")
    output.data(str(stored.path / "model.safetensors"))


def push(
    name: Name,
    repo: Annotated[
        str, typer.Argument(metavar="USER/REPO", help="The repository; made if it is not there.", show_default=False)
    ],
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
) -> None:
    """Upload a model's canonical weights, its card and a README to a repository of yours on the Hub."""
    from ditzoo.weights.push import push as upload

    _quiet_client()
    card = _card(name)
    with output.status(f"uploading {name} to {repo}"):
        reference = upload(card, repo, private=private)
    output.talk(f"licence of {name}: {card.licence}; your team gets it with `ditzoo pull hf:{repo}`")
    output.data(reference)


def to_diffusers(
    name: Name,
    out: Annotated[Path, typer.Argument(metavar="DIR", help="The new folder.", show_default=False)],
    timeout: Timeout = TIMEOUT,
) -> None:
    """Write a DiT as a folder that diffusers' DiTPipeline loads."""
    from ditzoo.weights.to_diffusers import to_diffusers as write

    _quiet_client()
    card = _card(name)
    with output.status(f"writing {out}"):
        write(card, out, patience=timeout)
    output.data(str(out))


def _pull(name: str, base: Card | None, *, update: bool, timeout: float, advance: Advance) -> Pulled:
    from ditzoo.weights.catalogue import cards
    from ditzoo.weights.hub_reference import PREFIX, pull_reference
    from ditzoo.weights.pull import pull as fetch

    known = cards().get(name)
    if name.startswith(PREFIX) and (known is None or update or base is not None):
        return pull_reference(name, arch=base, patience=timeout, advance=advance)
    if base is not None:
        raise UsageError(f"--arch goes with hf:OWNER/REPO; {name} has a card of its own")
    return fetch(known or _card(name), update=update, patience=timeout, advance=advance)


def _tell(name: str, pulled: Pulled) -> None:
    source = pulled.source
    if source is None:
        output.talk(f"{name} is here already")
    elif pulled.resolved_now:
        output.talk(f"{name}: resolved the newest revision of {source.repo} to {source.revision}, and recorded it")
    else:
        output.talk(f"{name}: {source.repo} at {source.revision}")
    output.data(str(pulled.path))


@contextmanager
def _showing(name: str) -> Iterator[Advance]:
    """A progress bar for downloads, and the library's warnings as they come."""
    handler = _Talk()
    logging.getLogger("ditzoo").addHandler(handler)
    try:
        with output.transfer(name) as advance:
            yield advance
    finally:
        logging.getLogger("ditzoo").removeHandler(handler)


class _Talk(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        output.talk(record.getMessage())


def _quiet_client() -> None:
    """Keeps the client's own remarks off the terminal; they are read when it is first imported."""
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


def _card(name: str) -> Card:
    from ditzoo.weights.catalogue import card

    return card(name)
