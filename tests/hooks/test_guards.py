"""Guards: nothing that is blocked reaches a client, however the response is cut."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings, strategies as st

from asgi_aiproxy import AIShim, ConfigurationError, ProviderRouter, UsageRecord
from asgi_aiproxy.errors import APIError
from asgi_aiproxy.hooks import (
    Call,
    JudgeGuard,
    TextGuard,
    TextMatch,
    find_personal_data,
    find_secrets,
    find_words,
    regex_finder,
)
from asgi_aiproxy.hooks.text_guard import TextFilter
from asgi_aiproxy.messages import (
    BlockDelta,
    BlockEnd,
    BlockStart,
    Citation,
    Event,
    MessageEnd,
    MessageStart,
    Reasoning,
    StopReason,
    Text,
    ToolCall,
    check,
    fold,
)
from asgi_aiproxy.providers import ANTHROPIC, GEMINI, GROQ, Provider
from asgi_aiproxy.usage.record import Outcome
from tests.support import asgi_client as asgi
from tests.support.scripted_upstream import Step, Upstream, sse

pytestmark = pytest.mark.anyio

SECRET = "sk-proj-abcdefghijklmnopqrstuvwxyz012345"
TEXT = f"The key is {SECRET}, keep it."

# What a provider of each dialect sends: a text in two pieces, whole and as a stream.


def openai(*texts: str, arguments: str = "") -> tuple[bytes, list[bytes]]:
    def chunk(delta: Any, finish: str | None = None) -> Any:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
        return {**head, "choices": [choice]}

    message: dict[str, Any] = {"role": "assistant", "content": "".join(texts)}
    pieces = [chunk({"role": "assistant", "content": text}) for text in texts]
    if arguments:
        function = {"name": "f", "arguments": arguments}
        call = {"id": "call_1", "type": "function", "function": function}
        message["tool_calls"] = [call]
        half = len(arguments) // 2
        first = {**call, "index": 0, "function": {"name": "f", "arguments": arguments[:half]}}
        rest = {"index": 0, "function": {"arguments": arguments[half:]}}
        pieces += [chunk({"tool_calls": [first]}), chunk({"tool_calls": [rest]})]
    finish = "tool_calls" if arguments else "stop"
    choice = {"index": 0, "message": message, "finish_reason": finish}
    whole = {"id": "c", "object": "chat.completion", "created": 1, "model": "m"}
    return json.dumps({**whole, "choices": [choice]}).encode(), [
        *sse(*pieces, chunk({}, finish)),
        b"data: [DONE]\n\n",
    ]


def anthropic(*texts: str, arguments: str = "") -> tuple[bytes, list[bytes]]:
    def event(kind: str, **members: Any) -> bytes:
        return f"event: {kind}\ndata: {json.dumps({'type': kind, **members})}\n\n".encode()

    content: list[Any] = [{"type": "text", "text": "".join(texts)}]
    usage = {"input_tokens": 3, "output_tokens": 2}
    message = {"id": "m", "type": "message", "role": "assistant", "model": "m", "usage": usage}
    stop = "tool_use" if arguments else "end_turn"
    stream = [event("message_start", message={**message, "content": [], "stop_reason": None})]
    stream.append(event("content_block_start", index=0, content_block={"type": "text", "text": ""}))
    for text in texts:
        delta = {"type": "text_delta", "text": text}
        stream.append(event("content_block_delta", index=0, delta=delta))
    stream.append(event("content_block_stop", index=0))
    if arguments:
        tool = {"type": "tool_use", "id": "toolu_1", "name": "f"}
        content.append({**tool, "input": json.loads(arguments)})
        stream.append(event("content_block_start", index=1, content_block={**tool, "input": {}}))
        delta = {"type": "input_json_delta", "partial_json": arguments}
        stream.append(event("content_block_delta", index=1, delta=delta))
        stream.append(event("content_block_stop", index=1))
    stream.append(event("message_delta", delta={"stop_reason": stop}, usage={"output_tokens": 2}))
    stream.append(event("message_stop"))
    return json.dumps({**message, "content": content, "stop_reason": stop}).encode(), stream


def gemini(*texts: str, arguments: str = "") -> tuple[bytes, list[bytes]]:
    def part(parts: list[Any], finish: str | None = None) -> Any:
        candidate = {"content": {"role": "model", "parts": parts}, "index": 0}
        return {"candidates": [{**candidate, **({"finishReason": finish} if finish else {})}]}

    calls = [{"functionCall": {"name": "f", "args": json.loads(arguments)}}] if arguments else []
    whole = part([{"text": "".join(texts)}, *calls], "STOP")
    pieces = [part([{"text": text}]) for text in texts]
    return json.dumps(whole).encode(), sse(*pieces, part(calls, "STOP"))


VENDORS: dict[str, tuple[Provider, Callable[..., tuple[bytes, list[bytes]]]]] = {
    "openai": (GROQ.using("sk-1"), openai),
    "anthropic": (ANTHROPIC.using("sk-1"), anthropic),
    "gemini": (GEMINI.using("sk-1"), gemini),
}
USER = {"role": "user", "content": "Hi"}
FACES: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("/v1/chat/completions", {"model": "m", "messages": [USER]}),
    "responses": ("/v1/responses", {"model": "m", "input": "Hi"}),
    "messages": ("/v1/messages", {"model": "m", "max_tokens": 9, "messages": [USER]}),
    "gemini": (
        "/v1beta/models/m:{method}",
        {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}]},
    ),
}


async def ask(
    vendor: str,
    face: str,
    hooks: Sequence[Any],
    *,
    stream: bool,
    texts: Iterable[str] = (TEXT,),
    arguments: str = "",
    body: dict[str, Any] | None = None,
) -> tuple[asgi.Answer, list[UsageRecord], Upstream]:
    provider, write = VENDORS[vendor]
    whole, pieces = write(*texts, arguments=arguments)
    kind = "text/event-stream" if stream else "application/json"
    upstream = Upstream(Step(pieces if stream else [whole], headers={"content-type": kind}))
    records: list[UsageRecord] = []

    async def keep(record: UsageRecord) -> None:
        records.append(record)

    path, default = FACES[face]
    method = "streamGenerateContent?alt=sse" if stream else "generateContent"
    sent = default if body is None else body
    if face != "gemini":
        sent = {**sent, "stream": stream}
    router = ProviderRouter({"m": provider})
    async with AIShim(router, transport=upstream.transport, hooks=hooks, record=keep) as shim:
        answer = await asgi.request(shim, "POST", path.format(method=method), sent)
    return answer, records, upstream


MODES = ("window", "hold")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize("vendor", VENDORS)
async def test_a_secret_reaches_no_client_api_from_any_vendor(
    vendor: str, face: str, stream: bool, mode: Any
) -> None:
    guard = TextGuard(find_secrets, mode=mode)
    half = TEXT.index(SECRET) + 10
    answer, records, _ = await ask(
        vendor, face, [guard], stream=stream, texts=(TEXT[:half], TEXT[half:])
    )
    assert answer.status == 403
    assert SECRET[10:20] not in answer.body.decode()
    assert "API key" in answer.body.decode()
    assert [record.outcome for record in records] == [Outcome.REFUSED]
    assert records[0].attempts == 1


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize("vendor", VENDORS)
async def test_a_masked_answer_is_complete_in_every_client_api(
    vendor: str, face: str, stream: bool
) -> None:
    guard = TextGuard(find_secrets, action="mask", window=100)
    half = TEXT.index(SECRET) + 10
    answer, records, _ = await ask(
        vendor, face, [guard], stream=stream, texts=(TEXT[:half], TEXT[half:])
    )
    assert answer.status == 200
    assert "[API key], keep it." in answer.body.decode()
    assert SECRET[10:20] not in answer.body.decode()
    assert [record.outcome for record in records] == [Outcome.DONE]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize("vendor", VENDORS)
async def test_a_tool_call_is_held_until_it_is_judged(vendor: str, face: str, stream: bool) -> None:
    # The word is written with escapes, which every JSON parser undoes.
    arguments = '{"command": "\\u0072m -rf /home"}'
    guard = TextGuard(find_words(["rm -rf"], kind="shell command"))
    answer, records, _ = await ask(
        vendor, face, [guard], stream=stream, texts=("I will.",), arguments=arguments
    )
    assert "home" not in answer.body.decode()
    assert "shell command" in answer.body.decode()
    assert [record.outcome for record in records] == [Outcome.REFUSED]


async def test_text_before_the_block_is_sent_and_the_stream_ends_with_an_error() -> None:
    guard = TextGuard(find_secrets, window=250)
    answer, records, _ = await ask(
        "anthropic", "chat", [guard], stream=True, texts=("word " * 200, TEXT)
    )
    assert answer.status == 200
    assert answer.body.decode().count("word") > 100
    assert "content_blocked" in answer.body.decode()
    assert b"[DONE]" not in answer.body
    assert SECRET[:12] not in answer.body.decode()
    assert [record.outcome for record in records] == [Outcome.REFUSED]


async def test_audit_lets_everything_pass_and_logs_it(caplog: pytest.LogCaptureFixture) -> None:
    guard = TextGuard(find_secrets, mode="audit")
    answer, records, _ = await ask("openai", "chat", [guard], stream=True)
    assert SECRET in answer.body.decode()
    assert "API key" in caplog.text
    assert SECRET not in caplog.text
    assert [record.outcome for record in records] == [Outcome.DONE]


@pytest.mark.parametrize("face", FACES)
async def test_a_request_with_a_secret_is_refused_before_any_provider_is_called(face: str) -> None:
    body = json.loads(json.dumps(FACES[face][1]).replace("Hi", f"Use {SECRET}"))
    answer, _, upstream = await ask(
        "openai", face, [TextGuard(find_secrets)], stream=False, body=body
    )
    assert answer.status == 403
    assert upstream.requests == []
    assert SECRET not in answer.body.decode()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize("vendor", VENDORS)
async def test_personal_data_is_masked_for_the_vendor_and_restored_for_the_client(
    vendor: str, face: str, stream: bool
) -> None:
    address = "ada.lovelace@example.org"
    guard = TextGuard(
        find_personal_data("email"), action="mask", restore=True, response=False, window=100
    )
    body = json.loads(json.dumps(FACES[face][1]).replace("Hi", f"Mail {address} and b@x.example"))
    answer, _, upstream = await ask(
        vendor,
        face,
        [guard],
        stream=stream,
        body=body,
        texts=("I mailed [em", "ail 1] and [email 2], not [email 3]."),
        arguments='{"to": "[email 1]"}',
    )
    (sent,) = upstream.bodies
    assert "[email 1] and [email 2]" in json.dumps(sent)
    assert address not in json.dumps(sent)
    assert f"{address} and b@x.example, not [email 3]." in answer.body.decode()
    assert answer.body.decode().count(address) >= 2, "in the text and in the tool call"


# judges


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("face", FACES)
async def test_a_judge_blocks_whole_responses_in_every_client_api(face: str, stream: bool) -> None:
    judged: list[str] = []

    async def judge(text: str, call: Call) -> str | None:
        judged.append(text)
        return "Not in this house." if "keep it" in text else None

    answer, records, _ = await ask("anthropic", face, [JudgeGuard(judge)], stream=stream)
    assert judged == ["Hi", TEXT]
    assert answer.status == 403
    assert "Not in this house." in answer.body.decode()
    assert "keep it" not in answer.body.decode()
    assert [record.outcome for record in records] == [Outcome.REFUSED]


async def test_a_judge_that_hangs_closes_or_opens_as_declared() -> None:
    async def judge(text: str, call: Call) -> str | None:
        if text != "Hi":
            await asyncio.sleep(3600)
        return None

    guard = JudgeGuard(judge, seconds=0.05)
    answer, records, _ = await ask("openai", "chat", [guard], stream=True)
    assert answer.status == 503
    assert records[0].attempts == 1, "no other key or provider is tried"
    guard = JudgeGuard(judge, seconds=0.05, on_failure="open")
    answer, _, _ = await ask("openai", "chat", [guard], stream=True)
    assert answer.status == 200
    assert SECRET in answer.body.decode()


async def test_an_auditing_judge_delays_nothing(caplog: pytest.LogCaptureFixture) -> None:
    called = asyncio.Event()

    async def judge(text: str, call: Call) -> str | None:
        called.set()
        return "Bad."

    guard = JudgeGuard(judge, mode="audit", request=False)
    answer, _, _ = await ask("openai", "chat", [guard], stream=True)
    assert SECRET in answer.body.decode()
    async with asyncio.timeout(30):
        while "Bad." not in caplog.text:
            await asyncio.sleep(0.01)


# finders and the filter


@pytest.mark.parametrize(
    ("find", "text", "found"),
    [
        (find_secrets, f"a {SECRET} b", [SECRET]),
        (find_secrets, "AKIAIOSFODNN7EXAMPLE", ["AKIAIOSFODNN7EXAMPLE"]),
        (find_secrets, "ask-me-anything-about-python-code", []),
        (find_secrets, "-----BEGIN RSA PRIVATE KEY-----", ["-----BEGIN RSA PRIVATE KEY-----"]),
        (find_personal_data("card"), "4111 1111 1111 1111", ["4111 1111 1111 1111"]),
        (find_personal_data("card"), "4111 1111 1111 1112", []),
        (find_personal_data("ip"), "10.0.0.1, 999.1.1.1, 2001:db8::1", ["10.0.0.1"]),
        (find_personal_data("ip"), "2001:db8:0:0:0:0:0:1", ["2001:db8:0:0:0:0:0:1"]),
        (find_personal_data("phone"), "+49 30 901820 or (555) 123-4567", None),
        (find_personal_data("email"), "a.b+c@x.example.org.", ["a.b+c@x.example.org"]),
        (find_words(["foo bar", "foo"]), "Foo bar food FOO", ["Foo bar", "FOO"]),
        (regex_finder(r"\d{3}"), "12 123 1234", ["123", "123"]),
    ],
)
def test_finders_find_what_they_name(find: Any, text: str, found: list[str] | None) -> None:
    got = [text[finding.start : finding.end] for finding in find(text)]
    assert got == found if found is not None else len(got) == 2


@pytest.mark.parametrize(
    "make",
    [
        lambda: find_personal_data("name"),
        lambda: find_words([]),
        lambda: find_words("word"),
        lambda: regex_finder("("),
        lambda: regex_finder("a*"),
        lambda: TextGuard("sk-"),  # type: ignore[arg-type]
        lambda: TextGuard(find_secrets, mode="later"),  # type: ignore[arg-type]
        lambda: TextGuard(find_secrets, restore=True),
        lambda: TextGuard(find_secrets, window=0),
        lambda: JudgeGuard(lambda text, call: None),  # type: ignore[arg-type, return-value]
    ],
)
def test_wrong_guards_are_refused_when_they_are_built(make: Any) -> None:
    with pytest.raises(ConfigurationError):
        make()


def cuts(text: str, draw: st.DrawFn) -> list[str]:
    places = sorted(draw(st.sets(st.integers(0, len(text)), max_size=12)))
    ends = [0, *places, len(text)]
    return [text[a:b] for a, b in pairwise(ends)]


@st.composite
def responses(draw: st.DrawFn) -> tuple[list[Event], list[str]]:
    """The events of a response with texts, reasoning and tool calls, interleaved and cut anyhow."""
    alphabet = st.sampled_from(["ab", "BAD", "BA", "D", " ", "x", "é", "\n"])
    blocks: list[list[Event]] = []
    texts: list[str] = []
    for index in range(draw(st.integers(1, 3))):
        text = "".join(draw(st.lists(alphabet, max_size=30)))
        kind = draw(st.sampled_from([Text, Reasoning, ToolCall]))
        if kind is ToolCall:
            text = json.dumps({"a": text}, ensure_ascii=draw(st.booleans()))
        block = ToolCall("id", "name") if kind is ToolCall else kind()
        deltas = [BlockDelta(index, piece) for piece in cuts(text, draw)]
        blocks.append([BlockStart(index, block), *deltas, BlockEnd(index)])
        texts.append(text)
    events: list[Event] = []
    waiting = list(blocks)
    started: list[list[Event]] = []
    while waiting or started:
        if waiting and (not started or draw(st.booleans())):
            started.append(waiting.pop(0))
            events.append(started[-1].pop(0))
        block_events = draw(st.sampled_from(started))
        events.append(block_events.pop(0))
        if not block_events:
            started.remove(block_events)
    events = [MessageStart("i", "m"), *events, MessageEnd(StopReason.END)]
    return events, texts


async def run(events: list[Event], each: TextFilter) -> tuple[list[Event], APIError | None]:
    out: list[Event] = []
    try:
        for event in events:
            out += await each.feed(event)
        out += await each.close()
    except APIError as error:
        return out, error
    return out, None


def sent(events: Iterable[Event]) -> str:
    return "|".join(event.text for event in events if isinstance(event, BlockDelta))


find_bad = regex_finder("BAD+")


@settings(max_examples=400, deadline=None)
@given(responses(), st.sampled_from(["window", "hold"]), st.integers(30, 60))
def test_no_blocked_text_is_released_for_any_cut_and_nothing_else_is_lost(
    response: tuple[list[Event], list[str]], mode: Any, window: int
) -> None:
    events, texts = response
    out, error = asyncio.run(run(events, TextFilter(find_bad, "block", mode, window)))
    bad = any("BAD" in text for text in texts)
    assert (error is not None) == bad
    released: dict[int, str] = {}
    for event in out:
        if isinstance(event, BlockDelta):
            released[event.index] = released.get(event.index, "") + event.text
    assert not any("BAD" in text for text in released.values())
    if error is None:
        assert fold(out) == fold(events)
        list(check(out))


@settings(max_examples=400, deadline=None)
@given(responses(), st.sampled_from(["window", "hold"]), st.integers(30, 60))
def test_masked_texts_are_the_same_for_any_cut(
    response: tuple[list[Event], list[str]], mode: Any, window: int
) -> None:
    events, _ = response
    out, error = asyncio.run(run(events, TextFilter(find_bad, "mask", mode, window)))
    assert error is None
    list(check(out))
    for before, after in zip(fold(events).blocks, fold(out).blocks, strict=True):
        if isinstance(before, Text | Reasoning) and isinstance(after, Text | Reasoning):
            assert after.text == masked(before.text)
        elif isinstance(before, ToolCall) and isinstance(after, ToolCall):
            assert json.loads(after.arguments) == {"a": masked(json.loads(before.arguments)["a"])}


def masked(text: str) -> str:
    return re.sub("BAD+", "[pattern]", text)


async def test_citations_and_refusals_are_checked_too() -> None:
    end = BlockEnd(0, citations=(Citation(quote="a BAD quote"), Citation(quote="fine")))
    start = BlockStart(0, Text())
    out, error = await run([start, end], TextFilter(find_bad, "mask", "window", 30))
    assert error is None
    assert out[-1] == BlockEnd(0, citations=(Citation(quote="fine"),))
    _, error = await run([start, end], TextFilter(find_bad, "block", "window", 30))
    assert error is not None
    last = MessageEnd(StopReason.FILTER, refusal="BAD")
    out, _ = await run([last], TextFilter(find_bad, "mask", "window", 30))
    assert out == [msgspec.structs.replace(last, refusal="[pattern]")]


def test_a_finding_is_known_by_its_place() -> None:
    assert list(find_bad("a BADD b")) == [TextMatch(2, 6, "pattern")]
