"""Anthropic's whole responses, decoded and encoded."""

from __future__ import annotations

import json
from typing import Any

import pytest

from asgi_aiproxy.dialects import ANTHROPIC_MESSAGES, Anthropic
from asgi_aiproxy.errors import APIError, ErrorKind
from asgi_aiproxy.messages import (
    Citation,
    Media,
    Opaque,
    Reasoning,
    Refusal,
    Request,
    Response,
    StopReason,
    Text,
    ToolCall,
    Usage,
    unfold,
)
from tests.dialects.anthropic.samples import (
    PNG,
    text,
)


def answer(content: list[Any], **members: Any) -> bytes:
    body = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-test",
        "content": content,
        "stop_reason": "end_turn",
        "stop_sequence": None,
        **members,
    }
    return json.dumps(body).encode()


@pytest.mark.parametrize(
    ("content", "blocks"),
    [
        ([text("Hi.")], (Text("Hi."),)),
        ([], ()),
        (
            [
                {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"},
                {"type": "thinking", "thinking": "So.", "signature": ""},
                {"type": "redacted_thinking", "data": "cmVk"},
                {"type": "tool_use", "id": "a", "name": "f", "input": {"x": 1}},
                {"type": "tool_use", "id": "b", "name": "g", "input": None},
                {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}},
            ],
            (
                Reasoning("Hm.", {"anthropic": {"signature": "c2ln"}}),
                Reasoning("So."),
                Reasoning("", {"anthropic": {"redacted": "cmVk"}}),
                ToolCall("a", "f", '{"x":1}'),
                ToolCall("b", "g", "{}"),
                Opaque(
                    "anthropic",
                    {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}},
                ),
            ),
        ),
        (
            [
                {
                    **text("So."),
                    "citations": [
                        {
                            "type": "web_search_result_location",
                            "url": "https://a.example",
                            "title": "A",
                            "cited_text": "q",
                        },
                        {"type": "page_location", "document_title": "d", "cited_text": None},
                    ],
                }
            ],
            (
                Text(
                    "So.",
                    (
                        Citation(url="https://a.example", title="A", quote="q"),
                        Citation(title="d"),
                    ),
                ),
            ),
        ),
    ],
)
def test_a_whole_response_is_decoded(content: list[Any], blocks: tuple[Any, ...]) -> None:
    found = ANTHROPIC_MESSAGES.decode_response(answer(content))
    assert found == Response(
        id="msg_1", model="claude-test", blocks=blocks, stop=StopReason.END, word="end_turn"
    )


@pytest.mark.parametrize(
    ("members", "stop", "refusal", "extra"),
    [
        ({"stop_reason": "max_tokens"}, StopReason.LENGTH, "", {}),
        ({"stop_reason": "tool_use"}, StopReason.TOOLS, "", {}),
        (
            {"stop_reason": "stop_sequence", "stop_sequence": "###"},
            StopReason.END,
            "",
            {"anthropic": {"stop_sequence": "###"}},
        ),
        ({"stop_reason": "pause_turn"}, StopReason.OTHER, "", {}),
        ({"stop_reason": None}, StopReason.OTHER, "", {}),
        (
            {"stop_reason": "refusal", "stop_details": {"explanation": "Because."}},
            StopReason.FILTER,
            "Because.",
            {"anthropic": {"stop_details": {"explanation": "Because."}}},
        ),
        (
            {"stop_reason": "refusal", "stop_details": {"explanation": None}},
            StopReason.FILTER,
            "",
            {"anthropic": {"stop_details": {"explanation": None}}},
        ),
    ],
)
def test_stop_reasons_are_decoded(
    members: dict[str, Any], stop: StopReason, refusal: str, extra: dict[str, Any]
) -> None:
    found = ANTHROPIC_MESSAGES.decode_response(answer([], **members))
    assert (found.stop, found.refusal, found.extra) == (stop, refusal, extra)
    assert found.word == (members["stop_reason"] or "")


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (None, None),
        ([], None),
        ({}, Usage()),
        ({"input_tokens": 3, "output_tokens": 5}, Usage(input=3, output=5)),
        (
            {
                "input_tokens": 3,
                "cache_read_input_tokens": 10,
                "cache_creation_input_tokens": 20,
                "cache_creation": {
                    "ephemeral_5m_input_tokens": 15,
                    "ephemeral_1h_input_tokens": 5,
                },
                "output_tokens": 7,
                "output_tokens_details": {"thinking_tokens": 4},
                "server_tool_use": {"web_search_requests": 1},
            },
            Usage(input=33, output=7, cache_read=10, cache_write=20, cache_write_1h=5, reasoning=4),
        ),
        ({"input_tokens": None, "cache_creation": None}, Usage()),
    ],
)
def test_usage_is_decoded(usage: Any, expected: Usage | None) -> None:
    found = ANTHROPIC_MESSAGES.decode_response(answer([], usage=usage))
    assert found.usage == expected
    if expected is not None:
        reported = ANTHROPIC_MESSAGES.encode_response(found, Request(model="m", messages=()))
        assert ANTHROPIC_MESSAGES.decode_response(reported).usage == expected


def test_cached_tokens_beyond_the_input_do_not_make_it_negative() -> None:
    usage = Usage(input=5, cache_read=9)
    found = Response(id="x", model="m", usage=usage)
    reported = json.loads(
        ANTHROPIC_MESSAGES.encode_response(found, Request(model="m", messages=()))
    )
    assert reported["usage"]["input_tokens"] == 0


@pytest.mark.parametrize(
    ("body", "kind", "message"),
    [
        (b"", ErrorKind.UPSTREAM, "200 without a body"),
        (b"<html>Oops</html>", ErrorKind.UPSTREAM, "200: Oops"),
        (b'{"type":"message"}', ErrorKind.UPSTREAM, "has no content"),
        (b'{"content":1}', ErrorKind.UPSTREAM, "has no content"),
        (
            b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}',
            ErrorKind.OVERLOADED,
            "Overloaded",
        ),
        (b'{"error":{"type":"api_error","message":"m"}}', ErrorKind.UPSTREAM, "m"),
    ],
)
def test_an_invalid_response_is_an_error(body: bytes, kind: ErrorKind, message: str) -> None:
    with pytest.raises(APIError) as caught:
        ANTHROPIC_MESSAGES.decode_response(body)
    assert caught.value.kind is kind
    assert message in caught.value.message
    if message != "has no content":  # which is not asked of an answer that passes
        with pytest.raises(APIError) as caught:
            ANTHROPIC_MESSAGES.native_stream(usage_wanted=True, strict_format=True).whole(body)
        assert caught.value.kind is kind


def test_a_whole_response_is_encoded() -> None:
    face = Anthropic(new_id=lambda: "msg_new")
    found = Response(
        id="",
        model="m",
        blocks=(
            Reasoning("Hm.", {"anthropic": {"signature": "c2ln"}}),
            Reasoning("So."),
            Reasoning("", {"anthropic": {"redacted": "cmVk"}}),
            Text("One."),
            Text("Two.", (Citation(url="https://a.example", title="t", quote="q"),)),
            Refusal("No."),
            ToolCall("a", "f", '{"x":1}'),
            ToolCall("b", "g", '{"x":'),
            Opaque("anthropic", {"type": "new", "x": 1}),
            Opaque("gemini", {"executableCode": {}}),
            Media(kind="image", data=PNG),
        ),
        stop=StopReason.OTHER,
        usage=Usage(input=9, output=5, cache_read=4, cache_write=2),
    )
    assert json.loads(face.encode_response(found, Request(model="m", messages=()))) == {
        "id": "msg_new",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [
            {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"},
            {"type": "thinking", "thinking": "So.", "signature": ""},
            {"type": "redacted_thinking", "data": "cmVk"},
            text("One."),
            {
                **text("Two."),
                "citations": [
                    {
                        "type": "web_search_result_location",
                        "cited_text": "q",
                        "url": "https://a.example",
                        "title": "t",
                        "encrypted_index": "",
                    }
                ],
            },
            text("No."),
            {"type": "tool_use", "id": "a", "name": "f", "input": {"x": 1}},
            {"type": "tool_use", "id": "b", "name": "g", "input": {"arguments": '{"x":'}},
            {"type": "new", "x": 1},
        ],
        "stop_reason": "tool_use",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 3,
            "cache_creation_input_tokens": 2,
            "cache_read_input_tokens": 4,
            "output_tokens": 5,
        },
    }


@pytest.mark.parametrize(
    ("stop", "word", "called", "reason"),
    [
        (StopReason.END, "stop", False, "end_turn"),
        (StopReason.END, "stop", True, "tool_use"),
        (StopReason.TOOLS, "tool_calls", True, "tool_use"),
        (StopReason.LENGTH, "length", True, "max_tokens"),
        (StopReason.FILTER, "SAFETY", False, "refusal"),
        (StopReason.OTHER, "because", False, "end_turn"),
        (StopReason.OTHER, "because", True, "tool_use"),
        # Anthropic's own words
        (StopReason.END, "stop_sequence", False, "stop_sequence"),
        (StopReason.OTHER, "pause_turn", True, "pause_turn"),
        (
            StopReason.LENGTH,
            "model_context_window_exceeded",
            False,
            "model_context_window_exceeded",
        ),
    ],
)
def test_stop_reasons_are_encoded(stop: StopReason, word: str, called: bool, reason: str) -> None:
    blocks = (ToolCall("a", "f", "{}"),) if called else ()
    found = Response(id="x", model="m", blocks=blocks, stop=stop, word=word)
    reported = json.loads(
        ANTHROPIC_MESSAGES.encode_response(found, Request(model="m", messages=()))
    )
    assert reported["stop_reason"] == reason


def test_a_refusal_has_its_explanation() -> None:
    found = Response(id="x", model="m", stop=StopReason.FILTER, refusal="Unsafe.")
    reported = json.loads(
        ANTHROPIC_MESSAGES.encode_response(found, Request(model="m", messages=()))
    )
    assert reported["stop_details"]["explanation"] == "Unsafe."


def test_model_and_usage_are_read_from_a_response_that_passes_through() -> None:
    body = answer([text("Hi.")], usage={"input_tokens": 3, "output_tokens": 5})
    echo = ANTHROPIC_MESSAGES.native_stream(usage_wanted=True, strict_format=True)
    assert echo.whole(body) == body
    assert (echo.model, echo.usage) == ("claude-test", Usage(input=3, output=5))

    silent = ANTHROPIC_MESSAGES.native_stream(usage_wanted=True, strict_format=True)
    silent.whole(answer([text("Hi.")]))
    assert silent.usage is None


@pytest.mark.parametrize("streamed", [False, True])
def test_a_refusal_of_another_vendor_ends_as_a_refusal(streamed: bool) -> None:
    found = Response(id="x", model="m", blocks=(Refusal("No."),), stop=StopReason.END, word="stop")
    request = Request(model="m", messages=())
    if streamed:
        encoder = ANTHROPIC_MESSAGES.encoder(request)
        written = b"".join(encoder.feed(event) for event in unfold(found))
    else:
        written = ANTHROPIC_MESSAGES.encode_response(found, request)
    assert b'"stop_reason":"refusal"' in written
    assert b'"No."' in written
