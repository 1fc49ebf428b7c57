"""The gateway called without a socket."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import httpx2
import openai
import pytest

from asgi_aiproxy import InProcessTransport, KeyPool, OpenAIShim
from asgi_aiproxy.keys import Key
from asgi_aiproxy.providers import OPENAI
from tests.support.scripted_upstream import Upstream, answers, chat_stream, streams

pytestmark = pytest.mark.anyio

HI: Any = [{"role": "user", "content": "Hi"}]


def sdk(app: Any) -> openai.AsyncOpenAI:
    client = httpx2.AsyncClient(transport=InProcessTransport(app))
    return openai.AsyncOpenAI(
        base_url="http://ai/v1", api_key="-", http_client=client, max_retries=0
    )


async def test_the_official_sdk_works_on_the_app_itself() -> None:
    app = OpenAIShim(OPENAI.using("sk"), transport=Upstream(answers()).transport)
    async with sdk(app) as client:
        answer = await client.chat.completions.create(model="m", messages=HI)
    assert answer.choices[0].message.content == "Hello"


async def test_a_stream_arrives_as_it_is_sent() -> None:
    first, second, *rest = chat_stream("Hel", "lo")
    seen: list[str] = []

    class Pieces(list[Any]):
        """Pieces that note when they are taken."""

        def __iter__(self) -> Iterator[Any]:
            for piece in super().__iter__():
                seen.append("sent")
                yield piece

    upstream = Upstream(streams())
    upstream.steps[0].pieces = Pieces([first, second, 0.05, *rest])  # type: ignore[union-attr]
    app = OpenAIShim(OPENAI.using("sk"), transport=upstream.transport)
    async with sdk(app) as client:
        stream = await client.chat.completions.create(model="m", messages=HI, stream=True)
        async for chunk in stream:
            seen += [choice.delta.content for choice in chunk.choices if choice.delta.content]
    assert seen.index("Hel") < len(seen) - 1 - seen[::-1].index("sent")
    assert "lo" in seen


@pytest.mark.parametrize("library", [httpx, httpx2], ids=["httpx", "httpx2"])
async def test_closing_a_stream_ends_the_request_to_the_provider(library: Any) -> None:
    upstream = Upstream(streams(*chat_stream("Hel")[:2], 30.0))
    pool = KeyPool([Key("sk", id="1")])
    app = OpenAIShim(OPENAI.using(pool), transport=upstream.transport)
    body = {"model": "m", "messages": HI, "stream": True}
    async with (
        library.AsyncClient(transport=InProcessTransport(app, root_path="/ai")) as client,
        client.stream("POST", "http://ai/v1/chat/completions", json=body) as response,
    ):
        assert response.status_code == 200
        async for line in response.aiter_lines():
            if "Hel" in line:
                break
    assert upstream.open == 0
    assert (await pool.status())[0].in_flight == 0


async def test_an_exception_of_the_app_reaches_the_caller() -> None:
    async def broken(scope: Any, receive: Any, send: Any) -> None:
        raise ZeroDivisionError("a bug")

    async with httpx.AsyncClient(transport=InProcessTransport(broken)) as client:
        with pytest.raises(ZeroDivisionError):
            await client.get("http://ai/")
