"""The transfer of a file into the Hub's cache. It continues where an earlier transfer stopped, also after a kill.

The Hub's client keeps nothing of a transfer that it does not finish. It also writes in parts of 10 MB, and it may send the
user's token to another server (Xet). So only the layout of the cache is the client's: blobs/TAG, and links to it in snapshots.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from ditzoo.errors import HubError
from ditzoo.files import lock_handle, sha256
from ditzoo.hub.answers import is_tag
from ditzoo.records import Data

if TYPE_CHECKING:
    import httpx2

_CHUNK = 1 << 16
"""The number of bytes that are written at once. At most this many are lost if the process is killed."""


class Offer(Data, frozen=True, kw_only=True):
    """A file that a server offers: its address, its tag, and its size in bytes (None: unknown)."""

    url: str
    tag: str
    size: int | None


def transfer(
    offer: Offer, repository: Path, pointer: Path, *, again: bool, patience: float, reached: Callable[[int, int], None]
) -> None:
    """Puts the content of a file into the cache's folder of its `repository`, and makes `pointer` a link to it.

    If the content is there already, it is not transferred, unless `again` is True. `reached` is called with the number of bytes
    so far, and with the size (0: unknown). `patience` is how many seconds the server may be silent. The caller must hold the
    lock of `pointer`. Raises the errors of the Hub's client, and OSError if the size is not the one that was offered.
    """
    if not is_tag(offer.tag):
        raise HubError(f"{offer.url} has the tag {offer.tag[:80]!r}, not a plain name; do not use this server")
    blob = repository / "blobs" / offer.tag
    if again or not blob.exists():
        blob.parent.mkdir(parents=True, exist_ok=True)
        with _partial(blob) as (partial, file):
            if again:
                file.truncate(0)
            if _receive(offer, file, patience=patience, reached=reached) and not _is_whole(partial, offer.tag):
                file.truncate(0)  # the bytes of the earlier transfer were damaged, or of another file
                _receive(offer, file, patience=patience, reached=reached)
            partial.replace(blob)
    _link(blob, pointer)


@contextmanager
def _partial(blob: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """The file for the bytes that have come so far, open for appending. It stays if the transfer fails.

    If another process is writing it, it is a new file.
    """
    path = blob.with_name(f"{blob.name}.ditzoo.incomplete")
    file = _open(path)
    if not lock_handle(file.fileno()) or not path.exists() or not os.path.samestat(os.fstat(file.fileno()), path.lstat()):
        file.close()
        path = blob.with_name(f"{blob.name}.{secrets.token_hex(4)}.incomplete")
        file = _open(path)
    with file:
        yield path, file


def _open(path: Path) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o666), "ab", buffering=0)


def _receive(offer: Offer, file: BinaryIO, *, patience: float, reached: Callable[[int, int], None]) -> bool:
    """Appends the bytes that `file` lacks. Returns whether it had some already, and they were kept."""
    done = _usable(offer, file)
    if done and done == offer.size:
        return True
    with _request(offer, done, patience=patience) as response:
        continued = done > 0 and response.headers.get("Content-Range", "").startswith(f"bytes {done}-")
        if not continued:
            file.truncate(0)
            done = 0
        reached(done, offer.size or 0)
        for chunk in response.iter_bytes(_CHUNK):
            done += file.write(chunk)
            if offer.size is not None and done > offer.size:
                file.truncate(0)
                raise OSError(f"Consistency check failed: more than {offer.size:,} bytes came")
            reached(done, offer.size or 0)
    if offer.size not in (None, done):
        raise OSError(f"Consistency check failed: {done:,} bytes came instead of {offer.size:,}")
    return continued


def _usable(offer: Offer, file: BinaryIO) -> int:
    """The number of bytes in `file` to continue from. If they could not be checked at the end, they are deleted."""
    done = os.fstat(file.fileno()).st_size
    if _hash(offer.tag) is None or (offer.size is not None and done > offer.size):
        file.truncate(0)
        return 0
    return done


@contextmanager
def _request(offer: Offer, start: int, *, patience: float) -> Iterator[httpx2.Response]:
    """The answer to a request for the bytes from `start`, or for all if there are none from there."""
    from huggingface_hub import get_session, hf_raise_for_status
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

    for first in (start, 0):
        headers = {**build_hf_headers(), "Accept-Encoding": "identity", **({"Range": f"bytes={first}-"} if first else {})}
        with get_session().stream("GET", offer.url, headers=headers, timeout=patience) as response:
            if first and response.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                continue
            hf_raise_for_status(response)
            yield response
            return


def _hash(tag: str) -> str | None:
    """The hash function whose result a tag is: SHA-256 for a large file, SHA-1 for a small one, as git computes it."""
    if re.fullmatch(r"[0-9a-f]*", tag) is None:
        return None
    return {64: "sha256", 40: "sha1"}.get(len(tag))


def _is_whole(path: Path, tag: str) -> bool:
    """Whether the hash of a file is its tag."""
    if _hash(tag) == "sha256":
        return sha256(path) == tag
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest() == tag


def _link(blob: Path, pointer: Path) -> None:
    """Makes `pointer` a relative link to `blob`, in one step. On a disk without links, it becomes a copy.

    The caller holds the lock of `pointer`, so the temporary link that a killed process left can be deleted.
    """
    pointer.parent.mkdir(parents=True, exist_ok=True)
    scratch = pointer.with_name(f".{pointer.name}.incomplete")
    scratch.unlink(missing_ok=True)
    try:
        try:
            scratch.symlink_to(os.path.relpath(blob, pointer.parent))
        except OSError:
            shutil.copyfile(blob, scratch)
        scratch.replace(pointer)
    finally:
        scratch.unlink(missing_ok=True)
