"""Two thousand exchanges with every outcome, over real sockets, leave no objects behind."""

from __future__ import annotations

import asyncio
import gc
import itertools
import logging
import os
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from asgi_aiproxy import Key, KeyPool, OpenAIShim, ProviderRouter, Timeouts, UsageRecord
from asgi_aiproxy.exchange.request import GatewayRequest
from asgi_aiproxy.providers import ANTHROPIC, OPENAI
from asgi_aiproxy.upstream import SocketTransport
from tests.server.test_answers import claude
from tests.support import asgi_client as asgi
from tests.support.scripted_upstream import Upstream, chat_answer, chat_stream, refuses
from tests.support.served_gateway import HEAD, chunked
from tests.support.servers import SERVERS
from tests.support.socket_client import Caller
from tests.support.socket_server import PATIENCE, Line, Wire

pytestmark = pytest.mark.anyio

WARM_UP = 500
EXCHANGES = 2000
AT_ONCE = 20
JSON = "Content-Type: application/json"
FORM = "Content-Type: multipart/form-data; boundary=cut"
UPLOAD = (
    b'--cut\r\nContent-Disposition: form-data; name="model"\r\n\r\nm\r\n'
    b'--cut\r\nContent-Disposition: form-data; name="file"; filename="WORD"\r\n\r\n'
)


async def provider(line: Line) -> None:
    """Does what the request says."""
    while True:
        head = await line.head()
        length = int(head.header("content-length") or 0)
        body = b""
        while len(body) < length and b"leave-early" not in body:
            body += await line.reader.read(length - len(body))
            if line.reader.at_eof():
                return
        if b"leave" in body:
            if b"leave-mid" in body:
                await line.send(HEAD, chunked(*chat_stream("Hel")[:2]))
            await line.gone()
            return
        if b"die" in body:
            await line.send(HEAD, chunked(*chat_stream("Hel")[:2]))
            return
        if b"slow" in body:
            await line.gone()
        elif b"busy" in body:
            await line.answer(b'{"error":{"message":"no"}}', "503 Busy", JSON)
        elif b"limit" in body:
            await line.answer(b'{"error":{"message":"no"}}', "429 Slow Down", JSON)
        elif b"html" in body:
            await line.answer(b"<html></html>", "200 OK", "Content-Type: text/html")
        elif "/messages" in head.line:
            await line.send(HEAD, chunked(*claude("Hel", "lo"), end=True))
        elif b'"stream":true' in body.replace(b" ", b""):
            await line.send(HEAD, chunked(*chat_stream("Hel", "lo"), end=True))
        else:
            await line.answer(chat_answer("Hello"), "200 OK", JSON)


@dataclass
class World:
    """A gateway, and its observable state."""

    app: OpenAIShim
    transport: SocketTransport
    pools: list[KeyPool]
    wire: Wire
    port: int
    outcomes: Counter[str] = field(default_factory=Counter)

    async def say(self, word: str, **members: Any) -> Caller:
        caller = await Caller.to(self.port)
        message = {"role": "user", "content": word}
        caller.post({"model": "m", "messages": [message], **members})
        return caller


Fate = Callable[[World], Awaitable[None]]


async def end(caller: Caller, status: int, holds: bytes = b"") -> None:
    answer = await caller.answer()
    assert answer.status == status, answer
    assert holds in answer.body
    caller.leave()


async def whole(world: World) -> None:
    await end(await world.say("hello"), 200, b"Hello")


async def streamed(world: World) -> None:
    await end(await world.say("hello", stream=True), 200, b"[DONE]")


async def translated(world: World) -> None:
    await end(await world.say("hello", model="claude", stream=True), 200, b"[DONE]")


async def two_of_one_connection(world: World) -> None:
    caller = await world.say("hello")
    assert (await caller.answer()).status == 200
    caller.post({"model": "m", "messages": [{"role": "user", "content": "hello"}]})
    await end(caller, 200)


async def left_at_once(world: World) -> None:
    caller = await world.say("leave")
    await asyncio.sleep(0.01)
    caller.leave()


async def left_while_kept_alive(world: World) -> None:
    caller = await world.say("leave", stream=True)
    await caller.head()
    await caller.until(b":")
    caller.leave()


async def left_in_mid_stream(world: World) -> None:
    caller = await world.say("leave-mid", stream=True)
    await caller.head()
    await caller.until(b"Hel")
    caller.leave()


async def left_in_its_upload(world: World) -> None:
    caller = await Caller.to(world.port)
    body = UPLOAD.replace(b"WORD", b"leave-early")
    caller.post(body, "/v1/audio/transcriptions", FORM, length=100_000)
    await asyncio.sleep(0.01)
    caller.leave()


async def uploaded(world: World) -> None:
    caller = await Caller.to(world.port)
    caller.post(UPLOAD + b"x\r\n--cut--\r\n", "/v1/audio/transcriptions", FORM)
    await end(caller, 200)


async def broke(world: World) -> None:
    await end(await world.say("die", stream=True), 200, b'{"error":')


async def was_too_slow(world: World) -> None:
    await end(await world.say("slow", model="slow"), 504)


async def was_busy(world: World) -> None:
    await end(await world.say("busy"), 503)


async def was_limited(world: World) -> None:
    await end(await world.say("limit", model="limited"), 429)


async def was_html(world: World) -> None:
    await end(await world.say("html"), 502)


async def was_nonsense(world: World) -> None:
    caller = await Caller.to(world.port)
    caller.post(b"{")
    await end(caller, 400)


async def was_unknown(world: World) -> None:
    await end(await world.say("hello", model="unheard-of"), 404)


FATES: dict[Fate, tuple[str, ...]] = {  # and the recorded outcomes
    whole: ("done",),
    streamed: ("done",),
    translated: ("done",),
    two_of_one_connection: ("done", "done"),
    left_at_once: ("cut",),
    left_while_kept_alive: ("cut",),
    left_in_mid_stream: ("cut",),
    left_in_its_upload: ("cut",),
    uploaded: ("done",),
    broke: ("failed",),
    was_too_slow: ("failed",),
    was_busy: ("failed",),
    was_limited: ("failed",),
    was_html: ("failed",),
    was_nonsense: (),
    was_unknown: ("refused",),
}


async def run(world: World, count: int) -> None:
    """Run this number of exchanges, some concurrently."""
    fates = itertools.islice(itertools.cycle(FATES), count)

    async def work() -> None:
        for fate in fates:
            await fate(world)

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(work())


@dataclass
class Held:
    """The existing objects."""

    tasks: int
    files: int
    objects: Counter[str]
    blocks: int


async def in_flight(world: World) -> list[int]:
    return [key.in_flight for pool in world.pools for key in await pool.status()]


async def held(world: World) -> Held:
    """The objects that exist when all is quiet and no connection is kept."""
    async with asyncio.timeout(PATIENCE):
        while any(await in_flight(world)):
            await asyncio.sleep(0.005)
    await world.app._recorder.drain()
    await world.transport.aclose()
    await world.wire.opened(0)
    world.wire.lines.clear()
    await asyncio.sleep(0.3)  # the server closes what its clients have closed
    gc.collect()
    kinds = (type(each) for each in gc.get_objects())
    return Held(
        len(asyncio.all_tasks()),
        len(os.listdir("/proc/self/fd")),
        Counter(f"{k.__module__}.{k.__qualname__}" for k in kinds if _ours(k)),
        sys.getallocatedblocks(),
    )


def _ours(kind: type) -> bool:
    return str(getattr(kind, "__module__", "")).startswith("asgi_aiproxy")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts files in /proc")
async def test_nothing_is_left_of_two_thousand_exchanges(
    caplog: pytest.LogCaptureFixture,
) -> None:
    for name in ("", "asgi_aiproxy"):
        caplog.set_level(logging.ERROR, name)  # pytest keeps what is logged
    pools = [KeyPool([Key(f"sk-{at}", id=str(at))], name=str(at)) for at in range(4)]
    transport = SocketTransport(max_connections=AT_ONCE)
    outcomes: Counter[str] = Counter()

    async def sink(record: UsageRecord) -> None:
        outcomes[record.outcome] += 1

    async with Wire(provider) as wire:
        base = wire.url + "/v1"
        impatient = OPENAI.using(
            pools[2], base_url=base, name="slow", timeouts=Timeouts(first=0.02)
        )
        router = ProviderRouter(
            {
                "m": OPENAI.using(pools[0], base_url=base),
                "claude": ANTHROPIC.using(pools[1], base_url=wire.url),
                "slow": impatient,
                "limited": OPENAI.using(pools[3], base_url=base, name="limited"),
            }
        )
        app = OpenAIShim(
            router,
            transport=transport,
            record=sink,
            attempts=1,
            keepalive_seconds=0.02,
            backoff=0.001,
        )
        async with SERVERS[0](app) as running:
            world = World(app, transport, pools, wire, running.port)
            await run(world, WARM_UP)
            before = await held(world)
            outcomes.clear()
            await run(world, EXCHANGES)
            after = await held(world)

        expected = Counter(
            outcome
            for fate in itertools.islice(itertools.cycle(FATES), EXCHANGES)
            for outcome in FATES[fate]
        )
        assert outcomes == expected
        assert await in_flight(world) == [0] * 4
        assert after.tasks <= before.tasks
        assert after.files <= before.files
        assert after.objects - before.objects == Counter()
        assert after.blocks - before.blocks < EXCHANGES  # less than one object an exchange


async def test_log_records_keep_no_request_alive(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    upstream = Upstream(refuses(503))
    shim = OpenAIShim(OPENAI.using("sk-1"), transport=upstream.transport, attempts=1)
    gc.collect()
    before = sum(type(each) is GatewayRequest for each in gc.get_objects())
    for _ in range(5):
        assert (await asgi.chat(shim)).status == 503
    gc.collect()
    assert sum(type(each) is GatewayRequest for each in gc.get_objects()) == before
    assert len([record for record in caplog.records if record.name == "asgi_aiproxy"]) == 5
