"""Responses through real servers: without delay, complete, at the client's pace."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from asgi_aiproxy.providers import ANTHROPIC, OPENAI
from tests.support.asgi_client import Answer
from tests.support.scripted_upstream import chat_answer, chat_stream, sse
from tests.support.served_gateway import HEAD, chunked, gateway
from tests.support.servers import HYPERCORN_WAITS, Server
from tests.support.socket_client import CHAT, HI
from tests.support.socket_server import PATIENCE, Handler, Line, again

pytestmark = pytest.mark.anyio

JSON = "Content-Type: application/json"
WORDS = ("one ", "two ", "three ", "four")


def whole(*events: bytes) -> Handler:
    """Answers every request with this stream."""

    async def handler(line: Line) -> None:
        while True:
            await line.request()
            await line.send(HEAD, chunked(*events, end=True))

    return handler


def events_in(body: bytes) -> list[Any]:
    return Answer(200, [], body).events


def text_of(body: bytes) -> str:
    choices = [c for e in events_in(body) if isinstance(e, dict) for c in e.get("choices", ())]
    return "".join(choice["delta"].get("content") or "" for choice in choices)


def claude(*words: str) -> list[bytes]:
    """A stream in Anthropic's format, one event per piece."""
    use = {"input_tokens": 9, "output_tokens": 1}
    message = {"id": "m", "type": "message", "role": "assistant", "model": "c", "content": []}
    block = {"type": "text", "text": ""}
    said: list[dict[str, Any]] = [
        {"type": "message_start", "message": {**message, "usage": use}},
        {"type": "content_block_start", "index": 0, "content_block": block},
        *(
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": w}}
            for w in words
        ),
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": use},
        {"type": "message_stop"},
    ]
    return [b"event: %b\n%b" % (e["type"].encode(), sse(e)[0]) for e in said]


# ── as it comes ──────────────────────────────────────────────────────────────


@pytest.mark.parametrize("vendor", ["same dialect", "translated"])
async def test_each_word_arrives_before_the_next_is_sent(server: Server, vendor: str) -> None:
    heard = asyncio.Event()
    native = vendor == "same dialect"
    events = chat_stream(*WORDS) if native else claude(*WORDS)

    async def handler(line: Line) -> None:
        await line.request()
        await line.send(HEAD)
        for event in events:
            await line.send(chunked(event))
            if any(word.encode() in event for word in WORDS):
                await heard.wait()
                heard.clear()
        await line.send(chunked(end=True))

    provider = OPENAI if native else ANTHROPIC
    async with gateway(server, handler, provider=provider) as place:
        caller = await place.caller()
        caller.chat(stream=True)
        head = await caller.head()
        assert head.header("content-type") == "text/event-stream; charset=utf-8"
        body = b""
        for word in WORDS:
            body += await caller.until(word.encode())
            heard.set()
        body += await caller.rest()
        assert (text_of(body), events_in(body)[-1]) == ("".join(WORDS), "[DONE]")
        assert (await place.recorded()).outcome == "done"


async def test_silence_is_filled_with_comments_between_whole_events(server: Server) -> None:
    spoken = asyncio.Event()

    async def handler(line: Line) -> None:
        await line.request()
        await spoken.wait()
        spoken.clear()
        first, second, *rest = chat_stream(*WORDS)
        await line.send(HEAD, chunked(first, second))
        await spoken.wait()
        await line.send(chunked(*rest, end=True))

    async with gateway(server, handler, keepalive_seconds=0.06) as place:
        caller = await place.caller()
        caller.chat(stream=True)
        assert (await caller.head()).status == 200
        body = await caller.until(b":") + await caller.until(b":")
        spoken.set()
        body += await caller.until(WORDS[0].encode())
        body += await caller.until(b"\n: ") if b"\n: " not in body[-20:] else b""
        spoken.set()
        body += await caller.rest()
        blocks = body.decode().split("\n\n")[:-1]
        comments = [block for block in blocks if block.startswith(":")]
        assert len(comments) >= 3
        assert all("\n" not in comment for comment in comments)
        assert text_of(body) == "".join(WORDS)
        assert blocks[-1] == "data: [DONE]"
        assert (await place.recorded()).outcome == "done"


async def test_a_client_that_reads_slowly_slows_the_provider_and_gets_everything(
    server: Server,
) -> None:
    word = "x" * 50_000
    event = chunked(chat_stream(word)[1])
    count = 450  # 22 MB
    sent = 0
    full = asyncio.Event()

    async def handler(line: Line) -> None:
        nonlocal sent
        await line.request()
        await line.send(HEAD)
        for _ in range(count):
            try:
                async with asyncio.timeout(0.3):
                    await line.send(event)
            except TimeoutError:
                full.set()
                await line.writer.drain()
            sent += len(event)
        await line.send(chunked(*chat_stream()[1:], end=True))

    async with gateway(server, handler) as place:
        caller = await place.caller(window=4096)
        caller.chat(stream=True)
        await caller.head()
        async with asyncio.timeout(PATIENCE):
            await full.wait()
        assert sent < 16e6  # what the kernel's buffers of two connections take, and a little
        size = 0
        tail = b""
        while data := await caller.piece():
            size += len(data)
            tail = data[-100:] if len(data) >= 100 else (tail + data)[-100:]
        assert size > count * len(word)
        assert tail.endswith(b"data: [DONE]\n\n")
        assert (await place.recorded()).outcome == "done"


# ── all sorts of clients ─────────────────────────────────────────────────────


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_a_client_of_http_1_0_gets_its_answer(server: Server, stream: bool) -> None:
    handler = whole(*chat_stream(*WORDS)) if stream else again(chat_answer("Hello"), JSON)
    async with gateway(server, handler) as place:
        caller = await place.caller()
        body = json.dumps({**HI, "stream": stream}).encode()
        caller.say(
            b"POST %b HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
            % (CHAT.encode(), len(body), body)
        )
        answer = await caller.answer()
        assert answer.status == 200
        if not server.name.startswith("uvicorn"):  # which sends it chunks all the same
            assert answer.header("transfer-encoding") is None
        if stream:
            assert (text_of(answer.body), answer.events[-1]) == ("".join(WORDS), "[DONE]")
        else:
            assert answer.json["choices"][0]["message"]["content"] == "Hello"
        assert (await place.recorded()).outcome == "done"


async def test_a_body_in_chunks_and_one_that_waits_for_a_100_are_read(server: Server) -> None:
    async with gateway(server, again(chat_answer("Hello"), JSON)) as place:
        body = json.dumps(HI).encode()
        lead = f"POST {CHAT} HTTP/1.1\r\nHost: a\r\n{JSON}\r\n".encode()
        caller = await place.caller()
        caller.say(lead + b"Transfer-Encoding: chunked\r\n\r\n")
        caller.say(chunked(body[:10], body[10:], end=True))
        assert (await caller.answer()).status == 200
        caller.say(lead + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(body))
        async with asyncio.timeout(PATIENCE):
            interim = await caller.reader.readuntil(b"\r\n\r\n")
        assert interim.startswith(b"HTTP/1.1 100")
        caller.say(body)
        assert (await caller.answer()).status == 200
        await place.recorded(2)


async def test_head_and_options_are_answered_and_the_connection_goes_on(server: Server) -> None:
    async with gateway(server, again(chat_answer("Hello"), JSON)) as place:
        caller = await place.caller()
        for method in ("HEAD", "OPTIONS", "PUT"):
            caller.ask(method, CHAT)
            answer = await caller.answer(method)
            assert answer.status == 405, method
            if method != "HEAD":
                assert answer.json["error"]["type"] == "invalid_request_error"
        caller.ask("HEAD", "/v1/models")
        listed = await caller.answer("HEAD")
        assert (listed.status, listed.body) == (200, b"")
        caller.chat()
        assert (await caller.answer()).status == 200
        await place.recorded()


async def test_requests_that_come_all_at_once_are_answered_in_order(server: Server) -> None:
    async with gateway(server, again(chat_answer("Hello"), JSON), wait=5.0) as place:
        caller = await place.caller()
        caller.chat()
        caller.chat(messages=5)
        caller.ask("GET", "/v1/models/m")
        caller.chat()
        found = [(await caller.answer()).status for _ in range(4)]
        assert found == [200, 400, 200, 200]
        await place.recorded(2)


async def test_a_request_that_waits_behind_a_stream_is_not_a_disconnect(server: Server) -> None:
    """More data from the client on the same connection is not a disconnect."""
    requested = asyncio.Event()

    async def handler(line: Line) -> None:
        while True:
            await line.request()
            first, second, *rest = chat_stream(*WORDS)
            await line.send(HEAD, chunked(first, second))
            await requested.wait()
            await asyncio.sleep(0.05)  # so that the gateway has read what else came
            await line.send(chunked(*rest, end=True))

    async with gateway(server, handler, wait=5.0) as place:
        caller = await place.caller()
        caller.chat(stream=True)
        assert (await caller.head()).status == 200
        first = await caller.until(WORDS[0].encode())
        caller.chat(stream=True)
        requested.set()
        first += await caller.rest()
        second = await caller.answer()
        assert text_of(first) == text_of(second.body) == "".join(WORDS)
        assert (await place.recorded(2)).outcome == "done"


async def test_a_connection_goes_on_after_an_error(server: Server) -> None:
    async with gateway(server, again(chat_answer("Hello"), JSON), max_body=10_000) as place:
        caller = await place.caller()
        for body, path, status in [
            (b"{", CHAT, 400),
            (HI, "/v1/nothing", 404),
            ({"messages": []}, CHAT, 400),
        ]:
            caller.post(body, path)
            assert (await caller.answer()).status == status
        caller.chat()
        assert (await caller.answer()).status == 200
        await place.recorded()


async def test_a_body_above_the_limit_is_refused_before_it_has_arrived(server: Server) -> None:
    async with gateway(server, again(chat_answer("Hello"), JSON), max_body=10_000) as place:
        caller = await place.caller()
        caller.post(b"{", length=50_000_000)
        answer = await caller.answer()
        assert answer.status == 413
        assert answer.json["error"]["message"].endswith("larger than 10000 bytes.")
        another = await place.caller()
        another.chat()
        assert (await another.answer()).status == 200
        await place.recorded()


# ── providers that die ───────────────────────────────────────────────────────

DEATHS = ["it closes", "it resets", "it ends as if whole", "it talks nonsense"]


def dying(death: str, *said: bytes) -> Handler:
    async def handler(line: Line) -> None:
        await line.request()
        await line.send(*said)
        await asyncio.sleep(0.02)  # so that what was said is read before a reset drops it
        if death == "it resets":
            line.reset()
        elif death == "it ends as if whole":
            await line.send(chunked(end=True))
            await line.gone()
        elif death == "it talks nonsense":
            await line.send(b"zzz\r\n")
            await line.gone()

    return handler


@pytest.mark.parametrize("death", DEATHS)
@pytest.mark.parametrize("vendor", ["same dialect", "translated"])
async def test_a_provider_failure_in_mid_stream_is_an_error_in_the_stream(
    server: Server, vendor: str, death: str
) -> None:
    native = vendor == "same dialect"
    events = chat_stream("Hel")[:2] if native else claude("Hel")[:3]
    handler = dying(death, HEAD + chunked(*events))
    async with gateway(server, handler, provider=OPENAI if native else ANTHROPIC) as place:
        caller = await place.caller()
        caller.chat(stream=True)
        answer = await caller.answer()
        assert answer.status == 200
        *_, last = answer.events
        assert set(last) == {"error"}
        assert last["error"]["message"]
        assert b"[DONE]" not in answer.body
        assert text_of(answer.body) == "Hel"
        record = await place.recorded()
        assert record.outcome == "failed"
        caller.ask("GET", "/v1/models/m")  # the connection itself is well
        assert (await caller.answer()).status == 200


@pytest.mark.parametrize("death", ["it closes", "it resets", "it talks nonsense"])
async def test_a_provider_failure_in_a_whole_response_is_a_502(server: Server, death: str) -> None:
    head = (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    async with gateway(server, dying(death, head + chunked(b'{"id":')), attempts=1) as place:
        caller = await place.caller()
        caller.chat()
        answer = await caller.answer()
        assert answer.status == 502
        assert answer.json["error"]["message"]
        assert (await place.recorded()).outcome == "failed"


async def test_audio_that_breaks_off_is_not_a_complete_response(server: Server) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: audio/mpeg\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with gateway(server, dying("it closes", head + chunked(b"la la"))) as place:
        caller = await place.caller()
        caller.post({"model": "m", "input": "x", "voice": "v"}, "/v1/audio/speech")
        assert (await caller.head()).status == 200
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await caller.rest()
        assert (await place.recorded()).outcome == "failed"


# ── servers that stop ────────────────────────────────────────────────────────


async def test_a_stopping_server_lets_a_stream_finish(server: Server) -> None:
    stopping = asyncio.Event()

    async def handler(line: Line) -> None:
        await line.request()
        first, second, *rest = chat_stream(*WORDS)
        await line.send(HEAD, chunked(first, second))
        await stopping.wait()
        await asyncio.sleep(0.1)
        await line.send(chunked(*rest, end=True))

    async with gateway(server, handler, grace=4.0) as place:
        caller = await place.caller()
        caller.chat(stream=True)
        await caller.head()
        body = await caller.until(WORDS[0].encode())
        place.running.stop()
        stopping.set()
        body += await caller.rest()
        assert (text_of(body), events_in(body)[-1]) == ("".join(WORDS), "[DONE]")
        await place.recorded()
        await asyncio.wait_for(asyncio.shield(place.running.task), PATIENCE)


async def test_a_server_that_stops_waits_no_longer_than_configured_for_an_endless_stream(
    server: Server,
) -> None:
    if server.name == "granian":
        pytest.skip("it waits indefinitely, or is killed without a message to its app")
    if server.name == "hypercorn" and HYPERCORN_WAITS:
        pytest.skip("from Python 3.12 on it waits until its clients have left")

    async def handler(line: Line) -> None:
        await line.request()
        await line.send(HEAD, chunked(*chat_stream(*WORDS)[:2]))
        await line.gone()

    async with gateway(server, handler, grace=1.0) as place:
        caller = await place.caller()
        caller.chat(stream=True)
        await caller.head()
        await caller.until(WORDS[0].encode())
        place.running.stop()
        await asyncio.wait_for(asyncio.shield(place.running.task), PATIENCE)
        assert (await place.recorded()).outcome == "cut"
        await place.wire.opened(0)
