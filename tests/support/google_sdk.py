"""Google's SDK with the address of a test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from google import genai
from google.genai import types
from google.genai.client import AsyncClient


@asynccontextmanager
async def google_client(
    url: str, *, key: str = "k", version: str | None = None
) -> AsyncIterator[AsyncClient]:
    """The asynchronous client, closed at the end.

    An open client closes itself when it is garbage-collected, which may be in the event loop of a
    later test.
    """
    options = types.HttpOptions(base_url=url, api_version=version)
    with genai.Client(api_key=key, http_options=options) as client:
        async with client.aio as asynchronous:
            yield asynchronous
