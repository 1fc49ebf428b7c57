"""Exchanges as an OpenAI client sees them: attempts, keys, commit point, usage records."""

from __future__ import annotations

import asyncio
import contextvars
import json
from typing import Any

import httpx
import pytest

from asgi_aiproxy import KeyPool, OpenAIShim, ProviderRouter, Timeouts, UsageRecord, log_usage
from asgi_aiproxy.keys import Health, Key
from asgi_aiproxy.providers import ANTHROPIC, GEMINI, GROQ, OPENAI, Provider
from tests.support import asgi_client as asgi
from tests.support.scripted_upstream import (
    Step,
    Upstream,
    answers,
    chat_stream,
    refuses,
    sse,
    streams,
)

pytestmark = pytest.mark.anyio


class RecordingSink:
    """A usage sink that keeps its records."""

    def __init__(self) -> None:
        self.records: list[UsageRecord] = []

    async def __call__(self, record: UsageRecord) -> None:
        self.records.append(record)


def shim(
    upstream: Upstream, router: Any = None, **options: Any
) -> tuple[OpenAIShim, RecordingSink]:
    sink = RecordingSink()
    options.setdefault("backoff", 0.001)
    router = router if router is not None else OPENAI.using("sk-1")
    return OpenAIShim(router, transport=upstream.transport, record=sink, **options), sink


async def settled(app: OpenAIShim) -> None:
    await app._recorder.drain()


async def test_a_whole_answer_arrives_byte_for_byte() -> None:
    upstream = Upstream(answers())
    app, sink = shim(upstream)
    answer = await asgi.chat(app)
    assert answer.status == 200
    assert answer.body == upstream.steps[0].pieces[0]
    assert answer.header("content-type") == "application/json"
    await settled(app)
    (record,) = sink.records
    assert (record.outcome, record.status, record.attempts) == ("done", 200, 1)
    assert record.usage is not None
    assert (record.usage.input, record.usage.output) == (3, 2)


async def test_a_stream_arrives_byte_for_byte_if_usage_was_requested() -> None:
    upstream = Upstream(streams())
    app, sink = shim(upstream)
    answer = await asgi.chat(app, stream=True, stream_options={"include_usage": True})
    assert answer.body == b"".join(upstream.steps[0].pieces)
    assert answer.header("content-type") == "text/event-stream; charset=utf-8"
    await settled(app)
    assert sink.records[0].usage is not None


async def test_usage_is_always_requested_and_removed_for_clients_that_did_not_request_it() -> None:
    upstream = Upstream(streams())
    app, sink = shim(upstream)
    answer = await asgi.chat(app, stream=True)
    assert upstream.bodies[0]["stream_options"] == {"include_usage": True}
    assert b"prompt_tokens" not in answer.body
    assert answer.events[-1] == "[DONE]"
    await settled(app)
    assert sink.records[0].usage is not None
    assert sink.records[0].usage.input == 3


async def test_a_limited_key_cools_down_and_the_next_one_serves() -> None:
    upstream = Upstream(refuses(429, retry_after="20"), answers())
    pool = KeyPool([Key("sk-1", id="1"), Key("sk-2", id="2")])
    app, _ = shim(upstream, OPENAI.using(pool))
    answer = await asgi.chat(app)
    assert answer.status == 200
    assert upstream.keys == ["sk-1", "sk-2"]
    assert answer.header("x-auth-id") == "2"
    status = {key.id: key for key in await pool.status()}
    assert status["1"].health is Health.COOLING
    assert 19 < status["1"].cooldown_seconds <= 20
    assert status["2"].in_flight == 0


async def test_refused_keys_do_not_count_as_attempts() -> None:
    upstream = Upstream(*[refuses(429) for _ in range(9)], answers())
    app, _ = shim(upstream, OPENAI.using([f"sk-{n}" for n in range(10)]), attempts=1)
    assert (await asgi.chat(app)).status == 200
    assert len(set(upstream.keys)) == 10


async def test_when_all_keys_cool_down_the_client_gets_the_time_until_the_first_recovers() -> None:
    upstream = Upstream(refuses(429, retry_after="30"), refuses(429, retry_after="7"), answers())
    app, sink = shim(upstream, OPENAI.using(["sk-1", "sk-2"]))
    answer = await asgi.chat(app)
    assert answer.status == 429
    assert answer.json["error"]["code"] == "rate_limit_exceeded"
    assert answer.header("retry-after") == "7"
    # Until then no provider is called.
    again = await asgi.chat(app)
    assert again.status == 429
    assert again.header("retry-after") in ("6", "7")
    assert len(upstream.requests) == 2
    await settled(app)
    assert [record.outcome for record in sink.records] == ["failed", "failed"]


async def test_a_refused_key_is_quarantined_and_the_client_never_sees_a_401() -> None:
    said = b'{"error":{"message":"Incorrect API key: sk-1","type":"x","code":"invalid_api_key"}}'
    upstream = Upstream(refuses(401, said), answers())
    pool = KeyPool(["sk-1", "sk-2"])
    app, _ = shim(upstream, OPENAI.using(pool))
    assert (await asgi.chat(app)).status == 200
    assert [key.health for key in await pool.status()] == [Health.QUARANTINED, Health.OK]

    alone, _ = shim(Upstream(refuses(401, said)), OPENAI.using("sk-1"))
    answer = await asgi.chat(alone)
    assert answer.status == 502
    assert answer.header("aiproxy-provider") == "openai"
    assert b"sk-1" not in answer.body


async def test_a_403_cools_a_key_down_for_its_model_only_once_another_key_was_served() -> None:
    upstream = Upstream(refuses(403), answers())
    pool = KeyPool([Key("sk-1", id="1"), Key("sk-2", id="2")])
    app, _ = shim(upstream, OPENAI.using(pool))
    assert (await asgi.chat(app)).status == 200
    first, second = await pool.status()
    assert (first.health, list(first.models)) == (Health.COOLING, ["m"])
    assert second.health is Health.OK
    for _ in range(4):  # other models, and what asks for none, go on with both
        pool.acquire_nowait(model="other", key_id="1").release()
        pool.acquire_nowait(key_id="1").release()

    upstream = Upstream(refuses(403))
    pool = KeyPool(["sk-1", "sk-2"])
    app, _ = shim(upstream, OPENAI.using(pool))
    answer = await asgi.chat(app)
    assert answer.status == 502
    assert "no: 403" in answer.json["error"]["message"]  # in the vendor's words
    assert len(upstream.requests) == 2
    assert {key.health for key in await pool.status()} == {Health.OK}


@pytest.mark.parametrize("status", [500, 502, 503, 504, 529, 408])
async def test_a_failing_target_falls_back_to_another_vendor_and_dialect(status: int) -> None:
    anthropic_answer = (
        b'{"id":"msg_1","type":"message","role":"assistant","model":"claude","content":'
        b'[{"type":"text","text":"Hi"}],"stop_reason":"end_turn","usage":{"input_tokens":1,"output_tokens":1}}'
    )
    upstream = Upstream(refuses(status), answers(anthropic_answer))
    router = ProviderRouter({"m": [OPENAI.using("sk-1"), (ANTHROPIC.using("sk-2"), "claude")]})
    app, sink = shim(upstream, router)
    answer = await asgi.chat(app)
    assert answer.json["choices"][0]["message"]["content"] == "Hi"
    assert answer.header("aiproxy-provider") == "anthropic"
    second = upstream.requests[1]
    assert second.url.path == "/v1/messages"
    # One vendor's key is never shown to the other.
    assert second.headers["x-api-key"] == "sk-2"
    assert "authorization" not in second.headers
    await settled(app)
    assert sink.records[0].attempts == 2


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("word", ["MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "OTHER"])
async def test_an_empty_answer_that_failed_falls_back(word: str, stream: bool) -> None:
    chunk = {"candidates": [{"content": {}, "finishReason": word, "index": 0}], "modelVersion": "g"}
    failed = streams(sse(chunk)) if stream else answers(json.dumps(chunk).encode())
    upstream = Upstream(failed, streams() if stream else answers())
    router = ProviderRouter({"m": [(GEMINI.using("k"), "gemini-2.5-pro"), OPENAI.using("sk-1")]})
    app, sink = shim(upstream, router)
    answer = await asgi.chat(app, stream=stream)
    assert (answer.status, answer.header("aiproxy-provider")) == (200, "openai")
    await settled(app)
    assert (sink.records[0].outcome, sink.records[0].attempts) == ("done", 2)


async def test_a_failed_response_without_another_target_is_an_error_with_the_reason() -> None:
    chunk = {"candidates": [{"finishReason": "MALFORMED_FUNCTION_CALL", "finishMessage": "f(x"}]}
    upstream = Upstream(*[answers(json.dumps(chunk).encode())] * 3)
    app, _ = shim(upstream, GEMINI.using("k"))
    answer = await asgi.chat(app)
    assert answer.status == 502
    assert "failed with MALFORMED_FUNCTION_CALL (f(x)" in answer.json["error"]["message"]


async def test_a_connection_that_fails_falls_back() -> None:
    upstream = Upstream(httpx.ConnectError("refused"), answers())
    app, _ = shim(upstream)
    assert (await asgi.chat(app)).status == 200


async def test_a_temporary_failure_of_the_only_target_is_retried() -> None:
    upstream = Upstream(refuses(503), refuses(500), answers())
    app, _ = shim(upstream)
    assert (await asgi.chat(app)).status == 200
    upstream = Upstream(refuses(503))
    app, sink = shim(upstream)
    answer = await asgi.chat(app)
    assert answer.status == 503
    assert len(upstream.requests) == 3
    await settled(app)
    assert sink.records[0].outcome == "failed"


@pytest.mark.parametrize(("status", "shown"), [(400, 400), (404, 404), (413, 413), (422, 422)])
async def test_an_invalid_request_is_refused_at_once_in_the_vendors_words(
    status: int, shown: int
) -> None:
    said = {"error": {"message": f"no: {status}", "param": "messages"}}
    upstream = Upstream(refuses(status, json.dumps(said).encode()))
    app, sink = shim(upstream, OPENAI.using(["sk-1", "sk-2"]))
    answer = await asgi.chat(app)
    assert answer.status == shown
    assert answer.json["error"]["message"] == f"no: {status}"
    assert len(upstream.requests) == 1
    await settled(app)
    assert sink.records[0].outcome == "refused"


async def test_a_200_whose_first_event_is_an_error_is_a_failed_attempt() -> None:
    broken = streams(*sse({"error": {"message": "overloaded", "type": "overloaded_error"}}))
    upstream = Upstream(broken, streams())
    app, _ = shim(upstream)
    answer = await asgi.chat(app, stream=True)
    assert answer.status == 200
    assert "overloaded" not in answer.body.decode()
    assert len(upstream.requests) == 2

    app, _ = shim(Upstream(broken), attempts=1)
    answer = await asgi.chat(app, stream=True)
    assert answer.status == 503
    assert answer.json["error"]["message"] == "overloaded"


async def test_a_chunk_with_only_a_role_is_not_the_commit_point() -> None:
    role = chat_stream()[0]
    broken = streams(role, *sse({"error": {"message": "boom", "type": "server_error"}}))
    upstream = Upstream(broken, streams())
    app, _ = shim(upstream)
    answer = await asgi.chat(app, stream=True)
    assert [e for e in answer.events if isinstance(e, dict) and "error" in e] == []
    assert len(upstream.requests) == 2


async def test_after_the_first_content_an_error_is_sent_in_the_stream() -> None:
    pieces = chat_stream("Hel")[:2] + sse({"error": {"message": "boom", "type": "server_error"}})
    upstream = Upstream(streams(*pieces), streams())
    app, sink = shim(upstream)
    answer = await asgi.chat(app, stream=True)
    assert answer.status == 200
    assert answer.events[-1]["error"]["message"] == "boom"
    assert "[DONE]" not in answer.events
    assert len(upstream.requests) == 1
    await settled(app)
    assert sink.records[0].outcome == "failed"


async def test_text_before_an_error_in_the_same_packet_is_sent() -> None:
    first, second = chat_stream("Hel", "lo")[:2], chat_stream("Hel", "lo")[2]
    error = sse({"error": {"message": "boom", "type": "server_error"}})[0]
    upstream = Upstream(streams(*first, second + error))
    app, _ = shim(upstream)
    events = (await asgi.chat(app, stream=True)).events
    assert events[-2]["choices"][0]["delta"]["content"] == "lo"
    assert events[-1]["error"]["message"] == "boom"


@pytest.mark.parametrize("provider", [OPENAI, GROQ], ids=["exact", "mended"])
async def test_a_stream_without_its_end_marker_is_an_error(provider: Provider) -> None:
    upstream = Upstream(streams(*chat_stream("Hel", "lo")[:3]))
    app, sink = shim(upstream, provider.using("sk-1"))
    answer = await asgi.chat(app, stream=True)
    assert "error" in answer.events[-1]
    assert "[DONE]" not in answer.events
    await settled(app)
    assert sink.records[0].outcome == "failed"


async def test_a_connection_that_breaks_in_mid_stream_is_an_error_in_the_stream() -> None:
    upstream = Upstream(streams(*chat_stream("Hel")[:2], httpx.ReadError("reset")))
    app, _ = shim(upstream)
    answer = await asgi.chat(app, stream=True)
    assert "broke" in answer.events[-1]["error"]["message"]


@pytest.mark.parametrize("after", [httpx.ReadError("reset"), 60.0, *sse({"error": {"code": 1}})])
@pytest.mark.parametrize("provider", [OPENAI, GROQ, ANTHROPIC], ids=lambda row: row.name)
async def test_errors_after_the_end_marker_are_ignored(provider: Provider, after: Any) -> None:
    said = chat_stream("Hel", "lo") if provider is not ANTHROPIC else claude_stream("Hel", "lo")
    pool = KeyPool(["sk-1"])
    app, sink = shim(Upstream(streams(*said, after)), provider.using(pool))
    async with asyncio.timeout(60):
        answer = await asgi.chat(app, stream=True)
    assert answer.events[-1] == "[DONE]"
    assert b"error" not in answer.body
    await settled(app)
    assert [record.outcome for record in sink.records] == ["done"]
    assert (await pool.status())[0].in_flight == 0


@pytest.mark.parametrize(
    "after",
    [[0.2, b": waiting\n\n"] * 500, [b": junk\n\n" * 1000] * 1000],
    ids=["slowly", "as fast as it can"],
)
@pytest.mark.parametrize("provider", [OPENAI, GROQ, ANTHROPIC], ids=lambda row: row.name)
async def test_a_provider_that_keeps_sending_after_the_last_event_is_left(
    provider: Provider, after: list[Any]
) -> None:
    said = chat_stream("Hel", "lo") if provider is not ANTHROPIC else claude_stream("Hel", "lo")
    upstream = Upstream(streams(*said, *after))
    app, sink = shim(upstream, provider.using("sk-1"))
    async with asyncio.timeout(60):
        answer = await asgi.chat(app, stream=True)
    assert answer.body.endswith(b"data: [DONE]\n\n")
    await settled(app)
    assert [record.outcome for record in sink.records] == ["done"]


def claude_stream(*texts: str) -> list[bytes]:
    deltas = [{"type": "text_delta", "text": text} for text in texts]
    return sse(
        {"type": "message_start", "message": {"id": "m", "model": "c", "usage": {}}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *({"type": "content_block_delta", "index": 0, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {}},
        {"type": "message_stop"},
    )


async def test_an_html_response_is_an_error_in_openais_format() -> None:
    page = b"<!DOCTYPE html><html><head><title>x</title></head><body><h1>Blocked</h1></body></html>"
    for stream in (False, True):
        step = Step([page], headers={"content-type": "text/html"})
        app, _ = shim(Upstream(step), attempts=1)
        answer = await asgi.chat(app, stream=stream)
        assert answer.status == 502
        assert "Blocked" in answer.json["error"]["message"]
        assert "<" not in answer.json["error"]["message"]


async def test_a_whole_response_to_a_streaming_request_is_streamed_to_the_client() -> None:
    app, _ = shim(Upstream(answers()))
    answer = await asgi.chat(app, stream=True)
    text = "".join(e["choices"][0]["delta"].get("content", "") for e in answer.events[:-1])
    assert text == "Hello"
    assert answer.events[-1] == "[DONE]"


async def test_a_stream_for_a_request_without_streaming_is_collected() -> None:
    app, _ = shim(Upstream(streams()))
    answer = await asgi.chat(app)
    assert answer.json["choices"][0]["message"]["content"] == "Hello"
    assert answer.json["usage"]["total_tokens"] == 5


async def test_a_redirect_is_not_followed() -> None:
    upstream = Upstream(Step([b""], 302, {"location": "http://elsewhere.test/"}))
    app, _ = shim(upstream, attempts=1)
    answer = await asgi.chat(app)
    assert answer.status == 502
    assert "base_url" in answer.json["error"]["message"]
    assert len(upstream.requests) == 1


async def test_a_provider_that_does_not_answer_in_time_falls_back() -> None:
    upstream = Upstream(answers(before=30.0), answers())
    router = ProviderRouter({"m": [OPENAI.using("sk-1"), GROQ.using("sk-2")]})
    app, _ = shim(upstream, router, timeouts=Timeouts(first=0.05))
    answer = await asgi.chat(app)
    assert answer.status == 200
    assert answer.header("aiproxy-provider") == "groq"

    app, _ = shim(Upstream(answers(before=30.0)), timeouts=Timeouts(first=0.05))
    answer = await asgi.chat(app)
    assert answer.status == 504


async def test_waiting_for_the_first_token_is_limited_though_the_headers_came() -> None:
    upstream = Upstream(streams(chat_stream()[0], 30.0), streams())
    router = ProviderRouter({"m": [OPENAI.using("sk-1"), GROQ.using("sk-2")]})
    app, _ = shim(upstream, router, timeouts=Timeouts(first=0.05))
    answer = await asgi.chat(app, stream=True)
    assert answer.header("aiproxy-provider") == "groq"
    assert answer.events[-1] == "[DONE]"


async def test_silence_in_mid_stream_is_limited_and_reported() -> None:
    upstream = Upstream(streams(*chat_stream("Hel")[:2], 30.0))
    app, sink = shim(upstream, timeouts=Timeouts(idle=0.05))
    answer = await asgi.chat(app, stream=True)
    assert "stopped sending" in answer.events[-1]["error"]["message"]
    await settled(app)
    assert sink.records[0].status == 504


async def test_any_byte_from_the_provider_counts_against_silence() -> None:
    pings: list[Any] = [piece for _ in range(6) for piece in (0.03, b": ping\n\n")]
    first, *rest = chat_stream("Hel", "lo")
    upstream = Upstream(streams(first, rest[0], *pings, *rest[1:]))
    app, _ = shim(upstream, timeouts=Timeouts(idle=0.12))
    assert (await asgi.chat(app, stream=True)).events[-1] == "[DONE]"


async def test_the_whole_call_is_limited_before_and_after_its_first_token() -> None:
    app, _ = shim(Upstream(answers(before=30.0)), timeouts=Timeouts(total=0.05))
    assert (await asgi.chat(app)).status == 504
    slow: list[Any] = [piece for _ in range(100) for piece in (0.02, chat_stream("a")[1])]
    app, sink = shim(Upstream(streams(*slow)), timeouts=Timeouts(total=0.1))
    answer = await asgi.chat(app, stream=True)
    assert answer.status == 200
    assert "too long" in answer.events[-1]["error"]["message"]
    await settled(app)
    assert sink.records[0].outcome == "failed"


async def test_a_waiting_client_gets_keep_alives_and_fallback_still_works() -> None:
    upstream = Upstream(refuses(503), streams(before=0.2))
    app, _ = shim(upstream, keepalive_seconds=0.1)
    answer = await asgi.chat(app, stream=True)
    assert answer.body.startswith(b": keep-alive\n\n")
    assert answer.events[-1] == "[DONE]"

    upstream = Upstream(refuses(503, b'{"error":{"message":"no"}}'))
    upstream.steps[0].before = 0.2  # type: ignore[union-attr]
    app, _ = shim(upstream, keepalive_seconds=0.1, attempts=1)
    answer = await asgi.chat(app, stream=True)
    assert answer.status == 200  # it was sent with the first keep-alive
    assert [event["error"]["message"] for event in answer.events] == ["no"]


async def test_context_variables_of_a_request_are_kept_when_its_response_is_sent() -> None:
    """Ids of requests, as set by asgi-correlation-id, also if a keep-alive begins the response."""
    name = contextvars.ContextVar("name", default="nobody")
    app, _ = shim(Upstream(streams(before=0.2)), keepalive_seconds=0.1)

    async def named(scope: Any, receive: Any, send: Any) -> None:
        name.set(dict(scope["headers"])[b"x-name"].decode())

        async def sending(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"x-name", name.get().encode())]
            await send(message)

        await app(scope, receive, sending)

    async def reported(who: str) -> str | None:
        answer = await asgi.chat(named, stream=True, headers={"x-name": who})
        assert answer.body.startswith(b": keep-alive\n\n")
        return answer.header("x-name")

    names = ["alice", "bob", "carol"]
    assert await asyncio.gather(*[asyncio.ensure_future(reported(who)) for who in names]) == names


async def test_a_client_that_reads_slowly_does_not_make_its_provider_seem_silent() -> None:
    events = chat_stream("a", "b", "c")
    slow = [part for event in events for part in (event, 0.2)]
    app, sink = shim(Upstream(streams(*slow)), timeouts=Timeouts(idle=0.35))

    async def reading(scope: Any, receive: Any, send: Any) -> None:
        async def sending(message: Any) -> None:
            await asyncio.sleep(0.25)
            await send(message)

        await app(scope, receive, sending)

    answer = await asgi.chat(reading, stream=True)
    assert answer.events[-1] == "[DONE]"
    await settled(app)
    assert sink.records[0].outcome == "done"


async def test_a_silent_stream_is_kept_alive_between_whole_events() -> None:
    first, second, *rest = chat_stream("Hel", "lo")
    upstream = Upstream(streams(first, second + rest[0][:10], 0.25, rest[0][10:], *rest[1:]))
    app, _ = shim(upstream, keepalive_seconds=0.1)
    answer = await asgi.chat(app, stream=True)
    assert b": keep-alive\n\n" in answer.body
    text = "".join(e["choices"][0]["delta"].get("content", "") for e in answer.events[:-1])
    assert text == "Hello"


async def test_a_caller_can_select_the_key_and_gets_an_error_if_it_is_unknown() -> None:
    upstream = Upstream(answers())
    pool = KeyPool([Key("sk-1", id="1"), Key("sk-2", id="2")])
    app, _ = shim(upstream, OPENAI.using(pool))
    for _ in range(2):
        answer = await asgi.chat(app, headers={"x-auth-id": "2"})
        assert answer.header("x-auth-id") == "2"
    assert upstream.keys == ["sk-2", "sk-2"]
    answer = await asgi.chat(app, headers={"x-auth-id": "nine"})
    assert answer.status == 401
    assert "nine" in answer.json["error"]["message"]
    assert len(upstream.requests) == 2


async def test_a_selected_key_that_is_limited_is_not_replaced() -> None:
    upstream = Upstream(refuses(429), answers())
    pool = KeyPool([Key("sk-1", id="1"), Key("sk-2", id="2")])
    app, _ = shim(upstream, OPENAI.using(pool))
    answer = await asgi.chat(app, headers={"x-auth-id": "1"})
    assert answer.status == 429
    assert upstream.keys == ["sk-1"]


async def test_a_selected_key_that_is_limited_is_not_reported_as_unknown() -> None:
    named = OPENAI.using(KeyPool([Key("sk-1", id="1")]))
    router = ProviderRouter({"m": [named, ANTHROPIC.using(KeyPool([Key("sk-2", id="2")]))]})
    app, _ = shim(Upstream(refuses(429, retry_after="9")), router)
    answer = await asgi.chat(app, headers={"x-auth-id": "1"})
    assert (answer.status, answer.header("retry-after")) == (429, "9")


async def test_a_caller_can_bring_its_own_key_and_no_other_vendor_sees_it() -> None:
    upstream = Upstream(refuses(503), answers())
    router = ProviderRouter({"m": [OPENAI.using("sk-1"), GROQ.using("sk-2")]})
    app, _ = shim(upstream, router, allow_client_keys=True)
    answer = await asgi.chat(app, headers={"x-provider-key": "sk-mine"})
    assert answer.status == 200
    assert upstream.keys == ["sk-mine", "sk-mine"]
    assert {request.url.host for request in upstream.requests} == {"api.openai.com"}
    # Without the option the header means nothing.
    upstream = Upstream(answers())
    app, _ = shim(upstream, router)
    await asgi.chat(app, headers={"x-provider-key": "sk-mine", "authorization": "Bearer sk-mine"})
    assert upstream.keys == ["sk-1"]


@pytest.mark.parametrize("provider", [OPENAI, ANTHROPIC], ids=lambda row: row.name)
async def test_a_caller_whose_own_key_is_refused_gets_the_vendors_error(
    provider: Provider,
) -> None:
    said = b'{"error":{"message":"Wrong key: sk-mine-12345"}}'
    app, sink = shim(Upstream(refuses(401, said)), provider.using("sk-1"), allow_client_keys=True)
    answer = await asgi.chat(app, headers={"x-provider-key": "sk-mine-12345"})
    assert answer.status == 401
    assert answer.json["error"]["message"].startswith("Wrong key: [key]")
    await settled(app)
    assert [(record.outcome, record.attempts) for record in sink.records] == [("refused", 1)]


async def test_a_provider_without_keys_is_distinguished_from_one_whose_key_is_wrong() -> None:
    app, _ = shim(Upstream(refuses(401)), ANTHROPIC)
    answer = await asgi.chat(app)
    assert answer.status == 502
    assert "the gateway has none" in answer.json["error"]["message"]


async def test_a_key_only_serves_its_models_and_the_next_target_takes_over() -> None:
    upstream = Upstream(answers())
    small = OPENAI.using(Key("sk-1", models=("gpt-4o-mini*",)))
    app, _ = shim(upstream, small)
    answer = await asgi.chat(app, model="gpt-5")
    assert answer.status == 404
    assert upstream.requests == []
    app, _ = shim(upstream, ProviderRouter({"gpt-5": [small, GROQ.using("sk-2")]}))
    assert (await asgi.chat(app, model="gpt-5")).header("aiproxy-provider") == "groq"


async def test_a_call_waits_for_a_busy_key_in_turn() -> None:
    upstream = Upstream(answers(before=0.05))
    pool = KeyPool([Key("sk-1", concurrency=1)], max_wait_seconds=5.0)
    app, _ = shim(upstream, OPENAI.using(pool))
    both = await asyncio.gather(asgi.chat(app), asgi.chat(app), asgi.chat(app))
    assert [answer.status for answer in both] == [200, 200, 200]
    impatient = KeyPool([Key("sk-1", concurrency=1)])
    app, _ = shim(upstream, OPENAI.using(impatient))
    both = await asyncio.gather(asgi.chat(app), asgi.chat(app))
    assert sorted(answer.status for answer in both) == [200, 429]


async def test_a_key_without_credit_cools_down_for_an_hour() -> None:
    said = b'{"error":{"message":"quota","type":"insufficient_quota","code":"insufficient_quota"}}'
    pool = KeyPool(["sk-1", "sk-2"])
    app, _ = shim(Upstream(refuses(429, said), answers()), OPENAI.using(pool))
    assert (await asgi.chat(app)).status == 200
    assert (await pool.status())[0].cooldown_seconds > 1000


CLAUDE = (
    b'{"id":"m","type":"message","role":"assistant","model":"c","content":[],'
    b'"stop_reason":"end_turn","usage":{"input_tokens":1,"output_tokens":1}}'
)


async def test_members_that_a_target_does_not_support_are_reported_or_refused() -> None:
    upstream = Upstream(answers(CLAUDE))
    app, _ = shim(upstream, ANTHROPIC.using("sk"))
    answer = await asgi.chat(app, seed=7, logit_bias={"1": 2})
    assert set((answer.header("aiproxy-ignored") or "").split(", ")) == {"seed", "logit_bias"}
    strict, _ = shim(upstream, ANTHROPIC.using("sk"), strict=True)
    answer = await asgi.chat(strict, seed=7)
    assert answer.status == 400
    assert answer.json["error"]["param"] == "seed"


async def test_any_names_of_ignored_members_are_valid_in_the_header() -> None:
    upstream = Upstream(answers(CLAUDE))
    app, _ = shim(upstream, ANTHROPIC.using("sk"))
    odd = {"a\r\nset-cookie: x": 1, "é": 1, "\0": 1}
    answer = await asgi.chat(app, **odd)
    assert answer.header("aiproxy-ignored") == "a??set-cookie: x, ?, ?"
    answer = await asgi.chat(app, **{f"member_{number}": 1 for number in range(5000)})
    reported = answer.header("aiproxy-ignored") or ""
    assert reported.startswith("member_0, member_1, ")
    assert len(reported) < 1100
    assert reported.endswith(f", and {5000 - reported.count('member_')} more")


async def test_a_target_that_does_not_support_a_call_is_skipped() -> None:
    upstream = Upstream(answers())
    pool = KeyPool(["sk-1"])
    router = ProviderRouter({"m": [ANTHROPIC.using(pool), OPENAI.using("sk-2")]})
    app, sink = shim(upstream, router)
    answer = await asgi.chat(app, n=2)
    assert (answer.status, answer.header("aiproxy-provider")) == (200, "openai")
    answer = await asgi.request(app, "POST", "/v1/embeddings", {"model": "m", "input": "x"})
    assert (answer.status, answer.header("aiproxy-provider")) == (200, "openai")
    strict, _ = shim(upstream, router, strict=True)
    answer = await asgi.chat(strict, logit_bias={"1": 2})
    assert (answer.status, answer.header("aiproxy-provider")) == (200, "openai")
    await settled(app)
    assert [record.attempts for record in sink.records] == [1, 1]


async def test_a_temporary_failure_is_reported_although_the_next_target_lacks_support() -> None:
    upstream = Upstream(refuses(503))
    router = ProviderRouter({"m": [OPENAI.using("sk-1"), ANTHROPIC.using("sk-2")]})
    app, _ = shim(upstream, router, attempts=2)
    answer = await asgi.chat(app, n=2)
    assert answer.status == 503
    assert len(upstream.requests) == 2


async def test_a_refusal_that_breaks_off_still_means_what_its_status_says() -> None:
    cut = Step([b'{"error":{"mess', httpx.ReadError("reset")], 429, {"retry-after": "20"})
    pool = KeyPool([Key("sk-1", id="1"), Key("sk-2", id="2")])
    upstream = Upstream(cut, answers())
    app, _ = shim(upstream, OPENAI.using(pool))
    assert (await asgi.chat(app)).header("x-auth-id") == "2"
    assert (await pool.status())[0].cooldown_seconds == pytest.approx(20, abs=2)


async def test_a_key_whose_limit_is_reported_as_used_up_cools_down_before_it_is_refused() -> None:
    used = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "40s"}
    last = Step(answers().pieces, headers={"content-type": "application/json", **used})
    pool = KeyPool([Key("sk-1", id="1"), Key("sk-2", id="2")], strategy="fill_first")
    app, _ = shim(Upstream(last, answers()), OPENAI.using(pool))
    assert (await asgi.chat(app)).header("x-auth-id") == "1"
    assert (await asgi.chat(app)).header("x-auth-id") == "2"
    assert (await pool.status())[0].cooldown_seconds == pytest.approx(40, abs=2)


async def test_an_operation_the_provider_does_not_have_is_not_found() -> None:
    upstream = Upstream(answers())
    app, _ = shim(upstream, ANTHROPIC.using("sk"))
    answer = await asgi.request(app, "POST", "/v1/embeddings", {"model": "m", "input": "x"})
    assert answer.status == 404
    assert "anthropic" in answer.json["error"]["message"]
    assert upstream.requests == []


async def test_embeddings_pass_through_with_the_models_real_name_and_usage() -> None:
    body = b'{"object":"list","data":[],"model":"e","usage":{"prompt_tokens":4,"total_tokens":4}}'
    upstream = Upstream(answers(body))
    app, sink = shim(upstream, ProviderRouter({"fast": (OPENAI.using("sk"), "e-3")}))
    sent = {"model": "fast", "input": ["a"], "encoding_format": "base64"}
    answer = await asgi.request(app, "POST", "/v1/embeddings", sent)
    assert answer.body == body
    assert upstream.bodies == [{**sent, "model": "e-3"}]
    await settled(app)
    assert sink.records[0].usage is not None
    assert sink.records[0].usage.input == 4


async def test_audio_passes_through_as_it_arrives() -> None:
    sound = Step([b"ID3", b"\x00\x01", b"\xff"], headers={"content-type": "audio/mpeg"})
    app, _ = shim(Upstream(sound))
    sent = {"model": "tts-1", "input": "hi", "voice": "alloy"}
    answer = await asgi.request(app, "POST", "/v1/audio/speech", sent)
    assert answer.body == b"ID3\x00\x01\xff"
    assert answer.header("content-type") == "audio/mpeg"


async def test_audio_that_breaks_off_closes_the_connection() -> None:
    sound = Step([b"ID3", httpx.ReadError("reset")], headers={"content-type": "audio/mpeg"})
    app, sink = shim(Upstream(sound))
    sent = b'{"model":"tts-1","input":"hi","voice":"alloy"}'
    async with asgi.opened(app, "POST", "/v1/audio/speech") as exchange:
        exchange.send_body(sent)
        assert (await exchange.message())["status"] == 200
        assert (await exchange.message())["body"] == b"ID3"
        with pytest.raises(Exception, match="before it was complete"):
            await exchange.ended()
    await settled(app)
    assert sink.records[0].outcome == "failed"


async def test_an_unknown_model_names_itself() -> None:
    app, sink = shim(Upstream(answers()), ProviderRouter({"a": OPENAI.using("sk")}))
    answer = await asgi.chat(app, model="b")
    assert answer.status == 404
    assert answer.json["error"]["code"] == "model_not_found"
    assert answer.json["error"]["param"] == "model"
    await settled(app)
    assert sink.records[0].outcome == "refused"


async def test_a_failing_sink_does_no_harm(caplog: pytest.LogCaptureFixture) -> None:
    async def sink(record: UsageRecord) -> None:
        raise RuntimeError("the sink is closed")

    app = OpenAIShim(OPENAI.using("sk"), transport=Upstream(answers()).transport, record=sink)
    async with app:
        assert (await asgi.chat(app)).status == 200
    assert "its record is lost" in caplog.text


async def test_a_call_is_one_line_of_the_log_whatever_its_model_is_called(
    caplog: pytest.LogCaptureFixture,
) -> None:
    upstream = Upstream(refuses(404))
    app = OpenAIShim(OPENAI.using("sk-1"), transport=upstream.transport, record=log_usage)
    with caplog.at_level("INFO", "asgi_aiproxy.usage"):
        await asgi.chat(app, model="m\ndone chat.completions principal=root")
        await asgi.chat(app, model="m" * 10_000)
        await settled(app)
    ours = (record for record in caplog.records if record.name == "asgi_aiproxy.usage")
    first, second = (record.getMessage() for record in ours)
    assert r"model='m\ndone chat.completions principal=root' provider=openai" in first
    assert len(second) < 500


async def test_leaving_the_app_waits_for_the_records() -> None:
    kept: list[UsageRecord] = []

    async def slow(record: UsageRecord) -> None:
        await asyncio.sleep(0.05)
        kept.append(record)

    async with OpenAIShim(
        OPENAI.using("sk"), transport=Upstream(answers()).transport, record=slow
    ) as app:
        for _ in range(3):
            await asgi.chat(app)
    assert len(kept) == 3


async def test_an_internal_error_is_a_500_in_openais_format_and_is_raised_to_the_host() -> None:
    class Broken:
        def targets(self, model: str, provider: str = "") -> Any:
            raise ZeroDivisionError("a bug")

        def models(self) -> Any:
            return []

    app, _ = shim(Upstream(answers()), Broken())
    async with asgi.opened(app, "POST", "/v1/chat/completions") as exchange:
        exchange.send_body(b'{"model":"m","messages":[]}')
        answer = await exchange.answer()
        assert answer.status == 500
        assert answer.json["error"]["type"] == "server_error"
        assert "bug" not in answer.json["error"]["message"]
        with pytest.raises(ZeroDivisionError):
            await exchange.ended()


def test_the_dialect_of_the_face_is_that_of_openai() -> None:
    assert OpenAIShim.faces[0] == "OPENAI_CHAT"
