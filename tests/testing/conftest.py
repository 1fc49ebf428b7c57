"""A mock provider behind a real server, and a client of it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx2
import pytest

from asgi_aiproxy.testing import MockProvider, serve


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def site() -> AsyncIterator[tuple[MockProvider, str]]:
    mock = MockProvider()
    async with serve(mock) as url:
        yield mock, url


@pytest.fixture
def mock(site: tuple[MockProvider, str]) -> MockProvider:
    site[0].reset()
    return site[0]


@pytest.fixture
def url(site: tuple[MockProvider, str]) -> str:
    return site[1]


@pytest.fixture
async def client(mock: MockProvider, url: str) -> AsyncIterator[httpx2.AsyncClient]:
    headers = {"anthropic-version": "2023-06-01"}
    async with httpx2.AsyncClient(base_url=url, timeout=60, headers=headers) as client:
        yield client
