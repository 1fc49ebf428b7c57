"""One guard blocks on every way through the gateway: shims, proxies, WebSockets, in process."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from hypothesis import given, settings, strategies as st

from asgi_aiproxy import (
    AIShim,
    APIError,
    ConfigurationError,
    InProcess,
    InProcessTransport,
    PassthroughProxy,
    ProviderRouter,
    UsageRecord,
)
from asgi_aiproxy.dialects import OPENAI_CHAT, Operation
from asgi_aiproxy.dialects.session_events import session_protocol
from asgi_aiproxy.exchange.request import GatewayRequest
from asgi_aiproxy.hooks import (
    Call,
    Hook,
    JudgeGuard,
    TextGuard,
    find_personal_data,
    find_words,
    regex_finder,
)
from asgi_aiproxy.hooks.chain import HookChain
from asgi_aiproxy.passthrough.hooks import ProxiedCall, ProxyHooks
from asgi_aiproxy.passthrough.session_hooks import SessionHooks
from asgi_aiproxy.providers import ANTHROPIC, COHERE, GEMINI, OLLAMA, OPENAI, OPENAI_RESPONSES
from asgi_aiproxy.testing import Answer, MockProvider
from asgi_aiproxy.upstream import HttpxTransport
from asgi_aiproxy.usage.record import Outcome
from tests.hooks.test_guards import anthropic, cuts, gemini, openai
from tests.support import asgi_client as asgi
from tests.support.scripted_upstream import Step, Upstream, answers, sse

pytestmark = pytest.mark.anyio

BAD = "project nemo"
TEXT = f"You asked about {BAD}, which is secret."
USER = {"role": "user", "content": "Hi"}
PARTS = {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}]}
BASE = "http://mock"

# Client API -> path and body of a whole response, and of a streamed one.
OPTIONS = {"stream_options": {"include_usage": True}}
CALLS: dict[str, Callable[[bool], tuple[str, dict[str, Any]]]] = {
    "chat": lambda s: (
        "/v1/chat/completions",
        {"model": "m", "messages": [USER], "stream": s, **(OPTIONS if s else {})},
    ),
    "responses": lambda s: ("/v1/responses", {"model": "m", "input": "Hi", "stream": s}),
    "messages": lambda s: (
        "/v1/messages",
        {"model": "m", "max_tokens": 99, "messages": [USER], "stream": s},
    ),
    "gemini": lambda s: (
        f"/v1beta/models/m:{'streamGenerateContent?alt=sse' if s else 'generateContent'}",
        PARTS,
    ),
    "gemini array": lambda s: (
        f"/v1beta/models/m:{'streamG' if s else 'g'}enerateContent",
        PARTS,
    ),
    "completions": lambda s: (
        "/v1/completions",
        {"model": "m", "prompt": "Hi", "stream": s, **(OPTIONS if s else {})},
    ),
    # Only through a proxy: no client API of a shim
    "ollama": lambda s: ("/api/chat", {"model": "m", "messages": [USER], "stream": s}),
    "cohere": lambda s: ("/v2/chat", {"model": "m", "messages": [USER], "stream": s}),
}
VENDORS = {
    "chat": OPENAI.using("sk-1", base_url=BASE + "/v1"),
    "completions": OPENAI.using("sk-1", base_url=BASE + "/v1"),
    "responses": OPENAI_RESPONSES.using("sk-1", base_url=BASE + "/v1"),
    "messages": ANTHROPIC.using("sk-1", base_url=BASE),
    "gemini": GEMINI.using("sk-1", base_url=BASE),
    "gemini array": GEMINI.using("sk-1", base_url=BASE),
    "ollama": OLLAMA.using("sk-1", base_url=BASE),
    "cohere": COHERE.using("sk-1", base_url=BASE),
}


class Place:
    """An app with hooks in front of a mock of all vendors."""

    def __init__(self, api: str, where: str, *hooks: Any, text: str = TEXT, **more: Any) -> None:
        self.records: list[UsageRecord] = []
        self.mock = MockProvider(Answer(text=text))
        transport = HttpxTransport(httpx.ASGITransport(self.mock))
        options = {"transport": transport, "record": self._record, "hooks": hooks, **more}
        self.app: Any
        if where == "proxy":
            self.app = PassthroughProxy(VENDORS[api], **options)
        else:
            self.app = AIShim(ProviderRouter({"*": VENDORS["chat"]}), **options)
        self._in_process = where == "in process"

    async def _record(self, record: UsageRecord) -> None:
        self.records.append(record)

    async def call(self, path: str, body: dict[str, Any]) -> asgi.Answer:
        async with self.app:
            if not self._in_process:
                headers = {"content-type": "application/json"}
                return await asgi.request(self.app, "POST", path, body, headers=headers)
            async with httpx.AsyncClient(
                transport=InProcessTransport(self.app), base_url="http://ai"
            ) as client:
                answer = await client.post(path, json=body)
                return asgi.Answer(answer.status_code, [], answer.content)


SURFACES = [
    (api, where)
    for api, where in itertools.product(CALLS, ("shim", "proxy", "in process"))
    if where == "proxy" or api not in ("ollama", "cohere")
]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("mode", ["hold", "window"])
@pytest.mark.parametrize(("api", "where"), SURFACES)
async def test_a_guard_blocks_responses_on_every_surface(
    api: str, where: str, mode: Any, stream: bool
) -> None:
    place = Place(api, where, TextGuard(find_words([BAD]), mode=mode))
    answer = await place.call(*CALLS[api](stream))
    assert answer.status == 403, answer.body
    assert b"is blocked" in answer.body
    assert b"nemo" not in answer.body
    assert len(place.mock.requests) == 1
    assert [record.outcome for record in place.records] == [Outcome.REFUSED]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(("api", "where"), SURFACES)
async def test_a_guard_lets_other_responses_pass_on_every_surface(
    api: str, where: str, stream: bool
) -> None:
    place = Place(api, where, TextGuard(find_words([BAD])), text="All is well.")
    answer = await place.call(*CALLS[api](stream))
    assert answer.status == 200, answer.body
    assert answer.body.count(b"well") >= 1
    assert [record.outcome for record in place.records] == [Outcome.DONE]
    assert place.records[0].usage is not None


@pytest.mark.parametrize(("api", "where"), SURFACES)
async def test_a_guard_blocks_requests_on_every_surface(api: str, where: str) -> None:
    place = Place(api, where, TextGuard(find_words([BAD]), response=False))
    path, body = CALLS[api](False)
    answer = await place.call(path, json.loads(json.dumps(body).replace("Hi", TEXT)))
    assert answer.status == 403
    assert place.mock.requests == []
    assert [record.outcome for record in place.records] == [Outcome.REFUSED]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(("api", "where"), SURFACES)
async def test_a_hook_sees_the_call_and_its_record_on_every_surface(
    api: str, where: str, stream: bool
) -> None:
    seen: list[tuple[str, str]] = []

    class Look(Hook):
        async def before(self, call: Call) -> None:
            seen.append((call.model, "Hi" if b"Hi" in call.body else ""))

        async def after(self, call: Call, record: UsageRecord) -> None:
            seen.append((record.requested_model, record.outcome))

    place = Place(api, where, Look())
    assert (await place.call(*CALLS[api](stream))).status == 200
    assert seen == [("m", "Hi"), ("m", "done")]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("api", ["chat", "responses", "messages", "gemini"])
async def test_a_hook_answers_and_rewrites_through_a_proxy(api: str, stream: bool) -> None:
    async def cached(call: Call) -> None:
        call.answer("From the cache.")

    place = Place(api, "proxy", cached)
    answer = await place.call(*CALLS[api](stream))
    assert (answer.status, b"cache." in answer.body) == (200, True)
    assert place.mock.requests == []
    assert [(r.outcome, r.attempts) for r in place.records] == [(Outcome.DONE, 0)]

    async def rewrite(call: Call) -> None:
        call.body = call.body.replace(b"Hi", b"Hello")
        if api != "gemini":
            call.model = "other"

    place = Place(api, "proxy", rewrite)
    assert (await place.call(*CALLS[api](stream))).status == 200
    (request,) = place.mock.requests
    assert b"Hello" in request.body
    assert api == "gemini" or request.json["model"] == "other"
    assert place.records[0].requested_model == ("m" if api == "gemini" else "other")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("api", CALLS)
async def test_masks_are_restored_through_a_proxy(api: str, stream: bool) -> None:
    guard = TextGuard(find_personal_data("email"), action="mask", restore=True, response=False)
    place = Place(api, "proxy", guard, text="I wrote to [email 1].")
    path, body = CALLS[api](stream)
    address = "ada@example.org"
    sent = json.loads(json.dumps(body).replace("Hi", f"Write to {address}"))
    if stream and api in ("gemini array", "completions", "ollama", "cohere"):
        answer = await place.call(path, sent)  # in pieces, and of a format that is not decoded
        assert address.encode() in answer.body or answer.status == 403
    else:
        answer = await place.call(path, sent)
        assert answer.status == 200, answer.body
        assert address.encode() in answer.body
    assert address.encode() not in place.mock.requests[0].body


async def test_a_proxied_stream_stays_a_stream_and_ends_with_an_error_event() -> None:
    _, pieces = openai("word " * 100, TEXT)
    upstream = Upstream(Step(pieces, headers={"content-type": "text/event-stream"}))
    guard = TextGuard(find_words([BAD]), window=100)
    records: list[UsageRecord] = []

    async def keep(record: UsageRecord) -> None:
        records.append(record)

    proxy = PassthroughProxy(
        VENDORS["chat"], transport=upstream.transport, hooks=[guard], record=keep
    )
    async with proxy:
        answer = await asgi.request(proxy, "POST", *CALLS["chat"](True))
    assert answer.status == 200
    assert answer.body.count(b"word") > 50
    assert answer.events[-1]["error"]["code"] == "content_blocked"
    assert b"nemo" not in answer.body
    assert [record.outcome for record in records] == [Outcome.REFUSED]


# unknown formats


async def proxied(
    step: Step, hook: Any, *, method: str = "POST", path: str = "/any", **more: Any
) -> tuple[asgi.Answer, Upstream]:
    upstream = Upstream(step)
    proxy = PassthroughProxy("http://app:9000", transport=upstream.transport, hooks=[hook], **more)
    headers = {"content-type": "application/json"}
    async with proxy:
        answer = await asgi.request(proxy, method, path, {"q": "Hi"}, headers=headers)
    return answer, upstream


GUARD = TextGuard(find_words([BAD]))


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (json.dumps({"a": [{"b": TEXT}]}), "application/json"),
        ('{"a": "project n\\u0065mo"}', "application/problem+json"),
        ('{"a": "project nemo", "a": "fine"}', "application/json"),
        ('{"a": "fine", "a": "project nemo"}', "application/json"),
        ('{"project nemo": 1}', "application/json"),
        (json.dumps({"a": json.dumps({"b": TEXT}).replace("n", "\\u006e")}), "application/json"),
        (json.dumps(TEXT), "application/json"),
        ("[" * 9 + f'"{TEXT}"' + "]" * 9, "application/json"),
        ("{" + TEXT, "application/json"),
        (TEXT, "text/plain; charset=utf-8"),
        (f"<p>{TEXT}</p>", "text/html"),
        (f"<p>{TEXT}</p>", "application/xhtml+xml"),
        ('data: {"t": "project"}\n\ndata: {"t": " nemo"}\n\n', "text/event-stream"),
        ('{"t": "project", "index": 1}\n{"t": " nemo", "index": 2}\n', "application/x-ndjson"),
        (': project nemo\n\ndata: {"t": 1}\n\n', "text/event-stream"),
        ('data: {"t": "project"}\n\ndata: {"t": " nemo"}', "text/event-stream"),
        ('[{"t": "project"}, {"t": " nemo"}]', "application/json"),
        ('{"a": 1}\n{"t": "project n\\u0065mo"}\n', "application/x-jsonl"),
        ('{"a": 1}\n{"t": "project n\\u0065mo"}', "text/plain"),
        ("data: project nemo\n\n", "text/event-stream"),
    ],
)
@pytest.mark.parametrize("mode", ["hold", "window"])
async def test_texts_of_any_format_are_checked(body: str, kind: str, mode: Any) -> None:
    step = Step([body.encode()], headers={"content-type": kind})
    answer, _ = await proxied(step, TextGuard(find_words([BAD]), mode=mode))
    assert answer.status == 403
    assert answer.json["error"]["code"] == "content_blocked"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"content-type": "image/png"}, 200),
        ({}, 200),
        ({"content-type": "text/plain; charset=utf-16"}, 200),
        ({"content-type": "text/plain", "content-range": "bytes 0-3/99"}, 206),
    ],
)
async def test_what_cannot_be_checked_is_refused(headers: dict[str, str], status: int) -> None:
    answer, _ = await proxied(Step([b"\x00\x01"], status, headers), GUARD)
    assert answer.status == 403
    assert answer.json["error"]["code"] == "unchecked_response"


async def test_unknown_formats_are_refused_before_the_call_if_so_declared() -> None:
    answer, upstream = await proxied(answers(), GUARD, unparsed="refuse")
    assert (answer.status, upstream.requests) == (403, [])
    answer, upstream = await proxied(
        answers(), TextGuard(find_words([BAD]), response=False), unparsed="refuse"
    )
    assert answer.status == 200


async def test_raw_request_bodies_are_checked_and_may_be_changed() -> None:
    upstream = Upstream(answers())
    guard = TextGuard(find_words([BAD]), action="mask", response=False)
    proxy = PassthroughProxy("http://app:9000", transport=upstream.transport, hooks=[guard])
    headers = {"content-type": "text/plain"}
    answer = await asgi.request(proxy, "POST", "/any", TEXT.encode(), headers=headers)
    assert answer.status == 200
    assert await upstream.requests[0].aread() == TEXT.replace(BAD, "[word]").encode()
    headers["content-encoding"] = "gzip"
    answer = await asgi.request(proxy, "POST", "/any", b"\x1f\x8b", headers=headers)
    assert answer.status == 415


async def test_a_member_that_occurs_twice_is_refused_as_a_reader_may_take_either() -> None:
    upstream = Upstream(answers())
    proxy = PassthroughProxy("http://app:9000", transport=upstream.transport, hooks=[GUARD])
    body = b'{"a": {"text": "project nemo", "text": "fine"}}'
    answer = await asgi.request(proxy, "POST", "/any", body)
    assert (answer.status, upstream.requests) == (400, [])


async def test_a_judge_sees_responses_of_any_format() -> None:
    judged: list[str] = []

    async def judge(text: str, call: Call) -> str | None:
        judged.append(text)
        return "No." if "nemo" in text else None

    step = Step(
        sse({"t": "project"}, {"t": " nemo"}), headers={"content-type": "text/event-stream"}
    )
    answer, _ = await proxied(step, JudgeGuard(judge))
    assert answer.status == 403
    assert any(BAD in text for text in judged)


# any cut of the stream


@st.composite
def texts(draw: st.DrawFn) -> list[str]:
    alphabet = st.sampled_from(["ab", "BAD", "BA", "D", " ", "x", "é", "\n", '"', "\\"])
    return cuts("".join(draw(st.lists(alphabet, max_size=30))), draw)


def byte_cuts(data: bytes, draw: st.DrawFn) -> list[bytes]:
    places = sorted(draw(st.sets(st.integers(0, len(data)), max_size=8)))
    return [data[a:b] for a, b in itertools.pairwise([0, *places, len(data)])]


def unknown(*texts: str) -> tuple[bytes, list[bytes]]:
    pieces = [{"index": n, "token": {"id": 7 * n, "text": text}} for n, text in enumerate(texts)]
    return b"", sse(*pieces, "[DONE]")


WRITERS: dict[str, tuple[Any, Callable[..., tuple[bytes, list[bytes]]], str]] = {
    "chat": (VENDORS["chat"], openai, "/v1/chat/completions"),
    "messages": (VENDORS["messages"], anthropic, "/v1/messages"),
    "gemini": (VENDORS["gemini"], gemini, CALLS["gemini"](True)[0]),
    "unknown": ("http://app:9000", unknown, "/any"),
}


def texts_in(answer: asgi.Answer) -> str:
    """All texts of a stream, as a client joins them."""
    found: list[str] = []

    def collect(value: Any) -> None:
        if isinstance(value, dict):
            for name, each in value.items():
                if name in ("content", "text") and isinstance(each, str):
                    found.append(each)
                else:
                    collect(each)
        elif isinstance(value, list):
            for each in value:
                collect(each)

    collect(answer.events)
    return "".join(found)


find_bad = regex_finder("BAD+")


@settings(max_examples=150, deadline=None)
@given(st.data(), texts(), st.sampled_from(sorted(WRITERS)), st.sampled_from(["window", "hold"]))
def test_no_blocked_text_passes_a_proxy_for_any_cut(
    data: st.DataObject, texts: list[str], api: str, mode: Any
) -> None:
    target, write, path = WRITERS[api]
    _, events = write(*texts)
    pieces = byte_cuts(b"".join(events), data.draw)
    upstream = Upstream(Step(pieces, headers={"content-type": "text/event-stream"}))
    guard = TextGuard(find_bad, mode=mode, window=20, request=False)
    proxy = PassthroughProxy(target, transport=upstream.transport, hooks=[guard])
    key = next(name for name in ("chat", "messages", "gemini", "chat") if name in (api, "chat"))
    _, body = CALLS[api if api in CALLS else key](True)
    answer = asyncio.run(asgi.request(proxy, "POST", path, body))
    whole = "".join(texts)
    assert "BAD" not in texts_in(answer)
    if "BAD" in whole:
        assert b"content_blocked" in answer.body or b"is blocked" in answer.body
    else:
        assert answer.status == 200, answer.body
        assert texts_in(answer) == whole
        if api == "unknown":
            assert answer.body == b"".join(events)


# WebSocket sessions


def session(hook: Any, dialect: str) -> SessionHooks:
    request = GatewayRequest(OPENAI_CHAT, Operation("realtime", "/realtime"), model="m")
    call = ProxiedCall(request, {}, None)
    return SessionHooks(ProxyHooks(HookChain([hook]), "check"), call, session_protocol(dialect))


def openai_events(texts: list[str]) -> list[dict[str, Any]]:
    about = {"response_id": "r", "item_id": "i", "output_index": 0, "content_index": 0}
    name = "response.output_audio_transcript"
    events: list[dict[str, Any]] = [
        {"type": "response.created", "event_id": "e", "response": {"id": "r", "output": []}}
    ]
    for number, text in enumerate(texts):
        events.append({"type": f"{name}.delta", "event_id": f"e{number}", **about, "delta": text})
        events.append({"type": "response.output_audio.delta", **about, "delta": "AAAA"})
    events.append({"type": f"{name}.done", **about})
    return [*events, {"type": "response.done", "response": {"id": "r", "status": "completed"}}]


def gemini_events(texts: list[str]) -> list[dict[str, Any]]:
    spoken = [{"serverContent": {"outputTranscription": {"text": text}}} for text in texts]
    return [*spoken, {"serverContent": {"turnComplete": True}}]


SESSIONS = {"openai_chat": openai_events, "gemini": gemini_events}


async def pass_events(guard: SessionHooks, events: list[dict[str, Any]]) -> list[Any]:
    out: list[Any] = []
    for event in events:
        out += [json.loads(each) for each in await guard.server_message(json.dumps(event))]
    return out


@settings(max_examples=100, deadline=None)
@given(st.lists(texts(), max_size=3), st.sampled_from(sorted(SESSIONS)))
def test_no_blocked_text_passes_a_session_for_any_cut(turns: list[list[str]], dialect: str) -> None:
    events = [event for turn in turns for event in SESSIONS[dialect](turn)]
    guard = session(TextGuard(find_bad, request=False), dialect)

    async def run() -> list[Any] | None:
        try:
            return await pass_events(guard, events)
        except APIError:
            return None

    passed = asyncio.run(run())
    if any("BAD" in "".join(turn) for turn in turns):
        assert passed is None
    else:
        assert passed == events


async def test_speech_is_held_with_its_transcript_and_the_clients_own_state_is_not() -> None:
    guard = session(TextGuard(find_bad, request=False), "openai_chat")
    events = openai_events(["fine", " words"])
    assert await pass_events(guard, events[:-1]) == []
    speech = {"type": "input_audio_buffer.speech_started", "item_id": "u"}
    assert await pass_events(guard, [speech]) == [speech]
    assert await pass_events(guard, events[-1:]) == events


async def test_messages_of_a_client_are_checked_one_by_one() -> None:
    guard = session(TextGuard(find_words([BAD]), response=False), "openai_chat")
    fine = json.dumps({"type": "response.create"})
    assert await guard.client_message(fine) == fine
    item = {"type": "message", "content": [{"type": "input_text", "text": TEXT}]}
    with pytest.raises(APIError):
        await guard.client_message(json.dumps({"type": "conversation.item.create", "item": item}))
    masking = session(TextGuard(find_words([BAD]), action="mask", response=False), "openai_chat")
    changed = await masking.client_message(json.dumps({"item": item}))
    assert json.loads(changed)["item"]["content"][0]["text"] == TEXT.replace(BAD, "[word]")


async def test_masked_texts_are_replaced_in_a_session_unless_they_are_spoken() -> None:
    guard = TextGuard(find_bad, action="mask", request=False)
    about = {"item_id": "i", "output_index": 0}
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": {"id": "r"}},
        {"type": "response.output_text.delta", **about, "delta": "a B"},
        {"type": "response.output_text.delta", **about, "delta": "AD b"},
        {"type": "response.completed", "response": {"id": "r"}},
    ]
    passed = await pass_events(session(guard, "openai_responses"), events)
    assert [event.get("delta") for event in passed] == [None, "a [pattern] b", "", None]
    with pytest.raises(APIError, match="Speech"):
        await pass_events(session(guard, "openai_chat"), openai_events(["BAD"]))


async def test_the_responses_websocket_of_a_shim_passes_the_same_guard() -> None:
    place = Place("responses", "shim", TextGuard(find_words([BAD])))
    received: asyncio.Queue[Any] = asyncio.Queue()
    sent: asyncio.Queue[Any] = asyncio.Queue()
    sent.put_nowait({"type": "websocket.connect"})
    create = json.dumps({"type": "response.create", "model": "m", "input": "Hi"})
    sent.put_nowait({"type": "websocket.receive", "text": create})
    scope = {"type": "websocket", "path": "/v1/responses", "headers": [], "query_string": b""}
    task = asyncio.ensure_future(place.app(scope, sent.get, received.put))
    async with asyncio.timeout(30):
        assert (await received.get())["type"] == "websocket.accept"
        error = json.loads((await received.get())["text"])
        assert error["error"]["code"] == "content_blocked"
        sent.put_nowait({"type": "websocket.disconnect", "code": 1000})
        await task


async def test_typed_calls_in_process_pass_the_same_guard() -> None:
    place = Place("chat", "shim", TextGuard(find_words([BAD])))
    calls = InProcess(place.app)
    with pytest.raises(APIError, match="blocked"):
        await calls.chat(model="m", messages="Hi")
    with pytest.raises(APIError, match="blocked"):
        _ = [event async for event in calls.stream(model="m", messages="Hi")]


@pytest.mark.parametrize(("api", "where"), SURFACES)
async def test_a_hook_adds_a_header_to_the_request_of_the_provider(api: str, where: str) -> None:
    async def add(call: Call) -> None:
        call.send_header("X-Team", "red")
        for name in ("authorization", "Host", "content-length", "x y", "x-a\n"):
            with pytest.raises(ConfigurationError):
                call.send_header(name, "v")
        with pytest.raises(ConfigurationError):
            call.send_header("x-b", "v\r\nx-c: d")

    place = Place(api, where, add)
    assert (await place.call(*CALLS[api](False))).status == 200
    assert place.mock.requests[0].headers["x-team"] == "red"


@pytest.mark.parametrize("path", ["chat/completions", "responses", "files", "responses/resp_1"])
async def test_a_router_that_is_mounted_passes_the_same_guard_below_each_provider(
    path: str,
) -> None:
    """Also where the response is malformed: errors quote it."""
    upstream = Upstream(answers(json.dumps({"output": TEXT}).encode()))
    router = ProviderRouter(
        {"m": OPENAI.using("sk-1")},
        transport=upstream.transport,
        hooks=[TextGuard(find_words([BAD]))],
    )
    body = {"model": "m", "messages": [USER], "input": "Hi"}
    async with router:
        method = "GET" if "_1" in path else "POST"
        answer = await asgi.request(router, method, f"/openai/v1/{path}", body)
    assert b"nemo" not in answer.body
    assert answer.status in (403, 502), answer.body


RESPONSE = {
    "id": "resp_of_the_provider",
    "object": "response",
    "created_at": 1,
    "status": "completed",
    "model": "m",
    "output": [
        {
            "type": "message",
            "id": "msg_1",
            "status": "completed",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "Hello", "annotations": []}],
        }
    ],
}
RESPONSE_EVENTS = [
    {"type": "response.created", "response": {**RESPONSE, "status": "in_progress", "output": []}},
    {
        "type": "response.output_text.delta",
        "item_id": "msg_1",
        "output_index": 0,
        "content_index": 0,
        "delta": "Hello",
    },
    {"type": "response.completed", "response": RESPONSE},
]


@pytest.mark.parametrize("where", ["shim", "proxy"])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_guarded_response_keeps_the_id_that_later_requests_refer_to(
    stream: bool, where: str
) -> None:
    step = answers(json.dumps(RESPONSE).encode())
    if stream:
        step = Step(sse(*RESPONSE_EVENTS), headers={"content-type": "text/event-stream"})
    upstream = Upstream(step)
    options: dict[str, Any] = {"transport": upstream.transport, "hooks": [GUARD]}
    app: Any = PassthroughProxy(VENDORS["responses"], **options)
    if where == "shim":
        app = AIShim(ProviderRouter({"*": VENDORS["responses"]}), **options)
    path, body = CALLS["responses"](stream)
    headers = {"content-type": "application/json"}
    answer = await asgi.request(app, "POST", path, body, headers=headers)
    assert answer.status == 200, answer.body
    assert b"Hello" in answer.body
    if stream:
        found = {event["response"]["id"] for event in answer.events if "response" in event}
    else:
        found = {answer.json["id"]}
    assert found == {"resp_of_the_provider"}
