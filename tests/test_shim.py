"""The OpenAI shim: paths, invalid input, models, headers, secrets."""

from __future__ import annotations

import gzip
import json
import logging
import zlib
from collections.abc import Mapping
from typing import Any

import brotli
import httpx
import pytest
import zstandard

from asgi_aiproxy import (
    Authenticate,
    ConfigurationError,
    OpenAIShim,
    PassthroughProxy,
    Principal,
    ProviderRouter,
)
from asgi_aiproxy.middleware import static_tokens
from asgi_aiproxy.providers import ANTHROPIC, GEMINI, MISTRAL, OLLAMA, OPENAI
from tests.support import asgi_client as asgi
from tests.support.scripted_upstream import Upstream, answers, refuses, streams

pytestmark = pytest.mark.anyio


def shim(*steps: Any, router: Any = None, **options: Any) -> tuple[OpenAIShim, Upstream]:
    upstream = Upstream(*(steps or (answers(),)))
    router = router if router is not None else OPENAI.using("sk-secret-1")
    return OpenAIShim(router, transport=upstream.transport, backoff=0.001, **options), upstream


# ── paths ────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/chat/completions", 405),
        ("PUT", "/v1/embeddings", 405),
        ("POST", "/v1/models", 405),
        ("GET", "/", 404),
        ("POST", "/v1/nothing", 404),
        ("POST", "/v1/chat/completions/", 404),
        ("POST", "//v1/chat/completions", 404),
        ("GET", "/v1/models/", 404),
    ],
)
async def test_an_unknown_path_has_openais_error_format(
    method: str, path: str, status: int
) -> None:
    app, upstream = shim()
    answer = await asgi.request(app, method, path)
    assert answer.status == status
    error = answer.json["error"]
    assert error["type"] == "invalid_request_error"
    assert isinstance(error["message"], str)
    assert upstream.requests == []


@pytest.mark.parametrize(
    ("path", "allowed"),
    [("/v1/chat/completions", "POST"), ("/v1/models", "GET, HEAD"), ("/v1/models/m", "GET, HEAD")],
)
async def test_the_error_for_a_wrong_method_names_the_allowed_ones(path: str, allowed: str) -> None:
    app, _ = shim()
    answer = await asgi.request(app, "DELETE", path)
    assert (answer.status, answer.header("allow")) == (405, allowed)


async def test_head_answers_like_get_without_its_body() -> None:
    app, _ = shim()
    named = {"x-request-id": "one"}
    whole, head = [
        await asgi.request(app, method, "/v1/models", headers=named) for method in ("GET", "HEAD")
    ]
    assert (head.status, head.headers, head.body) == (whole.status, whole.headers, b"")
    assert head.header("content-length") == str(len(whole.body))


async def test_unknown_model_names_are_not_cached() -> None:
    app, _ = shim()
    provider = app._relay.router
    for at in range(600):
        assert (await asgi.chat(app, model=f"m{at}{'x' * 999}")).status == 200
        assert (await asgi.request(app, "GET", f"/v1/models/m{at}")).status == 200
    held = [name for known in (provider._targets, app._matcher._matched) for name in known]
    assert len(held) < 600
    assert max(len(str(name)) for name in held) < 999


async def test_a_base_url_without_v1_gets_a_hint() -> None:
    app, _ = shim()
    answer = await asgi.chat(app, "/chat/completions")
    assert answer.status == 404
    assert "'/v1'" in answer.json["error"]["message"]


async def test_a_websocket_is_refused_and_harms_nothing() -> None:
    app, _ = shim()
    scope = {"type": "websocket", "path": "/v1/realtime", "headers": []}
    async with asgi.Exchange(app, scope) as exchange:
        exchange._in.put_nowait({"type": "websocket.connect"})
        assert (await exchange.message())["type"] == "websocket.close"
        await exchange.ended()


# ── bad input ────────────────────────────────────────────────────────────────

MESSAGES = [{"role": "user", "content": "Hi"}]

BAD = [
    (b"", None),
    (b"{", None),
    (b"nope", None),
    (b"[]", None),
    (b'"text"', None),
    (b'{"model":"m","messages":[]} trailing', None),
    (b"\xff\xfe{}", None),
    (b'{"model":"m","messages":[{"role":"user","content":"\xff"}]}', None),
    (b'{"model":"m","messages":[{"role":"user","content":"\\ud800"}]}', None),
    (b'{"model":"m","messages":' + b"[" * 10**6 + b"]" * 10**6 + b"}", None),
    (b'{"messages":[]}', "model"),
    (b'{"model":null,"messages":[]}', "model"),
    (b'{"model":"","messages":[]}', "model"),
    (b'{"model":5,"messages":[]}', "model"),
    (b'{"model":"m"}', "messages"),
    (b'{"model":"m","messages":"Hi"}', "messages"),
    (b'{"model":"m","messages":[],"stream":"yes"}', "stream"),
    (b'{"model":"m","messages":[],"stream_options":7}', "stream_options"),
]
# What is read only when the request is put into another dialect.
BAD_TRANSLATED = [
    (b'{"model":"m","messages":[{"content":"x"}]}', "messages[0].role"),
    (b'{"model":"m","messages":[{"role":"wizard","content":"x"}]}', "messages[0].role"),
    (b'{"model":"m","messages":[{"role":"user","content":5}]}', "messages[0].content"),
    (b'{"model":"m","messages":[5]}', "messages[0]"),
    (b'{"model":"m","messages":[],"temperature":"hot"}', "temperature"),
    (b'{"model":"m","messages":[],"max_tokens":"many"}', "max_tokens"),
    (b'{"model":"m","messages":[],"n":2}', "n"),
    (b'{"model":"m","messages":[],"tools":[{"type":"web_search"}]}', "tools[0].type"),
    (b'{"model":"m","messages":[],"response_format":{"type":"x"}}', "response_format.type"),
    (b'{"model":"m","messages":[],"max_tokens":0}', "max_tokens"),
    (b'{"model":"m","messages":[],"max_completion_tokens":-1}', "max_completion_tokens"),
    (b'{"model":"m","messages":[],"reasoning_effort":"extreme"}', "reasoning_effort"),
    (b'{"model":"m","messages":[],"reasoning":{"effort":"extreme"}}', "reasoning.effort"),
    (b'{"model":"m","messages":[]}', "messages"),
    (b'{"model":"m","messages":[{"role":"user","content":""}]}', "messages"),
]


@pytest.mark.parametrize("router", [OPENAI, ANTHROPIC, GEMINI], ids=lambda row: row.name)
@pytest.mark.parametrize(("body", "param"), BAD)
async def test_bad_input_is_a_400_that_names_the_field(
    body: bytes, param: str, router: Any
) -> None:
    app, upstream = shim(router=router.using("sk"))
    answer = await asgi.request(app, "POST", "/v1/chat/completions", body)
    assert answer.status == 400, answer.body
    error = answer.json["error"]
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert error["message"]
    assert upstream.requests == []


@pytest.mark.parametrize("router", [ANTHROPIC, GEMINI, OLLAMA], ids=lambda row: row.name)
@pytest.mark.parametrize(("body", "param"), BAD_TRANSLATED)
async def test_what_cannot_be_translated_is_a_400_that_names_the_field(
    body: bytes, param: str, router: Any
) -> None:
    app, upstream = shim(router=router.using("sk"))
    answer = await asgi.request(app, "POST", "/v1/chat/completions", body)
    assert answer.status == 400, answer.body
    assert answer.json["error"]["param"] == param
    assert upstream.requests == []


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/embeddings"])
async def test_a_caller_may_select_a_provider_in_any_body(path: str) -> None:
    router = ProviderRouter(providers=[OPENAI.using("sk-1"), MISTRAL.using("sk-2")])
    app, upstream = shim(router=router)
    body = {"model": "m", "provider": "openai", "prompt": "Hi", "input": "Hi", "messages": []}
    answer = await asgi.request(app, "POST", path, body)
    assert (answer.status, answer.header("aiproxy-provider")) == (200, "openai")
    assert "provider" not in upstream.bodies[0]


@pytest.mark.parametrize(
    ("members", "param"),
    [({}, "prompt"), ({"prompt": [1]}, "prompt"), ({"prompt": "a", "max_tokens": 0}, "max_tokens")],
)
async def test_a_completion_that_cannot_be_a_chat_is_a_400_that_names_the_field(
    members: dict[str, Any], param: str
) -> None:
    app, upstream = shim(router=ANTHROPIC.using("sk"))
    answer = await asgi.request(app, "POST", "/v1/completions", {"model": "m", **members})
    assert (answer.status, answer.json["error"]["param"]) == (400, param)
    assert upstream.requests == []


async def test_a_request_with_instructions_only_works_with_vendors_that_require_a_user_turn() -> (
    None
):
    for row, place in ((ANTHROPIC, "messages"), (GEMINI, "contents")):
        app, upstream = shim(router=row.using("sk"))
        await asgi.chat(app, messages=[{"role": "system", "content": "Count to 3."}])
        (turn,) = upstream.bodies[0][place]
        assert (turn["role"], "Count to 3." in str(turn)) == ("user", True)
        assert not {"system", "systemInstruction"} & set(upstream.bodies[0])


async def test_members_with_default_values_are_not_reported_as_ignored() -> None:
    app, upstream = shim(router=ANTHROPIC.using("sk"), strict=True)
    plain: dict[str, Any] = {
        "store": False,
        "service_tier": "auto",
        "metadata": {},
        "logit_bias": {},
        "n": 1,
    }
    await asgi.chat(app, **plain, verbosity="medium", modalities=["text"], logprobs=False)
    assert upstream.requests
    answer = await asgi.chat(app, store=True)
    assert (answer.status, answer.json["error"]["param"]) == (400, "store")


async def test_a_body_above_the_limit_is_a_413_with_and_without_a_length() -> None:
    app, upstream = shim(max_body=100)
    body = json.dumps({"model": "m", "messages": MESSAGES, "user": "x" * 200}).encode()
    reported = {"content-length": str(len(body))}
    answer = await asgi.request(app, "POST", "/v1/chat/completions", body, headers=reported)
    assert (answer.status, answer.json["error"]["type"]) == (413, "invalid_request_error")
    async with asgi.opened(app, "POST", "/v1/chat/completions") as exchange:
        for _ in range(20):
            exchange.send_body(b"x" * 20, more=True)
        assert (await exchange.answer()).status == 413
    assert upstream.requests == []


PACKERS: dict[str, Any] = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": brotli.compress,
    "zstd": zstandard.ZstdCompressor().compress,
    "gzip, zstd": lambda data: zstandard.ZstdCompressor().compress(gzip.compress(data)),
}
PATH = "/v1/chat/completions"


@pytest.mark.parametrize("coding", PACKERS)
async def test_a_compressed_body_is_decoded_and_sent_uncompressed(coding: str) -> None:
    app, upstream = shim()
    body = json.dumps({"model": "m", "messages": MESSAGES}).encode()
    headers = {"content-encoding": coding}
    answer = await asgi.request(app, "POST", PATH, PACKERS[coding](body), headers=headers)
    assert answer.status == 200
    (request,) = upstream.requests
    assert json.loads(request.content)["messages"] == MESSAGES
    assert "content-encoding" not in request.headers


@pytest.mark.parametrize("coding", PACKERS)
async def test_limits_of_a_compressed_body_apply_to_its_decoded_size(coding: str) -> None:
    app, upstream = shim(max_body=2_000_000)
    packed = PACKERS[coding](b" " * 400_000_000 if coding == "zstd" else b" " * 20_000_000)
    assert len(packed) < 2_000_000
    answer = await asgi.request(app, "POST", PATH, packed, headers={"content-encoding": coding})
    assert (answer.status, upstream.requests) == (413, [])


@pytest.mark.parametrize("coding", PACKERS)
@pytest.mark.parametrize("harm", [lambda data: data[:-6], lambda data: b"no" + data])
async def test_an_invalid_compressed_body_is_a_400(coding: str, harm: Any) -> None:
    app, upstream = shim()
    body = harm(PACKERS[coding](json.dumps({"model": "m", "messages": MESSAGES}).encode()))
    answer = await asgi.request(app, "POST", PATH, body, headers={"content-encoding": coding})
    assert (answer.status, upstream.requests) == (400, [])
    assert "decoded" in answer.json["error"]["message"]


@pytest.mark.parametrize("coding", ["compress", "gzip, lz4", "gzip, gzip, gzip, gzip"])
async def test_an_unsupported_coding_is_a_415_that_names_those_that_are(coding: str) -> None:
    app, upstream = shim()
    answer = await asgi.request(app, "POST", PATH, b"x", headers={"content-encoding": coding})
    assert (answer.status, upstream.requests) == (415, [])
    accepted = (answer.header("accept-encoding") or "").split(", ")
    assert {"gzip", "deflate", "br", "zstd"} <= set(accepted)


async def test_a_compressed_upload_is_a_415_and_an_empty_body_a_400() -> None:
    app, upstream = shim()
    headers = {"content-encoding": "gzip", "content-type": "multipart/form-data; boundary=x"}
    answer = await asgi.request(app, "POST", "/v1/audio/transcriptions", b"x", headers=headers)
    assert (answer.status, answer.header("accept-encoding")) == (415, "identity")
    answer = await asgi.request(app, "POST", PATH, b"")
    assert (answer.status, "empty" in answer.json["error"]["message"]) == (400, True)
    assert upstream.requests == []


@pytest.mark.parametrize("coding", ["identity", "Identity", " identity ", "", "identity, IDENTITY"])
async def test_an_identity_coding_is_not_compression(coding: str) -> None:
    app, upstream = shim()
    answer = await asgi.chat(app, headers={"content-encoding": coding})
    assert (answer.status, len(upstream.requests)) == (200, 1)


async def test_a_body_in_many_pieces_is_joined() -> None:
    app, upstream = shim()
    body = json.dumps({"model": "m", "messages": MESSAGES}).encode()
    async with asgi.opened(app, "POST", "/v1/chat/completions") as exchange:
        for at in range(len(body)):
            exchange.send_body(body[at : at + 1], more=True)
        exchange.send_body(b"")
        assert (await exchange.answer()).status == 200
    assert upstream.bodies == [{"model": "m", "messages": MESSAGES}]


async def test_of_a_repeated_member_only_the_checked_one_is_sent() -> None:
    app, upstream = shim()
    body = b'{"model":"first","messages":[],"model":"second"}'
    assert (await asgi.request(app, "POST", "/v1/chat/completions", body)).status == 200
    assert upstream.requests[0].content.count(b'"model"') == 1
    assert upstream.bodies[0]["model"] == "second"


async def test_unknown_members_pass_to_a_provider_of_the_same_dialect() -> None:
    app, upstream = shim()
    sent = {"model": "m", "messages": MESSAGES, "brand_new": {"a": [1, 2.50, None]}}
    await asgi.request(app, "POST", "/v1/chat/completions", sent)
    assert upstream.bodies == [sent]


@pytest.mark.parametrize("status", [400, 404, 413, 422, 500])
@pytest.mark.parametrize("operation", ["chat/completions", "embeddings"])
async def test_an_html_page_is_an_error_whatever_its_status(status: int, operation: str) -> None:
    page = b"<html><body><h1>Bad gateway of nginx</h1></body></html>" + b" " * 300_000
    app, _ = shim(refuses(status, page), attempts=1)
    requested = {"model": "m", "messages": MESSAGES, "input": "x"}
    answer = await asgi.request(app, "POST", f"/v1/{operation}", requested)
    assert answer.status in (status, 502)
    assert "Bad gateway of nginx" in answer.json["error"]["message"]
    assert b"<html>" not in answer.body


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: OpenAIShim("sk-1"), "OPENAI.using"),
        (lambda: OpenAIShim({"gpt-*": OPENAI.using("sk-1")}), "ProviderRouter"),
        (lambda: OpenAIShim(OPENAI, transport=httpx.MockTransport(print)), "HttpxTransport"),
        (lambda: OpenAIShim(OPENAI, transport=httpx.AsyncClient()), "cookies"),
        (lambda: OpenAIShim(OPENAI, transport=print), "send"),
        (lambda: OpenAIShim(OPENAI, max_body="1MB"), "max_body"),
        (lambda: OpenAIShim(OPENAI, attempts=0), "attempts"),
        (lambda: PassthroughProxy(OPENAI, transport=httpx.AsyncClient()), "cookies"),
        (lambda: PassthroughProxy(OPENAI, max_body="1MB"), "max_body"),
        (lambda: PassthroughProxy("http://x:99999"), "invalid URL"),
        (lambda: OPENAI.using("sk-1", headers={"a b": "c"}), "headers"),
        (lambda: OPENAI.using("sk-1", headers={"a": "b\r\nc: d"}), "headers"),
    ],
)
def test_invalid_arguments_are_reported_when_a_shim_is_built(make: Any, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words) as caught:
        make()
    assert "sk-1" not in str(caught.value)


async def test_a_plain_function_may_be_the_sink() -> None:
    records: list[Any] = []
    app, _ = shim(record=records.append)
    async with app:
        assert (await asgi.chat(app)).status == 200
    assert len(records) == 1


async def test_a_five_megabyte_event_passes_through() -> None:
    text = "x" * (5 * 1024 * 1024)
    chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": "stop"}
    line = b"data: " + json.dumps({**chunk, "choices": [choice]}).encode() + b"\n\n"
    pieces = [line[at : at + 65536] for at in range(0, len(line), 65536)]
    app, _ = shim(streams(*pieces, b"data: [DONE]\n\n"))
    answer = await asgi.chat(app, stream=True)
    assert answer.events[0]["choices"][0]["delta"]["content"] == text


async def test_an_event_without_end_is_an_error_and_no_leak() -> None:
    app, _ = shim(streams(*[b"data: " + b"x" * 1024 * 1024] * 20), attempts=1)
    answer = await asgi.chat(app, stream=True)
    assert answer.status == 502
    assert "larger than" in answer.json["error"]["message"]


# ── models ───────────────────────────────────────────────────────────────────


async def test_models_are_listed_as_the_router_knows_them() -> None:
    router = ProviderRouter({"fast": (OPENAI.using("sk"), "gpt-4o-mini"), "claude": ANTHROPIC})
    app, upstream = shim(router=router)
    answer = await asgi.request(app, "GET", "/v1/models")
    # The last two are what Mistral's SDK (ModelList, BaseModelCard) demands of each.
    same = {"object": "model", "created": 0, "type": "base", "capabilities": {}}
    assert answer.json == {
        "object": "list",
        "data": [
            {"id": "fast", "owned_by": "openai", **same},
            {"id": "claude", "owned_by": "anthropic", **same},
        ],
    }
    assert upstream.requests == []


async def test_the_model_list_behind_a_pattern_is_requested_once() -> None:
    offered = {"data": [{"id": "gpt-4o"}, {"id": "gpt-5"}, {"id": "whisper-1"}]}
    app, upstream = shim(
        answers(json.dumps(offered).encode()), router=ProviderRouter({"gpt-*": OPENAI.using("sk")})
    )
    for _ in range(2):
        answer = await asgi.request(app, "GET", "/v1/models")
        assert [model["id"] for model in answer.json["data"]] == ["gpt-4o", "gpt-5"]
    assert [str(request.url) for request in upstream.requests] == [
        "https://api.openai.com/v1/models"
    ]


async def test_a_provider_without_a_model_list_does_not_affect_others() -> None:
    app, _ = shim(refuses(500), router=ProviderRouter({"a": OPENAI, "b*": ANTHROPIC.using("sk")}))
    answer = await asgi.request(app, "GET", "/v1/models")
    assert [model["id"] for model in answer.json["data"]] == ["a"]


@pytest.mark.parametrize("path", ["meta-llama%2FLlama-3", "meta-llama/Llama-3"])
async def test_one_model_is_described_also_with_a_slash_in_its_name(path: str) -> None:
    app, _ = shim(router=ProviderRouter({"meta-llama/Llama-3": OPENAI}))
    answer = await asgi.request(app, "GET", f"/v1/models/{path}")
    assert answer.json["id"] == "meta-llama/Llama-3"
    answer = await asgi.request(app, "GET", "/v1/models/other")
    assert (answer.status, answer.json["error"]["code"]) == (404, "model_not_found")


async def test_a_caller_sees_and_uses_only_its_models() -> None:
    openai = OPENAI.using("sk")
    router = ProviderRouter({"small": openai, "large": openai})
    inner, upstream = shim(router=router)
    verify = static_tokens({"tok": Principal("t1", models=("small*",))})
    app = Authenticate(inner, verify=verify)
    headers = {"authorization": "Bearer tok"}
    answer = await asgi.request(app, "GET", "/v1/models", headers=headers)
    assert [model["id"] for model in answer.json["data"]] == ["small"]
    assert (await asgi.chat(app, model="small", headers=headers)).status == 200
    answer = await asgi.chat(app, model="large", headers=headers)
    assert (answer.status, answer.json["error"]["param"]) == (403, "model")
    answer = await asgi.request(app, "GET", "/v1/models/large", headers=headers)
    assert answer.status == 404
    assert len(upstream.requests) == 1


# ── headers and secrets ──────────────────────────────────────────────────────

CALLER = {
    "authorization": "Bearer caller-token",
    "cookie": "session=1",
    "x-api-key": "caller-key",
    "x-forwarded-for": "10.0.0.1",
    "openai-organization": "org-caller",
    "openai-beta": "assistants=v2",
    "accept-encoding": "gzip, br, zstd",
    "user-agent": "OpenAI/Python 3.52",
    "x-stainless-lang": "python",
}


async def test_only_allowed_headers_of_the_caller_reach_the_provider() -> None:
    app, upstream = shim()
    await asgi.chat(app, headers=CALLER)
    sent = upstream.requests[0].headers
    assert sent["authorization"] == "Bearer sk-secret-1"
    assert sent["openai-beta"] == "assistants=v2"
    assert sent["accept-encoding"] == "identity"
    allowed = {"authorization", "openai-beta", "accept", "accept-encoding", "content-type"}
    assert set(sent) <= allowed | {"user-agent", "host", "content-length"}
    assert "caller" not in repr(sent)


async def test_only_allowed_headers_of_the_provider_reach_the_caller() -> None:
    step = answers()
    step.headers |= {
        "x-request-id": "req-1",
        "x-ratelimit-remaining-requests": "9",
        "set-cookie": "a=b",
        "server": "cloud",
        "openai-organization": "org-ours",
        "connection": "keep-alive",
    }
    app, _ = shim(step)
    answer = await asgi.chat(app)
    assert {name for name, _ in answer.headers} == {
        "content-type",
        "content-length",
        "x-request-id",
        "x-ratelimit-remaining-requests",
        "aiproxy-provider",
        "aiproxy-request-id",
        "aiproxy-key",
        "x-auth-id",
    }


async def test_one_callers_cookies_never_reach_the_next() -> None:
    step = answers()
    step.headers["set-cookie"] = "session=first"
    app, upstream = shim(step)
    await asgi.chat(app)
    await asgi.chat(app)
    assert "cookie" not in upstream.requests[1].headers


@pytest.mark.parametrize("status", [200, 401, 403, 429, 500, 302])
async def test_a_key_is_in_no_answer_no_log_and_no_repr(
    status: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    leak = b'{"error":{"message":"key sk-secret-1 is bad","type":"x","code":null}}'
    step = answers() if status == 200 else refuses(status, leak)
    app, _ = shim(step, attempts=1)
    answer = await asgi.chat(app)
    # A provider that quotes the key it was sent is none of the vendors we know; still:
    assert "sk-secret-1" not in answer.body.decode() + repr(answer.headers)
    assert "sk-secret-1" not in caplog.text + repr(app) + repr(app._relay.router)


async def test_retry_after_is_passed_as_the_provider_sent_it() -> None:
    headers: Mapping[str, str] = {"retry_after_ms": "1500"}
    app, _ = shim(refuses(429, **headers))
    answer = await asgi.chat(app)
    assert (answer.status, answer.header("retry-after")) == (429, "2")
