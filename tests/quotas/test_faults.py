"""Redis paused, restarted, losing replies: under load, as seen by callers."""

from __future__ import annotations

import asyncio
import signal
import time
import uuid
from collections.abc import Callable, Iterator

import pytest

from asgi_aiproxy import Principal
from asgi_aiproxy.principal import Budget, Limits
from asgi_aiproxy.stores import ConcurrencySlot, StoreUnavailableError
from asgi_aiproxy.stores.redis import RedisStore
from tests.support import redis_server
from tests.support.metered_gateway import COST, Gateway
from tests.support.redis_server import Server
from tests.support.tcp_proxy import Proxy

pytestmark = pytest.mark.anyio

TIMEOUT = 0.3
SLACK = 30.0  # what a busy machine may take on top

Trouble = Callable[[Server, Proxy], None]


@pytest.fixture
def server() -> Iterator[Server]:
    with redis_server.server("--appendonly", "yes", "--appendfsync", "always") as made:
        yield made
        made.signal(signal.SIGCONT)


class Load:
    """Callers that send one request after the other, until they are stopped."""

    def __init__(self, place: Gateway, callers: int = 10) -> None:
        self.place = place
        self.answers: list[tuple[float, int]] = []  # when it came, and what
        self.longest = 0.0
        self._stop = False
        self._tasks = [asyncio.ensure_future(self._caller()) for _ in range(callers)]

    async def _caller(self) -> None:
        while not self._stop:
            began = time.monotonic()
            answer = await self.place.ask(max_tokens=2)
            now = time.monotonic()
            self.longest = max(self.longest, now - began)
            self.answers.append((now, answer.status))
            await asyncio.sleep(0.005)

    async def until(self, true: Callable[[set[int]], bool]) -> None:
        """Wait until a condition holds for the statuses from now on."""
        since = time.monotonic()
        while not true({status for at, status in self.answers if at > since}):
            await asyncio.sleep(0.01)
            assert time.monotonic() - since < 20, self.answers[-5:]

    async def recovered(self) -> None:
        """Wait until the store answers again, and all settlements are written."""
        async with asyncio.timeout(20):
            while True:
                try:
                    await self.place.store.add("recovered", {"n": 1})
                except StoreUnavailableError:
                    await asyncio.sleep(0.02)
                else:
                    return

    async def stop(self) -> int:
        """Stop; returns the total number of served requests."""
        self._stop = True
        await asyncio.wait_for(asyncio.gather(*self._tasks), 20)
        return sum(status == 200 for _, status in self.answers)


WHO = Principal("alice", limits=Limits(concurrency=1000, budgets=(Budget(10**12),)))


def stop(server: Server, proxy: Proxy) -> None:
    server.stop()


def start(server: Server, proxy: Proxy) -> None:
    server.start()


def pause(server: Server, proxy: Proxy) -> None:
    server.signal(signal.SIGSTOP)


def resume(server: Server, proxy: Proxy) -> None:
    server.signal(signal.SIGCONT)


def swallow(server: Server, proxy: Proxy) -> None:
    proxy.fault = "swallow"


def cut(server: Server, proxy: Proxy) -> None:
    proxy.fault = "cut"


def repair(server: Server, proxy: Proxy) -> None:
    proxy.fault = "none"


@pytest.mark.parametrize(
    ("begin", "end", "mode"),
    [
        (pause, resume, "fail_closed"),
        (pause, resume, "fail_open"),
        (pause, resume, "local_estimate"),
        (stop, start, "fail_closed"),
        (stop, start, "fail_open"),
        (swallow, repair, "fail_open"),
        (cut, repair, "fail_closed"),
        (cut, repair, "local_estimate"),
    ],
)
async def test_an_unreachable_store_delays_no_call_and_all_is_charged_once(
    server: Server, begin: Trouble, end: Trouble, mode: str
) -> None:
    async with (
        Proxy(server.port) as proxy,
        RedisStore(proxy.url, prefix=uuid.uuid4().hex, timeout=TIMEOUT) as store,
    ):
        load = Load(Gateway(store, who=WHO, budgets_away=mode, limits_away="fail_open"))
        await load.until(lambda seen: seen == {200})
        begin(server, proxy)
        if mode == "fail_closed":
            await load.until(lambda seen: 503 in seen)
        await asyncio.sleep(3 * TIMEOUT)
        end(server, proxy)
        await load.until(lambda seen: 200 in seen)
        await load.recovered()
        served = await load.stop()
        assert {status for _, status in load.answers} <= {200, 503}
        if mode != "fail_closed":
            assert served == len(load.answers)
        assert load.longest < TIMEOUT + SLACK
        # All that was served is charged, once, and no place is held.
        assert await load.place.spent() == served * COST
        (level,) = await store.peek([ConcurrencySlot("caller:alice", "alice:slots", 1000)])
        assert level.used == 0
