"""Fixtures for pytest: `pytest_plugins = ["asgi_aiproxy.testing.plugin"]` in a conftest.py."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from asgi_aiproxy.testing.provider import MockProvider
from asgi_aiproxy.testing.server import serve_in_thread


@pytest.fixture
def mock_provider() -> MockProvider:
    """A new mock provider."""
    return MockProvider()


@pytest.fixture
def mock_provider_url(mock_provider: MockProvider) -> Iterator[str]:
    """The base URL at which that mock provider is served."""
    with serve_in_thread(mock_provider) as url:
        yield url
