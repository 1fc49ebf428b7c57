"""Chats with ChatGPT's and Anthropic's web sites, with the caller's own session."""

from __future__ import annotations

import json
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from asgi_aiproxy import UsageRecord
from asgi_aiproxy.compat import AIProxyRoutes
from asgi_aiproxy.middleware import static_tokens
from asgi_aiproxy.testing import serve
from tests.support import asgi_client as asgi
from tests.support.compat_vendors import Vendors

pytestmark = pytest.mark.anyio

CHAT = "/c/v1/chat/completions"
HI: dict[str, Any] = {"messages": [{"role": "user", "content": "Hi"}], "model": "auto"}
CHALLENGES = ("arkose", "turnstile", "proofofwork")


def sse(*values: Any, event: str = "") -> str:
    head = f"event: {event}\n" if event else ""
    return "".join(f"{head}data: {v if isinstance(v, str) else json.dumps(v)}\n\n" for v in values)


def snapshot(text: str, *, id: str = "m-2", role: str = "assistant", **more: Any) -> dict[str, Any]:
    metadata = {"model_slug": "gpt-x", "parent_id": "m-1", **more.pop("metadata", {})}
    return {
        "message": {
            "id": id,
            "author": {"role": role},
            "content": {"content_type": "text", "parts": [text]},
            "recipient": "all",
            "end_turn": None,
            "metadata": metadata,
            **more,
        },
        "conversation_id": "c-1",
        "error": None,
    }


FINISHED: dict[str, Any] = {"end_turn": True, "metadata": {"finish_details": {"type": "stop"}}}
SNAPSHOTS = sse(
    snapshot("Hi", id="m-1", role="user"),
    snapshot("", role="system", id="m-0"),
    snapshot("run()", id="t-1", recipient="python"),
    snapshot("ab"),
    snapshot("ab ab"),
    snapshot("ab ab ab", **FINISHED),
    {"type": "title", "title": "x"},
    "[DONE]",
)
DELTAS = (
    sse('"v1"', event="delta_encoding")
    + sse(
        {"p": "", "o": "add", "v": snapshot(""), "c": 0},
        {"p": "/message/content/parts/0", "o": "append", "v": "ab"},
        {"v": " ab"},
        {"v": " ab"},
        {
            "p": "",
            "o": "patch",
            "v": [
                {"p": "/message/end_turn", "o": "replace", "v": True},
                {
                    "p": "/message/metadata",
                    "o": "append",
                    "v": {"finish_details": {"type": "max_tokens"}},
                },
            ],
        },
        event="delta",
    )
    + sse({"type": "message_stream_complete", "conversation_id": "c-1"}, "[DONE]")
)


class FakeChatGPT:
    """A site like ChatGPT's: its requirements, then an answer."""

    def __init__(self, answer: str = SNAPSHOTS, **requirements: Any) -> None:
        self.answer = answer
        self.requirements: Any = {"token": "req-1", **requirements}
        self.questions: list[Any] = []
        self.headers: list[Any] = []
        self.app = Starlette(
            routes=[
                Route("/backend-api/sentinel/chat-requirements", self._require, methods=["POST"]),
                Route("/backend-api/conversation", self._answer, methods=["POST"]),
            ]
        )

    async def _require(self, request: Request) -> Response:
        self.headers.append(dict(request.headers))
        if self.requirements is None:
            return JSONResponse({}, 404)
        return JSONResponse(self.requirements)

    async def _answer(self, request: Request) -> Response:
        self.headers.append(dict(request.headers))
        self.questions.append(await request.json())
        if self.answer.startswith("<"):
            return HTMLResponse(self.answer, 403)
        if self.answer.startswith("{"):
            return JSONResponse(json.loads(self.answer), 401)
        pieces = [self.answer[i : i + 37] for i in range(0, len(self.answer), 37)]
        return StreamingResponse(iter(pieces), media_type="text/event-stream")


class FakeClaude:
    """A site like claude.ai: organizations, conversations, completions."""

    def __init__(self) -> None:
        self.cookies: list[str] = []
        self.made: list[Any] = []
        self.questions: list[tuple[str, str, Any]] = []
        base = "/api/organizations"
        self.app = Starlette(
            routes=[
                Route(base, self._organizations),
                Route(base + "/{org}/chat_conversations", self._make, methods=["POST"]),
                Route(
                    base + "/{org}/chat_conversations/{uuid}/completion",
                    self._answer,
                    methods=["POST"],
                ),
            ]
        )

    async def _organizations(self, request: Request) -> Response:
        self.cookies.append(request.headers.get("cookie", ""))
        if request.headers.get("cookie") == "sessionKey=old":
            error = {"type": "authentication_error", "message": "session expired"}
            return JSONResponse({"type": "error", "error": error}, 401)
        return JSONResponse(
            [
                {"uuid": "org-api", "capabilities": ["api"]},
                {"uuid": "org-1", "capabilities": ["chat"]},
            ]
        )

    async def _make(self, request: Request) -> Response:
        self.made.append(await request.json())
        return JSONResponse({"uuid": self.made[-1]["uuid"], "name": ""}, 201)

    async def _answer(self, request: Request) -> Response:
        self.cookies.append(request.headers.get("cookie", ""))
        org, uuid = request.path_params["org"], request.path_params["uuid"]
        self.questions.append((org, uuid, await request.json()))
        base = {"type": "completion", "id": "chatcompl_1", "model": "claude-x", "stop_reason": None}
        events = [
            {**base, "completion": "Hel"},
            {"type": "message_limit"},
            {**base, "completion": "lo"},
            {**base, "completion": "", "stop_reason": "stop_sequence"},
        ]
        return StreamingResponse(
            iter([sse(*events, event="completion")]), media_type="text/event-stream"
        )


async def ask(
    app: Any, body: dict[str, Any], *, token: str = "web-token", path: str = CHAT
) -> asgi.Answer:
    headers = {"authorization": f"Bearer {token}"} if token else {}
    return await asgi.request(app, "POST", path, body, headers=headers)


def texts(answer: asgi.Answer) -> str:
    return "".join(
        choice["delta"].get("content") or ""
        for event in answer.events
        if event != "[DONE]"
        for choice in event["choices"]
    )


@pytest.mark.parametrize(("stream", "finish"), [(SNAPSHOTS, "stop"), (DELTAS, "length")])
async def test_chatgpt_answers_in_either_encoding_become_chunks(stream: str, finish: str) -> None:
    site = FakeChatGPT(stream)
    records: list[UsageRecord] = []

    async def keep(record: UsageRecord) -> None:
        records.append(record)

    async with serve(site.app) as url, AIProxyRoutes(chatgpt_web=url, record=keep) as app:
        answer = await ask(app, {**HI, "provider": "openai-chat-web"})
    assert answer.status == 200, answer.body
    assert texts(answer) == "ab ab ab"
    last = [event for event in answer.events if event != "[DONE]"][-1]
    assert last["openai"] == {
        "conversation_id": "c-1",
        "parent_message_id": "m-1",
        "last_message_id": "m-2",
    }
    reasons = [c["finish_reason"] for e in answer.events if e != "[DONE]" for c in e["choices"]]
    assert reasons[-1] == finish or finish in reasons
    assert site.headers[1]["authorization"] == "Bearer web-token"
    assert site.headers[1]["openai-sentinel-chat-requirements-token"] == "req-1"
    (question,) = site.questions
    assert question["action"] == "next"
    assert question["model"] == "auto"
    assert question["messages"][0]["content"] == {"content_type": "text", "parts": ["Hi"]}
    assert len(records) == 1
    assert "web-token" not in repr(records)


async def test_a_conversation_goes_on_with_the_last_message_as_parent() -> None:
    site = FakeChatGPT()
    messages = [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "two"},
        {"role": "user", "content": "three"},
    ]
    ids = {"conversation_id": "c-1", "parent_message_id": "m-1", "last_message_id": "m-2"}
    body = {**HI, "messages": messages, "provider": "openai-chat-web"}
    async with serve(site.app) as url, AIProxyRoutes(chatgpt_web=url) as app:
        await ask(app, {**body, "openai": {"conversation": ids}})
        await ask(app, body)
    goes_on, new = site.questions
    assert goes_on["conversation_id"] == "c-1"
    assert goes_on["parent_message_id"] == "m-2"
    assert [m["content"]["parts"] for m in goes_on["messages"]] == [["three"]]
    assert "conversation_id" not in new
    assert [m["author"]["role"] for m in new["messages"]] == ["user", "assistant", "user"]


@pytest.mark.parametrize("name", CHALLENGES)
async def test_a_demanded_challenge_is_an_error_and_no_question_is_sent(name: str) -> None:
    site = FakeChatGPT(**{name: {"required": True}})
    async with serve(site.app) as url, AIProxyRoutes(chatgpt_web=url) as app:
        answer = await ask(app, {**HI, "provider": "openai-chat-web"})
    assert answer.status == 403
    assert answer.json["error"]["code"] == "challenge"
    assert not site.questions


async def test_a_web_page_instead_of_an_answer_is_a_challenge() -> None:
    site = FakeChatGPT("<html>Just a moment</html>")
    async with serve(site.app) as url, AIProxyRoutes(chatgpt_web=url) as app:
        answer = await ask(app, {**HI, "provider": "openai-chat-web"})
    assert (answer.status, answer.json["error"]["code"]) == (403, "challenge")


async def test_an_expired_session_is_the_callers_own_401() -> None:
    site = FakeChatGPT('{"detail": "token expired"}')
    async with serve(site.app) as url, AIProxyRoutes(chatgpt_web=url) as app:
        answer = await ask(app, {**HI, "provider": "openai-chat-web"})
    assert answer.status == 401
    assert "token expired" in answer.json["error"]["message"]


async def test_a_relay_without_requirements_is_sent_the_question() -> None:
    site = FakeChatGPT()
    site.requirements = None
    async with serve(site.app) as url, AIProxyRoutes(chatgpt_web=url) as app:
        answer = await ask(app, {**HI, "provider": "openai-chat-web", "stream": False})
    assert answer.json["choices"][0]["message"]["content"] == "ab ab ab"
    assert answer.json["openai"]["conversation_id"] == "c-1"


@pytest.mark.parametrize(
    "stream",
    [
        sse(snapshot("ab")),  # cut off
        sse(snapshot("ab"), {"message": None, "error": "Something went wrong"}),
    ],
)
async def test_a_broken_answer_ends_with_an_error(stream: str) -> None:
    site = FakeChatGPT(stream)
    async with serve(site.app) as url, AIProxyRoutes(chatgpt_web=url) as app:
        answer = await ask(app, {**HI, "provider": "openai-chat-web"})
    assert "error" in answer.body.decode()
    assert '"finish_reason":"stop"' not in answer.body.decode()


async def test_web2api_takes_the_sites_request_and_answers_with_chunks() -> None:
    site = FakeChatGPT()
    body = {
        "action": "next",
        "messages": [{"author": {"role": "user"}, "content": {"parts": ["Hi"]}}],
        "conversation_id": "c-1",
        "parent_message_id": "m-2",
        "model": "gpt-4",
    }
    path = "/backend-api/web2api"
    async with serve(site.app) as url, AIProxyRoutes(chatgpt_web=url) as app:
        answer = await ask(app, body, path=path)
        bad = await ask(app, {**body, "messages": [{"content": "x"}]}, path=path)
        anonymous = await ask(app, body, path=path, token="")
    assert texts(answer) == "ab ab ab"
    assert site.questions[0]["parent_message_id"] == "m-2"
    assert (bad.status, bad.json["error"]["param"]) == (400, "messages[0]")
    assert anonymous.status == 403


async def test_claude_web_finds_the_organization_and_makes_a_conversation() -> None:
    site = FakeClaude()
    body = {**HI, "provider": "claude", "claude": {"type": "web"}, "model": "claude-x"}
    async with serve(site.app) as url, AIProxyRoutes(claude_web=url) as app:
        answer = await ask(app, body, token="sk-ant-sid01-a")
        assert texts(answer) == "Hello"
        last = [event for event in answer.events if event != "[DONE]"][-1]
        conversation = last["claude"]["conversation"]
        messages = [*HI["messages"], {"role": "assistant", "content": "Hello"}, *HI["messages"]]
        claude = {"type": "web", "conversation": conversation}
        await ask(app, {**body, "messages": messages, "claude": claude}, token="sk-ant-sid01-a")
        await ask(app, {**body, "messages": messages}, token="sk-ant-sid01-b")
    assert last["claude"]["type"] == "web"
    first, second, third = site.questions
    assert first[:2] == ("org-1", site.made[0]["uuid"]) == ("org-1", conversation["uuid"])
    assert first[2]["prompt"] == "Hi"
    assert second[1] == conversation["uuid"]
    assert second[2]["prompt"] == "Hi"
    assert third[1] != conversation["uuid"]
    assert third[2]["prompt"] == "Human: Hi\n\nAssistant: Hello\n\nHuman: Hi\n\nAssistant:"
    assert len(site.made) == 2
    # Each caller's session is sent for that caller only.
    assert site.cookies == ["sessionKey=sk-ant-sid01-a"] * 4 + ["sessionKey=sk-ant-sid01-b"] * 2


async def test_claude_webs_refusal_of_a_session_is_a_401() -> None:
    site = FakeClaude()
    body = {**HI, "provider": "claude", "claude": {"type": "web"}}
    async with serve(site.app) as url, AIProxyRoutes(claude_web=url) as app:
        answer = await ask(app, body, token="old")
    assert answer.status == 401
    assert "session expired" in answer.json["error"]["message"]
    assert not site.questions


async def test_web_sites_are_off_unless_the_operator_names_them() -> None:
    async with AIProxyRoutes() as app:
        for body in (
            {"provider": "openai-chat-web"},
            {"provider": "claude", "claude": {"type": "web"}},
        ):
            answer = await ask(app, {**HI, **body})
            assert (answer.status, answer.json["error"]["code"]) == (403, "not_enabled")


# ── tokens of the gateway ────────────────────────────────────────────────────

CLAUDE = {"provider": "claude", "claude": {"type": "web"}}


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", CHAT, {**HI, "provider": "openai-chat-web"}),
        ("POST", CHAT, {**HI, **CLAUDE}),
        ("POST", "/backend-api/web2api", {"messages": [{"content": {"parts": ["Hi"]}}]}),
        ("GET", "/backend-api/conversations", b""),
        ("GET", "/public-api/x", b""),
        ("GET", "/claude/web/api/organizations", b""),
    ],
)
async def test_a_token_of_the_gateway_is_not_sent_to_a_web_site(
    method: str, path: str, body: Any
) -> None:
    vendors = Vendors()
    app = AIProxyRoutes(
        chatgpt_web="https://c.example", claude_web="https://d.example",
        verify=static_tokens({"gateway-1": "p"}), transport=vendors.transport,
    )  # fmt: skip
    headers = {"authorization": "Bearer gateway-1"}
    answer = await asgi.request(app, method, path, body, headers=headers)
    assert (answer.status, answer.json["error"]["code"]) == (401, "gateway_key")
    assert vendors.requests == []
    headers = {"authorization": "Bearer session-of-the-caller"}
    await asgi.request(app, method, path, body, headers=headers)
    assert vendors.requests
