"""The page that the tests of this process share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import ditzoo
from ditzoo_export import cached_bundle
from tests.support.page_server import PageServer, serving


@pytest.fixture(scope="session")
def page() -> Iterator[PageServer]:
    """The page. The export that its drawings use is in the cache already."""
    cached_bundle(ditzoo.card("dit-digits"))
    with serving() as server:
        yield server
