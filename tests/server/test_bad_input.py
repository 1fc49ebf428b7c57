"""Invalid input at real servers: an error in OpenAI's format, and the connection continues."""

from __future__ import annotations

import json
from typing import Any

import pytest

from asgi_aiproxy.providers import ANTHROPIC, GEMINI, OPENAI
from asgi_aiproxy.providers.base import Provider
from tests.support.scripted_upstream import chat_answer, chat_stream, sse
from tests.support.served_gateway import HEAD, SECRET, Gateway, chunked, gateway
from tests.support.servers import SERVERS, Server
from tests.support.socket_client import CHAT, HI, Caller
from tests.support.socket_server import Handler, Line, again

pytestmark = pytest.mark.anyio

JSON = "Content-Type: application/json"
BASES = {"openai": "{url}/v1", "anthropic": "{url}", "gemini": "{url}"}
VENDORS = pytest.mark.parametrize("vendor", [OPENAI, ANTHROPIC, GEMINI], ids=lambda v: v.name)

MESSAGE = {"role": "user", "content": "Hi"}
DEEP = b"[" * 10**6 + b"]" * 10**6
DEEP_OBJECTS = b'{"a":' * 10_000 + b"1" + b"}" * 10_000


def chat(**members: Any) -> bytes:
    return json.dumps({**HI, **members}).encode()


# name, body, status, param
BAD: list[tuple[str, bytes, int, str | None]] = [
    ("empty", b"", 400, None),
    ("not JSON", b"{not json", 400, None),
    ("cut off", chat()[:-5], 400, None),
    ("a list", b"[]", 400, None),
    ("a string", b'"hello"', 400, None),
    ("null", b"null", 400, None),
    ("two documents", chat() + chat(), 400, None),
    ("not UTF-8", b'{"model":"m","messages":[{"role":"user","content":"\xff\xfe"}]}', 400, None),
    ("half a surrogate pair", b'{"model":"m","messages":[{"content":"\\ud83d"}]}', 400, None),
    ("the same in the model's name", b'{"model":"\\ud83d","messages":[]}', 400, None),
    ("nested lists", b'{"model":"m","messages":' + DEEP + b"}", 400, None),
    ("nested objects", b'{"model":"m","messages":[' + DEEP_OBJECTS + b"]}", 400, None),
    ("nested beside", b'{"model":"m","messages":[],"x":' + DEEP + b"}", 400, None),
    ("no model", json.dumps({"messages": [MESSAGE]}).encode(), 400, "model"),
    ("a model that is a number", chat(model=5), 400, "model"),
    ("an empty model", chat(model=""), 400, "model"),
    ("no messages", b'{"model":"m"}', 400, "messages"),
    ("messages that are a string", chat(messages="Hi"), 400, "messages"),
    ("messages that are null", chat(messages=None), 400, "messages"),
    ("stream that is a word", chat(stream="yes"), 400, "stream"),
    ("options that are a list", chat(stream=True, stream_options=[]), 400, "stream_options"),
]


def good(vendor: Provider) -> Handler:
    """A provider that answers every request in its format."""
    use = {"input_tokens": 1, "output_tokens": 1}
    claude = {"id": "m", "type": "message", "role": "assistant", "model": "c", "usage": use}
    parts = [{"text": "Hello"}]
    body: dict[str, bytes] = {
        "openai": chat_answer("Hello"),
        "anthropic": json.dumps(
            {
                **claude,
                "content": [{"type": "text", "text": "Hello"}],
                "stop_reason": "end_turn",
            }
        ).encode(),
        "gemini": json.dumps(
            {
                "candidates": [
                    {"content": {"role": "model", "parts": parts}, "finishReason": "STOP"}
                ],
                "usageMetadata": {"promptTokenCount": 1, "candidatesTokenCount": 1},
            }
        ).encode(),
    }
    return again(body[vendor.name], JSON)


async def error_message(caller: Caller, status: int, param: str | None = None) -> str:
    """Return the message of an error that has exactly OpenAI's format."""
    answer = await caller.answer()
    assert answer.status == status, answer.body
    assert answer.header("content-type") == "application/json"
    error = answer.json.pop("error")
    assert set(error) == {"message", "type", "param", "code"}
    assert isinstance(error["message"], str)
    assert error["message"]
    assert isinstance(error["type"], str)
    assert error["param"] == param, error
    assert SECRET not in answer.body.decode()
    message: str = error["message"]
    return message


async def still_serves(place: Gateway) -> None:
    caller = await place.caller()
    caller.chat()
    answer = await caller.answer()
    assert answer.status == 200
    assert answer.json["choices"][0]["message"]["content"] == "Hello"
    assert [key.in_flight for key in await place.pool.status()] == [0]


@VENDORS
async def test_a_bad_body_is_refused_with_the_field_and_the_next_request_is_served(
    server: Server, vendor: Provider
) -> None:
    base = BASES[vendor.name]
    async with gateway(server, good(vendor), provider=vendor, base=base) as place:
        for name, body, status, param in BAD:
            caller = await place.caller()
            caller.post(body)
            try:
                await error_message(caller, status, param)
            except AssertionError as error:
                raise AssertionError(name) from error
        await still_serves(place)


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/embeddings", "/v1/moderations"])
async def test_other_paths_refuse_bad_bodies_in_the_same_way(server: Server, path: str) -> None:
    async with gateway(server, again(chat_answer("Hello"), JSON)) as place:
        for body in (b"", b"{", b"[]", DEEP, b'{"model":7}', b'{"model":"m","input":"\xff"}'):
            caller = await place.caller()
            caller.post(body, path)
            answer = await caller.answer()
            assert answer.status == 400, (body[:20], answer.body)
            assert set(answer.json["error"]) == {"message", "type", "param", "code"}
        await still_serves(place)


async def test_a_form_without_its_parts_is_a_400_or_a_415(server: Server) -> None:
    form = "Content-Type: multipart/form-data; boundary=cut"
    rows = [
        (form, b"", 400),
        (form, b"nonsense", 400),
        (form, b"--cut\r\n" + b"x" * 50_000, 400),
        ("Content-Type: multipart/form-data", b"--cut--", 415),
        ("Content-Type: text/plain", b"hello", 415),
    ]
    async with gateway(server, again(chat_answer("Hello"), JSON)) as place:
        for header, body, status in rows:
            caller = await place.caller()
            caller.post(body, "/v1/audio/transcriptions", header)
            answer = await caller.answer()
            assert answer.status == status, (header, body[:20], answer.body)
            assert answer.json["error"]["type"] == "invalid_request_error"
        await still_serves(place)


@pytest.mark.parametrize("announced", [True, False], ids=["announced", "in chunks"])
async def test_a_body_above_the_limit_is_a_413(server: Server, announced: bool) -> None:
    async with gateway(server, again(chat_answer("Hello"), JSON), max_body=50_000) as place:
        caller = await place.caller()
        body = chat(user="x" * 200_000)
        if announced:
            caller.post(body)
        else:
            lead = (
                f"POST {CHAT} HTTP/1.1\r\nHost: a\r\n{JSON}\r\nTransfer-Encoding: chunked\r\n\r\n"
            )
            pieces = [body[at : at + 10_000] for at in range(0, len(body), 10_000)]
            caller.say(lead.encode() + chunked(*pieces, end=True))
        assert "50000" in await error_message(caller, 413)
        await still_serves(place)


async def test_an_unknown_model_is_a_404_that_names_it(server: Server) -> None:
    async with gateway(server, again(chat_answer("Hello"), JSON), models=("m",)) as place:
        caller = await place.caller()
        caller.chat(model="gpt-∞")
        assert "gpt-∞" in await error_message(caller, 404, "model")
        await place.recorded()
        await still_serves(place)


async def test_a_surrogate_in_a_response_reaches_the_client_unchanged(server: Server) -> None:
    event = sse("PLACE")[0].replace(b"PLACE", chat_stream("TEXT")[1][6:-2])
    event = event.replace(b"TEXT", b"half \\ud83d")
    first, _, *rest = chat_stream("x")

    async def handler(line: Line) -> None:
        await line.request()
        await line.send(HEAD, chunked(first, event, *rest, end=True))

    async with gateway(server, handler) as place:
        caller = await place.caller()
        caller.chat(stream=True)
        answer = await caller.answer()
        assert b"half \\ud83d" in answer.body
        assert answer.events[-1] == "[DONE]"
        assert (await place.recorded()).outcome == "done"


# ── providers ────────────────────────────────────────────────────────────────


async def test_a_line_of_five_megabytes_passes(server: Server) -> None:
    text = "x" * 5_000_000

    async def handler(line: Line) -> None:
        await line.request()
        await line.send(HEAD, chunked(*chat_stream(text), end=True))
        await line.request()
        await line.answer(chat_answer("Hello"), "200 OK", JSON)

    async with gateway(server, handler) as place:
        caller = await place.caller()
        caller.chat(stream=True)
        answer = await caller.answer()
        assert answer.events[1]["choices"][0]["delta"]["content"] == text
        assert answer.events[-1] == "[DONE]"
        await still_serves(place)


@pytest.mark.parametrize("vendor", [OPENAI, ANTHROPIC], ids=lambda v: v.name)
async def test_an_endless_line_is_an_error_and_ends_the_request_to_the_provider(
    server: Server, vendor: Provider
) -> None:
    async def handler(line: Line) -> None:
        await line.request()
        await line.send(HEAD, chunked(b"data: {"))
        while True:
            await line.send(chunked(b"x" * 250_000))

    async with gateway(
        server, handler, provider=vendor, base=BASES[vendor.name], attempts=1
    ) as place:
        caller = await place.caller()
        caller.chat(stream=True)
        answer = await caller.answer()
        error = answer.json["error"] if answer.status != 200 else answer.events[-1]["error"]
        assert error["message"]
        assert b"[DONE]" not in answer.body
        assert len(answer.body) < 1000
        assert (await place.recorded()).outcome == "failed"
        await place.wire.opened(0)


PAGE = b"<!DOCTYPE html><html><head><title>Blocked</title></head><body>Ray ID</body></html>"


@VENDORS
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("status", ["200 OK", "403 Forbidden", "502 Bad Gateway"])
async def test_an_html_response_is_an_error_without_its_page(
    server: Server, vendor: Provider, stream: bool, status: str
) -> None:
    async def handler(line: Line) -> None:
        while True:
            await line.request()
            await line.answer(PAGE, status, "Content-Type: text/html; charset=utf-8")

    base = BASES[vendor.name]
    async with gateway(server, handler, provider=vendor, base=base, attempts=1) as place:
        caller = await place.caller()
        caller.chat(stream=stream)
        message = await error_message(caller, 502)
        assert "<" not in message
        assert (await place.recorded()).outcome == "failed"


ODD: list[tuple[str, bytes]] = [
    ("nothing", b""),
    ("no HTTP", b"SSH-2.0-OpenSSH_9.2\r\n"),
    ("an invalid status", b"HTTP/1.1 abc\r\n\r\n"),
    ("an invalid length", b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n{}"),
    ("two lengths", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}"),
    ("half a head", b"HTTP/1.1 200 OK\r\nContent-"),
    ("too little", b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{}"),
    ("an empty body", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ("a list", b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n[]"),
    ("deep", b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n" + DEEP),
    ("a head without end", b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 50_000),
]


@pytest.mark.parametrize(("name", "said"), ODD, ids=[name for name, _ in ODD])
@pytest.mark.parametrize("vendor", [OPENAI, ANTHROPIC], ids=lambda v: v.name)
async def test_an_invalid_http_response_is_a_502(vendor: Provider, name: str, said: bytes) -> None:
    async def handler(line: Line) -> None:
        await line.request()
        await line.send(said)

    async with gateway(
        SERVERS[0], handler, provider=vendor, base=BASES[vendor.name], attempts=1
    ) as place:
        caller = await place.caller()
        caller.chat()
        await error_message(caller, 502)
        assert (await place.recorded()).outcome == "failed"
