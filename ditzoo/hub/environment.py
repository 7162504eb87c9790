"""Checks the environment variables of the Hub's client before it reads them, and hides passwords in messages."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import urlsplit

from ditzoo.errors import UsageError, shortened, shown_path
from ditzoo.files import path_problem

_NUMBERS = ("HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT")
_FOLDERS = ("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "DITZOO_CACHE")
_TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
_PORTS = range(1, 65_536)


def check_environment() -> None:
    """Raises UsageError if a variable that ditzoo or the Hub's client reads is malformed, with the values that it takes."""
    for name in _NUMBERS:
        if (value := os.environ.get(name)) is not None and not re.fullmatch("[0-9]{1,6}", value):
            raise UsageError(f"{name} must be a whole number of seconds, not {value[:80]!r}; correct it, or unset it")
    for name in _FOLDERS:
        if value := os.environ.get(name):
            _check_folder(name, value)
    for name in _TOKENS:
        if not re.fullmatch("[!-~]*", os.environ.get(name, "").strip()):
            raise UsageError(f"{name} has characters that no token has; correct it, or unset it")
    endpoint = os.environ.get("HF_ENDPOINT")
    if endpoint is not None and not _is_server(endpoint):
        shown = without_password(endpoint)[:80]
        raise UsageError(
            f"HF_ENDPOINT must be the address of a server, such as https://huggingface.co, not {shown!r}; unset it"
        )


def _check_folder(name: str, value: str) -> None:
    if (problem := path_problem(value)) is not None:
        shown = repr(shortened(value))
        raise UsageError(f"{name} must be a folder, and {shown} cannot be one: {problem}; correct it, or unset it")
    if Path(value).exists() and not Path(value).is_dir():
        raise UsageError(f"{name} must be a folder, and {shown_path(value)} is not one; correct it, or unset it")


def without_password(text: str) -> str:
    """`text` without the user names and passwords of the addresses in it."""
    return re.sub(r"(?<=://)[^/@\s'\"]*(?:@[^/@\s'\"]*)*@", "", text)


def _is_server(address: str) -> bool:
    """Whether `address` is that of a server: http or https, a host, and perhaps a port and a path."""
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname) and (port is None or port in _PORTS)
