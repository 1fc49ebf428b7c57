"""Requests are refused before the event loop is late for the routes of the host."""

from __future__ import annotations

import asyncio
import time
import tomllib
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from asgi_aiproxy import Authenticate, ConfigurationError, OpenAIShim, Principal
from asgi_aiproxy.config.factory import build_app
from asgi_aiproxy.config.settings import Settings
from asgi_aiproxy.middleware import LoadShedder, priority_by_name, static_tokens
from asgi_aiproxy.middleware.load_shedder import AdaptiveLimit
from asgi_aiproxy.providers import OPENAI
from tests.support import asgi_client as asgi
from tests.support.scripted_upstream import Upstream, answers

pytestmark = pytest.mark.anyio

PATH = "/v1/chat/completions"
BODY = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}


class Held:
    """An app whose requests end when a test says so."""

    def __init__(self) -> None:
        self.end = asyncio.Event()
        self.started = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.started += 1
        while (await receive()).get("more_body"):
            pass
        await self.end.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"done"})

    async def reaches(self, count: int) -> None:
        async with asyncio.timeout(30):
            while self.started < count:
                await asyncio.sleep(0.001)


async def post(app: Any, **headers: str) -> asgi.Answer:
    return await asgi.request(app, "POST", PATH, BODY, headers=headers)


async def test_requests_beyond_the_limit_get_503_in_the_clients_api_with_a_time() -> None:
    held = Held()
    app = LoadShedder(held, max_in_flight=2, retry_after=4)
    tasks = [asyncio.ensure_future(post(app)) for _ in range(2)]
    await held.reaches(2)
    openai = await post(app)
    assert (openai.status, openai.json["error"]["code"]) == (503, "overloaded")
    assert 2 <= int(openai.header("retry-after") or 0) <= 6
    claude = await asgi.request(app, "POST", "/v1/messages", BODY)
    assert claude.json["error"]["type"] == "overloaded_error"
    assert (app.status.in_flight, app.status.refused) == (2, 2)
    held.end.set()
    assert [task.status for task in await asyncio.gather(*tasks)] == [200, 200]
    assert (await post(app)).status == 200
    assert app.status.in_flight == 0


async def test_the_lowest_priority_is_refused_first() -> None:
    held = Held()
    levels = {"batch": -1, "user": 0, "vip": 1}
    shedder = LoadShedder(held, max_in_flight=4, priority=lambda caller: levels[caller.id])
    app = Authenticate(shedder, verify=static_tokens({f"sk-{name}": name for name in levels}))

    async def admitted(name: str) -> bool:
        before = held.started
        task = asyncio.ensure_future(post(app, authorization=f"Bearer sk-{name}"))
        tasks.append(task)
        while held.started == before and not task.done():
            await asyncio.sleep(0.001)
        return held.started > before

    tasks: list[asyncio.Future[asgi.Answer]] = []
    async with asyncio.timeout(30):
        assert [await admitted("batch") for _ in range(3)] == [True, True, False]
        assert [await admitted("user") for _ in range(3)] == [True, True, False]
        assert [await admitted("vip") for _ in range(2)] == [True, False]
    held.end.set()
    await asyncio.gather(*tasks)


def test_priorities_follow_ids_before_groups_by_patterns() -> None:
    priority = priority_by_name(groups={"batch-*": -1, "team": 2}, principals={"vip-?": 1})
    for caller, expected in (
        (Principal("vip-1", group="batch-1"), 1),
        (Principal("ann", group="batch-1"), -1),
        (Principal("ann", group="team"), 2),
        (Principal("vip-12"), 0),
        (Principal(""), 0),
    ):
        assert priority(caller) == expected
    with pytest.raises(ConfigurationError, match="'a' must be an integer"):
        priority_by_name(groups={"a": "high"})  # type: ignore[dict-item]


CONFIGURED = """
metrics = true
log_usage = false
[load_shedding]
max_in_flight = 4
max_held_bytes = 5000
principals = { "batch-*" = -1, vip = 1 }
[providers.openai]
base_url = "%s"
keys = ["sk-1"]
[[tokens]]
token = "sk-token-of-batch"
name = "batch-1"
[[tokens]]
token = "sk-token-of-ann"
name = "ann"
"""


async def test_the_configuration_sheds_by_priority_and_metrics_say_how_much() -> None:
    connected = asyncio.Semaphore(0)

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.release()
        await reader.read()
        writer.close()

    async with await asyncio.start_server(silent, "127.0.0.1", 0) as vendor:
        url = f"http://127.0.0.1:{vendor.sockets[0].getsockname()[1]}/v1"
        app = build_app(Settings(**tomllib.loads(CONFIGURED % url)))
        async with app:  # type: ignore[attr-defined]
            busy = [
                asyncio.ensure_future(post(app, authorization="Bearer sk-token-of-ann"))
                for _ in range(2)
            ]
            async with asyncio.timeout(30):
                await connected.acquire()
                await connected.acquire()
            for _ in range(3):
                refused = await post(app, authorization="Bearer sk-token-of-batch")
                assert refused.status == 503
            token = "Bearer sk-token-of-ann"
            headers = {"authorization": token, "content-length": "5001"}
            answer = await asgi.request(app, "POST", PATH, BODY, headers=headers)
            assert answer.status == 503
            text = (await asgi.request(app, "GET", "/metrics")).body.decode()
            assert 'aiproxy_shed_total{priority="low",reason="load"} 3.0' in text
            assert 'aiproxy_shed_total{priority="normal",reason="memory"} 1.0' in text
            assert "aiproxy_load_limit 4.0" in text
            for task in busy:
                task.cancel()
            await asyncio.gather(*busy, return_exceptions=True)


async def test_bodies_in_memory_are_limited_also_those_without_a_declared_length() -> None:
    held = Held()
    app = LoadShedder(held, max_held_bytes=1000)
    first = asyncio.ensure_future(asgi.request(app, "POST", PATH, b"x" * 600))
    await held.reaches(1)
    assert app.status.held_bytes == 600
    declared = {"content-length": "600"}
    assert (await asgi.request(app, "POST", PATH, b"y" * 600, headers=declared)).status == 503
    small = asyncio.ensure_future(
        asgi.request(app, "POST", PATH, b"z" * 300, headers={"content-length": "300"})
    )
    await held.reaches(2)
    assert app.status.held_bytes == 900
    held.end.set()
    await asyncio.gather(first, small)
    assert app.status.held_bytes == 0


async def test_a_loop_that_is_late_lowers_the_limit_and_a_quick_one_raises_it_again() -> None:
    held = Held()
    app = LoadShedder(held, max_lag=0.01, max_in_flight=100)
    tasks = [asyncio.ensure_future(post(app)) for _ in range(10)]
    await held.reaches(10)
    async with asyncio.timeout(30):
        while app.status.limit >= 8:  # something blocks the loop
            time.sleep(0.1)  # noqa: ASYNC251
            await asyncio.sleep(0.001)
        assert (await post(app)).status == 503
        while app.status.limit < 11:
            await asyncio.sleep(0.01)
        more = asyncio.ensure_future(post(app))
        await held.reaches(11)
    held.end.set()
    assert {answer.status for answer in await asyncio.gather(*tasks, more)} == {200}


def test_the_lag_of_another_event_loop_is_measured_after_the_first_one_was_closed() -> None:
    served: list[Held] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await served[-1](scope, receive, send)

    shedder = LoadShedder(app, max_lag=0.01, max_in_flight=100)

    async def one_call() -> None:
        served.append(Held())
        served[-1].end.set()
        assert (await post(shedder)).status == 200

    async def a_late_loop() -> None:
        served.append(Held())
        tasks = [asyncio.ensure_future(post(shedder)) for _ in range(10)]
        await served[-1].reaches(10)
        async with asyncio.timeout(30):
            while shedder.status.limit >= 8:
                time.sleep(0.1)  # noqa: ASYNC251
                await asyncio.sleep(0.001)
        served[-1].end.set()
        await asyncio.gather(*tasks)

    asyncio.run(one_call())
    asyncio.run(a_late_loop())


async def test_requests_that_are_ready_at_the_same_time_leave_turns_to_the_host() -> None:
    ready = asyncio.Event()
    turns_of_host = 0
    noted: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await ready.wait()
        noted.append(turns_of_host)
        time.sleep(0.0005)  # noqa: ASYNC251
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"done"})

    shedder = LoadShedder(app)
    tasks = [asyncio.ensure_future(post(shedder)) for _ in range(20)]
    async with asyncio.timeout(30):
        while shedder.status.in_flight < 20:
            await asyncio.sleep(0)
        ready.set()
        while not all(task.done() for task in tasks):
            await asyncio.sleep(0)
            turns_of_host += 1
    assert len(set(noted)) > 15


async def test_an_idle_app_measures_nothing() -> None:
    held = Held()
    held.end.set()
    app = LoadShedder(held)
    assert (await post(app)).status == 200
    async with asyncio.timeout(30):
        while app._measured is not None:
            await asyncio.sleep(0.01)


async def test_a_shim_behind_it_works_and_a_websocket_beyond_the_limit_is_refused() -> None:
    upstream = Upstream(answers())
    app = LoadShedder(OpenAIShim(OPENAI.using("sk-1"), transport=upstream.transport))
    assert (await post(app)).status == 200
    held = Held()
    full = LoadShedder(held, max_in_flight=1)
    task = asyncio.ensure_future(post(full))
    await held.reaches(1)
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    scope = {"type": "websocket", "path": "/v1/realtime", "headers": [], "extensions": {}}
    await full(scope, receive, send)
    assert sent[0]["type"] in ("websocket.close", "websocket.http.response.start")
    held.end.set()
    await task


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 300)), max_size=60))
def test_the_limit_stays_between_one_and_its_maximum(measured: list[tuple[float, int]]) -> None:
    limit = AdaptiveLimit(0.05, 200)
    for lag, in_flight in measured:
        before = limit.limit
        limit.observe(lag, in_flight)
        assert 1 <= limit.limit <= 200
        if limit.lag > 0.05:
            assert limit.limit <= max(before, 1)
        else:
            assert limit.limit >= before
        assert limit.admits(0, -1), "an idle app serves everything"


def test_one_pause_changes_nothing() -> None:
    limit = AdaptiveLimit(0.05, 100)
    for lag in (0.0, 9.0, 0.0, 0.0, 9.0, 0.0):
        limit.observe(lag, 100)
        assert limit.limit == 100


@pytest.mark.parametrize(
    "options",
    [
        {"max_lag": 0},
        {"priority": {}},
        {"max_in_flight": 0},
        {"max_held_bytes": 0},
        {"retry_after": -1},
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        LoadShedder(Held(), **options)
