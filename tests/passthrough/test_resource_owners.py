"""What one account creates with a pool's key, no other account can use, see in a list, or name."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given, strategies as st
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from asgi_aiproxy import (
    AIShim,
    APIError,
    ConfigurationError,
    Key,
    KeyPool,
    MemoryStore,
    PassthroughProxy,
    Principal,
    ProviderRouter,
    RedisStore,
    ResourceOwnership,
)
from asgi_aiproxy.keys.resource_records import ResourceRecord
from asgi_aiproxy.principal import SCOPE_KEY
from asgi_aiproxy.providers import ANTHROPIC, GEMINI, OPENAI
from asgi_aiproxy.providers.resource_references import (
    IdScanner,
    created_ids,
    may_refer,
    references,
)
from asgi_aiproxy.stores import Store
from tests.passthrough.test_websocket import echo, place
from tests.support import asgi_client as asgi
from tests.support.passthrough_upstream import Frontend
from tests.support.scripted_upstream import Step, Upstream, answers, sse, streams

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]

ADA, EVE = Principal("ada"), Principal("eve")
ADAS_COLLEAGUE = Principal("bob", account="team")
ROWS = {"openai": OPENAI, "anthropic": ANTHROPIC, "gemini": GEMINI}


class Gateway:
    """A proxy or a shim before a vendor whose answers are scripted."""

    def __init__(
        self,
        vendor: str = "openai",
        *,
        where: str = "proxy",
        keys: int = 1,
        store: Store | None = None,
        **ownership: Any,
    ) -> None:
        self.upstream = Upstream(answers())
        pool = KeyPool([Key(f"sk-{n}", id=f"k{n}") for n in range(keys)], name="p", store=store)
        provider = ROWS[vendor].using(pool)
        options: dict[str, Any] = {"transport": self.upstream.transport}
        if ownership:
            options["ownership"] = ResourceOwnership(**ownership)
        self.app: Any
        if where == "proxy":
            self.app = PassthroughProxy(provider, **options)
        else:
            self.app = AIShim(ProviderRouter({"*": provider}), **options)

    async def ask(
        self, who: Principal, method: str, path: str, body: Any = None, *, says: Any = None
    ) -> asgi.Answer:
        if says is not None:
            self.upstream.steps = [
                says if isinstance(says, Step) else answers(json.dumps(says).encode())
            ]
        data = (
            body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        )
        headers = {"content-type": "application/json", "content-length": str(len(data))}
        return await asgi.request(self.app, method, path, data, headers=headers, **{SCOPE_KEY: who})

    async def refuses(self, who: Principal, method: str, path: str, body: Any = None) -> bool:
        """Whether the answer is a 404, without a request to the vendor."""
        before = len(self.upstream.requests)
        answer = await self.ask(who, method, path, body)
        if answer.status == 404:
            assert b"No such resource" in answer.body
        return answer.status == 404 and len(self.upstream.requests) == before


def chat(part: Any) -> dict[str, Any]:
    return {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": [part]}]}


FILE = {"id": "file-abc123", "object": "file", "purpose": "batch"}
# What creates a resource, and all uses of it.
OPENAI_USES: list[tuple[str, Any, list[tuple[str, str, Any]]]] = [
    (
        "/v1/files",
        FILE,
        [
            ("GET", "/v1/files/file-abc123", None),
            ("GET", "/v1/files/file-abc123/content", None),
            ("GET", "/files/file-abc123", None),
            ("GET", "/v1/files/file%2Dabc123", None),
            ("DELETE", "/v1/files/file-abc123", None),
            (
                "POST",
                "/v1/chat/completions",
                chat({"type": "file", "file": {"file_id": "file-abc123"}}),
            ),
            (
                "POST",
                "/v1/responses",
                {"model": "m", "input": [{"type": "input_file", "file_id": "file-abc123"}]},
            ),
            (
                "POST",
                "/v1/responses",
                b'{"model": "m", "input": [{"f\\u0069le_id": "file\\u002dabc123"}]}',
            ),
            (
                "POST",
                "/v1/responses",
                b'{"model": "m", "x": {"file_id": "file-abc123", "file_id": "a"}}',
            ),
            (
                "POST",
                "/v1/responses",
                {
                    "model": "m",
                    "tools": [
                        {
                            "type": "code_interpreter",
                            "container": {"type": "auto", "file_ids": ["file-abc123"]},
                        }
                    ],
                },
            ),
            (
                "POST",
                "/v1/responses",
                '{"model": "m", "input": [{"file_id": "file-abc123"}]}'.encode("utf-16"),
            ),
            ("POST", "/v1/batches", {"input_file_id": "file-abc123", "endpoint": "/v1/responses"}),
            ("POST", "/v1/vector_stores", {"file_ids": ["file-abc123"]}),
            ("POST", "/v1/vector_stores/vs_new/files", {"file_id": "file-abc123"}),
            (
                "POST",
                "/v1/assistants",
                {
                    "model": "m",
                    "tool_resources": {"code_interpreter": {"file_ids": ["file-abc123"]}},
                },
            ),
            ("POST", "/v1/threads", {"messages": [{"attachments": [{"file_id": "file-abc123"}]}]}),
            ("POST", "/v1/fine_tuning/jobs", {"model": "m", "training_file": "file-abc123"}),
            (
                "POST",
                "/v1/evals",
                {"data_source": {"source": {"type": "file_id", "id": "file-abc123"}}},
            ),
            ("POST", "/v1/containers/cntr_new/files", {"file_id": "file-abc123"}),
        ],
    ),
    (
        "/v1/vector_stores",
        {"id": "vs_1", "object": "vector_store"},
        [
            ("POST", "/v1/vector_stores/vs_1/search", {"query": "x"}),
            ("GET", "/v1/vector_stores/vs_1/files", None),
            (
                "POST",
                "/v1/responses",
                {"model": "m", "tools": [{"type": "file_search", "vector_store_ids": ["vs_1"]}]},
            ),
        ],
    ),
    (
        "/v1/assistants",
        {"id": "asst_1", "object": "assistant"},
        [
            ("POST", "/v1/threads/runs", {"assistant_id": "asst_1"}),
            ("POST", "/v1/assistants/asst_1", {}),
        ],
    ),
    (
        "/v1/threads/runs",
        {"id": "run_1", "object": "thread.run", "thread_id": "thread_9"},
        [("GET", "/v1/threads/thread_9/messages", None), ("POST", "/v1/threads/thread_9/runs", {})],
    ),
    (
        "/v1/batches",
        {"id": "batch_1", "object": "batch"},
        [("POST", "/v1/batches/batch_1/cancel", {})],
    ),
    (
        "/v1/responses",
        {"id": "resp_1", "object": "response"},
        [
            ("GET", "/v1/responses/resp_1", None),
            ("POST", "/v1/responses", {"model": "m", "previous_response_id": "resp_1"}),
        ],
    ),
    (
        "/v1/conversations",
        {"id": "conv_1", "object": "conversation"},
        [
            ("POST", "/v1/responses", {"model": "m", "conversation": {"id": "conv_1"}}),
            ("POST", "/v1/responses", {"model": "m", "conversation": "conv_1"}),
            ("GET", "/v1/conversations/conv_1/items", None),
        ],
    ),
    ("/v1/videos", {"id": "video_1"}, [("GET", "/v1/videos/video_1/content", None)]),
    ("/v1/containers", {"id": "cntr_1"}, [("GET", "/v1/containers/cntr_1/files", None)]),
]
USES: list[tuple[str, str, Any, list[tuple[str, str, Any]]]] = [
    *(("openai", *each) for each in OPENAI_USES),
    (
        "anthropic",
        "/v1/files",
        {"id": "file_01", "type": "file"},
        [
            ("GET", "/v1/files/file_01/content", None),
            (
                "POST",
                "/v1/messages",
                chat({"type": "document", "source": {"type": "file", "file_id": "file_01"}}),
            ),
            (
                "POST",
                "/v1/messages/batches",
                {"requests": [{"params": chat({"source": {"file_id": "file_01"}})}]},
            ),
        ],
    ),
    (
        "anthropic",
        "/v1/messages/batches",
        {"id": "msgbatch_1", "type": "message_batch"},
        [("GET", "/v1/messages/batches/msgbatch_1/results", None)],
    ),
    (
        "anthropic",
        "/v1/skills",
        {"id": "skill_1"},
        [("POST", "/v1/messages", {"container": {"skills": [{"skill_id": "skill_1"}]}})],
    ),
    (
        "gemini",
        "/upload/v1beta/files",
        {"file": {"name": "files/7", "uri": "https://g.example/v1beta/files/7"}},
        [
            ("GET", "/v1beta/files/7", None),
            ("GET", "/download/v1beta/files/7:download", None),
            (
                "POST",
                "/v1beta/models/m:generateContent",
                {
                    "contents": [
                        {"parts": [{"fileData": {"fileUri": "https://g.example/v1beta/files/7"}}]}
                    ]
                },
            ),
            (
                "POST",
                "/v1beta/models/m:batchGenerateContent",
                {"batch": {"inputConfig": {"fileName": "files/7"}}},
            ),
        ],
    ),
    (
        "gemini",
        "/v1beta/cachedContents",
        {"name": "cachedContents/c1"},
        [("POST", "/v1beta/models/m:generateContent", {"cachedContent": "cachedContents/c1"})],
    ),
]


@pytest.mark.parametrize("keys", [1, 3])
@pytest.mark.parametrize(
    ("vendor", "create", "made", "uses"), USES, ids=lambda v: v if isinstance(v, str) else ""
)
async def test_another_account_cannot_use_a_resource_by_path_or_body(
    vendor: str, create: str, made: Any, uses: list[tuple[str, str, Any]], keys: int
) -> None:
    gateway = Gateway(vendor, keys=keys)
    assert (await gateway.ask(ADA, "POST", create, {"x": 1}, says=made)).status == 200
    gateway.upstream.steps = [answers(b"{}")]
    for method, path, body in uses:
        assert await gateway.refuses(EVE, method, path, body), (method, path, body)
        answer = await gateway.ask(ADA, method, path, body)
        assert answer.status == 200, (method, path, answer.body)
        anyone = await gateway.ask(Principal(""), method, path, body)
        assert anyone.status == 200  # an app that does not know its callers


async def test_odd_paths_to_a_resource_of_another_account_are_refused() -> None:
    upstream = Upstream(answers(json.dumps(FILE).encode()))
    app = PassthroughProxy(OPENAI.using("sk-1"), transport=upstream.transport, paths="all")
    await asgi.request(app, "POST", "/v1/files", b"", **{SCOPE_KEY: ADA})
    for path in ("/v1//files/file-abc123", "/V1/Files/file-abc123", "/v1/files/file-abc123;a=1"):
        answer = await asgi.request(app, "GET", path, b"", **{SCOPE_KEY: EVE})
        assert answer.status == 404, path
    assert len(upstream.requests) == 1


async def test_callers_of_one_account_share_what_they_create() -> None:
    gateway = Gateway()
    ada = Principal("ada", account="team")
    await gateway.ask(ada, "POST", "/v1/files", says=FILE)
    assert (await gateway.ask(ADAS_COLLEAGUE, "GET", "/v1/files/file-abc123")).status == 200
    assert await gateway.refuses(EVE, "GET", "/v1/files/file-abc123")


@pytest.mark.parametrize(
    ("vendor", "path", "listed"),
    [
        ("openai", "/v1/files", {"object": "list", "data": [{"id": "file-1"}, {"id": "file-2"}]}),
        (
            "openai",
            "/v1/batches",
            {
                "data": [{"id": "batch_2"}, {"id": "batch_1"}],
                "first_id": "batch_2",
                "last_id": "batch_1",
            },
        ),
        ("openai", "/v1/vector_stores", {"data": [{"id": "vs_1"}, {"id": "vs_2"}]}),
        (
            "anthropic",
            "/v1/files",
            {"data": [{"id": "file_1"}, {"id": "file_2"}], "has_more": False},
        ),
        ("gemini", "/v1beta/files", {"files": [{"name": "files/1"}, {"name": "files/2"}]}),
        ("gemini", "/v1beta/cachedContents", {"cachedContents": [{"name": "cachedContents/1"}]}),
    ],
)
async def test_lists_hold_the_items_of_the_callers_account_only(
    vendor: str, path: str, listed: dict[str, Any]
) -> None:
    gateway = Gateway(vendor)
    name = next(name for name, value in listed.items() if isinstance(value, list))
    mine = next(item for item in listed[name] if "1" in "".join(item.values()))
    created = f"/upload{path}" if vendor == "gemini" and "files" in path else path
    await gateway.ask(ADA, "POST", created, {"x": 1}, says=mine)
    answer = await gateway.ask(ADA, "GET", path, says=listed)
    assert answer.json[name] == [mine]
    if "first_id" in listed:
        assert (answer.json["first_id"], answer.json["last_id"]) == ("batch_1", "batch_1")
    answer = await gateway.ask(EVE, "GET", path, says=listed)
    assert answer.json[name] == []
    answer = await gateway.ask(Principal(""), "GET", path, says=listed)
    assert answer.json == listed


@pytest.mark.parametrize("body", [b"no JSON", b"[1]", b'{"object": "list"}', b"\x1f\x8b"])
async def test_a_list_that_cannot_be_read_is_not_passed_on(body: bytes) -> None:
    gateway = Gateway()
    assert (await gateway.ask(ADA, "GET", "/v1/files", says=answers(body))).status == 502


async def test_stored_chat_completions_are_listed_and_read_by_their_account_only() -> None:
    gateway = Gateway()
    body = {"model": "m", "messages": [], "store": True}
    made = {"id": "chatcmpl-1", "object": "chat.completion"}
    await gateway.ask(ADA, "POST", "/v1/chat/completions", body, says=made)
    assert await gateway.refuses(EVE, "GET", "/v1/chat/completions/chatcmpl-1")
    listed = {"data": [made], "object": "list"}
    path = "/v1/chat/completions"
    assert (await gateway.ask(EVE, "GET", path, says=listed)).json["data"] == []
    assert (await gateway.ask(ADA, "GET", path, says=listed)).json["data"] == [made]


async def test_a_streamed_response_belongs_to_the_caller() -> None:
    gateway = Gateway()
    events = sse({"type": "response.created", "response": {"id": "resp_7"}}, {"type": "x"})
    body = {"model": "m", "input": "Hi", "stream": True}
    await gateway.ask(ADA, "POST", "/v1/responses", body, says=streams(*events))
    follow_up = {"model": "m", "previous_response_id": "resp_7"}
    assert await gateway.refuses(EVE, "POST", "/v1/responses", follow_up)
    assert (await gateway.ask(ADA, "POST", "/v1/responses", follow_up)).status == 200


async def test_the_output_of_a_batch_belongs_to_its_caller_and_to_no_one_who_only_names_it() -> (
    None
):
    gateway = Gateway()
    await gateway.ask(ADA, "POST", "/v1/batches", {"input_file_id": "x"}, says={"id": "batch_1"})
    done = {"id": "batch_1", "output_file_id": "file-out", "error_file_id": "file-err"}
    await gateway.ask(ADA, "GET", "/v1/batches/batch_1", says=done)
    for file in ("file-out", "file-err"):
        assert await gateway.refuses(EVE, "GET", f"/v1/files/{file}/content")
    # A resource that was not created here cannot be claimed by reading it.
    other = {"id": "batch_2", "output_file_id": "file-2"}
    await gateway.ask(EVE, "GET", "/v1/batches/batch_2", says=other)
    assert (await gateway.ask(ADA, "GET", "/v1/files/file-2")).status == 200


@pytest.mark.parametrize("escaped", [False, True])
@pytest.mark.parametrize("size", [0, 3_000_000])
@pytest.mark.parametrize("where", ["proxy", "shim"])
async def test_the_calls_of_a_batch_cannot_name_a_file_of_another_account(
    where: str, size: int, escaped: bool
) -> None:
    gateway = Gateway(where=where)
    line = json.dumps({"padding": "x" * size, "body": chat({"file_id": "file-abc123"})}).encode()
    if escaped:
        line = line.replace(b'"file-abc123"', b'"f\\u0069le\\u002Dabc123"')
    head = b'--x\r\ncontent-disposition: form-data; name=file; filename="a.jsonl"\r\n\r\n'
    form = head + line + b"\r\n--x--\r\n"

    async def upload(who: Principal, id: str) -> asgi.Answer:
        gateway.upstream.steps = [answers(json.dumps({"id": id, "object": "file"}).encode())]
        headers = {"content-type": "multipart/form-data; boundary=x"}
        scope = {SCOPE_KEY: who}
        return await asgi.request(gateway.app, "POST", "/v1/files", form, headers=headers, **scope)

    async with gateway.app:
        await gateway.ask(ADA, "POST", "/v1/files", b"--x--", says=FILE)
        assert (await upload(ADA, "file-own")).status == 200
        assert (await upload(EVE, "file-eve")).status == 404
        batch = {"input_file_id": "file-eve", "endpoint": "/v1/chat/completions"}
        assert await gateway.refuses(EVE, "POST", "/v1/batches", batch)
        batch["input_file_id"] = "file-own"
        assert (
            await gateway.ask(ADA, "POST", "/v1/batches", batch, says={"id": "b"})
        ).status == 200


async def test_strict_refuses_unknown_ids_shared_ones_pass_and_off_checks_nothing() -> None:
    strict = Gateway(check="strict", shared=["vs_docs*"])
    assert await strict.refuses(ADA, "GET", "/v1/files/file-0")
    search = {"model": "m", "tools": [{"vector_store_ids": ["vs_0"]}]}
    assert await strict.refuses(ADA, "POST", "/v1/responses", search)
    search["tools"] = [{"vector_store_ids": ["vs_docs1"]}]
    assert (await strict.ask(ADA, "POST", "/v1/responses", search)).status == 200
    tool = {"name": "open", "parameters": {"properties": {"file_id": {"type": "string"}}}}
    calls = [{"function": {"name": "open", "arguments": '{"file_id": "file-x"}'}}]
    harmless = {"model": "m", "tools": [tool], "messages": [{"tool_calls": calls}]}
    assert (await strict.ask(ADA, "POST", "/v1/chat/completions", harmless)).status == 200
    off = Gateway(check="off")
    await off.ask(ADA, "POST", "/v1/files", says=FILE)
    assert (await off.ask(EVE, "GET", "/v1/files/file-abc123")).status == 200
    listed = {"data": [FILE]}
    assert (await off.ask(EVE, "GET", "/v1/files", says=listed)).json == listed
    with pytest.raises(ConfigurationError, match="There are: recorded, strict, off"):
        ResourceOwnership(check="on")  # type: ignore[arg-type]


@pytest.fixture(params=["memory", "redis"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    made: Store = MemoryStore()
    if request.param == "redis":
        made = RedisStore(request.getfixturevalue("redis_url"), prefix="owners", timeout=5.0)
    async with made:  # type: ignore[attr-defined]
        yield made


async def test_another_worker_knows_the_owner(store: Store) -> None:
    one, two = Gateway(keys=2, store=store), Gateway(keys=2, store=store)
    await one.ask(ADA, "POST", "/v1/files", says=FILE)
    assert await two.refuses(EVE, "GET", "/v1/files/file-abc123")
    part = chat({"type": "file", "file": {"file_id": "file-abc123"}})
    assert await two.refuses(EVE, "POST", "/v1/chat/completions", part)
    assert (await two.ask(ADA, "GET", "/v1/files/file-abc123")).status == 200


@pytest.mark.parametrize(
    ("vendor", "path", "kind"),
    [
        ("gemini", "/upload/v1beta/files", "application/octet-stream"),
        ("gemini", "/upload/v1beta/files", "text/plain"),
        ("openai", "/v1/files", "multipart/form-data; boundary=x"),
    ],
)
async def test_uploads_of_known_callers_are_streamed_whatever_their_length(
    vendor: str, path: str, kind: str
) -> None:
    upstream = Upstream(answers(b"{}"))
    limits: dict[str, Any] = {"max_inspected": 1000, "max_replay": 100}
    app = PassthroughProxy(ROWS[vendor].using("sk"), transport=upstream.transport, **limits)
    headers = {"content-type": kind}
    scope = {SCOPE_KEY: ADA}
    answer = await asgi.request(app, "POST", path, b"x" * 5000, headers=headers, **scope)
    assert answer.status == 200, answer.body
    body = {"contents": [], "padding": "x" * 5000}
    json_path = "/v1beta/models/m:generateContent"
    if vendor == "gemini":  # the body of a call is checked as a whole, also with another type
        answer = await asgi.request(app, "POST", json_path, body, headers=headers, **scope)
        assert answer.status == 413


async def test_all_apps_with_a_pool_know_the_owner_without_a_store() -> None:
    upstream = Upstream(answers(json.dumps(FILE).encode()))
    provider = OPENAI.using(["sk-1", "sk-2"])
    proxy = PassthroughProxy(provider, transport=upstream.transport)
    shim = AIShim(ProviderRouter({"*": provider}), transport=upstream.transport)
    await asgi.request(proxy, "POST", "/v1/files", b"", **{SCOPE_KEY: ADA})
    home = upstream.keys[-1]
    part = chat({"type": "file", "file": {"file_id": "file-abc123"}})
    path = "/v1/chat/completions"
    assert (await asgi.request(shim, "POST", path, part, **{SCOPE_KEY: EVE})).status == 404
    assert len(upstream.requests) == 1
    upstream.steps = [answers()]
    assert (await asgi.request(shim, "POST", path, part, **{SCOPE_KEY: ADA})).status == 200
    assert upstream.keys[-1] == home


@pytest.mark.parametrize("keys", [1, 4])
async def test_a_shim_checks_the_ids_in_requests_and_uses_the_key_that_holds_them(
    keys: int,
) -> None:
    gateway = Gateway(where="shim", keys=keys)
    async with gateway.app:
        await gateway.ask(ADA, "POST", "/v1/files", b"--x--", says=FILE)
        home = gateway.upstream.keys[-1]
        gateway.upstream.steps = [answers()]
        for part in (
            {"type": "file", "file": {"file_id": "file-abc123"}},
            {"type": "text", "text": "x", "f": {"file_id": "file-abc123"}},
        ):
            assert await gateway.refuses(EVE, "POST", "/v1/chat/completions", chat(part))
            for _ in range(3):
                answer = await gateway.ask(ADA, "POST", "/v1/chat/completions", chat(part))
                assert answer.status == 200, answer.body
                assert gateway.upstream.keys[-1] == home
        assert (await gateway.ask(EVE, "GET", "/v1/files", says={"data": [FILE]})).json[
            "data"
        ] == []


async def test_a_websocket_does_not_reach_what_another_account_created(frontend: Frontend) -> None:
    proxies: list[PassthroughProxy] = []

    def as_eve(proxy: PassthroughProxy, pool: KeyPool) -> Any:
        proxies.append(proxy)

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await proxy({**scope, SCOPE_KEY: EVE}, receive, send)

        return app

    async with place(frontend, echo, wrap=as_eve) as at:
        assert proxies[0].resources is not None
        record = ResourceRecord(ADA.tenant, "1")
        await proxies[0].resources.remember("resp_1", record, 100.0)
        async with connect(f"{at.url}/v1/responses", proxy=None, compression=None) as client:
            create = {"type": "response.create", "model": "m"}
            await client.send(json.dumps({**create, "previous_response_id": "resp_2"}))
            assert json.loads(await client.recv())["previous_response_id"] == "resp_2"
            await client.send(json.dumps({**create, "previous_response_id": "resp_1"}))
            with pytest.raises(ConnectionClosed):
                await client.recv()
        assert client.close_code == 1008


@given(
    st.recursive(
        st.none() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
        ),
    ),
    st.sampled_from(["file_id", "file_ids", "input_file_id", "container", "fileUri", "x"]),
    st.booleans(),
)
def test_an_id_is_found_wherever_it_is_in_a_body(around: Any, name: str, escaped: bool) -> None:
    body: Any = [around, {"a": [{name: "file-abc123"}, around]}, {name: ["file-abc123"]}]
    data = json.dumps(body).encode()
    if escaped:
        data = data.replace(b"file-abc", b"f\\u0069le\\u002Dabc")
    assert "file-abc123" in references(data)


def test_texts_and_definitions_of_tools_are_no_references() -> None:
    body = {
        "messages": [{"content": "Open file-abc123, please", "name": "file"}],
        "tools": [{"parameters": {"properties": {"file_id": {"type": "string"}}}}],
        "arguments": '{"file_id": "file-1"}',
    }
    assert references(json.dumps(body).encode()) == {}
    assert references(b"") == {}


@pytest.mark.parametrize("name", ["file_path", "part_of", "batch_size", "files", "video_url"])
def test_names_in_the_code_and_tools_of_agents_are_no_references(name: str) -> None:
    tool = {"parameters": {"properties": {name: {"type": "string"}}, "required": [name]}}
    body = json.dumps({"tools": [tool], "messages": [{"content": f'call("{name}")'}]}).encode()
    assert not may_refer(body)
    assert references(body) == {}


@pytest.mark.parametrize(
    "address",
    [
        "https://vendor.example/v1beta/files/abc",
        "https://vendor.example/v1beta/files/abc?alt=media",
        "https://vendor.example/v1beta/files/abc#part",
        "https://vendor.example/v1beta/files/%61bc",
        "files/abc/",
        " files/abc",
    ],
)
def test_an_address_with_what_a_server_ignores_is_that_of_the_same_file(address: str) -> None:
    assert "abc" in references(json.dumps({"fileUri": address}).encode())


def test_an_address_is_found_in_a_member_of_any_name_also_with_escaped_slashes() -> None:
    body = json.dumps({"type": "image", "uri": "https://vendor.example/v1beta/files/abc"})
    for text in (body, body.replace("/", "\\/")):
        assert references(text.encode()) == {"abc": False}


NOT_READABLE = {
    "a number that Python does not read": b'"n": ' + b"1" * 5000,
    "deep arrays": b'"n": ' + b"[" * 100_000 + b"]" * 100_000,
    "bytes that are not UTF-8": b'"n": "\xff"',
    "a line break in a string": b'"n": "a\nb"',
}


@pytest.mark.parametrize("member", NOT_READABLE.values(), ids=NOT_READABLE.keys())
async def test_json_that_other_parsers_may_read_is_refused_if_it_names_resources(
    member: bytes,
) -> None:
    gateway = Gateway()
    body = b'{"model": "m", "input": [{"file_id": "file-abc123"}], ' + member + b"}"
    answer = await gateway.ask(ADA, "POST", "/v1/responses", body)
    assert answer.status == 400
    assert b"not valid JSON" in answer.body
    assert gateway.upstream.requests == []


@pytest.mark.parametrize("body", [b"{\0[\0" * 9, b"\0\0\0[\xff\xfe", b"{\xff", b"[1, \0"])
def test_sound_that_begins_like_json_is_no_reference(body: bytes) -> None:
    assert references(body) == {}


def test_a_file_that_is_not_json_is_searched_for_ids() -> None:
    lines = b'{"a": {"file_id": "file-1"}}\n{"b": ["x",1111,"file-2"]}\n'
    assert references(lines, call=False).keys() >= {"file-1", "file-2"}


def test_a_file_with_more_ids_than_are_checked_is_refused() -> None:
    scanner = IdScanner()
    scanner.feed(b" ".join(b'"file-%d"' % number for number in range(10_000)))
    scanner.check_complete()
    scanner.feed(b'"file-other1"')
    with pytest.raises(APIError, match="divide it"):
        scanner.check_complete()


def test_the_file_that_a_batch_reads_is_not_created_with_it() -> None:
    batch = {"id": "batch_1", "input_file_id": "file-1", "output_file_id": "file-2"}
    assert list(created_ids(batch)) == ["batch_1", "file-2"]
