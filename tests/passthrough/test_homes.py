"""Resources are requested with the key that created them, by any caller and worker."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from asgi_aiproxy import Key, KeyPool, PassthroughProxy, Principal
from asgi_aiproxy.keys.resource_records import ResourceRecord, ResourceRecords
from asgi_aiproxy.principal import SCOPE_KEY
from asgi_aiproxy.providers import ANTHROPIC, GEMINI, OPENAI
from asgi_aiproxy.providers.base import Provider
from asgi_aiproxy.stores import MemoryStore, StoreUnavailableError
from asgi_aiproxy.stores.redis import RedisStore
from tests.stores.conftest import Clock
from tests.support import asgi_client as asgi
from tests.support.scripted_upstream import Step, Upstream, answers, refuses, sse, streams

pytestmark = pytest.mark.anyio

KEYS = tuple(Key(f"sk-{n}", id=f"sk-{n}") for n in range(8))
ADA, *OTHERS = [Principal(name, account="team") for name in ("ada", *"bcdefghi")]


class Worker:
    """A proxy with its own pool, with or without a store."""

    def __init__(
        self, *steps: Step, row: Provider = OPENAI, store: Any = None, keys: Any = KEYS
    ) -> None:
        self.upstream = Upstream(*(steps or (answers(),)))
        self.pool = KeyPool(keys, name="p", store=store)
        self.app = PassthroughProxy(row.using(self.pool), transport=self.upstream.transport)

    async def ask(
        self, method: str, path: str, body: Any = None, who: Principal = ADA
    ) -> asgi.Answer:
        """Send a request to the vendor, and return the key of its last request."""
        data = b"" if body is None else json.dumps(body).encode()
        headers = {"content-type": "application/json", "content-length": str(len(data))}
        scope = {SCOPE_KEY: who}
        return await asgi.request(self.app, method, path, data, headers=headers, **scope)

    @property
    def key(self) -> str:
        """The key of the vendor's last request."""
        headers = self.upstream.requests[-1].headers
        names = ("authorization", "x-api-key", "x-goog-api-key")
        return next(headers[name] for name in names if name in headers).removeprefix("Bearer ")

    async def keys(self, method: str, path: str, body: Any = None) -> set[str]:
        """The keys of requests for other resources."""
        used = set()
        for who in OTHERS:
            await self.ask(method, path, body, who)
            used.add(self.key)
        return used


def made(**members: Any) -> Step:
    return answers(json.dumps(members).encode())


def chat(part: Mapping[str, Any]) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": [part]}]}


@pytest.mark.parametrize(
    ("row", "make", "answer", "method", "path", "body"),
    [
        (OPENAI, "/v1/files", {"id": "file-1"}, "GET", "/v1/files/file-1/content", None),
        (OPENAI, "/v1/files", {"id": "f-1"}, "POST", "/v1/chat/completions", {"file_id": "f-1"}),
        (OPENAI, "/v1/files", {"id": "f-1"}, "POST", "/v1/batches", {"input_file_id": "f-1"}),
        (
            OPENAI,
            "/v1/vector_stores",
            {"id": "vs_1", "object": "vector_store"},
            "POST",
            "/v1/responses",
            {"tools": [{"type": "file_search", "vector_store_ids": ["vs_1"]}], "store": False},
        ),
        (OPENAI, "/v1/threads", {"id": "t"}, "POST", "/v1/threads/t/runs", {"assistant_id": "a"}),
        (
            OPENAI,
            "/v1/conversations",
            {"id": "conv_1"},
            "POST",
            "/v1/responses",
            {"model": "m", "conversation": {"id": "conv_1"}, "input": "Hi"},
        ),
        (
            ANTHROPIC,
            "/v1/files",
            {"type": "file", "id": "file_1"},
            "POST",
            "/v1/messages",
            chat({"type": "document", "source": {"type": "file", "file_id": "file_1"}}),
        ),
        (
            ANTHROPIC,
            "/v1/messages/batches",
            {"id": "msgbatch_1"},
            "GET",
            "/v1/messages/batches/msgbatch_1/results",
            None,
        ),
        (
            GEMINI,
            "/v1beta/cachedContents",
            {"name": "cachedContents/c1", "model": "models/g"},
            "POST",
            "/v1beta/models/g:generateContent",
            {"contents": [], "cachedContent": "cachedContents/c1"},
        ),
        (
            GEMINI,
            "/upload/v1beta/files",
            {"file": {"name": "files/7", "uri": "https://google.example/v1beta/files/7"}},
            "POST",
            "/v1beta/models/g:streamGenerateContent",
            {"fileData": {"fileUri": "https://google.example/v1beta/files/7"}},
        ),
        (GEMINI, "/v1beta/batches", {"name": "batches/b"}, "POST", "/v1beta/batches/b:cancel", {}),
    ],
    ids=str,
)
async def test_a_resource_is_requested_with_the_key_that_created_it(
    row: Provider, make: str, answer: Any, method: str, path: str, body: Any
) -> None:
    worker = Worker(made(**answer), answers(), row=row)
    assert (await worker.ask("POST", make, {"some": "thing"})).status == 200
    home = worker.key
    assert await worker.keys(method, path, body) == {home}
    # Without that they are shared out by who asks.
    other = Worker(row=row)
    assert len(await other.keys(method, path, body)) > 1


async def test_a_streamed_response_is_found_again() -> None:
    response = {"id": "resp_1", "object": "response", "instructions": "x" * 20_000}
    created = {"type": "response.created", "response": response}
    done = {"type": "response.completed", "response": {**response, "usage": None}}
    worker = Worker(streams(*sse(created, done)), answers())
    await worker.ask("POST", "/v1/responses", {"model": "m", "input": "Hi", "stream": True})
    home = worker.key
    body = {"model": "m", "input": "And?", "previous_response_id": "resp_1"}
    assert await worker.keys("POST", "/v1/responses", body) == {home}


async def test_resources_that_the_vendor_does_not_store_are_not_remembered() -> None:
    worker = Worker(made(id="resp_1"), answers())
    await worker.ask("POST", "/v1/responses", {"model": "m", "input": "Hi", "store": False})
    assert len(await worker.keys("GET", "/v1/responses/resp_1")) > 1


async def test_resources_that_were_not_created_are_not_remembered() -> None:
    worker = Worker(refuses(400, b'{"id": "file-1"}'), answers())
    await worker.ask("POST", "/v1/files")
    assert len(await worker.keys("GET", "/v1/files/file-1")) > 1


async def test_while_its_key_cools_down_a_resource_is_not_requested_with_others() -> None:
    worker = Worker(made(id="file-1"), answers())
    await worker.ask("POST", "/v1/files")
    with worker.pool.acquire_nowait(key_id=worker.key) as lease:
        lease.report(429, 20.0)
    answer = await worker.ask("GET", "/v1/files/file-1", who=OTHERS[0])
    assert answer.status == 429
    assert int(answer.header("retry-after") or 0) in (19, 20)
    assert len(worker.upstream.requests) == 1


@pytest.mark.parametrize("gone", ["removed", "disabled"])
async def test_when_its_key_was_removed_others_are_tried(gone: str) -> None:
    worker = Worker(made(id="file-1"), answers())
    await worker.ask("POST", "/v1/files")
    home = worker.key
    await (worker.pool.remove(home) if gone == "removed" else worker.pool.disable(home))
    answer = await worker.ask("GET", "/v1/files/file-1", who=OTHERS[0])
    assert answer.status == 200
    assert worker.key != home


async def test_a_caller_restricted_to_other_keys_does_not_get_that_one() -> None:
    worker = Worker(made(id="file-1"), answers())
    await worker.ask("POST", "/v1/files")
    allowed = next(key.id for key in KEYS if key.id != worker.key)
    await worker.ask("GET", "/v1/files/file-1", who=Principal("b", account="team", keys=(allowed,)))
    assert worker.key == allowed


# ── in a store ───────────────────────────────────────────────────────────────


class Counting(MemoryStore):
    """Counts the calls of the store."""

    def __init__(self) -> None:
        super().__init__()
        self.writes = 0
        self.reads = 0
        self.away = False

    async def set_entry(self, name: str, value: bytes, *, seconds: float) -> None:
        self.writes += 1
        self._check()
        await super().set_entry(name, value, seconds=seconds)

    async def get_entry(self, name: str) -> bytes | None:
        self.reads += 1
        self._check()
        return await super().get_entry(name)

    def _check(self) -> None:
        if self.away:
            raise StoreUnavailableError("It is away.")


@pytest.mark.parametrize("kind", ["memory", "redis"])
async def test_another_worker_requests_a_resource_with_the_same_key(
    kind: str, request: pytest.FixtureRequest
) -> None:
    store: Any = MemoryStore()
    if kind == "redis":
        store = RedisStore(request.getfixturevalue("redis_url"), prefix="homes", timeout=5.0)
    async with store:
        one = Worker(made(id="file-7"), store=store)
        two = Worker(store=store)
        async with one.pool, two.pool:
            await one.ask("POST", "/v1/files")
            assert await two.keys("GET", "/v1/files/file-7") == {one.key}
            body = chat({"type": "file", "file": {"file_id": "file-7"}})
            assert await two.keys("POST", "/v1/chat/completions", body) == {one.key}


async def test_it_costs_one_write_for_each_and_one_read_elsewhere() -> None:
    store = Counting()
    one, two = Worker(made(id="file-7"), store=store), Worker(store=store)
    async with one.pool, two.pool:
        for worker in (one, two):
            await worker.ask("POST", "/v1/chat/completions", {"model": "m", "messages": []})
            await worker.ask("POST", "/v1/embeddings", {"model": "m", "input": "x"})
        assert (store.writes, store.reads) == (0, 0)
        await one.ask("POST", "/v1/files")
        assert (store.writes, store.reads) == (1, 0)
        for worker in (one, two, two):
            await worker.ask("GET", "/v1/files/file-7")
        assert (store.writes, store.reads) == (1, 1)


async def test_while_the_store_is_unavailable_known_resources_are_served_and_others_are_not() -> (
    None
):
    store = Counting()
    worker = Worker(made(id="file-7"), store=store)
    async with worker.pool:
        store.away = True
        assert (await worker.ask("POST", "/v1/files")).status == 200
        assert await worker.keys("GET", "/v1/files/file-7") == {worker.key}
        answer = await worker.ask("GET", "/v1/files/file-8")
        assert (answer.status, answer.header("retry-after")) == (503, "1")
        anyone = await worker.ask("GET", "/v1/files/file-8", who=Principal(""))
        assert anyone.status == 200


async def test_records_expire_and_their_number_is_limited() -> None:
    clock = Clock()
    records = ResourceRecords("p", clock=clock)
    record = ResourceRecord("team", "sk-1")
    await records.remember("f", record, 100.0)
    await records.remember("f", ResourceRecord("other", "sk-2"), 100.0)  # it is known
    assert await records.find("f") == record
    assert await records.key_of(["nothing", "f"]) == "sk-1"
    clock.now += 101
    assert await records.find("f") is None
    for number in range(100_000):
        await records.remember(f"f{number}", record, 100.0)
    assert await records.find("f0") is None
    assert await records.find("f99999") == record
    assert await records.find("") is await records.find("x" * 301) is None
