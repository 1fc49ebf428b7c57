"""A client of any API that leaves a real server, in every phase.

The provider and the key are let go, and there is one record. `test_leaving.py` has the same, and
more, for chat.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import Any

import pytest

from asgi_aiproxy import AIShim
from asgi_aiproxy.dialects import (
    ANTHROPIC_MESSAGES,
    GEMINI_CONTENT,
    OPENAI_COMPLETIONS,
    OPENAI_RESPONSES as RESPONSES_API,
)
from asgi_aiproxy.dialects.base import InboundDialect
from asgi_aiproxy.providers import ANTHROPIC, GEMINI, OPENAI, OPENAI_RESPONSES
from asgi_aiproxy.providers.base import Provider as ProviderAPI
from tests.dialects.unusual import anthropic, gemini, openai_chat, openai_responses
from tests.dialects.unusual.case import sse, typed
from tests.server.test_leaving import Note, Provider, check
from tests.support.served_gateway import HEAD, chunked, gateway
from tests.support.servers import SERVERS, UVLOOP, Server
from tests.support.socket_server import Line
from tests.support.waiting import until

pytestmark = pytest.mark.anyio


@dataclass(frozen=True)
class Face:
    """How a client of an API asks."""

    name: str
    dialect: InboundDialect
    path: str
    body: dict[str, Any]
    stream_path: str = ""

    def __str__(self) -> str:
        return self.name

    def ask(self, *, stream: bool) -> tuple[dict[str, Any], str]:
        if self.stream_path:
            return self.body, self.stream_path if stream else self.path
        return {**self.body, "model": "m", "stream": stream}, self.path


@dataclass(frozen=True)
class Vendor:
    """What a vendor sends: what comes before its first content, that, and the beginning of a call.

    `whole` is a response that is not streamed.
    """

    name: str
    api: ProviderAPI
    before: bytes
    content: bytes
    call: bytes
    whole: bytes

    def __str__(self) -> str:
        return self.name


CONTENTS = {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}]}
GENERATE, STREAM = ("/v1beta/models/m:generateContent", "/v1beta/models/m:streamGenerateContent")
HI = [{"role": "user", "content": "Hi"}]
FACES = [
    Face("responses", RESPONSES_API, "/v1/responses", {"input": "Hi"}),
    Face("messages", ANTHROPIC_MESSAGES, "/v1/messages", {"max_tokens": 9, "messages": HI}),
    Face("gemini", GEMINI_CONTENT, GENERATE, CONTENTS, STREAM + "?alt=sse"),
    Face("gemini-array", GEMINI_CONTENT, GENERATE, CONTENTS, STREAM),
    Face("completions", OPENAI_COMPLETIONS, "/v1/completions", {"prompt": "Hi"}),
]


def whole(module: Any) -> bytes:
    return next(case.data for case in module.CASES if case.name == "whole-plain")


VENDORS = [
    Vendor(
        "chat",
        replace(OPENAI, native_operations=frozenset({"chat"})),
        sse(openai_chat.ROLE),
        sse(openai_chat.text("Hello")),
        sse(openai_chat.calls(openai_chat.call(0, "call_a", "f", '{"a"'))),
        whole(openai_chat),
    ),
    Vendor(
        "responses",
        replace(OPENAI_RESPONSES, native_operations=frozenset({"responses"})),
        typed(*openai_responses.CREATED, *openai_responses.TEXT[:2]),
        typed(openai_responses.words("Hello")),
        typed(*openai_responses.at(1, *openai_responses.CALL[:2])),
        whole(openai_responses),
    ),
    Vendor(
        "anthropic",
        ANTHROPIC,
        typed(anthropic.begin(), anthropic.TEXT[0]),
        typed(anthropic.text("Hello")),
        typed(
            anthropic.close(),
            anthropic.block(1, **anthropic.USE),
            anthropic.json_piece('{"a"', 1),
        ),
        whole(anthropic),
    ),
    Vendor(
        "gemini",
        GEMINI,
        b": nothing yet\n\n",
        sse(gemini.chunk(gemini.text("Hello"))),
        sse(gemini.chunk(gemini.F)),
        whole(gemini),
    ),
]
EVERY_FACE = pytest.mark.parametrize("face", FACES, ids=str)
EVERY_VENDOR = pytest.mark.parametrize("vendor", VENDORS, ids=str)
WAYS = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])


def served(vendor: Vendor, provider: Any, server: Server = SERVERS[0], **options: Any) -> Any:
    return gateway(server, provider, provider=vendor.api, base="{url}/v1", shim=AIShim, **options)


@WAYS
@EVERY_FACE
async def test_while_it_waits_for_a_key(face: Face, stream: bool, record_property: Note) -> None:
    async with served(VENDORS[0], Provider(), wait=60.0) as place:
        caller = await place.caller()
        async with place.pool.lease():
            caller.post(*face.ask(stream=stream))
            await until(lambda: bool(place.pool.key_set.waiting))
            moment = caller.leave()
            await until(lambda: not place.pool.key_set.waiting)
        await check(place, moment, record_property)
    assert not place.wire.lines


@WAYS
@EVERY_VENDOR
@EVERY_FACE
async def test_while_it_waits_for_the_head(
    face: Face, vendor: Vendor, stream: bool, record_property: Note
) -> None:
    provider = Provider()
    async with served(vendor, provider) as place:
        caller = await place.caller()
        caller.post(*face.ask(stream=stream))
        await provider.reach()
        await check(place, caller.leave(), record_property, provider)


@EVERY_VENDOR
@EVERY_FACE
async def test_while_it_waits_for_the_first_content(
    face: Face, vendor: Vendor, record_property: Note
) -> None:
    provider = Provider(HEAD + chunked(vendor.before))
    async with served(vendor, provider) as place:
        caller = await place.caller()
        caller.post(*face.ask(stream=True))
        await provider.reach()
        await check(place, caller.leave(), record_property, provider)


@pytest.mark.parametrize("face", [f for f in FACES if f.dialect.keepalive is not None], ids=str)
async def test_while_it_is_kept_alive(face: Face, record_property: Note) -> None:
    provider = Provider()
    async with served(VENDORS[0], provider, keepalive_seconds=0.05) as place:
        caller = await place.caller()
        caller.post(*face.ask(stream=True))
        assert (await caller.head()).status == 200
        assert await caller.piece()
        await check(place, caller.leave(), record_property, provider)


@pytest.mark.parametrize("server", [*SERVERS, UVLOOP], ids=str)
@EVERY_FACE
async def test_in_mid_stream_on_every_server(
    server: Server, face: Face, record_property: Note
) -> None:
    await leave_in_mid_stream(server, face, VENDORS[2], record_property)


@pytest.mark.parametrize("reset", [False, True], ids=["closes", "resets"])
@EVERY_VENDOR
@EVERY_FACE
async def test_in_mid_stream(
    face: Face, vendor: Vendor, reset: bool, record_property: Note
) -> None:
    await leave_in_mid_stream(SERVERS[0], face, vendor, record_property, reset=reset)


@EVERY_VENDOR
@EVERY_FACE
async def test_in_mid_call(face: Face, vendor: Vendor, record_property: Note) -> None:
    """Some APIs have calls as a whole: their clients get nothing of it yet."""
    await leave_in_mid_stream(SERVERS[0], face, vendor, record_property, more=vendor.call)


async def leave_in_mid_stream(
    server: Server,
    face: Face,
    vendor: Vendor,
    note: Note,
    *,
    reset: bool = False,
    more: bytes = b"",
) -> None:
    provider = Provider(HEAD + chunked(vendor.before, vendor.content + more))
    async with served(vendor, provider, server) as place:
        caller = await place.caller()
        caller.post(*face.ask(stream=True))
        assert (await caller.head()).status == 200
        await caller.until(b"Hello")
        await check(place, caller.leave(reset=reset), note, provider)


@EVERY_VENDOR
@EVERY_FACE
async def test_while_the_body_of_a_whole_answer_comes(
    face: Face, vendor: Vendor, record_property: Note
) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    provider = Provider(head % len(vendor.whole) + vendor.whole[:20])
    async with served(vendor, provider) as place:
        caller = await place.caller()
        caller.post(*face.ask(stream=False))
        await provider.reach()
        await check(place, caller.leave(), record_property, provider)


@WAYS
@EVERY_FACE
async def test_while_a_failed_provider_is_about_to_be_tried_again(
    face: Face, stream: bool, record_property: Note
) -> None:
    refused = asyncio.Event()

    async def handler(line: Line) -> None:
        await line.request()
        await line.answer(b"{}", "503 Service Unavailable", "Content-Type: application/json")
        refused.set()
        await line.request()

    async with served(VENDORS[2], handler, backoff=60.0) as place:
        caller = await place.caller()
        caller.post(*face.ask(stream=stream))
        await refused.wait()
        await until(lambda: not place.pool.key_set.states["1"].in_flight)
        await asyncio.sleep(0.02)
        await check(place, caller.leave(), record_property)
        assert len(place.wire.lines) == 1
