"""Hooks through the shims: what they see, change, answer and refuse, and what if they fail."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import msgspec
import pytest

from asgi_aiproxy import (
    AIShim,
    APIError,
    Authenticate,
    ConfigurationError,
    ErrorKind,
    MemoryStore,
    OpenAIShim,
    Principal,
    ProviderRouter,
    ResponseState,
    UsageRecord,
)
from asgi_aiproxy.hooks import Call, Hook, TextGuard, find_secrets
from asgi_aiproxy.messages import Message, Text
from asgi_aiproxy.middleware import static_tokens
from asgi_aiproxy.providers import ANTHROPIC, GROQ, OPENAI, OPENAI_RESPONSES
from asgi_aiproxy.usage.record import Outcome
from tests.support import asgi_client as asgi
from tests.support.scripted_upstream import Upstream, answers, refuses, streams

pytestmark = pytest.mark.anyio

BODIES: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("/v1/chat/completions", {"messages": [{"role": "user", "content": "Hi"}]}),
    "responses": ("/v1/responses", {"input": "Hi"}),
    "messages": (
        "/v1/messages",
        {"max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]},
    ),
    "gemini": (
        "/v1beta/models/m:generateContent",
        {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}]},
    ),
}


def shim(upstream: Upstream, *hooks: Any, **options: Any) -> AIShim:
    provider = GROQ.using("sk-pool")
    router = ProviderRouter({"m": provider, "other": provider})
    return AIShim(router, transport=upstream.transport, hooks=hooks, **options)


async def call(app: Any, face: str = "chat", **members: Any) -> asgi.Answer:
    path, body = BODIES[face]
    if face != "gemini":
        body = {"model": "m", **body}
    return await asgi.request(app, "POST", path, {**body, **members})


@pytest.mark.parametrize("face", BODIES)
async def test_a_hook_sees_the_caller_and_the_request_in_every_client_api(face: str) -> None:
    seen: list[Call] = []

    async def look(call: Call) -> None:
        seen.append(call)

    upstream = Upstream(answers())
    app = Authenticate(shim(upstream, look), verify=static_tokens({"sk-1": "ada"}))
    path, body = BODIES[face]
    body = body if face == "gemini" else {"model": "m", **body}
    headers = {"authorization": "Bearer sk-1", "x-team": "red"}
    answer = await asgi.request(app, "POST", path, body, headers=headers)
    assert answer.status == 200
    (found,) = seen
    assert (found.principal.id, found.model, found.stream) == ("ada", "m", False)
    assert found.headers["x-team"] == "red"
    assert "authorization" not in found.headers
    assert found.request is not None
    assert found.request.messages == (Message("user", (Text("Hi"),)),)
    assert answer.header("aiproxy-request-id") == found.request_id


@pytest.mark.parametrize("face", BODIES)
async def test_a_hook_adds_a_system_prompt_in_every_client_api(face: str) -> None:
    async def add(call: Call) -> None:
        request = call.request
        assert request is not None
        system = Message("system", (Text("Be brief."),))
        call.request = msgspec.structs.replace(request, messages=(system, *request.messages))

    upstream = Upstream(answers())
    assert (await call(shim(upstream, add), face)).status == 200
    (body,) = upstream.bodies
    assert [m["role"] for m in body["messages"]] == ["system", "user"]
    assert body["messages"][0]["content"] == "Be brief."


async def test_a_hook_rewrites_the_body_and_the_model() -> None:
    async def rewrite(call: Call) -> None:
        call.body = json.dumps({**json.loads(call.body), "temperature": 0.5}).encode()
        call.model = "other"

    upstream = Upstream(answers())
    assert (await call(shim(upstream, rewrite))).status == 200
    (body,) = upstream.bodies
    assert (body["temperature"], body["model"]) == (0.5, "other")


async def test_what_a_hook_rewrites_is_judged_as_a_request_of_the_caller() -> None:
    async def rewrite(call: Call) -> None:
        call.model = "other"

    upstream = Upstream(answers())
    tokens = {"sk-1": Principal("ada", models=("m",))}
    app = Authenticate(shim(upstream, rewrite), verify=static_tokens(tokens))
    path, body = BODIES["chat"]
    headers = {"authorization": "Bearer sk-1"}
    answer = await asgi.request(app, "POST", path, {"model": "m", **body}, headers=headers)
    assert answer.status == 403
    assert upstream.requests == []


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("face", BODIES)
async def test_a_hook_answers_in_the_clients_api_and_no_provider_is_called(
    face: str, stream: bool
) -> None:
    async def cached(call: Call) -> None:
        call.answer("From the cache.")

    records: list[UsageRecord] = []

    async def keep(record: UsageRecord) -> None:
        records.append(record)

    upstream = Upstream(answers())
    async with shim(upstream, cached, record=keep) as app:
        if face == "gemini" and stream:
            path = "/v1beta/models/m:streamGenerateContent?alt=sse"
            answer = await asgi.request(app, "POST", path, BODIES[face][1])
        else:
            answer = await call(app, face, **({} if face == "gemini" else {"stream": stream}))
    assert answer.status == 200
    assert b"From the cache." in answer.body
    assert upstream.requests == []
    assert [(r.outcome, r.attempts) for r in records] == [(Outcome.DONE, 0)]


@pytest.mark.parametrize("face", BODIES)
async def test_a_refusal_is_an_error_of_the_clients_api_and_leaves_a_record(face: str) -> None:
    async def block(call: Call) -> None:
        call.refuse("Not on Sundays.", code="sunday")

    ended: list[UsageRecord] = []
    upstream = Upstream(answers())
    app = shim(upstream, block, record=_into(ended))
    async with app:
        answer = await call(app, face)
    assert answer.status == 403
    assert "Not on Sundays." in answer.body.decode()
    assert upstream.requests == []
    assert [(r.outcome, r.status, r.error) for r in ended] == [
        (Outcome.REFUSED, 403, "Not on Sundays.")
    ]


def _into(records: list[UsageRecord]) -> Any:
    async def keep(record: UsageRecord) -> None:
        records.append(record)

    return keep


async def test_hooks_run_in_order_until_one_answers() -> None:
    order: list[str] = []

    def step(name: str, *, answering: bool = False) -> Any:
        async def hook(call: Call) -> None:
            order.append(name)
            if answering:
                call.answer(name)

        return hook

    app = shim(Upstream(answers()), step("a"), step("b", answering=True), step("c"))
    assert (await call(app)).status == 200
    assert order == ["a", "b"]


class Slow(Hook):
    seconds = 0.05

    def __init__(self, on_failure: Any) -> None:
        self.on_failure = on_failure

    async def before(self, call: Call) -> None:
        await asyncio.sleep(3600)


class Broken(Slow):
    async def before(self, call: Call) -> None:
        raise RuntimeError("no database")


@pytest.mark.parametrize("kind", [Slow, Broken])
async def test_a_hook_that_fails_refuses_the_call_or_lets_it_pass_as_it_declares(
    kind: Any, caplog: pytest.LogCaptureFixture
) -> None:
    closed = await call(shim(Upstream(answers()), kind("closed")))
    assert closed.status == 503
    assert closed.json["error"]["code"] == "hook_failed"
    opened = await call(shim(Upstream(answers()), kind("open")))
    assert opened.status == 200
    logged = [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]
    assert len([message for message in logged if "the hook" in message]) == 2


class After(Hook):
    def __init__(self) -> None:
        self.seen: list[tuple[Any, UsageRecord]] = []

    async def before(self, call: Call) -> None:
        call.state[self] = "mine"

    async def after(self, call: Call, record: UsageRecord) -> None:
        self.seen.append((call.state[self], record))


@pytest.mark.parametrize("step", [answers(), streams(), refuses(400), refuses(500)])
async def test_after_runs_once_with_the_record_however_a_call_ended(step: Any) -> None:
    hook, records = After(), list[UsageRecord]()
    app = shim(Upstream(step), hook, record=_into(records), attempts=1, backoff=0.0)
    async with app:
        await call(app, stream=step.headers["content-type"] == "text/event-stream")
    assert [record for _, record in hook.seen] == records
    assert len(records) == 1


async def test_a_failing_after_hook_is_logged_and_changes_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Fails(Hook):
        async def after(self, call: Call, record: UsageRecord) -> None:
            raise RuntimeError("no database")

    async with shim(Upstream(answers()), Fails()) as app:
        assert (await call(app)).status == 200
    assert "failed after the exchange" in caplog.text


async def test_hooks_see_embeddings_and_cannot_answer_them() -> None:
    seen: list[str] = []

    async def look(call: Call) -> None:
        seen.append(call.operation)
        assert call.request is None
        with pytest.raises(ConfigurationError, match="only chat requests"):
            call.answer("no")

    upstream = Upstream(answers(b'{"data": []}'))
    app = AIShim(OPENAI.using("sk-pool"), transport=upstream.transport, hooks=[look])
    body = {"model": "m", "input": "Hi"}
    assert (await asgi.request(app, "POST", "/v1/embeddings", body)).status == 200
    assert seen == ["embeddings"]


@pytest.mark.parametrize(
    ("hooks", "words"),
    [
        (Hook(), "hooks must be a list"),
        ([lambda call: None], "is not a hook"),
        ([Hook], "not its class"),
        (["log"], "is not a hook"),
        ([Slow("maybe")], "on_failure 'closed' or 'open'"),
    ],
)
def test_what_is_not_a_hook_is_refused_when_the_app_is_built(hooks: Any, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        OpenAIShim(ANTHROPIC.using("sk-x"), hooks=hooks)


async def test_a_hooks_own_error_reaches_the_client_as_it_is() -> None:
    async def limit(call: Call) -> None:
        raise APIError(ErrorKind.LIMITED, "Slow down.", retry_after=7.0)

    answer = await call(shim(Upstream(answers()), limit))
    assert (answer.status, answer.header("retry-after")) == (429, "7")


async def test_hooks_see_and_keep_the_conversation_that_a_request_refers_to() -> None:
    seen: list[int] = []

    async def add(call: Call) -> None:
        request = call.request
        assert request is not None
        seen.append(len(request.messages))
        system = Message("system", (Text("Be brief."),))
        call.request = msgspec.structs.replace(request, messages=(system, *request.messages))

    upstream = Upstream(answers())
    state = ResponseState(MemoryStore(), stash=True)
    app = shim(upstream, add, response_state=state)
    first = await call(app, "responses")
    assert (await call(app, "responses", previous_response_id=first.json["id"])).status == 200
    assert seen == [1, 3]
    roles = [message["role"] for message in upstream.bodies[-1]["messages"]]
    assert roles == ["system", "user", "assistant", "user"]


async def test_a_response_that_the_provider_stored_is_not_retrieved_past_a_guard() -> None:
    upstream = Upstream(answers(b'{"object": "response", "output": []}'))

    def app(*hooks: Hook) -> AIShim:
        provider = OPENAI_RESPONSES.using("sk-pool")
        return AIShim(provider, transport=upstream.transport, hooks=hooks)

    path = "/v1/responses/resp_1"
    guarded = app(TextGuard(find_secrets))
    answer = await asgi.request(guarded, "GET", path)
    assert answer.status == 403
    assert answer.json["error"]["code"] == "unchecked_response"
    assert upstream.requests == []
    assert (await asgi.request(guarded, "DELETE", path)).status == 200
    assert (await asgi.request(app(), "GET", path)).status == 200
