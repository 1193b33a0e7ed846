"""What the tests of single parts share: a client of the store."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from beatd.store.client import connect


@pytest.fixture
def client(redis_url: str) -> Iterator[Any]:
    """The store's client of the shared server, which is empty."""
    with connect(redis_url) as client:
        yield client
