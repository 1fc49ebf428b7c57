"""The responses of the mock provider, its scripts, faults and record of requests."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import anyio
import httpx2
import pytest
from starlette.applications import Starlette

from asgi_aiproxy.dialects import (
    ANTHROPIC_MESSAGES,
    COHERE_CHAT,
    GEMINI_CONTENT,
    OLLAMA_CHAT,
    OPENAI_CHAT,
)
from asgi_aiproxy.errors import APIError, ErrorKind
from asgi_aiproxy.messages import Refusal, Response, StopReason, Text, ToolCall, Usage, check, fold
from asgi_aiproxy.retry_after import retry_after
from asgi_aiproxy.testing import Answer, Fault, MockProvider, serve, serve_in_thread

pytest_plugins = ["asgi_aiproxy.testing.plugin"]
pytestmark = pytest.mark.anyio

WEATHER = ToolCall("call_1", "weather", '{"city": "Paris", "unit": "celsius"}')
CLOCK = ToolCall("call_2", "clock", '{"zone": "CET"}')

CHATS: dict[str, tuple[str, dict[str, Any]]] = {
    "openai": ("/v1/chat/completions", {"model": "m", "messages": [{"role": "user"}]}),
    "anthropic": (
        "/v1/messages",
        {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]},
    ),
    "gemini": ("/v1beta/models/m:generateContent", {"contents": [{"parts": [{"text": "Hi"}]}]}),
    "ollama": ("/api/chat", {"model": "m", "messages": [], "stream": False}),
    "cohere": ("/v2/chat", {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}),
}
STREAMS: dict[str, tuple[str, dict[str, Any]]] = {
    "openai": (CHATS["openai"][0], {**CHATS["openai"][1], "stream": True}),
    "anthropic": (CHATS["anthropic"][0], {**CHATS["anthropic"][1], "stream": True}),
    "gemini": ("/v1beta/models/m:streamGenerateContent?alt=sse", CHATS["gemini"][1]),
    "ollama": ("/api/chat", {"model": "m", "messages": []}),
    "cohere": (CHATS["cohere"][0], {**CHATS["cohere"][1], "stream": True}),
}
LANGUAGES = {
    "openai": OPENAI_CHAT,
    "anthropic": ANTHROPIC_MESSAGES,
    "gemini": GEMINI_CONTENT,
    "ollama": OLLAMA_CHAT,
    "cohere": COHERE_CHAT,
}
dialects = pytest.mark.parametrize("dialect", list(CHATS))


async def ask(client: httpx2.AsyncClient, dialect: str) -> httpx2.Response:
    path, body = CHATS[dialect]
    return await client.post(path, json=body)


async def ask_stream(client: httpx2.AsyncClient, dialect: str) -> httpx2.Response:
    path, body = STREAMS[dialect]
    return await client.post(path, json=body)


def events_of(answer: httpx2.Response, dialect: str) -> list[str]:
    """The events of a stream, each as a string without its end."""
    end = {"gemini": "\r\n\r\n", "ollama": "\n"}.get(dialect, "\n\n")
    return [event for event in answer.text.split(end) if event]


async def pieces_of(answer: httpx2.Response) -> tuple[bytes, Exception | None]:
    """The received part of a body, and what ended it."""
    data = b""
    try:
        async for piece in answer.aiter_raw():
            data += piece
    except httpx2.HTTPError as error:
        return data, error
    return data, None


def decode(dialect: str, answer: httpx2.Response) -> Response:
    """A streamed answer, decoded by the package's own decoder of the dialect."""
    language = LANGUAGES[dialect]
    framer = language.framer(answer.headers["content-type"].partition(";")[0])
    decoder = language.decoder()
    rest = framer.close()
    found = [event for data in framer.feed(answer.content) for event in decoder.feed(data)]
    assert rest is None
    return fold([*found, *decoder.close()])


# ── and so does the library ──────────────────────────────────────────────────


@dialects
@pytest.mark.parametrize("stream", [False, True])
async def test_the_librarys_own_decoders_read_the_same_answer_in_every_dialect(
    mock: MockProvider, client: httpx2.AsyncClient, dialect: str, stream: bool
) -> None:
    said = Answer("It is warm.", reasoning="Hm. Hm.", tool_calls=(WEATHER, CLOCK))
    mock.script(said)
    if stream:
        path, body = STREAMS[dialect]
        options: dict[str, Any] = {}
        if dialect == "openai":
            options = {"stream_options": {"include_usage": True}}
        read = decode(dialect, await client.post(path, json={**body, **options}))
    else:
        read = LANGUAGES[dialect].decode_response((await ask(client, dialect)).content)
    thought, text, *calls = read.blocks
    assert thought.text == "Hm. Hm."  # type: ignore[union-attr]
    assert text == Text("It is warm.")
    found = [(c.name, json.loads(c.arguments)) for c in calls if isinstance(c, ToolCall)]
    assert found == [(c.name, json.loads(c.arguments)) for c in (WEATHER, CLOCK)]
    assert read.stop is StopReason.TOOLS
    assert read.model == ("" if dialect == "cohere" else "m")  # Cohere does not repeat it
    assert read.usage is not None
    assert (read.usage.input, read.usage.output) == (12, 7)


async def test_gemini_streams_a_json_array_without_alt_sse(
    mock: MockProvider, client: httpx2.AsyncClient
) -> None:
    path = STREAMS["gemini"][0].removesuffix("?alt=sse")
    answer = await client.post(path, json=STREAMS["gemini"][1])
    assert answer.headers["content-type"] == "application/json; charset=UTF-8"
    assert len(answer.json()) == 5
    assert decode("gemini", answer).blocks == (Text("Hello from the mock."),)
    mock.script(Fault.error_after(2), Fault.overloaded_first(), Fault.status(400))
    broken = await client.post(path, json=STREAMS["gemini"][1])
    assert ["error" in member for member in broken.json()] == [False, False, True]
    refused = await client.post(path, json=STREAMS["gemini"][1])
    assert refused.json()[0]["error"]["status"] == "UNAVAILABLE"
    refused = await client.post(path, json=STREAMS["gemini"][1])
    assert refused.status_code == 400
    assert refused.json()[0]["error"]["status"] == "INVALID_ARGUMENT"


async def test_ollama_lists_its_models(client: httpx2.AsyncClient) -> None:
    answer = (await client.get("/api/tags", headers={"anthropic-version": ""})).json()
    assert answer.get("models") is None
    async with httpx2.AsyncClient(base_url=client.base_url) as plain:
        assert (await plain.get("/api/tags")).json()["models"][0]["name"] == "mock-model"


# ── answers ──────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("pieces", [None, 1, 3, 1000])
def test_an_answers_events_are_legal_however_they_are_cut(pieces: int | None) -> None:
    answer = Answer(
        "One two.", reasoning="Hm.", signature="s", tool_calls=(WEATHER,), pieces=pieces
    )
    folded = fold(check(answer.events("m")))
    assert folded.blocks[1:] == (Text("One two."), WEATHER)
    assert folded.stop is StopReason.TOOLS
    assert (
        answer.cut("abcdefg")
        == {
            None: ["abcdefg"],
            1: ["abcdefg"],
            3: ["ab", "cd", "efg"],
            1000: list("abcdefg"),
        }[pieces]
    )


def test_an_answer_without_text_is_a_greeting_unless_it_has_other_content() -> None:
    assert fold(Answer().events("m")).blocks == (Text("Hello from the mock."),)
    assert fold(Answer(refusal="No.").events("m")).blocks == (Refusal("No."),)
    assert fold(Answer(tool_calls=(CLOCK,)).events("m")).blocks == (CLOCK,)
    assert fold(Answer("").events("m")).blocks == ()
    ended = fold(Answer("a", stop=StopReason.LENGTH, usage=Usage(input=1, output=2)).events("m"))
    assert (ended.stop, ended.usage) == (StopReason.LENGTH, Usage(input=1, output=2))


async def test_an_answer_is_sent_with_its_pauses(
    mock: MockProvider, client: httpx2.AsyncClient
) -> None:
    mock.script(Answer("a b c", first_after=0.1, pace=0.03))
    path, body = STREAMS["openai"]
    begun = time.monotonic()
    async with client.stream("POST", path, json=body) as answer:
        at = [time.monotonic() - begun]
        at += [time.monotonic() - begun async for _ in answer.aiter_raw()]
    assert at[0] >= 0.1
    assert at[-1] >= 0.1 + 5 * 0.03  # role, three words, finish, [DONE]
    assert len(at) >= 5


# ── scripts ──────────────────────────────────────────────────────────────────


async def test_steps_are_used_in_order_and_then_the_default_answer_is_given(
    mock: MockProvider, client: httpx2.AsyncClient
) -> None:
    mock.script(Fault.status(503), Answer("two"))
    mock.always(Answer("usual"))
    answers = [await ask(client, "openai") for _ in range(4)]
    assert [a.status_code for a in answers] == [503, 200, 200, 200]
    texts = [a.json()["choices"][0]["message"]["content"] for a in answers[1:]]
    assert texts == ["two", "usual", "usual"]
    mock.reset()
    assert mock.requests == []
    answer = (await ask(client, "openai")).json()
    assert answer["choices"][0]["message"]["content"] == "Hello from the mock."


async def test_a_step_may_be_a_function_of_the_request() -> None:
    mock = MockProvider()
    mock.script(lambda seen: Answer(f"You use {seen.model}."), lambda _: Fault.status(418))
    mock.always(lambda seen: Answer(f"Request {seen.number}."))
    async with serve(mock) as url, httpx2.AsyncClient(base_url=url) as client:
        answers = [await ask(client, dialect) for dialect in ("openai", "openai", "anthropic")]
    first, second, third = answers
    assert first.json()["choices"][0]["message"]["content"] == "You use m."
    assert second.status_code == 418
    assert "anthropic-version" in third.text  # a refused request uses up no step
    async with serve(mock) as url, httpx2.AsyncClient(base_url=url) as client:
        answer = await ask(client, "gemini")
    assert answer.json()["candidates"][0]["content"]["parts"][0]["text"] == "Request 4."


async def test_steps_for_a_dialect_or_a_path_do_not_affect_others(
    mock: MockProvider, client: httpx2.AsyncClient
) -> None:
    mock.on("anthropic", Fault.status(500))
    mock.on(r"/models/m:generate", Fault.status(502))
    mock.on("/embeddings$", Fault.status(501))
    names = ("openai", "anthropic", "gemini", "ollama")
    assert [(await ask(client, name)).status_code for name in names] == [200, 500, 502, 200]
    assert [(await ask(client, name)).status_code for name in names] == [200, 200, 200, 200]
    assert repr(mock) == "<MockProvider: 8 requests received, 1 steps left>"


async def test_a_request_that_the_provider_would_refuse_is_refused_in_its_format(
    mock: MockProvider, client: httpx2.AsyncClient
) -> None:
    mock.script(Fault.status(418))
    missing = await client.post("/v1/chat/completions", json={"model": "m"})
    assert missing.status_code == 400
    assert missing.json()["error"]["param"] == "messages"
    missing = await client.post("/v1/messages", json={"model": "m", "messages": [1]})
    assert missing.json()["error"] == {
        "type": "invalid_request_error",
        "message": "max_tokens: Field required",
    }
    missing = await client.post("/v1beta/models/m:generateContent", json={})
    assert missing.json()["error"]["status"] == "INVALID_ARGUMENT"
    missing = await client.post("/api/chat", json={"messages": []})
    assert missing.json() == {"error": "model is required"}
    broken = await client.post("/v1/chat/completions", content=b"{")
    assert broken.json()["error"]["type"] == "invalid_request_error"
    broken = await client.post("/v1/embeddings", files={"input": b"a"})
    assert broken.status_code == 400
    lost = await client.post("/v1/nothing", json={})
    assert (lost.status_code, lost.json()["error"]["type"]) == (404, "not_found_error")
    async with httpx2.AsyncClient(base_url=client.base_url) as plain:
        unversioned = await ask(plain, "anthropic")
    assert "anthropic-version" in unversioned.json()["error"]["message"]
    assert (await ask(client, "openai")).status_code == 418  # it was not used up


@dialects
async def test_a_wrong_key_is_refused_and_the_right_one_accepted_in_any_place(
    dialect: str,
) -> None:
    path, body = CHATS[dialect]
    places: list[dict[str, str]] = [
        {"authorization": "Bearer good"},
        {"x-api-key": "good"},
        {"api-key": "good"},
        {"x-goog-api-key": "good"},
    ]
    async with (
        serve(MockProvider(key="good")) as url,
        httpx2.AsyncClient(base_url=url, headers={"anthropic-version": "1"}) as client,
    ):
        refused = await client.post(path, json=body, headers={"x-api-key": "bad"})
        assert refused.status_code == (400 if dialect == "gemini" else 401)
        error = LANGUAGES[dialect].decode_error(refused.status_code, refused.content)
        assert error.kind is ErrorKind.KEY_REJECTED
        for place in places:
            assert (await client.post(path, json=body, headers=place)).status_code == 200
        if dialect == "gemini":
            assert (await client.post(f"{path}?key=good", json=body)).status_code == 200


# ── faults ───────────────────────────────────────────────────────────────────


@dialects
@pytest.mark.parametrize("status", [400, 401, 404, 413, 429, 500, 502, 503, 529])
async def test_a_status_has_the_providers_own_error(
    mock: MockProvider, client: httpx2.AsyncClient, dialect: str, status: int
) -> None:
    mock.script(Fault.status(status, "Sorry.", headers={"x-why": "because"}))
    answer = await ask(client, dialect)
    assert (answer.status_code, answer.headers["x-why"]) == (status, "because")
    error = LANGUAGES[dialect].decode_error(status, answer.content)
    assert (error.message, error.upstream_status) == ("Sorry.", status)


async def test_a_status_has_the_given_body(mock: MockProvider, client: httpx2.AsyncClient) -> None:
    mock.script(
        Fault.status(500, body={"detail": "odd"}),
        Fault.status(502, body="Bad Gateway", headers={"Content-Type": "text/plain"}),
        Fault.status(500, body=b""),
    )
    odd, text, empty = [await ask(client, "openai") for _ in range(3)]
    assert odd.json() == {"detail": "odd"}
    assert (text.text, text.headers["content-type"]) == ("Bad Gateway", "text/plain")
    assert (empty.status_code, empty.content) == (500, b"")


@dialects
@pytest.mark.parametrize("form", ["seconds", "date", "ms", "reset", "body", None])
async def test_a_rate_limit_error_has_the_time_to_wait(
    mock: MockProvider, client: httpx2.AsyncClient, dialect: str, form: str | None
) -> None:
    mock.script(Fault.rate_limited(form, seconds=2.5))  # type: ignore[arg-type]
    answer = await ask(client, dialect)
    now = time.time()
    assert answer.status_code == 429
    error = LANGUAGES[dialect].decode_error(429, answer.content)
    assert error.kind is ErrorKind.LIMITED
    reported = retry_after([*answer.headers.items()], now)
    if form is None:
        assert reported is None
    elif form == "body":
        assert reported is None
        assert "2.5s" in answer.text
        assert error.retry_after == (2.5 if dialect == "gemini" else None)
    elif (dialect, form) == ("gemini", "reset"):
        assert error.retry_after == 2.5
    else:
        assert reported is not None
        assert 2.3 <= reported <= 3.6
    if form == "date":
        then = parsedate_to_datetime(answer.headers["retry-after"])
        assert then > datetime.now(UTC)


def test_an_unknown_form_of_retry_after_is_an_error() -> None:
    with pytest.raises(ValueError, match="seconds"):
        Fault.rate_limited("soon")  # type: ignore[arg-type]


@dialects
async def test_an_overloaded_provider_sends_an_error_as_first_event(
    mock: MockProvider, client: httpx2.AsyncClient, dialect: str
) -> None:
    mock.always(Fault.overloaded_first())
    answer = await ask_stream(client, dialect)
    assert answer.status_code == 200
    assert len(events_of(answer, dialect)) == 1
    with pytest.raises(APIError, match="Overloaded"):
        decode(dialect, answer)
    answer = await ask(client, dialect)
    assert answer.status_code == (529 if dialect == "anthropic" else 503)


@dialects
async def test_an_error_is_sent_after_the_given_number_of_events(
    mock: MockProvider, client: httpx2.AsyncClient, dialect: str
) -> None:
    good = events_of(await ask_stream(client, dialect), dialect)
    mock.always(Fault.error_after(3, "Oh no."))
    answer = await ask_stream(client, dialect)
    events = events_of(answer, dialect)
    assert [len(event) for event in events[:3]] == [len(event) for event in good[:3]]
    assert len(events) == 4
    assert "Oh no." in events[3]
    with pytest.raises(APIError, match="Oh no"):
        decode(dialect, answer)
    assert (await ask(client, dialect)).status_code == 500


@dialects
async def test_a_provider_closes_the_connection_in_mid_stream(
    mock: MockProvider, client: httpx2.AsyncClient, dialect: str
) -> None:
    good = (await ask_stream(client, dialect)).content
    for events in (0, 2, 1000):
        mock.script(Fault.dies_after(events))
        path, body = STREAMS[dialect]
        async with client.stream("POST", path, json=body) as answer:
            assert answer.status_code == 200
            data, error = await pieces_of(answer)
        assert isinstance(error, httpx2.RemoteProtocolError)
        assert bool(data) == (events > 0)
        assert len(data) < len(good)
        await mock.requests[-1].wait_over()
        assert not mock.requests[-1].client_gone


async def test_a_provider_closes_the_connection_within_a_whole_response(
    mock: MockProvider, client: httpx2.AsyncClient
) -> None:
    mock.script(Fault.dies_after(1))
    path, body = CHATS["openai"]
    async with client.stream("POST", path, json=body) as answer:
        data, error = await pieces_of(answer)
    assert isinstance(error, httpx2.RemoteProtocolError)
    assert len(data) == int(answer.headers["content-length"]) // 2


@dialects
async def test_a_truncated_answer_ends_cleanly(
    mock: MockProvider, client: httpx2.AsyncClient, dialect: str
) -> None:
    mock.always(Fault.truncated_after(3))
    answer = await ask_stream(client, dialect)
    assert len(events_of(answer, dialect)) == 3
    with pytest.raises(APIError, match="broken"):
        decode(dialect, answer)
    answer = await ask(client, dialect)
    assert answer.status_code == 200
    with pytest.raises(json.JSONDecodeError):
        answer.json()


@pytest.mark.parametrize("status", [200, 403])
async def test_a_block_page_is_html(
    mock: MockProvider, client: httpx2.AsyncClient, status: int
) -> None:
    mock.script(Fault.html(status))
    answer = await ask_stream(client, "openai")
    assert answer.status_code == status
    assert answer.headers["content-type"].startswith("text/html")
    assert answer.text.startswith("<!DOCTYPE html>")


@dialects
async def test_a_wrong_content_type_has_the_correct_bytes(
    mock: MockProvider, client: httpx2.AsyncClient, dialect: str
) -> None:
    good = await ask_stream(client, dialect)
    mock.script(Fault.wrong_type("text/plain"))
    answer = await ask_stream(client, dialect)
    assert answer.headers["content-type"] == "text/plain"
    assert len(answer.content) == len(good.content)


@dialects
async def test_a_whole_response_is_sent_although_a_stream_was_requested(
    mock: MockProvider, client: httpx2.AsyncClient, dialect: str
) -> None:
    mock.script(Fault.whole())
    answer = await ask_stream(client, dialect)
    assert answer.headers["content-type"].startswith("application/json")
    read = LANGUAGES[dialect].decode_response(answer.content)
    assert read.blocks == (Text("Hello from the mock."),)


@dialects
async def test_a_silent_provider_notices_the_disconnect(
    mock: MockProvider, client: httpx2.AsyncClient, dialect: str
) -> None:
    mock.script(Fault.silence())
    path, body = STREAMS[dialect]
    async with anyio.create_task_group() as calls:
        calls.start_soon(lambda: client.post(path, json=body))
        await mock.wait_seen(timeout=60)
        calls.cancel_scope.cancel()
    await mock.requests[0].wait_gone()
    assert mock.requests[0].client_gone
    assert mock.requests[0].ended is not None


@pytest.mark.parametrize("events", [0, 2])
async def test_a_provider_stops_sending_in_mid_stream(
    mock: MockProvider, client: httpx2.AsyncClient, events: int
) -> None:
    mock.script(Fault.silence_after(events))
    path, body = STREAMS["openai"]
    patient = httpx2.Timeout(60, read=1)  # between two events
    async with client.stream("POST", path, json=body, timeout=patient) as answer:
        data, error = await pieces_of(answer)
    assert isinstance(error, httpx2.ReadTimeout)
    assert data.count(b"\n\n") == events
    await mock.requests[0].wait_gone()


@dialects
@pytest.mark.parametrize("size", [1, 7])
async def test_a_split_stream_has_the_same_bytes(
    mock: MockProvider, client: httpx2.AsyncClient, dialect: str, size: int
) -> None:
    mock.script(Fault.split(size).of(Answer("Grüße, 世界!")))
    answer = await ask_stream(client, dialect)
    assert decode(dialect, answer).blocks == (Text("Grüße, 世界!"),)


async def test_a_split_body_is_sent_in_pieces_of_that_size() -> None:
    sent = await drive(Fault.split(3), STREAMS["openai"])
    bodies = [message["body"] for message in sent if message["type"] == "http.response.body"]
    assert {len(body) for body in bodies[:-2]} == {3}
    assert b"".join(bodies).endswith(b"data: [DONE]\n\n")


@dialects
async def test_garbage_is_not_json(
    mock: MockProvider, client: httpx2.AsyncClient, dialect: str
) -> None:
    good = events_of(await ask_stream(client, dialect), dialect)
    mock.always(Fault.garbage(2))
    events = events_of(await ask_stream(client, dialect), dialect)
    assert len(events) == len(good)
    assert [("{this is" in event) for event in events[:4]] == [False, False, True, False]
    with pytest.raises(json.JSONDecodeError):
        (await ask(client, dialect)).json()


@dialects
async def test_a_huge_event_is_one_event(
    mock: MockProvider, client: httpx2.AsyncClient, dialect: str
) -> None:
    mock.always(Fault.huge(300_000))
    answer = await ask_stream(client, dialect)
    sizes = [len(event) > 300_000 for event in events_of(answer, dialect)]
    assert sizes.count(True) == 1
    assert decode(dialect, answer).blocks == (Text("x" * 300_000),)
    assert len((await ask(client, dialect)).content) > 300_000


async def test_faults_combine_and_take_an_answer(
    mock: MockProvider, client: httpx2.AsyncClient
) -> None:
    both = Fault.error_after(3).of(Answer("a b c d")) | Fault.split(2)
    assert both.name == "error_after(3) | split(2)"
    mock.script(both)
    events = events_of(await ask_stream(client, "openai"), "openai")
    assert '"a "' in events[1]
    assert "error" in events[3]
    assert len(events) == 4


# ── what was seen ────────────────────────────────────────────────────────────


async def test_requests_are_recorded(mock: MockProvider, client: httpx2.AsyncClient) -> None:
    path = "/base/v1/models/a%2Fb:streamGenerateContent"
    headers = [("X-Goog-Api-Key", "secret"), ("X-Two", "1"), ("X-Two", "2")]
    before = time.monotonic()
    await client.post(f"{path}?alt=sse", json={"contents": "Hi"}, headers=headers)
    (seen,) = mock.requests
    await seen.wait_over()
    assert (seen.number, seen.method, seen.path, seen.query) == (1, "POST", path, "alt=sse")
    assert (seen.dialect, seen.operation, seen.model) == ("gemini", "chat", "a/b")
    assert seen.streamed
    assert seen.json == {"contents": "Hi"}
    assert json.loads(seen.body) == seen.json
    assert seen.headers["x-two"] == "1, 2"
    assert seen.secrets == {"secret"}
    assert seen.ended is not None
    assert before <= seen.started <= seen.ended <= time.monotonic()
    assert "secret" not in repr(seen)
    assert not seen.client_gone
    with pytest.raises(AssertionError):
        await seen.wait_gone()


async def test_a_form_has_its_model_and_is_not_json(
    mock: MockProvider, client: httpx2.AsyncClient
) -> None:
    await client.post(
        "/v1/audio/transcriptions", data={"model": "whisper-1"}, files={"file": b"abc"}
    )
    assert mock.requests[0].model == "whisper-1"
    assert mock.requests[0].json is None
    assert not mock.requests[0].streamed


@pytest.mark.parametrize(
    ("path", "dialect", "operation"),
    [
        ("/openai/v1/chat/completions", "openai", "chat"),
        ("/api/v1/chat/completions", "openai", "chat"),
        ("/v1/embeddings", "openai", "embeddings"),
        ("/anthropic/v1/messages", "anthropic", "chat"),
        ("/v1/models/m:generateContent", "gemini", "chat"),
        ("/v1/projects/p/locations/l/publishers/google/models/m:generateContent", "gemini", "chat"),
        ("/api/chat", "ollama", "chat"),
        ("/api/unknown", "ollama", ""),
        ("/v1/unknown", "openai", ""),
        # Base URLs that lack their /v1, or have it twice.
        ("/chat/completions", "openai", ""),
        ("/v1/v1/chat/completions", "openai", ""),
        ("/v2/chat/completions", "openai", ""),
        ("/v1/chat/completions/chat/completions", "openai", ""),
        ("/v1/v1/messages", "anthropic", ""),
        ("/v1beta/v1beta/models/m:generateContent", "gemini", ""),
        ("/v1/api/chat", "ollama", ""),
    ],
)
async def test_the_path_selects_the_dialect_and_a_wrong_base_url_is_unknown(
    mock: MockProvider, url: str, path: str, dialect: str, operation: str
) -> None:
    async with httpx2.AsyncClient(base_url=url) as client:
        await client.post(path, json={})
    assert (mock.requests[0].dialect, mock.requests[0].operation) == (dialect, operation)


async def test_a_disconnect_in_mid_stream_is_noticed(
    mock: MockProvider, client: httpx2.AsyncClient
) -> None:
    mock.script(Answer("a " * 1000, pace=0.01))
    path, body = STREAMS["anthropic"]
    async with client.stream("POST", path, json=body) as answer:
        seen = await mock.wait_seen()
        async for _ in answer.aiter_raw():
            break
    await seen.wait_gone()


async def test_waiting_for_a_request_that_does_not_arrive_ends_in_time(
    mock: MockProvider, client: httpx2.AsyncClient
) -> None:
    with pytest.raises(TimeoutError):
        await mock.wait_seen(timeout=0.01)
    mock.script(Fault.silence())
    async with anyio.create_task_group() as group:
        group.start_soon(ask, client, "openai")
        seen = await mock.wait_seen()
        with pytest.raises(TimeoutError):
            await seen.wait_gone(timeout=0.01)
        group.cancel_scope.cancel()
    await seen.wait_gone()


# ── serving ──────────────────────────────────────────────────────────────────


def test_a_sync_test_is_served_too() -> None:
    mock = MockProvider(Answer("sync"))
    with serve_in_thread(mock) as url:
        path, body = CHATS["openai"]
        answer = httpx2.post(url + path, json=body).json()
    assert answer["choices"][0]["message"]["content"] == "sync"
    with pytest.raises(httpx2.ConnectError):
        httpx2.get(url)


async def test_any_app_is_served_with_its_lifespan_or_an_error_is_raised() -> None:
    reported: list[str] = []

    def app(fails: bool) -> Starlette:
        async def lifespan(app: Starlette) -> AsyncIterator[None]:
            reported.append("up")
            if fails:
                raise ValueError("no")
            yield
            reported.append("down")

        return Starlette(lifespan=asynccontextmanager(lifespan))

    async with serve(app(fails=False)) as url, httpx2.AsyncClient() as client:
        assert (await client.get(url)).status_code == 404
        assert reported == ["up"]
    assert reported == ["up", "down"]
    with pytest.raises(RuntimeError, match="start-up failed"):
        async with serve(app(fails=True)):
            pass
    with pytest.raises(ValueError, match="uvicorn"):
        async with serve(MockProvider(), server="other"):
            pass


def test_serving_leaves_the_event_loops_of_the_process_as_they_were() -> None:
    def new_loop() -> type:
        loop = asyncio.new_event_loop()
        loop.close()
        return type(loop)

    before = new_loop()
    with serve_in_thread(MockProvider()):
        assert new_loop() is before
    assert new_loop() is before


async def test_serving_ends_although_a_stream_is_open() -> None:
    mock = MockProvider()
    mock.script(Fault.silence_after(1))
    path, body = STREAMS["openai"]
    async with httpx2.AsyncClient() as client:
        async with serve(mock) as url:
            request = client.build_request("POST", url + path, json=body)
            answer = await client.send(request, stream=True)
            begun = time.monotonic()
        assert time.monotonic() - begun < 30
        await answer.aclose()


def test_the_plugins_fixtures_are_a_fresh_mock_and_its_address(
    mock_provider: MockProvider, mock_provider_url: str
) -> None:
    path, body = CHATS["openai"]
    assert httpx2.post(mock_provider_url + path, json=body).status_code == 200
    assert [seen.path for seen in mock_provider.requests] == [path]


async def test_lifespan_and_websockets_are_answered() -> None:
    mock = MockProvider()
    incoming = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
    assert [m["type"] for m in await converse(mock, {"type": "lifespan"}, incoming)] == [
        "lifespan.startup.complete",
        "lifespan.shutdown.complete",
    ]
    incoming = [{"type": "websocket.connect"}]
    sent = await converse(mock, {"type": "websocket", "path": "/"}, incoming)
    assert [m["type"] for m in sent] == ["websocket.close"]


async def drive(step: Fault, requested: tuple[str, Any]) -> list[dict[str, Any]]:
    """Call in process, message by message."""
    mock = MockProvider()
    mock.script(step)
    path, _, query = requested[0].partition("?")
    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "query_string": query.encode(),
        "headers": [],
    }
    body = {"type": "http.request", "body": json.dumps(requested[1]).encode()}
    return await converse(mock, scope, [body])


async def converse(
    mock: MockProvider, scope: dict[str, Any], incoming: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        if not incoming:
            await anyio.sleep_forever()
        return incoming.pop(0)

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await mock(scope, receive, send)  # type: ignore[arg-type]
    return sent
