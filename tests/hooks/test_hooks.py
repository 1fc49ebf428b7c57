"""Hooks through the shims: what they see, change, answer and refuse, and what if they fail."""

from __future__ import annotations

import asyncio
import functools
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
    PassthroughProxy,
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
from tests.support.scripted_upstream import Upstream, answers, chat_stream, refuses, streams

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


class Observes(Hook):
    def __init__(self) -> None:
        self.seen: list[tuple[Any, UsageRecord]] = []

    async def before(self, call: Call) -> None:
        call.state[self] = "mine"

    def observe(self, call: Call, record: UsageRecord) -> None:
        self.seen.append((call.state[self], record))


@pytest.mark.parametrize("step", [answers(), streams(), refuses(400), refuses(500)])
@pytest.mark.parametrize("kind", [After, Observes])
async def test_after_runs_once_with_the_record_however_a_call_ended(
    step: Any, kind: type[After | Observes]
) -> None:
    hook, records = kind(), list[UsageRecord]()
    app = shim(Upstream(step), hook, record=_into(records), attempts=1, backoff=0.0)
    async with app:
        await call(app, stream=step.headers["content-type"] == "text/event-stream")
    assert [record for _, record in hook.seen] == records
    assert len(records) == 1


class FailsAfter(Hook):
    async def after(self, call: Call, record: UsageRecord) -> None:
        raise RuntimeError("no database")


class FailsToObserve(Hook):
    def observe(self, call: Call, record: UsageRecord) -> None:
        raise RuntimeError("no database")


@pytest.mark.parametrize("kind", [FailsAfter, FailsToObserve])
async def test_a_failing_after_hook_is_logged_and_changes_nothing(
    caplog: pytest.LogCaptureFixture, kind: type[Hook]
) -> None:
    others = After(), Observes()
    async with shim(Upstream(answers()), kind(), *others) as app:
        assert (await call(app)).status == 200
    assert "failed after the exchange" in caplog.text
    assert [len(other.seen) for other in others] == [1, 1]


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


def _sync(call: Call) -> None:
    """Not async."""


async def _two(call: Call, more: int) -> None:
    """With a parameter too many."""


class _SyncBefore(Hook):
    def before(self, call: Call) -> None:  # type: ignore[override]
        """Not async."""


class _ShortAfter(Hook):
    async def after(self, call: Call) -> None:  # type: ignore[override]
        """Without the record."""


class _AsyncFilters(Hook):
    async def filters(self, call: Call) -> Any:  # type: ignore[override]
        return ()


class _Plain:
    """No subclass of Hook, with a method that is not async."""

    def before(self, call: Call) -> None: ...


@pytest.mark.parametrize(
    ("hooks", "words"),
    [
        (Hook(), "hooks must be a list"),
        (_sync, "hooks must be a list"),
        (None, "hooks must be a list"),
        ([lambda call: None], "is not a hook, since it is not async. Write 'async def'"),
        ([_sync], "is not async"),
        ([_two], "is called with a Call, and its parameters are"),
        ([functools.partial(_sync)], "is not async"),
        ([_SyncBefore()], "before of .* must be async: 'async def'"),
        ([_ShortAfter()], "after of .* is called with a Call and a UsageRecord"),
        ([_AsyncFilters()], "filters of .* must not be async"),
        ([_Plain()], "before of .* must be async"),
        ([Hook], "not its class"),
        (["log"], "is not a hook"),
        ([42], "is not a hook"),
        ([Slow("maybe")], "on_failure 'closed' or 'open'"),
    ],
)
def test_what_is_not_a_hook_is_refused_when_the_app_is_built(hooks: Any, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        OpenAIShim(ANTHROPIC.using("sk-x"), hooks=hooks)
    if hooks is not None:
        with pytest.raises(ConfigurationError, match=words):
            PassthroughProxy(ANTHROPIC.using("sk-x"), hooks=hooks)


class _Callable:
    def __init__(self, seen: list[str]) -> None:
        self.seen = seen

    async def __call__(self, call: Call) -> None:
        self.seen.append(call.model)


class _Methods:
    """No subclass of Hook."""

    def __init__(self, seen: list[str]) -> None:
        self.seen = seen

    async def before(self, call: Call) -> None:
        self.seen.append(call.model)

    async def after(self, call: Call, record: UsageRecord) -> None:
        self.seen.append(record.outcome)


async def test_hooks_are_written_in_many_ways() -> None:
    seen: list[str] = []

    async def bound(seen: list[str], call: Call) -> None:
        seen.append(call.model)

    app = shim(Upstream(answers()), _Callable(seen), functools.partial(bound, seen), _Methods(seen))
    async with app:
        assert (await call(app)).status == 200
    assert seen == ["m", "m", "m", "done"]


@pytest.mark.parametrize(
    "wrong",
    [
        lambda call: "refused",
        lambda call: False,
        lambda call: setattr(call, "body", "text"),
        lambda call: setattr(call, "body", {"model": "m"}),
        lambda call: setattr(call, "model", None),
        lambda call: setattr(call, "request", {"model": "m"}),
        lambda call: setattr(call, "response", "Hello"),
        lambda call: call.answer({"text": "Hello"}),
        lambda call: call.refuse("No.", status=200),
        lambda call: call.send_header("host", "x"),
    ],
)
@pytest.mark.parametrize("where", ["shim", "proxy"])
async def test_a_hook_that_misuses_a_call_has_failed_and_the_log_says_why(
    wrong: Any, where: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def hook(call: Call) -> Any:
        return wrong(call)

    upstream = Upstream(answers())
    app: Any = shim(upstream, hook)
    if where == "proxy":
        app = PassthroughProxy(OPENAI.using("sk-1"), transport=upstream.transport, hooks=[hook])
    answer = await call(app)
    assert (answer.status, answer.json["error"]["code"]) == (503, "hook_failed")
    assert upstream.requests == []
    assert "the hook" in caplog.text


class _Filters(Hook):
    def __init__(self, made: Any, on_failure: Any = "closed", seconds: float = 5.0) -> None:
        self._made, self.on_failure, self.seconds = made, on_failure, seconds

    def filters(self, call: Call) -> Any:
        return self._made()


class _Passes:
    async def feed(self, event: Any) -> Any:
        return (event,)

    async def close(self) -> Any:
        return ()


class _Hangs(_Passes):
    async def feed(self, event: Any) -> Any:
        await asyncio.Event().wait()


class _SyncFeed(_Passes):
    def feed(self, event: Any) -> Any:  # type: ignore[override]
        return (event,)


class _ReturnsNone(_Passes):
    async def feed(self, event: Any) -> Any:
        return None


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("where", ["shim", "proxy"])
@pytest.mark.parametrize(
    "make",
    [
        lambda: 1 / 0,
        lambda: None,
        lambda: _Passes(),
        lambda: [_Passes],
        lambda: ["x"],
        lambda: [_SyncFeed()],
        lambda: [_ReturnsNone()],
        lambda: [_Hangs()],
    ],
)
async def test_a_filter_that_fails_refuses_the_response_in_a_limited_time(
    make: Any, where: str, stream: bool
) -> None:
    step = streams(*chat_stream("secret")) if stream else answers()
    upstream = Upstream(step)
    hook = _Filters(make, seconds=0.2)
    app: Any = shim(upstream, hook)
    if where == "proxy":
        app = PassthroughProxy(OPENAI.using("sk-1"), transport=upstream.transport, hooks=[hook])
    answer = await call(app, stream=stream)
    assert (answer.status, answer.json["error"]["code"]) == (503, "hook_failed")
    assert b"secret" not in answer.body


async def test_a_hook_that_cannot_make_its_filters_is_left_out_if_it_says_so() -> None:
    app = shim(Upstream(answers()), _Filters(lambda: None, "open"), _Filters(lambda: [_Passes()]))
    assert (await call(app)).status == 200


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
