"""A conversation that an OpenAI client sends back reaches its vendor unchanged.

Answers are lists of blocks in an order that vendors check (Claude's preserved thinking); a chat
message has one text and one list of calls. Clients here are OpenAI's own.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from asgi_aiproxy.dialects import ANTHROPIC_MESSAGES, OPENAI_CHAT
from asgi_aiproxy.framing import SSEFramer
from asgi_aiproxy.messages import (
    Block,
    Media,
    Reasoning,
    Request,
    Response,
    Text,
    ToolCall,
    fold,
    unfold,
)
from tests.support import chat_stream_reader as strict
from tests.support.dialect_requests import decode_client_request, openai, written
from tests.support.stream_fixtures import cut, faces

REQUEST = Request(model="m", messages=())
MODEL = "claude-opus-4-6"
HOW = ["whole", "streamed"]


def message_of(answer: Response, how: str) -> dict[str, Any]:
    """The message that a client keeps of an answer."""
    if how == "whole":
        body = OPENAI_CHAT.encode_response(answer, REQUEST)
        kept = ChatCompletion.model_validate_json(body).choices[0].message
    else:
        encoder = OPENAI_CHAT.encoder(REQUEST)
        chunks, _ = strict.chunks_in(b"".join(encoder.feed(event) for event in unfold(answer)))
        state = ChatCompletionStreamState()
        for chunk in chunks:
            state.handle_chunk(ChatCompletionChunk.model_validate(chunk))
        kept = state.get_final_completion().choices[0].message
    dumped: dict[str, Any] = json.loads(kept.model_dump_json(exclude_none=True))
    return dumped


def came_back(blocks: tuple[Block, ...], how: str) -> tuple[Any, ...]:
    message = message_of(Response(id="x", model="m", blocks=blocks), how)
    (said,) = openai([message]).messages
    return said.parts


# ── any order of blocks ──────────────────────────────────────────────────────

S1 = {"anthropic": {"signature": "czE="}}
S2 = {"anthropic": {"signature": "czI="}}
HIDDEN = {"anthropic": {"redacted": "cmVk"}}
G1 = {"gemini": {"signature": "ZzE="}}
G2 = {"gemini": {"signature": "ZzI="}}
A = ToolCall("a", "f", '{"x":1}')
B = ToolCall("b", "g", "{}")
PNG = Media(kind="image", media_type="image/png", data="iVBORw0KGgo=")


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize(
    "blocks",
    [
        (Reasoning("One.", S1), A, Reasoning("Two.", S2), B),
        (Reasoning("One.", S1), Text("First."), A, Reasoning("Two.", S2), Text("Then."), B),
        (Reasoning("", S1), Text("a"), Reasoning("", S2), Text("b"), A),
        (Text("a"), A, Text("b"), B),
        (Text("a"), Text("b")),
        (A, Text("after")),
        (A, Reasoning("", HIDDEN), B),
        (Text("a", extra=G1), A, Text("b", extra=G2)),
        (Text("a"), Text("b", extra=G1)),
        (Text("a"), Reasoning("", G1)),
        (A, Reasoning("", G1)),
        (ToolCall("a", "f", "{}", G1), Text("b", extra=G2)),
        (PNG, Text("a picture")),
        (Text("Here:"), Media(kind="image", media_type="image/png", data=PNG.data, extra=G1)),
        (Text("é🚀"), A, Text("世界")),
    ],
)
def test_blocks_are_sent_back_in_their_order_with_their_signatures(
    blocks: tuple[Block, ...], how: str
) -> None:
    assert came_back(blocks, how) == blocks


WORDS = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=6)
SIGNATURES = st.integers(0, 99).map(lambda n: f"c2ln{n:02}==")


def own(vendor: str, member: str = "signature") -> st.SearchStrategy[dict[str, Any]]:
    return SIGNATURES.map(lambda data: {vendor: {member: data}})


BLOCKS = st.one_of(
    st.builds(Text, WORDS, st.just(()), st.one_of(st.just({}), own("gemini"))),
    st.builds(Reasoning, st.one_of(WORDS, st.just("")), own("anthropic")),
    st.builds(Reasoning, st.just(""), own("anthropic", "redacted")),
    st.builds(Reasoning, st.one_of(WORDS, st.just("")), own("gemini")),
    st.just(PNG),
    st.builds(ToolCall, st.uuids().map(str), WORDS, st.just('{"x":1}'), st.just({})),
)


@pytest.mark.parametrize("how", HOW)
@given(blocks=st.lists(BLOCKS, min_size=1, max_size=7).map(tuple))
@settings(max_examples=120, deadline=None)
def test_any_blocks_are_sent_back_in_their_order(how: str, blocks: tuple[Block, ...]) -> None:
    found = came_back(blocks, how)
    assert found == blocks or usual(found) == usual(blocks)
    if not any("gemini" in block.extra for block in blocks if hasattr(block, "extra")):
        assert found == blocks


def usual(blocks: tuple[Any, ...]) -> Any:
    return [b for b in blocks if isinstance(b, ToolCall)]


@pytest.mark.parametrize(
    "change",
    [
        {"content": "Another text."},
        {"content": [{"type": "text", "text": "b"}, {"type": "image_url", "image_url": "x"}]},
        {"tool_calls": []},
        {"reasoning_details": [{"type": "reasoning.encrypted", "data": "t9 c"}]},
    ],
)
def test_an_edited_answer_is_read_in_the_default_order(change: dict[str, Any]) -> None:
    blocks = (A, Text("after"))
    message = message_of(Response(id="x", model="m", blocks=blocks), "whole")
    content = {"content": [{"type": "text", "text": "Another text."}]}
    edited = {**message, **(content if isinstance(change.get("content"), list) else change)}
    (said,) = openai([edited]).messages
    assert [type(part) for part in said.parts] == [Text, *[ToolCall] * bool(edited["tool_calls"])]


@pytest.mark.parametrize("data", ["", "x", "t", "t1 ", "c  c", "t9999999999", "r r r", "t5", "c c"])
def test_an_order_that_does_not_fit_is_ignored(data: str) -> None:
    detail = {"type": "reasoning.encrypted", "data": data, "format": "aiproxy-order-v1"}
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    message = {"role": "assistant", "content": "ab", "tool_calls": [call]}
    (said,) = openai([{**message, "reasoning_details": [detail]}]).messages
    assert said == openai([message]).messages[0]


# ── conversations with Claude ────────────────────────────────────────────────

PLAIN = st.text("ab \né世🚀", min_size=1, max_size=8).filter(str.strip)
INPUTS = st.dictionaries(PLAIN, st.one_of(st.integers(-9, 9), PLAIN, st.lists(PLAIN)), max_size=2)


@st.composite
def contents(draw: st.DrawFn) -> list[dict[str, Any]]:
    """The content of one of Claude's answers: blocks in any order."""
    signature = f"c2ln{draw(st.integers(0, 999))}"
    block = st.one_of(
        PLAIN.map(lambda text: {"type": "text", "text": text}),
        st.one_of(st.just(""), PLAIN).map(
            lambda text: {"type": "thinking", "thinking": text, "signature": signature}
        ),
        st.just({"type": "redacted_thinking", "data": signature}),
        st.builds(
            lambda id, input: {
                "type": "tool_use",
                "id": f"toolu_{id}",
                "name": "f",
                "input": input,
            },
            st.uuids().map(lambda it: it.hex),
            INPUTS,
        ),
    )
    return draw(st.lists(block, min_size=1, max_size=6))


def frames(content: list[dict[str, Any]]) -> Iterator[bytes]:
    """An answer as Anthropic streams it."""
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-test"}
    yield json.dumps({"type": "message_start", "message": {**message, "content": []}}).encode()
    for index, block in enumerate(content):
        opening = dict(block)
        deltas: list[dict[str, Any]] = []
        match block["type"]:
            case "text":
                opening["text"] = ""
                deltas = [{"type": "text_delta", "text": part} for part in block["text"]]
            case "thinking":
                opening |= {"thinking": "", "signature": ""}
                deltas = [{"type": "thinking_delta", "thinking": block["thinking"]}]
                deltas += [{"type": "signature_delta", "signature": block["signature"]}]
            case "tool_use":
                opening["input"] = {}
                text = json.dumps(block["input"])
                parts = (text[:3], text[3:])
                deltas = [{"type": "input_json_delta", "partial_json": part} for part in parts]
        start = {"type": "content_block_start", "index": index, "content_block": opening}
        yield json.dumps(start).encode()
        for delta in deltas:
            reported = {"type": "content_block_delta", "index": index, "delta": delta}
            yield json.dumps(reported).encode()
        yield json.dumps({"type": "content_block_stop", "index": index}).encode()
    yield json.dumps({"type": "message_delta", "delta": {"stop_reason": "end_turn"}}).encode()
    yield json.dumps({"type": "message_stop"}).encode()


def through_the_gateway(content: list[dict[str, Any]], how: str) -> dict[str, Any]:
    """Claude's answer, as an OpenAI client keeps it."""
    if how == "whole":
        body = {"id": "msg_1", "model": "claude-test", "content": content, "type": "message"}
        answer = ANTHROPIC_MESSAGES.decode_response(json.dumps(body).encode())
        chat = OPENAI_CHAT.encode_response(answer, REQUEST)
        kept = ChatCompletion.model_validate_json(chat).choices[0].message
    else:
        decoder, encoder = ANTHROPIC_MESSAGES.decoder(), OPENAI_CHAT.encoder(REQUEST)
        events = [event for frame in frames(content) for event in decoder.feed(frame)]
        chunks, _ = strict.chunks_in(b"".join(encoder.feed(event) for event in events))
        state = ChatCompletionStreamState()
        for chunk in chunks:
            state.handle_chunk(ChatCompletionChunk.model_validate(chunk))
        kept = state.get_final_completion().choices[0].message
    dumped: dict[str, Any] = json.loads(kept.model_dump_json(exclude_none=True))
    return dumped


@pytest.mark.parametrize("how", HOW)
@given(answers=st.lists(contents(), min_size=1, max_size=4))
@settings(max_examples=120, deadline=None)
def test_claude_gets_its_own_answers_back_byte_for_byte_over_many_turns(
    how: str, answers: list[list[dict[str, Any]]]
) -> None:
    messages: list[dict[str, Any]] = [{"role": "system", "content": "S"}]
    expected: list[dict[str, Any]] = []
    for number, content in enumerate(answers):
        messages.append({"role": "user", "content": f"Question {number}"})
        expected.append({"type": "text", "text": f"Question {number}"})
        messages.append(through_the_gateway(content, how))
        expected += content
        for block in content:
            if block["type"] == "tool_use":
                result = {"role": "tool", "tool_call_id": block["id"], "content": "done"}
                messages.append(result)
                reported = {"type": "tool_result", "tool_use_id": block["id"], "content": "done"}
                expected.append(reported)
    messages.append({"role": "user", "content": "And?"})
    expected.append({"type": "text", "text": "And?"})
    turns = written("anthropic", openai(messages), MODEL).body["messages"]
    sent = [block for turn in turns for block in turn["content"]]
    assert json.dumps(sent) == json.dumps(expected)


@pytest.mark.parametrize("how", HOW)
@given(answers=st.lists(contents(), min_size=1, max_size=3))
@settings(max_examples=80, deadline=None)
def test_claude_gets_its_own_answers_back_through_the_responses_api_too(
    how: str, answers: list[list[dict[str, Any]]]
) -> None:
    face = faces()["openai_responses"]
    items: list[Any] = []
    expected: list[dict[str, Any]] = []
    for number, content in enumerate(answers):
        items.append({"role": "user", "content": f"Question {number}"})
        expected.append({"type": "text", "text": f"Question {number}"})
        decoder = ANTHROPIC_MESSAGES.decoder()
        events = [event for frame in frames(content) for event in decoder.feed(frame)]
        if how == "whole":
            answer = json.loads(face.encode_response(fold(events), REQUEST))
        else:
            encoder = face.encoder(REQUEST)
            data = b"".join(encoder.feed(event) for event in events)
            (*_, last) = cut(SSEFramer(), [data])
            answer = json.loads(last)["response"]
        items += answer["output"]
        expected += content
        for block in content:
            if block["type"] == "tool_use":
                output = {"type": "function_call_output", "call_id": block["id"], "output": "done"}
                items.append(output)
                reported = {"type": "tool_result", "tool_use_id": block["id"], "content": "done"}
                expected.append(reported)
    items.append({"role": "user", "content": "And?"})
    expected.append({"type": "text", "text": "And?"})
    request = decode_client_request("openai_responses", {"model": "m", "input": items})
    turns = written("anthropic", request, MODEL).body["messages"]
    sent = [block for turn in turns for block in turn["content"]]
    assert json.dumps(sent) == json.dumps(expected)
