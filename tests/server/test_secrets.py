"""Secrets never appear in responses, logs, usage records, reprs or on the screen."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from collections.abc import Iterable
from typing import Any

import pytest

from asgi_aiproxy import (
    Authenticate,
    Key,
    KeyPool,
    OpenAIShim,
    ProviderRouter,
    Timeouts,
    UsageRecord,
    log_usage,
    tee,
)
from asgi_aiproxy.middleware import static_tokens
from asgi_aiproxy.providers import ANTHROPIC, GEMINI, OPENAI
from asgi_aiproxy.providers.base import Provider
from asgi_aiproxy.upstream import HttpxTransport, ReqwestTransport, SocketTransport
from asgi_aiproxy.upstream.connect import parse_destination
from tests.server.test_answers import claude
from tests.support.scripted_upstream import chat_answer, chat_stream, sse
from tests.support.served_gateway import HEAD, chunked
from tests.support.servers import SERVERS
from tests.support.socket_client import CHAT, Caller
from tests.support.socket_server import Line, Wire, closed_port

pytestmark = pytest.mark.anyio

KEY, OWN, TOKEN, USER, PASSWORD = (
    f"{word}-SENTINEL-0a1b2c3d" for word in ("sk-key", "sk-own", "token", "user", "password")
)
PROXY = f"{USER}:{PASSWORD}"
PROXY_URL = f"http://{PROXY}@127.0.0.1:3128"
BASIC = base64.b64encode(PROXY.encode()).decode()
SECRETS = (KEY, OWN, TOKEN, PASSWORD, BASIC, "SENTINEL-0a1b2c3d")

JSON = "Content-Type: application/json"

# What the provider does, by a word of the request.
STATUS = {
    "400": "400 Bad Request",
    "401": "401 Unauthorized",
    "403": "403 Forbidden",
    "404": "404 Not Found",
    "429": "429 Too Many Requests",
    "500": "500 Internal Server Error",
    "503": "503 Service Unavailable",
}
FATES = [
    *STATUS,
    *("answers", "quotes", "page", "redirects", "dies", "hangs", "leaves", "headers", "nonsense"),
]


async def provider(line: Line) -> None:
    """Quotes everything that it received, in every possible place."""
    request = await line.request()
    reported = "\n".join(f"{name}: {value}" for name, value in request.headers)
    key = next(value for _, value in request.headers if "SENTINEL" in value).split(" ")[-1]
    message = f"Incorrect API key provided: {key}."
    wrong = json.dumps({"type": "error", "error": {"message": message, "type": "t", "code": "c"}})
    word = next(word for word in FATES if f"fate {word}".encode() in request.body)
    streamed = b'"stream":true' in request.body.replace(b" ", b"") or "stream" in request.line
    if word in STATUS:
        await line.answer(wrong.encode(), STATUS[word], JSON, f"x-request-id: r-{word}")
    elif word == "page":
        await line.answer(f"<html>{reported}</html>".encode(), "200 OK", "Content-Type: text/html")
    elif word == "redirects":
        await line.answer(b"", "302 Found", f"Location: https://vendor.example/?key={key}")
    elif word == "nonsense":
        await line.send(f"{reported}\r\n\r\n".encode())
    elif word == "headers":
        quoted = f"x-api-key: {key}\r\nset-cookie: k={key}\r\nserver: {key}"
        await line.answer(chat_answer("Hello"), "200 OK", JSON, quoted)
    elif word in ("hangs", "leaves"):
        await line.gone()
    elif not streamed:
        body = wrong.encode() if word == "quotes" else chat_answer("Hello")
        await line.answer(body if word != "dies" else body[:9], "200 OK", JSON)
    else:
        begun = claude("Hel")[:3] if "messages" in request.line else chat_stream("Hel")[:2]
        if word == "quotes":
            begun += [b"event: error\n" + sse(json.loads(wrong))[0]]
        elif word == "answers":
            begun = claude("Hel") if "messages" in request.line else chat_stream("Hel")
        await line.send(HEAD, chunked(*begun, end=word == "answers"))


async def proxy(line: Line) -> None:
    """An outbound proxy that refuses, and quotes what it received."""
    head = await line.head()
    reported = "\n".join(f"{name}: {value}" for name, value in head.headers)
    quoted = f"Proxy-Authenticate: Basic realm={BASIC}"
    await line.answer(f"{reported} {PASSWORD}".encode(), "407 No", quoted)


TRANSPORTS = pytest.mark.parametrize(
    "make", [SocketTransport, ReqwestTransport, HttpxTransport], ids=lambda make: make.__name__
)


@TRANSPORTS
async def test_no_secret_is_shown_whatever_happens(
    make: Any, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    records: list[UsageRecord] = []
    seen: list[str] = []  # all that came out

    async def sink(record: UsageRecord) -> None:
        records.append(record)

    async with Wire(provider) as wire, Wire(proxy) as through:
        with closed_port() as unknown:
            targets = {
                "openai": (OPENAI, wire.url + "/v1", None),
                "anthropic": (ANTHROPIC, wire.url, None),
                "gemini": (GEMINI, wire.url, None),
                "proxied": (OPENAI, wire.url, f"http://{PROXY}@127.0.0.1:{through.port}"),
                "tunnelled": (
                    OPENAI,
                    wire.url.replace("http:", "https:"),
                    f"http://{PROXY}@127.0.0.1:{through.port}",
                ),
                "socks": (OPENAI, wire.url, f"socks5://{PROXY}@127.0.0.1:{through.port}"),
                "gone": (OPENAI, wire.url, f"http://{PROXY}@127.0.0.1:{unknown}"),
                "no-tls": (OPENAI, wire.url.replace("http:", "https:"), None),
                "nowhere": (OPENAI, f"http://{PROXY}@127.0.0.1:{unknown}/v1", None),
            }
            limits = Timeouts(first=0.1, idle=0.1, connect=2.0)
            transport = make(timeouts=limits)
            pools, providers = [], []
            for name, (row, base, way) in targets.items():
                keys = [Key(KEY, id="1", proxy=way), Key(KEY + "-2", id="2", proxy=way)]
                pools.append(KeyPool(keys, name=name))
                providers.append(row.using(pools[-1], name=name, base_url=base))
            router = ProviderRouter({p.name: p for p in providers})
            shim = OpenAIShim(
                router,
                transport=transport,
                record=tee(sink, log_usage),
                timeouts=limits,
                attempts=1,
                allow_client_keys=True,
            )
            app = Authenticate(shim, verify=static_tokens({TOKEN: "team"}))
            async with SERVERS[0](app) as running:
                for name in targets:
                    words = FATES if name in ("openai", "anthropic", "gemini") else ["answers"]
                    for ask in _requests(name, words):
                        await _report(running.port, ask, seen)
                        for pool in pools:
                            for key in ("1", "2"):
                                await pool.enable(key)
                for bad in _bad():
                    await _report(running.port, bad, seen)
                await shim._recorder.drain()
                seen += [repr(each) for each in (app, shim, router, transport, *pools, *providers)]
                seen += [repr(pool.key_set.states["1"].key) for pool in pools]
                seen += [repr(parse_destination(p.base_url, PROXY_URL)) for p in providers]
            await transport.aclose()

    assert len(records) > 80
    seen += [repr(record) for record in records]
    # At this level httpcore, of httpx, writes down the headers of answers for itself.
    logged = [line for line in caplog.text.splitlines() if "httpcore" not in line]
    assert any("refused key" in line for line in logged)
    seen += [*logged, *map(str, capfd.readouterr())]
    for secret in SECRETS:
        for text in seen:
            assert secret not in text, text[max(0, text.find(secret) - 400) :][:800]
    assert len(wire.lines) > 10
    assert len(through.lines) > 2


Ask = tuple[list[str], Any, bool]  # headers, body, and whether the caller leaves


def _requests(model: str, words: Iterable[str]) -> Iterable[Ask]:
    for word in words:
        for stream in (False, True):
            for own in (False, True) if word in ("401", "quotes", "answers") else (False,):
                headers = [f"Authorization: Bearer {TOKEN}", f"Cookie: session={TOKEN}"]
                headers += [f"x-provider-key: {OWN}"] if own else []
                message = {"role": "user", "content": f"fate {word}"}
                body = {"model": model, "messages": [message], "stream": stream}
                yield headers, body, word == "leaves"


def _bad() -> Iterable[Ask]:
    """Requests of unknown callers, and invalid requests."""
    body = {"model": "openai", "messages": [{"role": "user", "content": "fate answers"}]}
    yield [f"Authorization: Bearer {TOKEN}-not"], body, False
    yield [f"x-api-key: {OWN}"], body, False
    yield [f"Authorization: Bearer {TOKEN}"], b"{", False
    yield [f"Authorization: Bearer {TOKEN}", f"x-auth-id: {1}"], {**body, "messages": 1}, False


async def _report(port: int, ask: Ask, seen: list[str]) -> None:
    headers, body, leaves = ask
    caller = await Caller.to(port)
    caller.post(body, CHAT, *headers)
    if leaves:
        await asyncio.sleep(0.02)
    else:
        answer = await caller.answer()
        seen.append(f"{answer.status} {answer.headers} {answer.body.decode('utf-8', 'replace')}")
    caller.leave()


@pytest.mark.parametrize("vendor", [OPENAI, ANTHROPIC, GEMINI], ids=lambda vendor: vendor.name)
async def test_the_callers_credential_is_not_forwarded_or_shown(vendor: Provider) -> None:
    got: list[str] = []

    async def handler(line: Line) -> None:
        request = await line.request()
        got.append(f"{request.line} {request.headers} {request.body!r}")
        await line.answer(b"{}", "500 No", JSON)

    async with Wire(handler) as wire:
        shim = OpenAIShim(vendor.using(KEY, base_url=wire.url), attempts=1)
        app = Authenticate(shim, verify=static_tokens({TOKEN: "team"}))
        async with SERVERS[0](app) as running:
            for header in (f"Authorization: Bearer {TOKEN}", f"x-api-key: {TOKEN}"):
                caller = await Caller.to(running.port)
                more = [f"Cookie: a={TOKEN}", "X-Forwarded-For: 10.9.8.7", f"x-other: {TOKEN}"]
                messages = [{"role": "user", "content": "Hi"}]
                caller.post({"model": "m", "messages": messages, "user": "u"}, CHAT, header, *more)
                await caller.answer()
                caller.leave()
    assert len(got) == 2
    for each in got:
        assert TOKEN not in each
        assert "10.9.8.7" not in each
        assert each.count(KEY) == 1
