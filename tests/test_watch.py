"""The monitor of requests: waits end when they should, and nothing is left behind."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import logging
import threading
import weakref
from contextlib import suppress
from typing import Any

import pytest

from asgi_aiproxy import PassthroughProxy
from asgi_aiproxy._cancellation import ClientGoneError, RequestMonitor, SharedTimer, TimeoutScope
from asgi_aiproxy.errors import APIError, ErrorKind
from tests.support import asgi_client as asgi
from tests.support.scripted_upstream import Upstream, answers
from tests.support.socket_server import PATIENCE


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


pytestmark = pytest.mark.anyio


def watch(total: float | None = None, idle: float | None = None) -> RequestMonitor:
    return RequestMonitor(SharedTimer(asyncio.get_running_loop()), total=total, idle=idle)


async def forever() -> Any:
    async with asyncio.timeout(PATIENCE):
        await asyncio.Event().wait()


async def waits(watching: RequestMonitor) -> None:
    with watching:
        await forever()


async def left() -> Any:
    return {"type": "http.disconnect"}


async def test_a_disconnect_ends_the_wait() -> None:
    watching = watch()
    watching.receive = left
    with pytest.raises(ClientGoneError):
        await waits(watching)


async def test_a_receive_that_raises_ends_the_wait_as_well() -> None:
    async def broken() -> Any:
        raise OSError("gone")

    watching = watch()
    watching.receive = broken
    with pytest.raises(ClientGoneError):
        await waits(watching)


async def test_a_receive_that_fails_or_returns_another_message_does_not_end_the_wait(
    caplog: pytest.LogCaptureFixture,
) -> None:
    requested = 0

    async def fails() -> Any:
        nonlocal requested
        requested += 1
        raise RuntimeError("a bug")

    async def repeats() -> Any:
        nonlocal requested
        requested += 1
        return {"type": "http.request"}

    with caplog.at_level(logging.WARNING):
        for receive in (fails, repeats):
            watching = watch(total=0.5)
            watching.receive = receive
            with pytest.raises(APIError) as caught:
                await waits(watching)
            assert caught.value.kind is ErrorKind.TIMEOUT
    assert requested == 2  # each once
    assert [record.message for record in caplog.records] == [
        "receive() failed: a disconnect of this client will not be noticed"
    ]


async def test_short_requests_are_not_watched() -> None:
    async def receive() -> Any:
        raise AssertionError("not to be called")

    for _ in range(100):
        with watch() as watching:
            watching.receive = receive
            await asyncio.sleep(0)


async def test_a_wait_without_progress_ends_after_its_limit() -> None:
    watching = watch()
    watching.set_timeout(0.1, "It is silent.")
    with pytest.raises(APIError, match="It is silent") as caught:
        await waits(watching)
    assert caught.value.kind is ErrorKind.TIMEOUT


async def test_a_wait_with_progress_is_not_limited() -> None:
    with watch() as watching:
        watching.set_timeout(0.5, "It is silent.")
        for _ in range(12):
            await asyncio.sleep(0.1)
            watching.upstream_progressed()


async def test_a_client_that_does_not_read_counts_as_disconnected() -> None:
    watching = watch()
    watching.set_timeout(0.1, "The upstream is silent.")
    watching.client_write_started()
    with pytest.raises(ClientGoneError):
        await waits(watching)


async def test_an_upstream_that_stops_reading_the_body_is_given_up() -> None:
    watching = watch(idle=0.1)
    watching.set_timeout(PATIENCE, "It did not answer.")
    watching.upstream_write_started()
    with pytest.raises(APIError, match="stopped reading"):
        await waits(watching)


async def test_a_cancellation_from_outside_is_raised_unchanged() -> None:
    async def work() -> None:
        with watch() as watching:
            watching.set_timeout(PATIENCE, "late")
            await forever()

    task = asyncio.ensure_future(work())
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_one_shared_timer_serves_all_requests_and_ends_with_them() -> None:
    rounds = SharedTimer(asyncio.get_running_loop())

    async def one(number: int) -> bool:
        try:
            with RequestMonitor(rounds, total=0.1 if number % 2 else None, idle=None):
                await asyncio.sleep(0.6)
        except APIError:
            return False
        return True

    assert await asyncio.gather(*map(one, range(200))) == [True, False] * 100
    assert not len(rounds)
    async with asyncio.timeout(PATIENCE):
        while rounds.running:
            await asyncio.sleep(0.01)


async def test_early_disconnects_are_noticed_soon_among_thousands_of_requests() -> None:
    rounds = SharedTimer(asyncio.get_running_loop())

    async def one() -> None:
        with RequestMonitor(rounds):
            await forever()

    many = [asyncio.ensure_future(one()) for _ in range(20_000)]
    await asyncio.sleep(0.1)
    full, took = 0.00005 * len(many), []
    for _ in range(5):
        began = asyncio.get_running_loop().time()
        with pytest.raises(ClientGoneError):
            await waits(RequestMonitor(rounds, left))
        took.append(asyncio.get_running_loop().time() - began)
    assert min(took) < full / 4
    for task in many:
        task.cancel()
    await asyncio.wait(many)


async def test_a_request_leaves_no_reference_cycles() -> None:
    class Receive:
        async def __call__(self) -> Any:
            await forever()

    gc.disable()
    try:
        receive = Receive()
        gone = weakref.ref(receive)
        with watch() as watching:
            watching.receive = receive
            await asyncio.sleep(0.2)  # so that it is watched
        del receive, watching
        await asyncio.sleep(0.05)
        assert gone() is None
    finally:
        gc.enable()


async def test_a_disconnect_leaves_no_reference_cycles() -> None:
    class Receive:
        async def __call__(self) -> Any:
            return {"type": "http.disconnect"}

    async def leaves(late: bool) -> weakref.ref[Receive]:
        receive = Receive()
        watching = watch()
        watching.receive = None if late else receive
        limit = TimeoutScope(watching, 0.02 if late else 60.0, "too slow")
        with suppress(ClientGoneError, APIError), watching, limit:
            await forever()
        return weakref.ref(receive)

    gc.collect()
    gc.disable()
    try:
        for late in (False, True):
            gone = await asyncio.ensure_future(leaves(late))
            await asyncio.sleep(0.05)
            assert gone() is None
    finally:
        gc.enable()


async def test_a_request_is_watched_in_its_own_context() -> None:
    """Hosts keep a request's id, its user and its trace in context variables."""
    name = contextvars.ContextVar("name", default="nobody")
    rounds = SharedTimer(asyncio.get_running_loop())
    seen: dict[str, str] = {}

    async def one(who: str) -> None:
        name.set(who)

        async def receive() -> Any:
            seen[who] = name.get()
            return {"type": "http.disconnect"}

        with suppress(ClientGoneError):
            await waits(RequestMonitor(rounds, receive))

    await asyncio.gather(*[asyncio.ensure_future(one(who)) for who in ("alice", "bob", "carol")])
    assert seen == {"alice": "alice", "bob": "bob", "carol": "carol"}


def test_time_limits_hold_in_several_event_loops_at_once() -> None:
    """While one loop polls, for as long as it likes, the timers of the others go on."""
    inside, release = threading.Event(), threading.Event()
    ended: list[str] = []

    class Blocks:
        def tick(self, now: float) -> None:
            inside.set()
            release.wait(PATIENCE)

    async def poll_and_stay() -> None:
        timer = SharedTimer(asyncio.get_running_loop())
        blocks = Blocks()
        timer.add(blocks)
        while not release.is_set():
            await asyncio.sleep(0.01)
        timer.remove(blocks)

    async def times_out() -> None:
        try:
            with watch(total=0.05):
                await forever()
        except APIError as error:
            ended.append(error.kind)
        finally:
            release.set()

    first = threading.Thread(target=asyncio.run, args=(poll_and_stay(),))
    first.start()
    assert inside.wait(PATIENCE)
    second = threading.Thread(target=asyncio.run, args=(times_out(),))
    second.start()
    for thread in (first, second):
        thread.join(2 * PATIENCE)
    assert ended == [ErrorKind.TIMEOUT]


def test_a_proxy_may_serve_several_event_loops_at_once() -> None:
    upstream = Upstream(answers())
    proxy = PassthroughProxy("http://a.example", transport=upstream.transport)
    found: list[int] = []

    async def many() -> None:
        for _ in range(30):
            found.append((await asgi.request(proxy, "GET", "/x")).status)
            await asyncio.sleep(0.003)

    threads = [threading.Thread(target=asyncio.run, args=(many(),)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert found == [200] * 90


async def part(watching: RequestMonitor, seconds: float, message: str) -> None:
    with TimeoutScope(watching, seconds, message):
        await forever()


async def test_a_limit_of_a_block_ends_only_that_block() -> None:
    with watch() as watching:
        for message in ("too slow", "too slow again"):
            with pytest.raises(APIError, match=f"^{message}$") as caught:
                await part(watching, 0.02, message)
            assert caught.value.kind is ErrorKind.TIMEOUT
            await asyncio.sleep(0.1)  # the limit is no more


async def test_a_disconnect_during_a_block_with_a_limit_ends_the_whole_call() -> None:
    async def whole(watching: RequestMonitor) -> None:
        with watching:
            await part(watching, 60.0, "too slow")

    watching = watch()
    watching.receive = left
    with pytest.raises(ClientGoneError):
        await whole(watching)


async def test_a_disconnect_just_after_a_limit_counts_as_a_disconnect() -> None:
    watching = watch()
    gone = asyncio.Event()

    async def receive() -> Any:
        await gone.wait()
        return {"type": "http.disconnect"}

    async def leaving() -> None:
        with TimeoutScope(watching, 0.02, "too slow"):
            try:
                await forever()
            finally:
                gone.set()
                await asyncio.sleep(0.01)

    async def whole() -> None:
        with watching:
            watching.watch_disconnect()
            with suppress(APIError):
                await leaving()
            await forever()

    watching.receive = receive
    with pytest.raises(ClientGoneError):
        await whole()


async def test_a_wait_can_be_shortened() -> None:
    async def hurried(watching: RequestMonitor) -> None:
        with TimeoutScope(watching, 60.0, "idle"):
            watching.shorten_timeout(0.02)
            watching.shorten_timeout(30.0)  # which is later
            await forever()

    with watch() as watching, pytest.raises(APIError, match="idle"):
        await hurried(watching)
