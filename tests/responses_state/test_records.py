"""What is remembered when: in the background, over both transports, while the store is away."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
from websockets.asyncio.client import connect

from asgi_aiproxy import MemoryStore, OpenAIShim, ResponseState
from asgi_aiproxy.dialects.base import Operation
from asgi_aiproxy.keys.encryption import Sealer
from asgi_aiproxy.principal import ANONYMOUS, Principal
from asgi_aiproxy.providers import ANTHROPIC, OPENAI
from asgi_aiproxy.responses_state import service
from asgi_aiproxy.responses_state.history import History, Segment
from asgi_aiproxy.responses_state.records import StoredResponse
from asgi_aiproxy.responses_state.service import ResponsesService
from asgi_aiproxy.stores import StoreUnavailableError
from asgi_aiproxy.testing import MockProvider, serve
from tests.responses_state.test_accounts import pool, response, streamed
from tests.support import asgi_client as asgi
from tests.support.scripted_upstream import Upstream, answers, sse, streams

pytestmark = pytest.mark.anyio


class Away(MemoryStore):
    """A store that can go away."""

    away = False

    async def get_entry(self, name: str) -> bytes | None:
        self._check()
        return await super().get_entry(name)

    async def set_entry(self, name: str, value: bytes, *, seconds: float) -> None:
        self._check()
        await super().set_entry(name, value, seconds=seconds)

    async def delete_entry(self, name: str) -> bool:
        self._check()
        return await super().delete_entry(name)

    def _check(self) -> None:
        if self.away:
            raise StoreUnavailableError("away")


async def test_while_the_store_is_away_responses_are_made_and_references_wait() -> None:
    store = Away()
    mock = MockProvider()
    async with serve(mock) as url:
        app = OpenAIShim(
            ANTHROPIC.using("sk-1", base_url=url),
            response_state=ResponseState(store, stash=True),
        )
        body: dict[str, Any] = {"model": "claude-sonnet-4-5", "input": "Hi"}
        first = await asgi.request(app, "POST", "/v1/responses", body)
        store.away = True
        assert (await asgi.request(app, "POST", "/v1/responses", body)).status == 200
        path = f"/v1/responses/{first.json['id']}"
        continued = {**body, "previous_response_id": first.json["id"]}
        for answer in (
            await asgi.request(app, "POST", "/v1/responses", continued),
            await asgi.request(app, "GET", path),
            await asgi.request(app, "DELETE", path),
        ):
            assert (answer.status, answer.header("retry-after")) == (503, "1")
        store.away = False
        assert (await asgi.request(app, "POST", "/v1/responses", continued)).status == 200


async def test_a_background_response_is_known_from_its_first_event_on() -> None:
    begun = response("resp_1", status="queued", background=True)
    created = {"type": "response.created", "response": {**begun, "output": [], "usage": None}}
    delta = {"type": "response.output_text.delta", "output_index": 0, "delta": "Hm."}
    found = answers(json.dumps(begun).encode())
    upstream = Upstream(streams(*sse(created, delta), 60.0), found)
    app = OpenAIShim(OPENAI.using(pool()), transport=upstream.transport)
    body = {"model": "m", "input": "Hi", "background": True, "stream": True}
    async with asgi.opened(app, "POST", "/v1/responses") as exchange:
        exchange.send_body(json.dumps(body).encode())
        await exchange.message()
        assert b"resp_1" in (await exchange.message())["body"]
        exchange.disconnect()
        await exchange.ended()
    query = b"stream=true&starting_after=1&key=sk-secret"
    answer = await asgi.request(app, "GET", "/v1/responses/resp_1", query_string=query)
    assert answer.status == 200
    assert upstream.keys[0] == upstream.keys[1]
    assert upstream.requests[1].url.query == b"stream=true&starting_after=1"


async def test_what_was_made_over_a_websocket_is_continued_over_http_and_back() -> None:
    async with serve(MockProvider()) as vendor:
        row = ANTHROPIC.using("sk-1", base_url=vendor)
        app = OpenAIShim(row, response_state=ResponseState(MemoryStore(), stash=True))
        async with serve(app) as url:
            address = f"ws{url.removeprefix('http')}/v1/responses"
            previous = None
            for _ in range(2):
                async with connect(address, proxy=None) as connection:
                    body: dict[str, Any] = {"model": "claude-sonnet-4-5", "input": "Hi"}
                    body |= {"type": "response.create", "previous_response_id": previous}
                    await connection.send(json.dumps(body))
                    event: Any = {}
                    while event.get("type") != "response.completed":
                        event = json.loads(await connection.recv())
                        assert event["type"] != "error", event
                assert event["response"]["store"] is True
                del body["type"]
                body["previous_response_id"] = event["response"]["id"]
                found = await asgi.request(app, "POST", "/v1/responses", body)
                assert found.status == 200
                previous = found.json["id"]


async def test_a_response_that_is_not_stored_is_forgotten_with_its_connection() -> None:
    upstream = Upstream(streamed("resp_1"))
    app = OpenAIShim(
        OPENAI.using(pool()),
        transport=upstream.transport,
        response_state=(state := ResponseState(MemoryStore(), stash=True)),
    )
    async with (
        serve(app) as url,
        connect(f"ws{url.removeprefix('http')}/v1/responses", proxy=None) as connection,
    ):
        body = {"type": "response.create", "model": "m", "input": "Hi", "store": False}
        await connection.send(json.dumps(body))
        while json.loads(await connection.recv())["type"] != "response.completed":
            pass
    assert await state.get(ANONYMOUS, "resp_1") is None


async def test_records_are_those_of_one_owner_and_one_sealing_key() -> None:
    store = MemoryStore()
    key = Sealer.generate()
    state = ResponseState(store, stash=True, sealer=Sealer(key))
    history = History("p", "k1", "m", kept=True, tokens=7, segments=(Segment((), "p/k1"),))
    await state.put(Principal("a"), "resp_1", StoredResponse(history))
    found = await state.get(Principal("a"), "resp_1")
    assert found is not None
    assert found.history == history
    for owner in (Principal("b"), Principal("", account="a"), ANONYMOUS):
        assert await state.get(owner, "resp_1") is None
        assert not await state.delete(owner, "resp_1")
    rotated = ResponseState(store, stash=True, sealer=Sealer([Sealer.generate(), key]))
    assert await rotated.get(Principal("a"), "resp_1") == found
    # Moved to another caller, the content cannot be read.
    ((name, (ends, value)),) = store._entries._entries.items()
    await state.put(Principal("b"), "resp_1", StoredResponse(history))
    other = next(known for known in store._entries._entries if known != name)
    store._entries.set(other, value, ends, 0.0)
    assert await state.get(Principal("b"), "resp_1") is None
    assert await state.delete(Principal("a"), "resp_1")
    assert await state.get(Principal("a"), "resp_1") is None


def test_threads_of_one_app_share_its_stored_responses(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first requests of two threads, each with an event loop of its own, come at once."""
    used: list[ResponsesService] = []
    together = threading.Barrier(2)

    class Observed(ResponsesService):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            with suppress(threading.BrokenBarrierError):
                together.wait(0.2)  # both threads get here, unless one waits for the other

        def serves(self, operation: Operation) -> bool:
            used.append(self)
            return super().serves(operation)

    monkeypatch.setattr(service, "ResponsesService", Observed)
    app = OpenAIShim(OPENAI.using("k"))
    scope = {"type": "http", "method": "POST", "path": "/v1/responses", "root_path": ""}
    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(app.matches, [scope, scope])) == [True, True]
    assert app.matches(scope)
    assert len(used) == 3
    assert len({id(each) for each in used}) == 1
