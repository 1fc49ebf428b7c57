"""The ASGI apps under test, as factories; `BENCH_UPSTREAM` is the mock's base URL."""

from __future__ import annotations

import asyncio
import gc
import os
import random
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import msgspec
from pyreqwest.client import Client, ClientBuilder

from asgi_aiproxy.upstream import ReqwestTransport, Transport, UpstreamRequest, default_transport
from benchmarks import wire
from benchmarks.vendors import vendors

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

JSON = [(b"content-type", b"application/json")]
SSE = [(b"content-type", b"text/event-stream; charset=utf-8")]


def upstream() -> str:
    return os.environ["BENCH_UPSTREAM"]


# Ours.


def chat(transport: Transport | None = None) -> App:
    """OpenAI to OpenAI, with authentication, two keys and a usage record."""
    from asgi_aiproxy.providers import OPENAI

    return gateway(OPENAI.using(["sk-one", "sk-two"], base_url=f"{upstream()}/v1"), transport)


def claude(transport: Transport | None = None) -> App:
    """OpenAI to Anthropic."""
    from asgi_aiproxy.providers import ANTHROPIC

    return gateway(ANTHROPIC.using(["sk-one", "sk-two"], base_url=upstream()), transport)


def chat_pyreqwest() -> App:
    """As `chat`, over pyreqwest."""
    return chat(ReqwestTransport())


def claude_pyreqwest() -> App:
    """As `claude`, over pyreqwest."""
    return claude(ReqwestTransport())


def gateway(
    provider: Any, transport: Transport | None = None, record: Any = None, hooks: Any = ()
) -> App:
    from asgi_aiproxy.middleware.auth import Authenticate, static_tokens
    from asgi_aiproxy.shim import OpenAIShim

    async def nothing(usage: Any) -> None:
        pass

    shim = OpenAIShim(provider, transport=transport, record=record or nothing, hooks=hooks)
    return Authenticate(shim, verify=static_tokens({wire.TOKEN: "bench"}))


def observed() -> App:
    """As `chat`, with the telemetry that `BENCH_TELEMETRY` names, separated by commas.

    `metrics`; `logs`: JSON lines to a file; `traces=RATIO`: spans of this share of the calls, in
    batches, to an exporter that drops them.
    """
    from asgi_aiproxy import log_usage, tee
    from asgi_aiproxy.providers import OPENAI
    from asgi_aiproxy.telemetry.metrics import Metrics

    sinks: list[Any] = []
    hooks: list[Any] = []
    for wanted in os.environ["BENCH_TELEMETRY"].split(","):
        name, _, ratio = wanted.partition("=")
        if name == "metrics":
            sinks.append(Metrics().record)
        elif name == "logs":
            write_logs(os.devnull)
            sinks.append(log_usage)
        else:
            hooks.append(tracing(float(ratio)))
    record = tee(*sinks) if len(sinks) > 1 else sinks[0] if sinks else None
    provider = OPENAI.using(["sk-one", "sk-two"], base_url=f"{upstream()}/v1")
    return gateway(provider, record=record, hooks=hooks)


def write_logs(path: str) -> None:
    """Write log lines as `serve` does with `log_format = "json"`, to a file."""
    import logging

    from asgi_aiproxy.logs import BatchHandler

    logger = logging.getLogger("asgi_aiproxy")
    stream = open(path, "w")  # noqa: SIM115 (for as long as the process runs)
    logger.addHandler(BatchHandler(stream, format="json"))
    logger.setLevel(logging.INFO)


def tracing(ratio: float) -> Any:
    """Spans of this share of the calls."""
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

    from asgi_aiproxy.telemetry.tracing import Tracing

    class Dropped(SpanExporter):
        def export(self, spans: Any) -> SpanExportResult:
            return SpanExportResult.SUCCESS

    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(Dropped()))
    return Tracing(tracer_provider=provider, sampling_ratio=ratio)


def pairs() -> App:
    """Every client API, in front of the vendor's API that `BENCH_VENDOR` names."""
    from asgi_aiproxy import AIShim
    from asgi_aiproxy.middleware.auth import Authenticate, static_tokens

    async def record(usage: Any) -> None:
        pass

    vendor = vendors()[os.environ["BENCH_VENDOR"]]
    shim = AIShim(vendor.provider(upstream()), record=record)
    return Authenticate(shim, verify=static_tokens({wire.TOKEN: "bench"}))


def kept() -> App:
    """The same with a stored token and a ledger; `BENCH_STORE` is a Redis URL, else memory."""
    from asgi_aiproxy.principal import NO_LIMITS

    return stored(NO_LIMITS)


def limited() -> App:
    """And with limits: requests, concurrent requests, and a budget."""
    from asgi_aiproxy.principal import Budget, Limits

    return stored(Limits(rpm=10**9, concurrency=10**6, budgets=(Budget(2**52),)))


def many() -> App:
    """The same as `limited`, with 100,000 tokens in the store and 10,000 keys in the pool."""
    from asgi_aiproxy.principal import Budget, Limits

    limits = Limits(rpm=10**9, concurrency=10**6, budgets=(Budget(2**52),))
    return stored(limits, tokens=100_000, keys=10_000)


def stored(limits: Any, *, tokens: int = 1, keys: int = 2) -> App:
    from asgi_aiproxy.accounts.token import Token, parse_token
    from asgi_aiproxy.accounts.tokens import Tokens
    from asgi_aiproxy.middleware import Authenticate, Quota, stored_tokens
    from asgi_aiproxy.prices import Price, Prices
    from asgi_aiproxy.providers import OPENAI
    from asgi_aiproxy.shim import OpenAIShim
    from asgi_aiproxy.stores import MemoryStore
    from asgi_aiproxy.stores.redis import RedisStore
    from asgi_aiproxy.usage.ledger import Ledger

    url = os.environ.get("BENCH_STORE")
    store = RedisStore(url, prefix=f"bench-{os.getpid()}") if url else MemoryStore()
    own = parse_token(wire.TOKEN)[0]
    rows = {own.id: Token(id=own.id, digest=own.digest, limits=limits)}
    for number in range(1, tokens):
        shown = parse_token(f"sk-other-{number:032d}")[0]
        rows[shown.id] = Token(id=shown.id, digest=shown.digest, limits=limits)
    secrets = [f"sk-{number}" for number in range(keys)]
    provider = OPENAI.using(secrets, base_url=f"{upstream()}/v1")
    prices = Prices(unknown=Price(input=1, output=1), listed=False)
    shim = OpenAIShim(provider, record=Ledger(store, prices=prices))
    app = Authenticate(Quota(shim, store=store, prices=prices), verify=stored_tokens(store))

    async def seeded(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            table, left = Tokens(store).table, [*rows.items()]
            while left:  # a few at a time
                some, left = left[:500], left[500:]
                await asyncio.gather(*[table.put(id, row) for id, row in some])
        await app(scope, receive, send)

    return seeded


def console() -> App:
    """The gateway at `/ai` and the console at `/console`, over one store with much in it."""
    from starlette.applications import Starlette
    from starlette.routing import Mount

    from asgi_aiproxy import Ledger, lifespan
    from asgi_aiproxy.middleware import Authenticate
    from asgi_aiproxy.middleware.auth import static_tokens
    from asgi_aiproxy.shim import OpenAIShim
    from benchmarks.console import fill, parts

    store, provider, pages = parts(f"{upstream()}/v1")
    shim = OpenAIShim(provider, record=Ledger(store))
    ai = Authenticate(shim, verify=static_tokens({wire.TOKEN: "bench"}))
    app = Starlette(
        routes=[Mount("/ai", ai), Mount("/console", pages)], lifespan=lifespan(ai, pages)
    )

    async def filled(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await fill(store, provider.keys)
            gc.collect()
            gc.freeze()  # as `serve` does
        await app(scope, receive, send)

    return filled


# For comparison.


def protected() -> App:
    """A route of the host, and the gateway behind `LoadShedder`."""
    from asgi_aiproxy.middleware import LoadShedder

    return beside_host(LoadShedder(chat(), max_lag=0.001))


def unprotected() -> App:
    """The same without `LoadShedder`."""
    return beside_host(chat())


def refusing() -> App:
    """The same, with an app that refuses everything in the place of the gateway."""

    async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await lifespan(receive, send)
            return
        retry_after = b"%d" % random.randint(1, 3)
        headers = [*JSON, (b"content-length", b"2"), (b"retry-after", retry_after)]
        await send({"type": "http.response.start", "status": 503, "headers": headers})
        await send({"type": "http.response.body", "body": b"{}"})

    return beside_host(refuse)


def beside_host(gateway: Any) -> App:
    """A host with a route `/own` and the gateway below `/ai`."""
    from asgi_aiproxy import Dispatcher

    return Dispatcher(own_route, {"/ai": gateway})


async def own_route(scope: Scope, receive: Receive, send: Send) -> None:
    """A short answer."""
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    headers = [*JSON, (b"content-length", b"2")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"{}"})


def answer() -> App:
    """No upstream: the maximum rate of the server."""
    body = wire.openai_whole()
    headers = [*JSON, (b"content-length", b"%d" % len(body))]

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await lifespan(receive, send)
            return
        await read(receive)
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return app


def relay() -> App:
    """A bare relay loop over the gateway's own transport."""
    transport = default_transport()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await lifespan(receive, send)
            return
        answer = await transport.send(upstream_request(scope["path"], await read(receive)))
        await send({"type": "http.response.start", "status": answer.status, "headers": SSE})
        while data := await answer.read():
            await send({"type": "http.response.body", "body": data, "more_body": True})
        await answer.aclose()
        await send({"type": "http.response.body", "body": b""})

    return app


def translating() -> App:
    """The bare relay loop with a minimal translation, Anthropic to OpenAI."""
    transport = default_transport()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await lifespan(receive, send)
            return
        answer = await transport.send(upstream_request(wire.MESSAGES, await read(receive)))
        await send({"type": "http.response.start", "status": answer.status, "headers": SSE})
        rest = b""
        while data := await answer.read():
            out, rest = translate(rest + data)
            await send({"type": "http.response.body", "body": out, "more_body": True})
        await answer.aclose()
        await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})

    return app


def upstream_request(path: str, body: bytes) -> UpstreamRequest:
    return UpstreamRequest(
        method="POST", url=upstream() + path, headers=HEADERS, body=body, streamed=True
    )


# The same over pyreqwest, without this package.


def pyreqwest_whole() -> App:
    """A bare relay of whole answers."""
    client = lazy_client()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await lifespan(receive, send)
            return
        request = client().post(upstream() + scope["path"]).headers(HEADERS)
        response = await request.body_bytes(await read(receive)).build().send()
        body = bytes(await response.bytes())
        headers = [*JSON, (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return app


def pyreqwest() -> App:
    """A bare relay loop of streams."""
    client = lazy_client()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await lifespan(receive, send)
            return
        async with streamed(client(), scope["path"], await read(receive)) as response:
            await send({"type": "http.response.start", "status": response.status, "headers": SSE})
            read_chunk = response.body_reader.read_chunk
            while chunk := await read_chunk():
                await send({"type": "http.response.body", "body": bytes(chunk), "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    return app


def pyreqwest_translating() -> App:
    """The bare relay loop with a minimal translation, Anthropic to OpenAI."""
    client = lazy_client()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await lifespan(receive, send)
            return
        async with streamed(client(), wire.MESSAGES, await read(receive)) as response:
            await send({"type": "http.response.start", "status": response.status, "headers": SSE})
            read_chunk, rest = response.body_reader.read_chunk, b""
            while chunk := await read_chunk():
                out, rest = translate(rest + bytes(chunk))
                await send({"type": "http.response.body", "body": out, "more_body": True})
        await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})

    return app


def streamed(client: Client, path: str, body: bytes) -> Any:
    request = client.post(upstream() + path).headers(HEADERS)
    return request.body_bytes(body).streamed_read_buffer_limit(0).build_streamed()


class Delta(msgspec.Struct):
    text: str = ""


class Event(msgspec.Struct):
    type: str
    delta: Delta | None = None


decode = msgspec.json.Decoder(Event).decode
encode = msgspec.json.Encoder().encode
PREFIX = (
    b'data: {"id":"msg_01XFDUDYJgAACzvnptvVoYEL","object":"chat.completion.chunk",'
    b'"created":1760000000,"model":"claude-sonnet-4-5-20250929",'
    b'"choices":[{"index":0,"delta":{"content":'
)
SUFFIX = b'},"finish_reason":null}]}\n\n'


def translate(data: bytes) -> tuple[bytes, bytes]:
    """Anthropic's events to OpenAI's chunks, by hand: decode a struct, encode between constants."""
    blocks = data.split(b"\n\n")
    rest = blocks.pop()
    out = []
    for block in blocks:
        event = decode(block[block.find(b"data: ") + 6 :])
        if event.delta is not None and event.delta.text:
            out.append(PREFIX + encode(event.delta.text) + SUFFIX)
    return b"".join(out), rest


HEADERS = [("content-type", "application/json"), ("authorization", f"Bearer {wire.TOKEN}")]


def lazy_client() -> Callable[[], Client]:
    clients: list[Client] = []

    def client() -> Client:
        if not clients:
            clients.append(ClientBuilder().no_proxy().build())
        return clients[0]

    return client


async def read(receive: Receive) -> bytes:
    message = await receive()
    body: bytes = message.get("body", b"")
    while message.get("more_body", False):
        message = await receive()
        body += message.get("body", b"")
    return body


async def lifespan(receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})
