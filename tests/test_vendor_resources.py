"""Files and batches through the shims: relayed to the key that holds them, each caller its own."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

import anthropic
import httpx2
import openai
import pytest

from asgi_aiproxy import (
    AIShim,
    AnthropicShim,
    Authenticate,
    Budget,
    InProcessTransport,
    KeyPool,
    Limits,
    MemoryStore,
    OpenAIShim,
    Price,
    Prices,
    Principal,
    ProviderRouter,
    Quota,
    RedisStore,
    UsageRecord,
)
from asgi_aiproxy.keys import Key, Sealer
from asgi_aiproxy.middleware import static_tokens
from asgi_aiproxy.principal import SCOPE_KEY
from asgi_aiproxy.providers import ANTHROPIC, GEMINI, OPENAI
from asgi_aiproxy.quotas.grants import reserve
from asgi_aiproxy.stores import Store
from asgi_aiproxy.testing import serve
from tests.support import asgi_client as asgi

pytestmark = pytest.mark.anyio

LINES = b'{"custom_id": "1", "body": {}}\n{"custom_id": "2", "body": {}}\n'


class Vendor:
    """Files and batches of OpenAI and Anthropic; each key is an account of its own."""

    def __init__(self) -> None:
        self.files: dict[str, tuple[str, bytes]] = {}
        self.batches: dict[str, tuple[str, dict[str, Any]]] = {}
        self.first_piece = asyncio.Event()
        self.seen: list[tuple[str, str, str]] = []
        self.results = LINES
        self.refuses = False
        self.listed: Any = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        headers = dict(scope["headers"])
        key = (headers.get(b"x-api-key") or headers[b"authorization"]).decode().split()[-1]
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if body:
                self.first_piece.set()
            if not message.get("more_body"):
                break
        method, path = scope["method"], scope["path"].removeprefix("/v1").rstrip("/")
        self.seen.append((method, path, key))
        status, answer = self._answer(method, path, key, body)
        data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        kind = b"application/octet-stream" if isinstance(answer, bytes) else b"application/json"
        start = {"type": "http.response.start", "status": status}
        await send({**start, "headers": [(b"content-type", kind)]})
        await send({"type": "http.response.body", "body": b"" if method == "HEAD" else data})

    def _answer(self, method: str, path: str, key: str, body: bytes) -> tuple[int, Any]:
        if (method, path) == ("POST", "/files"):
            id = f"file-{len(self.files)}"
            self.files[id] = key, body
            return 200, self._file(id)
        if (method, path) == ("GET", "/files") and self.listed is not None:
            return 200, self.listed
        if (method, path) == ("GET", "/files"):
            mine = [self._file(id) for id, (owner, _) in self.files.items() if owner == key]
            return 200, {"object": "list", "data": mine, "has_more": False}
        if path.startswith("/files/"):
            id, _, rest = path.removeprefix("/files/").partition("/")
            if id not in self.files or self.files[id][0] != key:
                return 404, {"error": {"message": "no such file", "type": "x", "code": None}}
            return 200, self.files[id][1] if rest == "content" else self._file(id)
        collection = "/messages/batches" if path.startswith("/messages/batches") else "/batches"
        if (method, path) == ("POST", collection) and self.refuses:
            return 400, {
                "type": "error",
                "error": {"type": "invalid_request_error", "message": "no"},
            }
        if (method, path) == ("POST", collection):
            id = f"batch_{len(self.batches)}"
            self.batches[id] = key, {"id": id, "object": "batch", **self._batch_fields()}
            return 200, self.batches[id][1]
        id, _, rest = path.removeprefix(collection + "/").partition("/")
        if id not in self.batches or self.batches[id][0] != key:
            return 404, {"error": {"message": "no such batch", "type": "x", "code": None}}
        if rest == "results":
            return 200, self.results
        batch = self.batches[id][1]
        if method == "GET" and collection == "/batches":
            self.files.setdefault(f"out-{id}", (key, LINES))
            batch = {**batch, "status": "completed", "output_file_id": f"out-{id}"}
        return 200, batch

    def _batch_fields(self) -> dict[str, Any]:
        return {
            "endpoint": "/v1/chat/completions",
            "input_file_id": "file-0",
            "completion_window": "24h",
            "status": "validating",
            "created_at": 1,
            "type": "message_batch",
            "processing_status": "in_progress",
        }

    def _file(self, id: str) -> dict[str, Any]:
        return {
            "id": id,
            "object": "file",
            "bytes": len(self.files[id][1]),
            "created_at": 1,
            "filename": "a.jsonl",
            "purpose": "batch",
            "status": "processed",
        }


class Gateway:
    def __init__(self, url: str, **pool: Any) -> None:
        self.records: list[UsageRecord] = []
        keys = [Key("sk-1", id="1"), Key("sk-2", id="2"), Key("sk-3", id="3")]
        self.pools = [
            KeyPool(keys, name="openai", strategy="round_robin", **pool),
            KeyPool(keys, name="anthropic", strategy="round_robin", **pool),
        ]
        self.router = ProviderRouter(
            {
                "gpt-*": OPENAI.using(self.pools[0], base_url=url + "/v1"),
                "claude-*": ANTHROPIC.using(self.pools[1], base_url=url),
            }
        )
        self.shim = AIShim(self.router, record=self.record)
        self.app = Authenticate(
            self.shim,
            verify=static_tokens(
                {"a": Principal("ann", account="one"), "c": Principal("cid", account="two")}
            ),
        )

    async def record(self, usage: UsageRecord) -> None:
        self.records.append(usage)

    async def call(self, method: str, path: str, body: Any = None, **more: Any) -> asgi.Answer:
        token = more.pop("token", "a")
        headers = {"authorization": f"Bearer {token}", **more.pop("headers", {})}
        return await asgi.request(self.app, method, path, body, headers=headers, **more)

    def http(self, token: str = "a") -> httpx2.AsyncClient:
        transport: Any = InProcessTransport(self.app)
        return httpx2.AsyncClient(transport=transport)


@pytest.fixture
async def vendor() -> Vendor:
    return Vendor()


@pytest.fixture
async def gateway(vendor: Vendor) -> AsyncIterator[Gateway]:
    async with serve(vendor) as url:
        made = Gateway(url)
        async with made.app:
            yield made


async def test_openais_sdk_makes_a_batch_and_reads_its_results(
    gateway: Gateway, vendor: Vendor
) -> None:
    async with gateway.http() as http:
        client = openai.AsyncOpenAI(base_url="http://ai/v1", api_key="a", http_client=http)
        file = await client.files.create(file=("a.jsonl", LINES), purpose="batch")
        batch = await client.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
        )
        done = await client.batches.retrieve(batch.id)
        assert done.output_file_id
        content = await client.files.content(done.output_file_id)
        assert content.content == LINES
        assert [each.id async for each in client.files.list()] == [file.id, done.output_file_id]
    assert LINES in vendor.files[file.id][1]
    keys = {key for method, path, key in vendor.seen if path != "/files" or method == "POST"}
    assert len(keys) == 1  # all with the key that made the file
    await gateway.shim.__aenter__()
    await gateway.shim.__aexit__()
    assert {usage.principal for usage in gateway.records} == {"ann"}


async def test_anthropics_sdk_makes_a_batch_and_reads_its_results(
    gateway: Gateway, vendor: Vendor
) -> None:
    async with gateway.http() as http:
        client = anthropic.AsyncAnthropic(base_url="http://ai", api_key="a", http_client=http)
        params: Any = {"model": "claude-x", "max_tokens": 5, "messages": []}
        batch = await client.messages.batches.create(
            requests=[{"custom_id": "1", "params": params}]
        )
        for _ in range(3):
            await client.messages.batches.retrieve(batch.id)
    found = await gateway.call("GET", f"/v1/messages/batches/{batch.id}/results")
    assert found.body == LINES
    assert len({key for _, _, key in vendor.seen}) == 1


async def test_resources_of_another_account_do_not_exist(gateway: Gateway, vendor: Vendor) -> None:
    file = (await gateway.call("POST", "/v1/files", {"x": 1})).json["id"]
    batch = (await gateway.call("POST", "/v1/batches", {"input_file_id": file})).json["id"]
    out = (await gateway.call("GET", f"/v1/batches/{batch}")).json["output_file_id"]
    before = len(vendor.seen)
    for method, path in (
        ("GET", f"/v1/files/{file}"),
        ("GET", f"/v1/files/{file}/content"),
        ("GET", f"/v1/files/{out}/content"),
        ("DELETE", f"/v1/files/{file}"),
        ("GET", f"/v1/batches/{batch}"),
        ("POST", f"/v1/batches/{batch}/cancel"),
        ("GET", "/v1/files/file-unknown"),
    ):
        answer = await gateway.call(method, path, token="c")
        assert (answer.status, answer.json["error"]["code"]) == (404, "not_found"), path
    for path in ("/v1/batches", "/v1/batches/"):
        refused = await gateway.call("POST", path, {"input_file_id": file}, token="c")
        assert refused.status == 404
    assert len(vendor.seen) == before
    assert (await gateway.call("GET", f"/v1/files/{file}")).status == 200


async def test_a_list_has_the_callers_own_resources_only(gateway: Gateway) -> None:
    mine = [(await gateway.call("POST", "/v1/files", {"x": 1})).json["id"] for _ in range(3)]
    await gateway.call("POST", "/v1/files", {"x": 1}, token="c")
    listed: list[str] = []
    for key in ("1", "2", "3"):
        answer = await gateway.call("GET", "/v1/files", headers={"aiproxy-key": key})
        listed += [each["id"] for each in answer.json["data"]]
    assert sorted(listed) == sorted(mine)


async def test_a_list_that_cannot_be_read_is_not_passed_on(
    gateway: Gateway, vendor: Vendor
) -> None:
    for listed in (b"file-of-cid", [{"id": "file-of-cid"}]):  # another type; not an object
        vendor.listed = listed
        answer = await gateway.call("GET", "/v1/files")
        assert answer.status == 502
        assert b"file-of-cid" not in answer.body


async def test_an_upload_is_streamed(gateway: Gateway, vendor: Vendor) -> None:
    headers = {"authorization": "Bearer a", "content-type": "multipart/form-data; boundary=b"}
    async with asgi.opened(gateway.app, "POST", "/v1/files", headers=headers) as exchange:
        piece = b"x" * (2 * 1024 * 1024)  # longer than what is kept to be sent again
        exchange.send_body(piece, more=True)
        async with asyncio.timeout(30):
            await vendor.first_piece.wait()  # before the rest is sent
        exchange.send_body(piece)
        answer = await exchange.answer()
    assert answer.status == 200
    assert vendor.files[answer.json["id"]][1] == piece * 2


async def test_the_content_of_a_file_is_not_read_as_a_resource(
    gateway: Gateway, vendor: Vendor
) -> None:
    body = b'{"id": "file-of-cid"}'
    vendor.files["file-of-cid"] = "sk-1", b"secret"
    headers = {"content-type": "application/json", "aiproxy-key": "1"}
    made = await asgi.request(
        gateway.app,
        "POST",
        "/v1/files",
        json.loads(body),
        headers={"authorization": "Bearer a", **headers},
    )
    content = await gateway.call("GET", f"/v1/files/{made.json['id']}/content")
    assert json.loads(content.body) == json.loads(body)
    assert (await gateway.call("GET", "/v1/files/file-of-cid")).status == 404


async def test_workers_that_share_keys_share_owners_and_keys(
    vendor: Vendor, redis_url: str
) -> None:
    prefix, sealing = uuid.uuid4().hex, Sealer.generate()
    async with serve(vendor) as url:
        stores = [RedisStore(redis_url, prefix=prefix) for _ in range(2)]
        one, other = (Gateway(url, store=store, sealer=Sealer(sealing)) for store in stores)
        try:
            async with one.app, other.app:
                file = (await one.call("POST", "/v1/files", {"x": 1})).json["id"]
                for _ in range(3):
                    assert (await other.call("GET", f"/v1/files/{file}")).status == 200
                assert (await other.call("GET", f"/v1/files/{file}", token="c")).status == 404
        finally:
            for pool in (*one.pools, *other.pools):
                await pool.__aexit__(None, None, None)
            for store in stores:
                await store.aclose()
    assert len({key for _, _, key in vendor.seen}) == 1


async def test_without_accounts_nothing_is_hidden(vendor: Vendor) -> None:
    async with serve(vendor) as url:
        app = OpenAIShim(OPENAI.using("sk-1", base_url=url + "/v1"))
        vendor.files["file-old"] = "sk-1", b"x"
        async with app:
            assert (await asgi.request(app, "GET", "/v1/files/file-old")).status == 200
            listed = await asgi.request(app, "GET", "/v1/files")
            assert [each["id"] for each in listed.json["data"]] == ["file-old"]


async def test_a_vendor_without_this_api_is_named_as_the_reason() -> None:
    app = AIShim(GEMINI.using("k"))
    answer = await asgi.request(app, "GET", "/v1/files")
    assert answer.status == 404
    assert "No provider of this gateway has this API" in answer.json["error"]["message"]
    one = AnthropicShim(OPENAI.using("k"))
    assert (await asgi.request(one, "GET", "/v1/batches")).status == 404


async def test_models_of_a_batch_must_be_allowed(vendor: Vendor) -> None:
    async with serve(vendor) as url:
        app = Authenticate(
            AIShim(ANTHROPIC.using("sk-1", base_url=url)),
            verify=static_tokens({"t": Principal("t", models=("claude-small",))}),
        )
        call = {"custom_id": "1", "params": {"model": "claude-big", "max_tokens": 1}}
        async with app:
            answer = await asgi.request(
                app,
                "POST",
                "/v1/messages/batches",
                {"requests": [call]},
                headers={"authorization": "Bearer t"},
            )
    assert answer.status == 403
    assert vendor.seen == []


# ── budgets ──────────────────────────────────────────────────────────────────


def line(model: str, tokens: int) -> bytes:
    body = {"model": model, "max_tokens": tokens, "messages": [{"role": "user", "content": "Hi"}]}
    call = {"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": body}
    return json.dumps(call).encode() + b"\n"


def openai_result(model: str, output: int) -> bytes:
    usage = {"prompt_tokens": 0, "completion_tokens": output, "total_tokens": output}
    body = {"id": "c", "object": "chat.completion", "model": model, "choices": [], "usage": usage}
    return json.dumps({"custom_id": "1", "response": {"status_code": 200, "body": body}}).encode()


def anthropic_result(model: str, output: int) -> bytes:
    usage = {"input_tokens": 0, "output_tokens": output}
    message = {"type": "message", "role": "assistant", "model": model, "usage": usage}
    return json.dumps(
        {"custom_id": "1", "result": {"type": "succeeded", "message": message}}
    ).encode()


class Budgeted:
    """Two workers with a budget of $100 over one store; a token of output costs $1."""

    def __init__(self, url: str, store: Store, vendor: Vendor, budget: float = 100) -> None:
        self.store = store
        self.vendor = vendor
        self.principal = Principal(
            "ann", limits=Limits(budgets=(Budget.usd(budget),)), models=("gpt-*", "claude-*")
        )
        prices = Prices({"*": Price(input=0, output=1_000_000)}, listed=False)
        self.workers = []
        for _ in range(2):
            keys = KeyPool([Key("sk-1", id="1")], name="openai", store=store)
            others = KeyPool([Key("sk-1", id="1")], name="anthropic", store=store)
            router = ProviderRouter(
                {
                    "gpt-*": OPENAI.using(keys, base_url=url + "/v1"),
                    "claude-*": ANTHROPIC.using(others, base_url=url),
                }
            )
            self.workers.append(Quota(AIShim(router), store=store, prices=prices))

    async def call(self, method: str, path: str, body: Any = None, worker: int = 0) -> asgi.Answer:
        sent = b"" if body is None else body
        return await asgi.request(
            self.workers[worker], method, path, sent, **{SCOPE_KEY: self.principal}
        )

    async def spent(self) -> float:
        await asyncio.gather(*(worker._limiter.drain() for worker in self.workers))
        budget = self.principal.limits.budgets[0]
        (level,) = await self.store.peek([reserve(self.principal, budget, 0, time.time())])
        return level.used / 1_000_000 + level.held


@pytest.fixture(params=["memory", "redis"])
async def budgeted(
    vendor: Vendor, redis_url: str, request: pytest.FixtureRequest
) -> AsyncIterator[Budgeted]:
    store: Store = MemoryStore()
    if request.param == "redis":
        store = RedisStore(redis_url, prefix=uuid.uuid4().hex)
    async with serve(vendor) as url, store:
        yield Budgeted(url, store, vendor)


async def test_the_budget_is_charged_at_creation_and_corrected_once_when_results_are_read(
    budgeted: Budgeted, vendor: Vendor
) -> None:
    vendor.files["file-in"] = "sk-1", line("gpt-x", 40) + line("gpt-x", 60)
    made = await remembered(budgeted, "file-in")
    batch = (await budgeted.call("POST", "/v1/batches", {"input_file_id": made})).json["id"]
    assert await budgeted.spent() == 50  # half the price of 100 tokens
    await budgeted.call("GET", f"/v1/batches/{batch}", worker=1)
    out = f"out-{batch}"
    vendor.files[out] = "sk-1", openai_result("gpt-x", 10) + b"\n" + openai_result("gpt-x", 20)
    for worker in (1, 0, 1):
        answer = await budgeted.call("GET", f"/v1/files/{out}/content", worker=worker)
        assert answer.body == vendor.files[out][1]
        assert await budgeted.spent() == 15


async def test_a_request_without_the_results_gives_nothing_back(
    budgeted: Budgeted, vendor: Vendor
) -> None:
    vendor.files["file-in"] = "sk-1", line("gpt-x", 100)
    made = await remembered(budgeted, "file-in")
    batch = (await budgeted.call("POST", "/v1/batches/", {"input_file_id": made})).json["id"]
    out = (await budgeted.call("GET", f"/v1/batches/{batch}")).json["output_file_id"]
    vendor.files[out] = "sk-1", openai_result("gpt-x", 80) + b"\n"
    for method in ("HEAD", "DELETE"):
        await budgeted.call(method, f"/v1/files/{out}/content")
        assert await budgeted.spent() == 50
    await budgeted.call("GET", f"/v1/files/{out}/content")
    assert await budgeted.spent() == 40


async def test_anthropics_batches_are_charged_and_corrected_too(
    budgeted: Budgeted, vendor: Vendor
) -> None:
    params = {"model": "claude-x", "max_tokens": 30, "messages": []}
    calls = [{"custom_id": str(number), "params": params} for number in range(2)]
    batch = await budgeted.call("POST", "/v1/messages/batches", {"requests": calls})
    assert await budgeted.spent() == 30
    vendor.results = anthropic_result("claude-x", 4) + b"\n"
    path = f"/v1/messages/batches/{batch.json['id']}/results"
    both = await asyncio.gather(*(budgeted.call("GET", path, worker=worker) for worker in (0, 1)))
    assert {answer.status for answer in both} == {200}
    assert await budgeted.spent() == 2


async def test_a_batch_beyond_the_budget_is_refused_before_it_is_created(
    budgeted: Budgeted, vendor: Vendor
) -> None:
    vendor.files["file-in"] = "sk-1", line("gpt-x", 150) * 2
    made = await remembered(budgeted, "file-in")
    answer = await budgeted.call("POST", "/v1/batches", {"input_file_id": made})
    assert answer.status == 429
    assert answer.json["error"]["code"] == "insufficient_quota"
    assert vendor.batches == {}
    assert await budgeted.spent() == 0


async def test_a_batch_that_is_not_created_costs_nothing(
    budgeted: Budgeted, vendor: Vendor
) -> None:
    vendor.refuses = True
    params = {"model": "claude-x", "max_tokens": 30, "messages": []}
    calls = [{"custom_id": "1", "params": params}]
    assert (await budgeted.call("POST", "/v1/messages/batches", {"requests": calls})).status == 400
    assert await budgeted.spent() == 0


async def test_a_batch_that_ends_without_results_costs_nothing(
    budgeted: Budgeted, vendor: Vendor
) -> None:
    params = {"model": "claude-x", "max_tokens": 30, "messages": []}
    calls = [{"custom_id": "1", "params": params}]
    made = (await budgeted.call("POST", "/v1/messages/batches", {"requests": calls})).json
    assert await budgeted.spent() == 15
    fields = vendor.batches[made["id"]][1]
    fields |= {"processing_status": "ended", "status": "ended"}
    fields["request_counts"] = {"succeeded": 0, "canceled": 1}
    for worker in (0, 1):
        await budgeted.call("GET", f"/v1/messages/batches/{made['id']}", worker=worker)
        assert await budgeted.spent() == 0


async def test_a_file_with_calls_of_other_models_is_refused(
    budgeted: Budgeted, vendor: Vendor
) -> None:
    vendor.files["file-in"] = "sk-1", line("gpt-x", 1) + line("o9-secret", 1)
    made = await remembered(budgeted, "file-in")
    answer = await budgeted.call("POST", "/v1/batches", {"input_file_id": made})
    assert answer.status == 403
    assert vendor.batches == {}
    vendor.files[made] = "sk-1", b"not json\n"
    assert (await budgeted.call("POST", "/v1/batches", {"input_file_id": made})).status == 400
    assert await budgeted.spent() == 0


async def remembered(budgeted: Budgeted, content: str) -> str:
    """A file that the caller has uploaded, with the content of another."""
    made: str = (await budgeted.call("POST", "/v1/files", {"x": 1})).json["id"]
    budgeted.vendor.files[made] = budgeted.vendor.files[content]
    return made
