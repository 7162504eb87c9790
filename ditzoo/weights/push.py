"""`push`: upload stored weights to the user's repository on the Hub, from which others can pull them."""

from __future__ import annotations

import re

import msgspec

from ditzoo.errors import HubError, UsageError, shortened
from ditzoo.hub import client
from ditzoo.weights import store
from ditzoo.weights.local import decoder_file, has_decoder, weights_file
from ditzoo.zoo.card import Card

_LICENCES = {"Apache-2.0": "apache-2.0", "MIT": "mit", "CC-BY-NC-4.0": "cc-by-nc-4.0"}


def push(card: Card, repo: str, *, private: bool = False) -> str:
    """Uploads the canonical weights, the card and a README to `repo` (OWNER/NAME), and creates the repository if necessary.

    Returns the reference of this upload, hf:OWNER/NAME@COMMIT. Raises UsageError if `repo` is not OWNER/NAME, CheckpointError
    if the weights are missing or damaged, and HubError if the upload fails or HF_HUB_OFFLINE is set.
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo):
        raise UsageError(f"{shortened(repo)!r} is not the name of a repository; write OWNER/NAME")
    if client.is_offline():
        raise HubError(f"cannot push to {repo}: HF_HUB_OFFLINE forbids it; unset it and try again")
    files: dict[str, object] = {
        store.MODEL: weights_file(card),
        store.CARD: msgspec.json.format(msgspec.json.encode(card), indent=1),
        "README.md": readme(card, repo).encode(),
    }
    if has_decoder(card):
        files[store.DECODER] = decoder_file(card)
    commit = client.upload(repo, files, message=f"{card.name}, by ditzoo", private=private)
    return f"hf:{repo}@{commit}"


def readme(card: Card, repo: str) -> str:
    """The README of the repository, in Markdown: licence, origin, and how to use the model."""
    figure = f"\nPublished FID: {card.published.fid} ({card.published.settings}).\n" if card.published else ""
    return f"""---
license: {_LICENCES.get(card.licence, "other")}
library_name: ditzoo
tags: [diffusion, {card.family}]
---
# {card.name}

{card.summary}. Licence: {card.licence}. Cite: {card.citation}. Data: {card.data}.
{figure}
The weights are in ditzoo's canonical form: float32 safetensors with the keys of the authors' own code.

    ditzoo pull hf:{repo}
    ditzoo sample hf:{repo}
"""
