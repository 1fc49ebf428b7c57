"""The vendors: where a request is sent, how it is authenticated, and which quirks are handled."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Callable
from typing import Any

import pytest

from asgi_aiproxy import ConfigurationError, HttpxTransport, KeyPool, OpenAIShim, providers
from asgi_aiproxy.dialects import (
    ANTHROPIC_MESSAGES,
    COHERE_CHAT,
    COZE_CHAT,
    GEMINI_CONTENT,
    OLLAMA_CHAT,
    OPENAI_CHAT,
    OPENAI_RESPONSES,
)
from asgi_aiproxy.dialects.base import ProviderRequest
from asgi_aiproxy.dialects.no_chat import NoChat
from asgi_aiproxy.keys import Key
from asgi_aiproxy.providers import (
    ANTHROPIC,
    GEMINI,
    MINIMAX,
    MISTRAL,
    OLLAMA,
    OPENAI,
    VLLM,
    Provider,
    azure,
    discover,
    header,
    openai_compatible,
)
from asgi_aiproxy.providers.catalog import ROWS
from asgi_aiproxy.upstream import UpstreamRequest
from tests.support import asgi_client as asgi
from tests.support.scripted_upstream import Step, Upstream, answers, chat_stream, streams

pytestmark = pytest.mark.anyio

# ── where a chat request goes, and with which credential ─────────────────────

CHAT: dict[str, tuple[str, str, str]] = {
    # provider: (URL, header of the credential, what stands there)
    "openai": ("https://api.openai.com/v1/chat/completions", "authorization", "Bearer sk-1"),
    "openai-responses": ("https://api.openai.com/v1/responses", "authorization", "Bearer sk-1"),
    "anthropic": ("https://api.anthropic.com/v1/messages", "x-api-key", "sk-1"),
    "gemini": (
        "https://generativelanguage.googleapis.com/v1beta/models/m:generateContent",
        "x-goog-api-key",
        "sk-1",
    ),
    "mistral": ("https://api.mistral.ai/v1/chat/completions", "authorization", "Bearer sk-1"),
    "groq": ("https://api.groq.com/openai/v1/chat/completions", "authorization", "Bearer sk-1"),
    "deepseek": ("https://api.deepseek.com/chat/completions", "authorization", "Bearer sk-1"),
    "xai": ("https://api.x.ai/v1/chat/completions", "authorization", "Bearer sk-1"),
    "openrouter": ("https://openrouter.ai/api/v1/chat/completions", "authorization", "Bearer sk-1"),
    "together": ("https://api.together.xyz/v1/chat/completions", "authorization", "Bearer sk-1"),
    "fireworks": (
        "https://api.fireworks.ai/inference/v1/chat/completions",
        "authorization",
        "Bearer sk-1",
    ),
    "perplexity": ("https://api.perplexity.ai/chat/completions", "authorization", "Bearer sk-1"),
    "cerebras": ("https://api.cerebras.ai/v1/chat/completions", "authorization", "Bearer sk-1"),
    "cohere": ("https://api.cohere.com/v2/chat", "authorization", "Bearer sk-1"),
    "coze": ("https://api.coze.com/v3/chat", "authorization", "Bearer sk-1"),
    "ollama": ("http://127.0.0.1:11434/api/chat", "authorization", "Bearer sk-1"),
    "vllm": ("http://127.0.0.1:8000/v1/chat/completions", "authorization", "Bearer sk-1"),
    "lmstudio": ("http://127.0.0.1:1234/v1/chat/completions", "authorization", "Bearer sk-1"),
}
COMPATIBLE = {
    "dashscope": "https://dashscope-intl.aliyuncs.com/compatible-mode/v1",
    "zai": "https://api.z.ai/api/paas/v4",
    "moonshot": "https://api.moonshot.ai/v1",
    "minimax": "https://api.minimax.io/v1",
    "siliconflow": "https://api.siliconflow.com/v1",
    "huggingface": "https://router.huggingface.co/v1",
    "nvidia": "https://integrate.api.nvidia.com/v1",
    "github": "https://models.github.ai/inference",
    "sambanova": "https://api.sambanova.ai/v1",
    "deepinfra": "https://api.deepinfra.com/v1/openai",
    "voyage": "https://api.voyageai.com/v1",
    "jina": "https://api.jina.ai/v1",
    "volcengine": "https://ark.cn-beijing.volces.com/api/v3",
    "qianfan": "https://qianfan.baidubce.com/v2",
    "hunyuan": "https://api.hunyuan.cloud.tencent.com/v1",
    "stepfun": "https://api.stepfun.ai/v1",
    "spark": "https://spark-api-open.xf-yun.com/v1",
    "baichuan": "https://api.baichuan-ai.com/v1",
    "lingyiwanwu": "https://api.lingyiwanwu.com/v1",
    "novita": "https://api.novita.ai/openai/v1",
    "nebius": "https://api.tokenfactory.nebius.com/v1",
    "featherless": "https://api.featherless.ai/v1",
    "baseten": "https://inference.baseten.co/v1",
    "hyperbolic": "https://api.hyperbolic.xyz/v1",
    "vercel": "https://ai-gateway.vercel.sh/v1",
    "jan": "http://127.0.0.1:1337/v1",
    "localai": "http://127.0.0.1:8080/v1",
    "xinference": "http://127.0.0.1:9997/v1",
    "llamacpp": "http://127.0.0.1:8080/v1",
    "tgi": "http://127.0.0.1:8080/v1",
    "sglang": "http://127.0.0.1:30000/v1",
    "tei": "http://127.0.0.1:8080",
    "infinity": "http://127.0.0.1:7997",
}
CHAT |= {
    name: (f"{url}/chat/completions", "authorization", "Bearer sk-1")
    for name, url in COMPATIBLE.items()
}

ANSWERS = {
    ANTHROPIC_MESSAGES: (
        b'{"id":"msg_1","type":"message","role":"assistant","model":"m","content":'
        b'[{"type":"text","text":"Hello"}],"stop_reason":"end_turn","usage":'
        b'{"input_tokens":1,"output_tokens":1}}'
    ),
    GEMINI_CONTENT: (
        b'{"candidates":[{"content":{"role":"model","parts":[{"text":"Hello"}]},"finishReason":'
        b'"STOP"}],"usageMetadata":{"promptTokenCount":1,"candidatesTokenCount":1}}'
    ),
    OPENAI_RESPONSES: (
        b'{"id":"resp_1","object":"response","model":"m","status":"completed","output":[{"type":'
        b'"message","role":"assistant","content":[{"type":"output_text","text":"Hello"}]}],'
        b'"usage":{"input_tokens":1,"output_tokens":1}}'
    ),
    COHERE_CHAT: (
        b'{"id":"c1","finish_reason":"COMPLETE","message":{"role":"assistant","content":'
        b'[{"type":"text","text":"Hello"}]},"usage":{"billed_units":{"input_tokens":1,'
        b'"output_tokens":1}}}'
    ),
    COZE_CHAT: streams(
        b'event:conversation.message.delta\ndata:{"type":"answer","content":"Hello"}\n\n'
        b'event:conversation.chat.completed\ndata:{"id":"1","status":"completed"}\n\n'
    ),
    OLLAMA_CHAT: (
        b'{"model":"m","created_at":"2026-01-01T00:00:00Z","message":{"role":"assistant",'
        b'"content":"Hello"},"done":true,"done_reason":"stop","prompt_eval_count":1,"eval_count":1}'
    ),
}


def requested(provider: Provider, *steps: Any) -> tuple[OpenAIShim, Upstream]:
    body = ANSWERS.get(provider.dialect)  # type: ignore[call-overload]
    upstream = Upstream(*(steps or (body if isinstance(body, Step) else answers(body),)))
    return OpenAIShim(provider, transport=upstream.transport), upstream


def constant(row: Provider) -> str:
    return row.name.upper().replace("-", "_")


# Vendors of images and sound.
WITHOUT_CHAT = [row for row in ROWS if isinstance(row.dialect, NoChat)]
WITH_CHAT = [row for row in ROWS if row not in WITHOUT_CHAT]


def test_every_row_is_in_the_table_and_exported() -> None:
    assert {row.name for row in WITH_CHAT} == set(CHAT)
    assert {getattr(providers, constant(row)) for row in ROWS} == set(ROWS)
    assert set(providers.__all__) >= set(map(constant, ROWS))


@pytest.mark.parametrize("row", WITHOUT_CHAT, ids=lambda row: row.name)
async def test_a_vendor_without_chat_is_not_sent_chat_requests(row: Provider) -> None:
    app, upstream = requested(row.using("sk-1"))
    assert (await asgi.chat(app)).status == 404
    assert upstream.requests == []


@pytest.mark.parametrize("row", WITH_CHAT, ids=lambda row: row.name)
async def test_a_chat_request_goes_to_the_vendors_address_with_its_credential(
    row: Provider,
) -> None:
    app, upstream = requested(row.using("sk-1"))
    answer = await asgi.chat(app)
    assert answer.status == 200
    assert answer.json["choices"][0]["message"]["content"] == "Hello"
    (request,) = upstream.requests
    url, name, credential = CHAT[row.name]
    assert str(request.url) == url
    assert request.headers.get_list(name) == [credential]
    assert "sk-1" not in str(request.url)
    assert repr(request.headers.raw).count("sk-1") == 1
    assert request.headers["content-type"] == "application/json"
    assert request.headers["accept-encoding"] == "identity"
    assert request.headers["user-agent"].startswith("asgi-aiproxy/")
    if row is ANTHROPIC:
        assert request.headers.get_list("anthropic-version") == ["2023-06-01"]


@pytest.mark.parametrize("row", WITH_CHAT, ids=lambda row: row.name)
async def test_without_a_key_no_credential_is_sent(row: Provider) -> None:
    app, upstream = requested(row)
    assert (await asgi.chat(app)).status == 200
    assert not {"authorization", "x-api-key", "x-goog-api-key"} & set(upstream.requests[0].headers)


# ── quirks ───────────────────────────────────────────────────────────────────

NEW, OLD = "max_completion_tokens", "max_tokens"


DEVELOPER = [
    {"role": "developer", "content": 'Say "developer".'},
    {"role": "user", "content": "developer", "name": "developer"},
]


@pytest.mark.parametrize("row", [row.name for row in ROWS if row.dialect is OPENAI_CHAT])
async def test_the_developer_role_is_sent_only_to_vendors_that_accept_it(row: str) -> None:
    app, upstream = requested(getattr(providers, row.upper()).using("sk"))
    await asgi.chat(app, messages=DEVELOPER, max_completion_tokens=2**70)
    (body,) = upstream.bodies
    takes = row in ("openai", "xai", "openrouter")
    role = "developer" if takes else "system"
    user = {n: v for n, v in DEVELOPER[1].items() if n != "name" or row != "mistral"}
    assert body["messages"] == [{**DEVELOPER[0], "role": role}, user]


async def test_the_developer_role_is_the_system_role_for_any_compatible_server() -> None:
    app, upstream = requested(openai_compatible("https://a.example/v1").using("sk"))
    await asgi.chat(app, messages=DEVELOPER)
    assert [message["role"] for message in upstream.bodies[0]["messages"]] == ["system", "user"]


@pytest.mark.parametrize("messages", [["developer"], [{"role": ["developer"]}]])
async def test_invalid_messages_are_left_for_the_vendor_to_refuse(messages: Any) -> None:
    app, upstream = requested(openai_compatible("https://a.example/v1").using("sk"))
    await asgi.chat(app, messages=messages)
    assert upstream.bodies[0]["messages"] == messages


@pytest.mark.parametrize(
    ("row", "spelling"),
    [
        ("openai", NEW),
        ("mistral", OLD),
        ("deepseek", OLD),
        ("together", OLD),
        ("fireworks", OLD),
        ("perplexity", OLD),
        ("vllm", OLD),
        ("lmstudio", OLD),
        # These know both.
        ("groq", None),
        ("xai", None),
        ("openrouter", None),
        ("cerebras", None),
    ],
)
async def test_the_limit_has_the_name_that_the_vendor_supports(
    row: str, spelling: str | None
) -> None:
    app, upstream = requested(getattr(providers, row.upper()).using("sk"))
    for sent in (NEW, OLD):
        await asgi.chat(app, **{sent: 5})
        body = upstream.bodies[-1]
        expected = spelling or sent
        assert {name: body.get(name) for name in (NEW, OLD)} == {
            expected: 5,
            NEW if expected == OLD else OLD: None,
        }
    if spelling:
        await asgi.chat(app, max_tokens=1, max_completion_tokens=2)
        body = upstream.bodies[-1]
        assert body[spelling] == (2 if spelling == NEW else 1)
        assert len({NEW, OLD} & set(body)) == 1


async def test_legacy_completions_use_the_old_limit_at_openai_too() -> None:
    answer = {"id": "c", "object": "text_completion", "choices": [{"text": "x", "index": 0}]}
    app, upstream = requested(OPENAI.using("sk"), answers(json.dumps(answer).encode()))
    sent = {"model": "gpt-3.5-turbo-instruct", "prompt": "Hi", "max_tokens": 5}
    await asgi.request(app, "POST", "/v1/completions", sent)
    assert upstream.bodies == [sent]


async def test_members_that_mistral_rejects_are_not_sent() -> None:
    app, upstream = requested(MISTRAL.using("sk"), streams(*chat_stream("Hi")))
    await asgi.chat(app, stream=True, seed=7, user="u", store=True, max_completion_tokens=5)
    assert upstream.bodies == [
        {
            "model": "m",
            "messages": [{"role": "user", "content": "Hi"}],
            "stream": True,
            "random_seed": 7,
            "max_tokens": 5,
        }
    ]
    await asgi.chat(app, seed=7, random_seed=8)
    assert upstream.bodies[-1]["random_seed"] == 8


async def test_an_unchanged_request_is_not_encoded_again() -> None:
    draft = ProviderRequest("/chat/completions", {"model": "m"})
    for row in ROWS:
        if row not in (OLLAMA, MINIMAX):
            assert row.transform_request(draft) is draft


async def test_ollama_serves_openais_other_operations_too() -> None:
    said = b'{"object":"list","data":[],"choices":[{"index":0,"text":"x"}],"model":"m"}'
    app, upstream = requested(OLLAMA, answers(said))
    await asgi.request(app, "POST", "/v1/embeddings", {"model": "m", "input": "x"})
    await asgi.request(app, "POST", "/v1/completions", {"model": "m", "prompt": "x"})
    await asgi.request(app, "GET", "/v1/models")
    assert [request.url.path for request in upstream.requests] == [
        "/v1/embeddings", "/v1/completions", "/api/tags",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("row", "url"),
    [
        (OPENAI, "https://api.openai.com/v1/models"),
        (ANTHROPIC, "https://api.anthropic.com/v1/models?limit=1000"),
        (GEMINI, "https://generativelanguage.googleapis.com/v1beta/models?pageSize=1000"),
        (OLLAMA, "http://127.0.0.1:11434/api/tags"),
        (azure("https://a.example"), "https://a.example/openai/v1/models"),
        (azure("https://a.example", api_version="2024-10-21"),
         "https://a.example/openai/models?api-version=2024-10-21"),
    ],
)  # fmt: skip
async def test_each_vendors_model_list_has_its_own_path(row: Provider, url: str) -> None:
    app, upstream = requested(row.using("sk-1"), answers(b"{}"))
    await asgi.request(app, "GET", "/v1/models")
    assert [str(request.url) for request in upstream.requests] == [url]
    assert "sk-1" in repr(upstream.requests[0].headers.raw)


# ── azure ────────────────────────────────────────────────────────────────────

RESOURCE = "https://my-resource.openai.azure.com"


@pytest.mark.parametrize(
    "base_url",
    [RESOURCE, RESOURCE + "/", RESOURCE + "/openai", RESOURCE + "/openai/v1/"],
)
async def test_azure_names_the_deployment_in_the_body(base_url: str) -> None:
    app, upstream = requested(azure(base_url).using("sk-1"))
    await asgi.chat(app, model="my deployment/1")
    (request,) = upstream.requests
    assert str(request.url) == RESOURCE + "/openai/v1/chat/completions"
    assert upstream.bodies[0]["model"] == "my deployment/1"
    assert request.headers["api-key"] == "sk-1"
    assert "authorization" not in request.headers


@pytest.mark.parametrize("base_url", [RESOURCE, RESOURCE + "/openai/"])
async def test_older_azure_names_the_deployment_in_the_path(base_url: str) -> None:
    provider = azure(base_url, name="old", api_version="2024-10-21&x").using("sk-1")
    app, upstream = requested(provider)
    await asgi.chat(app, model="my deployment/1?é")
    assert upstream.requests[0].url.raw_path == (
        b"/openai/deployments/my%20deployment%2F1%3F%C3%A9/chat/completions"
        b"?api-version=2024-10-21%26x"
    )
    assert upstream.requests[0].headers["api-key"] == "sk-1"
    assert provider.name == "old"


async def test_uploads_and_embeddings_go_to_the_deployment_too() -> None:
    app, upstream = requested(
        azure(RESOURCE, api_version="1").using("sk"), answers(b'{"text":"x"}')
    )
    form = (
        b'--X\r\nContent-Disposition: form-data; name="model"\r\n\r\nears\r\n'
        b'--X\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nx\r\n--X--\r\n'
    )
    headers = {"content-type": "multipart/form-data; boundary=X"}
    answer = await asgi.request(app, "POST", "/v1/audio/transcriptions", form, headers=headers)
    assert answer.status == 200
    await asgi.request(app, "POST", "/v1/embeddings", {"model": "e", "input": "x"})
    assert [request.url.path for request in upstream.requests] == [
        "/openai/deployments/ears/audio/transcriptions",
        "/openai/deployments/e/embeddings",
    ]


# ── keys with an address of their own ────────────────────────────────────────


async def test_a_key_may_have_its_own_address() -> None:
    keys = [Key("sk-1", id="a"), Key("sk-2", id="b", base_url="https://eu.example/v1/")]
    app, upstream = requested(OPENAI.using(keys))
    await asgi.chat(app, headers={"x-auth-id": "b"})
    await asgi.chat(app, headers={"x-auth-id": "a"})
    assert [str(request.url) for request in upstream.requests] == [
        "https://eu.example/v1/chat/completions",
        "https://api.openai.com/v1/chat/completions",
    ]
    assert upstream.keys == ["sk-2", "sk-1"]


class Recording:
    """A transport that keeps the requests that it is given."""

    def __init__(self) -> None:
        self.inner: HttpxTransport = Upstream(answers()).transport
        self.sent: list[UpstreamRequest] = []

    async def send(self, request: UpstreamRequest) -> Any:
        self.sent.append(request)
        return await self.inner.send(request)

    async def aclose(self) -> None: ...


async def test_the_outbound_proxy_is_the_keys_else_the_providers() -> None:
    keys = [Key("sk-1", id="a"), Key("sk-2", id="b", proxy="http://key:1")]
    provider = OPENAI.using(keys, proxy="http://provider:1")
    transport = Recording()
    for given in (provider, OPENAI.using("sk")):
        app = OpenAIShim(given, transport=transport)
        for id in ("a", "b") if given is provider else ("",):
            await asgi.chat(app, headers={"x-auth-id": id})
    assert [request.proxy for request in transport.sent] == [
        "http://provider:1", "http://key:1", None,
    ]  # fmt: skip
    assert "sk-" not in repr(transport.sent)


async def test_headers_of_a_provider_replace_ours_and_are_sent_once() -> None:
    own = {"User-Agent": "my-app/1", "X-Team": "t", "OpenAI-Beta": "ours"}
    app, upstream = requested(OPENAI.using("sk", headers=own))
    await asgi.chat(app, headers={"openai-beta": "the caller's"})
    sent = upstream.requests[0].headers
    assert sent.get_list("user-agent") == ["my-app/1"]
    assert sent["x-team"] == "t"
    assert sent.get_list("openai-beta") == ["the caller's"]


# ── using ────────────────────────────────────────────────────────────────────


def test_using_returns_a_copy() -> None:
    pool = KeyPool(["sk-1"])
    made = OPENAI.using(pool, name="mine", base_url="https://x.example/v1")
    assert (made.name, made.base_url, made.keys) == ("mine", "https://x.example/v1", pool)
    assert (OPENAI.name, OPENAI.keys) == ("openai", None)
    assert made.native_operations == OPENAI.native_operations
    # Keys stay when only something else changes.
    assert made.using(name="other").keys is pool
    assert made.using((), name="other").keys is pool
    assert made.using("sk-2").keys is not pool


@pytest.mark.parametrize(
    ("keys", "count"),
    [("sk-1", 1), (Key("sk-1"), 1), (["sk-1", Key("sk-2")], 2), (iter(("a", "b", "c")), 3)],
)
def test_using_takes_one_key_or_several(keys: Any, count: int) -> None:
    made = OPENAI.using(keys, name="mine")
    assert made.keys is not None
    assert len(made.keys) == count
    assert made.keys.name == "mine"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: OPENAI.using(None), "openai.*NoneType.*environment variable"),
        (lambda: OPENAI.using([None]), "environment variable"),
        (lambda: OPENAI.using(""), "'openai'.*empty"),
        (lambda: OPENAI.using(["sk-1", "sk-1"]), "twice"),
        (lambda: OPENAI.using(5), "int"),
        (lambda: OPENAI.using("sk", base_url="api.openai.com"), "begin with http"),
        (lambda: OPENAI.using("sk", base_url="https://"), "and a host"),
        (lambda: OPENAI.using("sk", base_url="u:secret@host/v1"), "not 'host/v1'"),
        (lambda: OPENAI.using("sk", base_url="https://x/v1?k=secret"), "query or fragment"),
        (lambda: OPENAI.using("sk", base_url="https://x/v1#a"), "query or fragment"),
        (lambda: OPENAI.using("sk", base_url="https://x:port/v1"), "base_url"),
        (lambda: OPENAI.using("sk", base_url=None), "a string, not NoneType"),
        (lambda: OPENAI.using("sk", proxy="u:secret@proxy"), "outbound proxy must begin with"),
        (lambda: openai_compatible(None), "a string, not NoneType"),
        (lambda: azure(None), "a string, not NoneType"),
        (lambda: OPENAI.using("sk", name="a/b"), "contain '/'"),
        (lambda: OPENAI.using("sk", name=""), "must not be empty"),
        (lambda: OPENAI.using("sk", name="a\nb"), "name"),
    ],
)
def test_a_mistake_is_reported_when_it_is_made(make: Callable[[], object], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words) as caught:
        make()
    assert "secret" not in str(caught.value)


def test_a_repr_has_no_secret() -> None:
    made = OPENAI.using("sk-secret", base_url="https://u:secret@host/v1")
    assert repr(made) == "Provider('openai', 'https://host/v1', KeyPool('openai': 1 ok))"
    assert repr(OPENAI) == "Provider('openai', 'https://api.openai.com/v1', None)"


# ── others' providers ────────────────────────────────────────────────────────


async def test_any_server_with_openais_format_can_be_a_provider() -> None:
    made = openai_compatible("https://acme.example/v1/", name="acme")
    assert (made.name, made.strict_format, made.dialect) == ("acme", False, OPENAI_CHAT)
    app, upstream = requested(made.using("sk-1"))
    await asgi.chat(app, max_completion_tokens=5)
    assert str(upstream.requests[0].url) == "https://acme.example/v1/chat/completions"
    assert upstream.bodies[0]["max_tokens"] == 5
    assert openai_compatible("http://x").name == "openai-compatible"
    assert VLLM.native_operations == made.native_operations


@pytest.mark.parametrize(
    ("auth", "name", "value"),
    [
        (header("x-acme"), "x-acme", "sk-1"),
        (header("X-Acme", "Token"), "x-acme", "Token sk-1"),
        (header("authorization", "Key"), "authorization", "Key sk-1"),
    ],
)
async def test_a_credential_may_be_in_any_header(auth: Any, name: str, value: str) -> None:
    made = Provider(
        name="acme",
        dialect=OPENAI_CHAT,
        base_url="https://acme.example",
        auth=auth,
        native_operations=frozenset({"chat.completions"}),
    )
    app, upstream = requested(made.using("sk-1"))
    assert (await asgi.chat(app)).status == 200
    assert upstream.requests[0].headers[name] == value


class Entry:
    """An entry point of an installed package."""

    def __init__(self, name: str, value: str, loads: Any) -> None:
        self.name, self.value, self._loads = name, value, loads

    def load(self) -> Any:
        if isinstance(self._loads, Exception):
            raise self._loads
        return self._loads


ACME = openai_compatible("https://acme.example/v1", name="acme")


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> Any:
    def register(*entries: Entry) -> None:
        def entry_points(group: str) -> list[Entry]:
            assert group == "asgi_aiproxy.providers"
            return list(entries)

        monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)

    return register


def test_providers_of_other_packages_are_found(registered: Any) -> None:
    registered()
    assert discover() == {}
    registered(Entry("acme", "acme_ai:ACME", ACME), Entry("two", "b:C", OPENAI))
    assert discover() == {"acme": ACME, "two": OPENAI}


@pytest.mark.parametrize(
    ("loads", "words"),
    [
        (ImportError("no module acme_ai"), r"'acme' \(acme_ai:ACME\).*no module acme_ai"),
        (AttributeError("ACME"), "cannot be loaded"),
        (RuntimeError("boom"), "boom"),
        ("a text", "acme_ai:ACME is registered as a provider, but is not a Provider"),
        (Provider, "is not a Provider"),
    ],
)
def test_an_invalid_registration_is_reported(loads: Any, words: str, registered: Any) -> None:
    registered(Entry("acme", "acme_ai:ACME", loads))
    with pytest.raises(ConfigurationError, match=words):
        discover()
