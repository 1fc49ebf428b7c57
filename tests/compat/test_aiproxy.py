"""`AIProxyRoutes`: clients of aiproxy and any-proxy work unchanged."""

from __future__ import annotations

from typing import Any

import pytest

from asgi_aiproxy import Key, Principal
from asgi_aiproxy.compat import AIProxyRoutes
from asgi_aiproxy.middleware import static_tokens
from asgi_aiproxy.providers import ANTHROPIC, COZE, GEMINI, OPENAI
from tests.support import asgi_client as asgi
from tests.support.compat_vendors import Vendors, anthropic_stream
from tests.support.scripted_upstream import Step, refuses

pytestmark = pytest.mark.anyio

CHAT = "/c/v1/chat/completions"
HI = {"messages": [{"role": "user", "content": "Hi"}]}


def routes(vendors: Vendors, **options: Any) -> AIProxyRoutes:
    given: dict[str, Any] = {
        "openai": OPENAI.using([Key("sk-one", id="1000001"), Key("sk-two", id="1000002")]),
        "gemini": GEMINI.using([Key("g-one", id="100001", attributes={"version": "v1"})]),
        "anthropic": ANTHROPIC.using([Key("a-one", id="100001"), Key("a-two", id="100002")]),
        "coze": COZE.using([Key("pat-1", id="c1", attributes={"bot_id": "b1", "user": "u1"})]),
    }
    return AIProxyRoutes(**{**given, **options}, transport=vendors.transport)


def texts(answer: asgi.Answer) -> str:
    chunks = [event for event in answer.events if event != "[DONE]"]
    return "".join(
        choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"]
    )


async def test_ping() -> None:
    answer = await asgi.request(routes(Vendors()), "GET", "/ping")
    assert (answer.status, answer.json) == (200, {"ping": "ok"})


# ── one path for all providers ───────────────────────────────────────────────


@pytest.mark.parametrize(
    ("provider", "model", "extension"),
    [
        ("gemini", "gemini-2.5-flash", {"type": "api", "index": "100001"}),
        ("claude", "claude-x", {"type": "api", "conversation": None}),
        ("coze", "coze-api", {"type": "api", "bot_id": "b1", "user": "u1"}),
    ],
)
async def test_each_provider_streams_deltas_a_finish_chunk_and_its_own_object(
    provider: str, model: str, extension: dict[str, Any]
) -> None:
    answer = await asgi.request(
        routes(Vendors()), "POST", CHAT, {**HI, "model": model, "provider": provider}
    )
    assert answer.status == 200, answer.body
    assert (answer.header("content-type") or "").startswith("text/event-stream")
    chunks = [event for event in answer.events if event != "[DONE]"]
    assert answer.events[-1] == "[DONE]"
    assert texts(answer) == "Hello"
    assert [c["choices"][0]["finish_reason"] for c in chunks if c["choices"]][-1] == "stop"
    for chunk in chunks:
        assert chunk[provider].items() >= extension.items()
    # Clients of aiproxy read the increment from `message`.
    mirrored = [c["choices"][0].get("message", {}).get("content", "") for c in chunks]
    assert "".join(mirrored) == "Hello"


async def test_without_streaming_the_answer_is_whole_and_has_the_object() -> None:
    body = {**HI, "model": "claude-x", "provider": "claude", "stream": False}
    vendors = Vendors(Step([
        b'{"id":"msg_1","type":"message","role":"assistant","model":"claude-x","content":[{"type":'
        b'"text","text":"Hello"}],"stop_reason":"end_turn","stop_sequence":null,"usage":'
        b'{"input_tokens":3,"output_tokens":2}}'
    ], headers={"content-type": "application/json"}))  # fmt: skip
    answer = await asgi.request(
        routes(vendors), "POST", CHAT, body, headers={"x-auth-id": "100002"}
    )
    assert answer.status == 200, answer.body
    assert answer.json["choices"][0]["message"]["content"] == "Hello"
    assert answer.json["claude"] == {"type": "api", "index": "100002", "conversation": None}
    assert answer.header("x-auth-id") == "100002"
    assert answer.header("content-length") == str(len(answer.body))


@pytest.mark.parametrize("provider", [None, "someone-else", "openai"])
async def test_an_absent_or_unknown_provider_goes_to_openai(provider: str | None) -> None:
    vendors = Vendors()
    body = {**HI, "model": "gpt-5", "tools": [], "unknown": 1}
    given = body if provider is None else {**body, "provider": provider}
    answer = await asgi.request(routes(vendors), "POST", CHAT, given)
    assert answer.status == 200, answer.body
    assert str(vendors.last.url) == "https://api.openai.com/v1/chat/completions"
    assert vendors.body == body
    assert answer.header("x-auth-id") in ("1000001", "1000002")


async def test_the_whole_conversation_is_sent() -> None:
    vendors = Vendors()
    messages = [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": [{"type": "text", "text": "One"}]},
        {"role": "assistant", "content": "1"},
        {"role": "user", "content": "Two"},
    ]
    body = {"messages": messages, "model": "claude-haiku-4-5", "temperature": 0.5}
    await asgi.request(routes(vendors), "POST", CHAT, {**body, "provider": "claude"})
    assert vendors.body["system"] in ("Be short.", [{"type": "text", "text": "Be short."}])
    assert [message["role"] for message in vendors.body["messages"]] == [
        "user",
        "assistant",
        "user",
    ]
    assert vendors.body["temperature"] == 0.5


# ── precedence of keys ───────────────────────────────────────────────────────

PRECEDENCE = [
    # provider, headers, members of the body, the secret that is sent
    ("", {"authorization": "Bearer own", "x-auth-id": "1000002"}, {}, "Bearer own"),
    ("", {"authorization": "own"}, {}, "Bearer own"),
    ("", {"x-auth-id": "1000002"}, {"openai": {"conversation": {"index": "1000001"}}},
     "Bearer sk-two"),
    ("", {}, {"openai": {"conversation": {"index": "1000002"}}}, "Bearer sk-two"),
    ("claude", {"authorization": "Bearer own", "x-api-key": "other"}, {}, "own"),
    ("claude", {"x-api-key": "other", "x-auth-id": "100002"}, {}, "other"),
    ("claude", {"x-auth-id": "100002"}, {"claude": {"type": "api", "index": "100001"}}, "a-two"),
    ("claude", {}, {"claude": {"index": "100002"}}, "a-two"),
    ("gemini", {"authorization": "Bearer own", "x-auth-id": "100001"}, {}, "own"),
    ("gemini", {}, {"gemini": {"index": "100001"}}, "g-one"),
    ("gemini", {}, {}, "g-one"),
    ("coze", {"authorization": "Bearer own", "x-auth-id": "u9", "x-bot-id": "b9"},
     {"coze": {"conversation": {"bot_id": "b1", "user": "u1"}}}, "Bearer own"),
    ("coze", {}, {"coze": {"conversation": {"bot_id": "b1", "user": "u1"}}}, "Bearer pat-1"),
    ("coze", {}, {}, "Bearer pat-1"),
]  # fmt: skip


@pytest.mark.parametrize(("provider", "headers", "members", "secret"), PRECEDENCE)
async def test_the_documented_precedence_of_keys(
    provider: str, headers: dict[str, str], members: dict[str, Any], secret: str
) -> None:
    vendors = Vendors()
    model = "coze-api" if provider == "coze" else "m"
    body = {**HI, "model": model, **({"provider": provider} if provider else {}), **members}
    answer = await asgi.request(routes(vendors), "POST", CHAT, body, headers=headers)
    assert answer.status == 200, answer.body
    sent = vendors.last.headers
    names = {"claude": "x-api-key", "gemini": "x-goog-api-key"}
    assert sent[names.get(provider, "authorization")] == secret
    assert not {"x-auth-id", "x-bot-id", "x-version", "aiproxy-key"} & set(sent)
    own = secret.endswith(("own", "other"))
    assert (answer.header("x-auth-id") is None) == own


async def test_the_headers_name_the_bot_of_coze() -> None:
    vendors = Vendors()
    headers = {"authorization": "Bearer own", "x-auth-id": "u9", "x-bot-id": "b9"}
    body = {**HI, "model": "coze-api", "provider": "coze"}
    body["coze"] = {"conversation": {"bot_id": "b1", "user": "u1", "conversation_id": "77"}}
    answer = await asgi.request(routes(vendors), "POST", CHAT, body, headers=headers)
    assert (vendors.body["bot_id"], vendors.body["user_id"]) == ("b9", "u9")
    assert vendors.last.url.params["conversation_id"] == "77"
    first, last = answer.events[0]["coze"], answer.events[-2]["coze"]
    assert (first["bot_id"], first["user"], first["conversation_id"]) == ("b9", "u9", "77")
    assert last["conversation_id"] == "71"


@pytest.mark.parametrize(
    ("headers", "path"),
    [
        ({"authorization": "Bearer own", "x-version": "v1"}, "/v1/models/g:"),
        ({"authorization": "Bearer own"}, "/v1beta/models/g:"),
        ({"x-auth-id": "100001"}, "/v1/models/g:"),  # the version of the key
        ({}, "/v1/models/g:"),
    ],
)
async def test_x_version_and_the_version_of_the_key(headers: dict[str, str], path: str) -> None:
    vendors = Vendors()
    for where, body in (
        (CHAT, {**HI, "model": "g", "provider": "gemini"}),
        ("/gemini/openai", {"model": "g", "contents": [{"parts": [{"text": "Hi"}]}]}),
    ):
        answer = await asgi.request(routes(vendors), "POST", where, body, headers=headers)
        assert answer.status == 200, answer.body
        assert vendors.last.url.path.startswith(path)


async def test_a_request_to_google_without_a_model_gets_the_configured_one() -> None:
    vendors = Vendors()
    app = routes(vendors, gemini_model="gemini-own")
    await asgi.request(app, "POST", CHAT, {**HI, "provider": "gemini"})
    assert "/models/gemini-own:" in vendors.last.url.path


@pytest.mark.parametrize(
    ("provider", "headers", "members", "status", "code"),
    [
        ("", {"x-auth-id": "9"}, {}, 401, "unknown_key_id"),
        ("claude", {}, {"claude": {"index": "9"}}, 401, "unknown_key_id"),
        ("gemini", {"x-auth-id": "9"}, {}, 401, "unknown_key_id"),
        ("coze", {}, {"coze": {"conversation": {"bot_id": "b1", "user": "u9"}}}, 400,
         "unknown_bot"),
    ],
)  # fmt: skip
async def test_an_unknown_key_is_refused_before_any_request_is_sent(
    provider: str, headers: dict[str, str], members: dict[str, Any], status: int, code: str
) -> None:
    vendors = Vendors()
    model = "coze-api" if provider == "coze" else "m"
    body = {**HI, "model": model, "provider": provider, **members}
    answer = await asgi.request(routes(vendors), "POST", CHAT, body, headers=headers)
    assert (answer.status, answer.json["error"]["code"]) == (status, code)
    assert vendors.requests == []


async def test_without_a_configured_key_the_caller_must_send_its_own() -> None:
    vendors = Vendors()
    app = AIProxyRoutes(transport=vendors.transport)
    for provider in ("", "claude", "gemini"):
        body = {**HI, "model": "m", "provider": provider}
        answer = await asgi.request(app, "POST", CHAT, body)
        assert (answer.status, answer.json["error"]["code"]) == (401, "no_key")
        headers = {"authorization": "Bearer own"}
        assert vendors.requests == []
        answer = await asgi.request(app, "POST", CHAT, body, headers=headers)
        assert answer.status == 200
        vendors.requests.clear()


# ── what is refused ──────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("POST", CHAT, {**HI, "provider": "bing", "model": "m"}, 410, "provider_retired"),
        ("GET", "/bing/conversation", b"", 410, "provider_retired"),
        ("POST", "/bing/message", HI, 410, "provider_retired"),
        ("POST", CHAT, {**HI, "provider": "coze", "model": "m"}, 403, "unsupported_by_policy"),
        ("POST", CHAT, {**HI, "provider": "openai-chat-web", "model": "m"}, 403,
         "unsupported_by_policy"),
        ("POST", "/backend-anon/web2api", {}, 403, "unsupported_by_policy"),
        ("POST", "/backend-anon/conversation", {}, 403, "unsupported_by_policy"),
        ("POST", "/backend-api/conversation", {}, 403, "unsupported_by_policy"),
        ("POST", "/auth/token/web", {"email": "a"}, 403, "unsupported_by_policy"),
        ("POST", "/auth/token/platform/refresh", {}, 410, "provider_retired"),
        ("POST", "/auth/token/platform/revoke", {}, 410, "provider_retired"),
        ("POST", "/auth/session/platform", {}, 410, "provider_retired"),
        ("POST", "/arkose/token/pk", {}, 403, "unsupported_by_policy"),
        ("POST", "/arkose/solve/pk", {}, 403, "unsupported_by_policy"),
        ("GET", "/dashboard/billing/usage", b"", 410, "provider_retired"),
        ("GET", "/backend-api/models", b"", 403, "not_enabled"),
        ("GET", "/claude/web/api/organizations", b"", 403, "not_enabled"),
        ("GET", "/nothing", b"", 404, None),
    ],
)  # fmt: skip
async def test_what_is_not_served_says_so(
    method: str, path: str, body: Any, status: int, code: str | None
) -> None:
    vendors = Vendors()
    answer = await asgi.request(routes(vendors), method, path, body)
    assert answer.status == status, answer.body
    assert answer.json["error"]["code"] == code
    assert answer.json["error"]["message"]
    assert vendors.requests == []


# ── the vendors' own APIs ────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("method", "path", "headers", "url", "name", "secret"),
    [
        ("GET", "/v1/models?limit=3", {"x-auth-id": "1000002"},
         "https://api.openai.com/v1/models?limit=3", "authorization", "Bearer sk-two"),
        ("POST", "/v1/embeddings", {"authorization": "own"},
         "https://api.openai.com/v1/embeddings", "authorization", "Bearer own"),
        ("GET", "/dashboard/billing/usage?a=1", {"authorization": "Bearer own"},
         "https://api.openai.com/dashboard/billing/usage?a=1", "authorization", "Bearer own"),
        ("POST", "/claude/api/v1/messages", {"x-api-key": "own"},
         "https://api.anthropic.com/v1/messages", "x-api-key", "own"),
        ("GET", "/claude/api/v1/models", {}, "https://api.anthropic.com/v1/models",
         "x-api-key", "a-"),
        ("POST", "/gemini/v1beta/models/g:generateContent?key=own&alt=json", {},
         "https://generativelanguage.googleapis.com/v1beta/models/g:generateContent?alt=json",
         "x-goog-api-key", "own"),
        ("GET", "/gemini/v1beta/models", {},
         "https://generativelanguage.googleapis.com/v1beta/models", "x-goog-api-key", "g-one"),
    ],
)  # fmt: skip
async def test_vendor_paths_are_forwarded_with_the_chosen_key(
    method: str, path: str, headers: dict[str, str], url: str, name: str, secret: str
) -> None:
    vendors = Vendors()
    body: Any = b""
    if method == "POST":
        headers = {**headers, "content-type": "application/json"}
        body = {"model": "m", "messages": [], "input": "x", "contents": [], "max_tokens": 1}
    answer = await asgi.request(routes(vendors), method, path, body, headers=headers)
    assert answer.status == 200, answer.body
    assert str(vendors.last.url) == url
    assert vendors.last.headers[name].startswith(secret)
    if url.startswith("https://api.anthropic"):
        assert vendors.last.headers["anthropic-version"] == "2023-06-01"
    assert answer.header("access-control-allow-origin") == "*"


async def test_native_requests_are_answered_with_chunks() -> None:
    vendors = Vendors(anthropic_stream("Hel", "lo"))
    body = {"model": "claude-x", "max_tokens": 10, "system": "Be short.", **HI}
    answer = await asgi.request(
        routes(vendors), "POST", "/claude/api/openai", body, headers={"x-api-key": "own"}
    )
    assert texts(answer) == "Hello"
    assert vendors.last.headers["x-api-key"] == "own"
    assert vendors.body["max_tokens"] == 10
    assert answer.events[0]["claude"]["type"] == "api"

    contents = [{"role": "user", "parts": [{"text": "Hi"}]}]
    body = {"model": "g", "contents": contents, "generationConfig": {"maxOutputTokens": 7}}
    answer = await asgi.request(
        routes(vendors), "POST", "/gemini/openai", body, headers={"authorization": "own"}
    )
    assert texts(answer) == "Hello"
    assert vendors.body["generationConfig"]["maxOutputTokens"] == 7
    assert vendors.last.headers["x-goog-api-key"] == "own"


async def test_a_vendors_error_keeps_its_status_and_is_in_openais_form() -> None:
    vendors = Vendors(refuses(400))
    answer = await asgi.request(
        routes(vendors), "POST", CHAT, {**HI, "model": "m", "provider": "claude"}
    )
    assert answer.status == 400
    assert answer.json["error"]["message"]


async def test_a_browser_may_call_all_paths() -> None:
    answer = await asgi.request(
        routes(Vendors()), "OPTIONS", CHAT, headers={"origin": "https://a.example"}
    )
    assert answer.status == 200
    assert answer.header("access-control-allow-origin") == "*"
    assert "authorization" in (answer.header("access-control-allow-headers") or "").lower()


# ── callers of this gateway ──────────────────────────────────────────────────


async def test_with_tokens_only_callers_with_one_use_the_operators_keys() -> None:
    vendors = Vendors()
    verify = static_tokens({"gw-token-1": Principal("p1", models=("gpt-*",))})
    app = routes(vendors, verify=verify)
    body = {**HI, "model": "gpt-5"}

    refused = await asgi.request(app, "POST", CHAT, body)
    assert (refused.status, vendors.requests) == (401, [])
    served = await asgi.request(
        app, "POST", CHAT, body, headers={"authorization": "Bearer gw-token-1"}
    )
    assert served.status == 200
    assert vendors.last.headers["authorization"] in ("Bearer sk-one", "Bearer sk-two")
    own = await asgi.request(app, "POST", CHAT, body, headers={"authorization": "Bearer mine-1"})
    assert own.status == 200
    assert vendors.last.headers["authorization"] == "Bearer mine-1"
    other = await asgi.request(
        app, "POST", CHAT, {**body, "model": "o1", "provider": "claude"},
        headers={"authorization": "Bearer gw-token-1"},
    )  # fmt: skip
    assert other.status in (403, 404)


# ── web sites, with the caller's own session ─────────────────────────────────


async def test_one_callers_session_never_reaches_another_caller() -> None:
    vendors = Vendors()
    app = routes(vendors, claude_web="https://claude.ai")
    path = "/claude/web/api/organizations?a=1"
    cookie = {"cookie": "other=1; sessionKey=sk-ant-sid01-A; more=2"}
    await asgi.request(app, "GET", path, headers=cookie)
    assert str(vendors.last.url) == "https://claude.ai/api/organizations?a=1"
    assert vendors.last.headers["cookie"] == "sessionKey=sk-ant-sid01-A"
    await asgi.request(app, "GET", path)
    assert "cookie" not in vendors.last.headers
    assert "authorization" not in vendors.last.headers
    await asgi.request(app, "GET", path, headers={"authorization": "Bearer sk-ant-sid01-B"})
    assert vendors.last.headers["cookie"] == "sessionKey=sk-ant-sid01-B"
    assert "authorization" not in vendors.last.headers


async def test_the_chatgpt_site_gets_the_callers_authorization_as_it_is() -> None:
    vendors = Vendors()
    app = routes(vendors, chatgpt_web="https://chat.example")
    for path in ("/backend-api/models", "/public-api/x"):
        headers = {"authorization": "Bearer eyJown", "cookie": "a=b"}
        answer = await asgi.request(app, "GET", path, headers=headers)
        assert answer.status == 200
        assert str(vendors.last.url) == "https://chat.example" + path
        assert vendors.last.headers["authorization"] == "Bearer eyJown"
        assert "cookie" not in vendors.last.headers
    assert "sk-one" not in str(vendors.last.headers)


PAGE = {"content-type": "text/html"}
DEMANDS = b'{"token": "t", "turnstile": {"required": true}}'


@pytest.mark.parametrize(
    ("path", "step"),
    [
        ("/claude/web/api/organizations", Step([b"<html>"], 403, PAGE)),
        ("/claude/web/api/organizations",
         Step([b"x"], 403, {"content-type": "text/plain", "cf-mitigated": "challenge"})),
        ("/backend-api/models", Step([b"<html>"], 503, PAGE)),
        ("/backend-api/sentinel/chat-requirements",
         Step([DEMANDS], headers={"content-type": "application/json"})),
    ],
)  # fmt: skip
async def test_a_challenge_is_an_error_that_says_so(path: str, step: Step) -> None:
    vendors = Vendors(step)
    app = routes(vendors, chatgpt_web="https://c.example", claude_web="https://d.example")
    answer = await asgi.request(app, "GET", path, headers={"authorization": "Bearer own"})
    assert (answer.status, answer.json["error"]["code"]) == (403, "challenge")
    assert len(vendors.requests) == 1


async def test_a_callers_conversation_cannot_be_continued_by_another_caller() -> None:
    vendors = Vendors()
    verify = static_tokens({"token-of-one": "one", "token-of-two": "two"})
    app = routes(vendors, verify=verify)
    body = {**HI, "model": "coze-api", "provider": "coze"}

    async def chat(token: str, id: str = "") -> asgi.Answer:
        ids = {"bot_id": "b1", "user": "u1", "conversation_id": id}
        headers = {"authorization": f"Bearer {token}"}
        given = {**body, "coze": {"conversation": ids}}
        return await asgi.request(app, "POST", CHAT, given, headers=headers)

    id = (await chat("token-of-one")).events[-2]["coze"]["conversation_id"]
    assert id != "71"
    await chat("token-of-one", id)
    assert vendors.last.url.params["conversation_id"] == "71"
    count = len(vendors.requests)
    assert (await chat("token-of-two", id)).status == 400
    assert len(vendors.requests) == count
