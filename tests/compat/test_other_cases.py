"""Answers of aiproxy, ChatGPT-to-API and chatgpt-adapter, request by request."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest

from asgi_aiproxy import Key, KeyPool, ProviderRouter
from asgi_aiproxy.compat import AIProxyRoutes, ChatGPTAdapterRoutes, ChatGPTToAPIRoutes
from asgi_aiproxy.providers import ANTHROPIC, COHERE, COZE, GEMINI, OPENAI, openai_compatible
from tests.compat.answer_cases import Case, problem_of
from tests.support import asgi_client as asgi
from tests.support.compat_vendors import Vendors

pytestmark = pytest.mark.anyio


class Sent(NamedTuple):
    """The only request to a vendor: its URL, and its key."""

    url: str
    key: str


NOTHING = Sent("", "")
MESSAGES = [{"role": "user", "content": "Hi"}]
HI = {"messages": MESSAGES, "model": "gpt-4"}
WHOLE = {"object": "chat.completion", "choices": [{"message": {"content": "Hello"}}]}
STREAM = "data: [DONE]"
ERROR = {"error": {"message": str, "type": str}}
RETIRED = {"error": {"message": str, "code": "provider_retired"}}
POLICY = {"error": {"message": str, "code": "unsupported_by_policy"}}
OPENAI_URL = "https://api.openai.com/v1/chat/completions"
CLAUDE_URL = "https://api.anthropic.com/v1/messages"
GOOGLE = "https://generativelanguage.googleapis.com"
STREAMED = ":streamGenerateContent?alt=sse"
CHAT = "POST /v1/chat/completions"
ONE = "POST /c/v1/chat/completions"


def bearer(token: str) -> str:
    return f"authorization: Bearer {token}"


def ask(provider: str, model: str = "m", **more: Any) -> dict[str, Any]:
    return {"messages": MESSAGES, "model": model, "provider": provider, **more}


def aiproxy(vendors: Vendors) -> AIProxyRoutes:
    return AIProxyRoutes(
        openai=OPENAI.using([Key("sk-one", id="1000001")]),
        gemini=GEMINI.using([Key("g-one", id="100001", attributes={"version": "v1"})]),
        anthropic=ANTHROPIC.using([Key("a-one", id="100001")]),
        coze=COZE.using([Key("pat-1", id="c1", attributes={"bot_id": "b1", "user": "u1"})]),
        transport=vendors.transport,
    )


def chatgpt_to_api(vendors: Vendors) -> ChatGPTToAPIRoutes:
    provider = OPENAI.using(KeyPool(["sk-one"], name="openai"))
    return ChatGPTToAPIRoutes(
        provider, admin_password="admin-password", transport=vendors.transport
    )


def with_list(vendors: Vendors) -> ChatGPTToAPIRoutes:
    provider = OPENAI.using(KeyPool(["sk-one"], name="openai"))
    return ChatGPTToAPIRoutes(
        provider, admin_password="p", api_keys=["listed"], transport=vendors.transport
    )


def chatgpt_adapter(vendors: Vendors) -> ChatGPTAdapterRoutes:
    router = ProviderRouter(
        {
            "gpt-*": OPENAI.using("sk-one"),
            "dall-e-*": OPENAI.using("sk-image", name="images"),
            "claude-*": ANTHROPIC.using("a-one"),
            "gemini-*": GEMINI.using("g-one"),
            "command-*": COHERE.using("c-one"),
        },
        providers=[
            COZE.using("pat-1"),
            openai_compatible("https://own.example/v1", name="custom").using("o-one"),
        ],
    )
    return ChatGPTAdapterRoutes(
        router,
        interpreter=openai_compatible("http://127.0.0.1:9/openai", name="interpreter"),
        transport=vendors.transport,
    )


AIPROXY: list[tuple[Case, Sent | None]] = [
    (Case("", "GET /ping", "", 200, {"ping": "ok"}), NOTHING),
    (Case("", "OPTIONS /v1/chat/completions", "", 200, dict), NOTHING),
    (Case("", ONE, HI, 200, WHOLE), Sent(OPENAI_URL, "sk-one")),
    (Case("", ONE, {**HI, "stream": True}, 200, STREAM), Sent(OPENAI_URL, "sk-one")),
    (Case("", ONE, ask("unheard-of"), 200, WHOLE), Sent(OPENAI_URL, "sk-one")),
    (Case(bearer("sk-own"), ONE, HI, 200, WHOLE), Sent(OPENAI_URL, "sk-own")),
    (Case("authorization: sk-own", ONE, HI, 200, WHOLE), Sent(OPENAI_URL, "sk-own")),
    (Case("x-auth-id: 1000001", ONE, HI, 200, WHOLE), Sent(OPENAI_URL, "sk-one")),
    (Case("x-auth-id: 9", ONE, HI, 401, ERROR), NOTHING),
    (Case("", ONE, {**HI, "openai": {"conversation": {"index": "1000001"}}}, 200, WHOLE),
     Sent(OPENAI_URL, "sk-one")),
    (Case("", ONE, {**HI, "openai": {"conversation": {"index": "9"}}}, 401, ERROR), NOTHING),
    (Case("", ONE, b"not json", 400, ERROR), NOTHING),
    (Case("", ONE, [], 400, ERROR), NOTHING),
    (Case("", "GET /c/v1/chat/completions", "", 404, ERROR), NOTHING),
    (Case("", ONE, ask("gemini", "gemini-2.5-pro"), 200, STREAM),
     Sent(f"{GOOGLE}/v1/models/gemini-2.5-pro{STREAMED}", "g-one")),
    (Case(bearer("own"), ONE, ask("gemini", "gemini-2.5-pro"), 200, STREAM),
     Sent(f"{GOOGLE}/v1beta/models/gemini-2.5-pro{STREAMED}", "own")),
    (Case(bearer("own") + "\nx-version: v1", ONE, ask("gemini", "gemini-2.5-pro"), 200, STREAM),
     Sent(f"{GOOGLE}/v1/models/gemini-2.5-pro{STREAMED}", "own")),
    (Case("x-auth-id: 100001", ONE, ask("gemini", "g"), 200, '"index":"100001"'), None),
    (Case("", ONE, ask("gemini", "g", gemini={"type": "api", "index": "100001"}), 200,
          '"type":"api"'), None),
    (Case("", ONE, ask("gemini", "g", gemini={"index": "9"}), 401, ERROR), NOTHING),
    (Case("", ONE, ask("claude", "claude-x"), 200, STREAM), Sent(CLAUDE_URL, "a-one")),
    (Case("", ONE, ask("claude", "claude-x", claude={"type": "api"}), 200, '"claude":'), None),
    (Case("x-api-key: own", ONE, ask("claude", "claude-x"), 200, STREAM), Sent(CLAUDE_URL, "own")),
    (Case(bearer("first") + "\nx-api-key: second", ONE, ask("claude", "c"), 200, STREAM),
     Sent(CLAUDE_URL, "first")),
    (Case("", ONE, ask("claude", "c", claude={"index": "100001"}), 200, STREAM),
     Sent(CLAUDE_URL, "a-one")),
    (Case("", ONE, ask("claude", "c", claude={"type": "web"}), 403, ERROR), NOTHING),
    (Case("", ONE, ask("coze", "coze-api"), 200, '"bot_id":"b1"'), None),
    (Case("", ONE, ask("coze", "gpt-4"), 403, POLICY), NOTHING),
    (Case("", ONE, ask("coze", "coze-api", coze={"conversation": {"bot_id": "no", "user": "no"}}),
          400, ERROR), NOTHING),
    (Case("", ONE, ask("bing"), 410, RETIRED), NOTHING),
    (Case("", ONE, ask("openai-chat-web"), 403, POLICY), NOTHING),
    (Case(bearer("eyJown"), ONE, ask("openai-chat-web"), 403, ERROR), NOTHING),
    (Case("", "GET /v1/models", "", 200, dict), Sent("https://api.openai.com/v1/models", "sk-one")),
    (Case("", CHAT, HI, 200, WHOLE), Sent(OPENAI_URL, "sk-one")),
    (Case(bearer("sk-own"), CHAT, HI, 200, WHOLE), Sent(OPENAI_URL, "sk-own")),
    (Case("", "POST /v1/embeddings", {"model": "m", "input": "x"}, 200, {"object": "list"}),
     Sent("https://api.openai.com/v1/embeddings", "sk-one")),
    (Case("", "GET /dashboard/billing/usage", "", 410, RETIRED), NOTHING),
    (Case(bearer("sess-own"), "GET /dashboard/billing/usage", "", 200, dict),
     Sent("https://api.openai.com/dashboard/billing/usage", "sess-own")),
    (Case("x-api-key: own", "POST /claude/api/v1/messages", {"model": "c", "max_tokens": 5,
          "messages": MESSAGES}, 200, "message_start"), Sent(CLAUDE_URL, "own")),
    (Case("", "POST /claude/api/v1/messages", {"model": "c", "max_tokens": 5, "messages": MESSAGES},
          200, "message_start"), Sent(CLAUDE_URL, "a-one")),
    (Case("", "POST /claude/api/openai", {"model": "c", "max_tokens": 5, "messages": MESSAGES,
          "stream": True}, 200, "chat.completion.chunk"), Sent(CLAUDE_URL, "a-one")),
    (Case("", f"POST /gemini/v1beta/models/g{STREAMED}", {"contents": []}, 200, "candidates"),
     Sent(f"{GOOGLE}/v1beta/models/g{STREAMED}", "g-one")),
    (Case("", "POST /gemini/v1beta/models/g:streamGenerateContent?alt=sse&key=own",
          {"contents": []}, 200, "candidates"),
     Sent(f"{GOOGLE}/v1beta/models/g{STREAMED}", "own")),
    (Case("", "POST /gemini/openai", {"model": "g", "contents": [{"role": "user", "parts": [
          {"text": "Hi"}]}]}, 200, "chat.completion.chunk"),
     Sent(f"{GOOGLE}/v1/models/g{STREAMED}", "g-one")),
    *[(Case("", request, {}, 410, RETIRED), NOTHING) for request in (
        "GET /bing/conversation", "POST /bing/conversation", "DELETE /bing/conversation",
        "POST /bing/message", "POST /auth/token/platform/refresh",
        "POST /auth/token/platform/revoke", "POST /auth/session/platform")],
    *[(Case("", request, {}, 403, POLICY), NOTHING) for request in (
        "POST /auth/token/web", "POST /arkose/token/35536E1E", "POST /arkose/solve/35536E1E",
        "POST /backend-anon/conversation", "POST /backend-anon/web2api",
        "POST /backend-api/conversation", "POST /backend-api/web2api")],
    *[(Case(bearer("own"), request, "", 403, ERROR), NOTHING) for request in (
        "GET /backend-api/me", "GET /public-api/x", "GET /gptimage/file-1",
        "GET /claude/web/api/organizations")],
    (Case("", "GET /none", "", 404, ERROR), NOTHING),
]  # fmt: skip

TO_API: list[tuple[Case, Sent | None]] = [
    (Case("", "GET /ping", "", 200, {"message": "pong"}), NOTHING),
    (Case("", "OPTIONS /v1/chat/completions", "", 200, {"message": "pong"}), NOTHING),
    (Case("", CHAT, HI, 200, {**WHOLE, "usage": {"total_tokens": 5}}), Sent(OPENAI_URL, "sk-one")),
    (Case("", CHAT, {**HI, "stream": True}, 200, STREAM), Sent(OPENAI_URL, "sk-one")),
    (Case(bearer("anything"), CHAT, HI, 200, WHOLE), Sent(OPENAI_URL, "sk-one")),
    (Case(bearer("sk-official"), CHAT, HI, 200, WHOLE), Sent(OPENAI_URL, "sk-one")),
    (Case(bearer("eyJhbGciOiJSUzI1NiJ9.a.b"), CHAT, HI, 200, WHOLE),
     Sent(OPENAI_URL, "eyJhbGciOiJSUzI1NiJ9.a.b")),
    (Case("", CHAT, b"{", 400, {"error": {"message": str, "type": "invalid_request_error"}}),
     NOTHING),
    (Case("", CHAT, {**HI, "plugin_ids": ["p"]}, 410, RETIRED), NOTHING),
    (Case("", "GET /v1/models", "", 200, {"object": "list", "data": list}), None),
    (Case("", "GET /v1/engines", "", 200, {"object": "list", "data": list}), None),
    (Case("", "GET /v1/none", "", 404, ERROR), NOTHING),
    (Case("", "GET /v1/chat/completions", "", 404, ERROR), NOTHING),
    (Case("", "PATCH /admin/tokens", ["t"], 401, "Unauthorized"), NOTHING),
    (Case("authorization: wrong", "PATCH /admin/tokens", ["t"], 401, "Unauthorized"), NOTHING),
    (Case("admin", "PATCH /admin/tokens", b"[", 400, "tokens not provided"), NOTHING),
    (Case("admin", "PATCH /admin/tokens", {"t": 1}, 400, "tokens not provided"), NOTHING),
    (Case("admin", "PATCH /admin/tokens", ["t1", "t2"], 200, "tokens updated"), NOTHING),
    (Case("admin", "PUT /admin/tokens", ["t1"], 200, "tokens updated"), NOTHING),
    (Case("admin", "PATCH /admin/tokens", [{"token": "t1", "puid": "p"}], 200, "tokens updated"),
     NOTHING),
    (Case("admin", "PATCH /admin/password", {}, 400, "password not provided"), NOTHING),
    (Case("admin", "PATCH /admin/password", {"password": "n"}, 200, "password updated"), NOTHING),
    (Case("admin", "PATCH /admin/openai", {"openai_email": "a@example.com",
          "openai_password": "p"}, 403, POLICY), NOTHING),
    (Case("admin", "PATCH /admin/openai", {"official_api_key": "sk-x"}, 200, "updated"), NOTHING),
    (Case("admin", "PATCH /admin/puid", {"puid": "user-x"}, 403, ERROR), NOTHING),
    (Case("admin", "GET /admin/tokens", "", 404, ERROR), NOTHING),
]  # fmt: skip

LISTED: list[tuple[Case, Sent | None]] = [
    (Case(bearer("listed"), CHAT, HI, 200, WHOLE), Sent(OPENAI_URL, "sk-one")),
    (Case(bearer("other"), CHAT, HI, 401, ERROR), NOTHING),
    (Case("", CHAT, HI, 401, ERROR), NOTHING),
    (Case(bearer("sk-official"), CHAT, HI, 401, ERROR), NOTHING),
    (Case(bearer("eyJown.a.b"), CHAT, HI, 200, WHOLE), Sent(OPENAI_URL, "eyJown.a.b")),
    (Case("", "GET /ping", "", 200, {"message": "pong"}), NOTHING),
    (Case("", "GET /v1/models", "", 401, ERROR), NOTHING),
]  # fmt: skip

ADAPTER: list[tuple[Case, Sent | None]] = [
    (Case("", "GET /", "", 200, "asgi-aiproxy"), NOTHING),
    (Case("", "OPTIONS /v1/chat/completions", "", 200, dict), NOTHING),
    *[(Case("", f"POST {path}", {**HI, "stream": stream}, 200, STREAM if stream else WHOLE),
       Sent(OPENAI_URL, "sk-one"))
      for path in ("/v1/chat/completions", "/v1/object/completions", "/proxies/v1/chat/completions")
      for stream in (True, False)],
    *[(Case("", f"POST {path}", {"prompt": "a cat", "model": "dall-e-3", "style": "x"}, 200,
            {"created": int, "data": [{"url": str}]}),
       Sent("https://api.openai.com/v1/images/generations", "sk-image"))
      for path in ("/v1/images/generations", "/proxies/v1/images/generations",
                   "/v1/object/generations", "/v1/chat/generations",
                   "/proxies/v1/chat/generations")],
    (Case("", "POST /v1/embeddings", {"model": "custom/e", "input": "x"}, 200, {"object": "list"}),
     Sent("https://own.example/v1/embeddings", "o-one")),
    (Case("", "POST /proxies/v1/embeddings", {"model": "custom/e", "input": ["x"]}, 200,
          {"object": "list"}), Sent("https://own.example/v1/embeddings", "o-one")),
    (Case("", "GET /v1/models", "", 200, {"object": "list", "data": list}), None),
    (Case("", "GET /proxies/v1/models", "", 200, {"object": "list", "data": list}), None),
    (Case(bearer("own"), CHAT, HI, 200, WHOLE), Sent(OPENAI_URL, "own")),
    (Case("x-api-key: first\n" + bearer("second"), CHAT, HI, 200, WHOLE),
     Sent(OPENAI_URL, "first")),
    (Case("", CHAT, {**HI, "model": "claude-x", "stream": True}, 200, STREAM),
     Sent(CLAUDE_URL, "a-one")),
    (Case("", CHAT, {**HI, "model": "gemini-x", "stream": True}, 200, STREAM),
     Sent(f"{GOOGLE}/v1beta/models/gemini-x{STREAMED}", "g-one")),
    (Case("", CHAT, {**HI, "model": "custom/my-model"}, 200, WHOLE),
     Sent("https://own.example/v1/chat/completions", "o-one")),
    (Case("", CHAT, {**HI, "model": "coze/7353-1712-2", "stream": True}, 200, STREAM),
     Sent("https://api.coze.com/v3/chat", "pat-1")),
    (Case("", CHAT, {**HI, "model": "open-interpreter"}, 200, WHOLE),
     Sent("http://127.0.0.1:9/openai/chat/completions", "")),
    (Case("", CHAT, {**HI, "stop": "x"}, 200, WHOLE), Sent(OPENAI_URL, "sk-one")),
    (Case("", CHAT, {**HI, "stop": ["x", "y"]}, 200, WHOLE), Sent(OPENAI_URL, "sk-one")),
    (Case("", CHAT, {**HI, "model": "unheard-of"}, (404, 500), ERROR), NOTHING),
    (Case("", CHAT, b"{", 400, ERROR), NOTHING),
    (Case("", CHAT, {"model": "gpt-4", "messages": []}, 400, ERROR), NOTHING),
    (Case("", CHAT, {"model": "gpt-4", "messages": [{"role": "robot", "content": "x"}]}, 400,
          ERROR), NOTHING),
    *[(Case("", CHAT, {**HI, "model": model}, 410, RETIRED), NOTHING) for model in (
        "bing", "bing-online", "bing-vision", "lmsys/gpt-4-turbo", "open-interpreter-ws")],
    *[(Case("", CHAT, {**HI, "model": model}, 403, POLICY), NOTHING) for model in (
        "coze", "claude", "you/gpt_4", "coze/websdk", "coze/73-74-2-o", "coze/73-xxx-1000-w")],
    *[(Case(bearer(marker), "POST /v1/images/generations", {"prompt": "a", "model": "dall-e-3"},
            410, RETIRED), NOTHING)
      for marker in ("sk-prodia-sd", "sk-prodia-xl", "sk-dalle-4k", "sk-dalle-3-xl", "sk-google-xl",
                     "sk-animagine-xl-3.1")],
    *[(Case("", "POST /v1/images/generations", {"prompt": "a", "model": f"{name}.dall-e-3"}, 410,
            RETIRED), NOTHING) for name in ("sd", "xl", "dalle-4k", "dalle-3-xl", "google")],
    *[(Case("", "POST /v1/images/generations", {"prompt": "a", "model": f"{name}.dall-e-3"}, 403,
            POLICY), NOTHING) for name in ("pg", "coze")],
    *[(Case(bearer(secret), "POST /v1/images/generations", {"prompt": "a"}, 403, POLICY), NOTHING)
      for secret in ("0123abcd-0123-0123-0123-0123456789ab", "msToken=abc; sessionid=1")],
    (Case("", "POST /anthropic/v1/messages", {"model": "claude-x", "max_tokens": 5, "stream": True,
          "messages": MESSAGES}, 200, "message_stop"), Sent(CLAUDE_URL, "a-one")),
    (Case("", "POST /encipher", "text", 403, ERROR), NOTHING),
    (Case("", "GET /log/helper", "", 403, POLICY), NOTHING),
    (Case("", "GET /socket.io/open-i/", "", 410, RETIRED), NOTHING),
    (Case("", "GET /none", "", 404, ERROR), NOTHING),
]  # fmt: skip

TABLES = {
    "aiproxy": (aiproxy, AIPROXY),
    "chatgpt_to_api": (chatgpt_to_api, TO_API),
    "chatgpt_to_api with a list of keys": (with_list, LISTED),
    "chatgpt_adapter": (chatgpt_adapter, ADAPTER),
}


def headers_of(case: Case) -> dict[str, str]:
    if case.caller == "admin":
        return {"authorization": "admin-password"}
    pairs = (line.partition(": ") for line in case.caller.split("\n") if line)
    return {name: value for name, _, value in pairs}


def sent_problem(vendors: Vendors, wanted: Sent | None) -> str:
    if wanted is None:
        return ""
    found = [str(request.url) for request in vendors.requests]
    if wanted == NOTHING:
        return f"sent to {found}" if found else ""
    if found != [wanted.url]:
        return f"sent to {found}, not {wanted.url}"
    headers = vendors.last.headers
    keys = {headers.get("authorization", "").removeprefix("Bearer ")}
    keys |= {headers.get("x-api-key", ""), headers.get("x-goog-api-key", "")}
    return "" if wanted.key in keys else f"sent with {keys}, not {wanted.key}"


@pytest.mark.parametrize("table", TABLES)
async def test_answers_are_those_of_the_earlier_gateways(table: str) -> None:
    make, cases = TABLES[table]
    found = []
    for number, (case, sent) in enumerate(cases):
        vendors = Vendors()
        method, _, path = case.request.partition(" ")
        answer = await asgi.request(
            make(vendors), method, path, case.body, headers=headers_of(case)
        )
        problem = problem_of(case, answer) or sent_problem(vendors, sent)
        if problem:
            found.append(f"{number} {case.caller} {case.request} {case.body!r}: {problem}")
    assert not found, "\n".join(found)
