"""Fixtures for all tests."""

from __future__ import annotations

import pytest


@pytest.fixture
def anyio_backend() -> str:
    """All of this runs on asyncio, as the servers do."""
    return "asyncio"
