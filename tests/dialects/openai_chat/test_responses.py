"""OpenAI's whole responses, decoded and encoded."""

from __future__ import annotations

import json
from typing import Any

import pytest

from asgi_aiproxy.dialects import OPENAI_CHAT, OpenAIChat
from asgi_aiproxy.dialects.openai_chat import responses
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
)
from tests.dialects.openai_chat.samples import (
    PNG,
    PNG_URL,
    call,
    completion,
)


@pytest.mark.parametrize(
    ("message", "finish", "blocks", "stop", "word"),
    [
        ({"content": "Hi."}, "stop", (Text("Hi."),), StopReason.END, "stop"),
        ({"content": ""}, "stop", (), StopReason.END, "stop"),
        ({"content": None}, "length", (), StopReason.LENGTH, "length"),
        ({"content": "Hi."}, "content_filter", (Text("Hi."),), StopReason.FILTER, "content_filter"),
        ({"content": None, "refusal": "No."}, "stop", (Refusal("No."),), StopReason.END, "stop"),
        (
            {"content": "Both.", "tool_calls": [call(), call("b", "")]},
            "tool_calls",
            (Text("Both."), ToolCall("call_1", "weather", "{}"), ToolCall("b", "weather", "{}")),
            StopReason.TOOLS,
            "tool_calls",
        ),
        (
            {"tool_calls": [call()]},
            "stop",
            (ToolCall("call_1", "weather", "{}"),),
            StopReason.TOOLS,
            "tool_calls",
        ),
        (
            {"tool_calls": [call()]},
            "length",
            (ToolCall("call_1", "weather", "{}"),),
            StopReason.LENGTH,
            "length",
        ),
        (
            {"tool_calls": [call()]},
            None,
            (ToolCall("call_1", "weather", "{}"),),
            StopReason.TOOLS,
            "",
        ),
        (
            {"tool_calls": [{"function": {"name": "f", "arguments": {"a": 1}}}, {}]},
            "tool_calls",
            (ToolCall("call_0", "f", '{"a":1}'), ToolCall("call_1", "", "{}")),
            StopReason.TOOLS,
            "tool_calls",
        ),
        (
            {
                "tool_calls": [
                    {**call(), "extra_content": {"google": {"thought_signature": "c2ln"}}}
                ]
            },
            "tool_calls",
            (ToolCall("call_1", "weather", "{}", {"gemini": {"signature": "c2ln"}}),),
            StopReason.TOOLS,
            "tool_calls",
        ),
        (
            {"function_call": {"name": "f", "arguments": '{"a":1}'}},
            "function_call",
            (ToolCall("call_0", "f", '{"a":1}'),),
            StopReason.TOOLS,
            "function_call",
        ),
        (
            {"content": "4", "function_call": {"name": "", "arguments": ""}},
            "",
            (Text("4"),),
            StopReason.END,
            "",
        ),
        (
            {"content": "4", "reasoning_content": "Hm."},
            "stop",
            (Reasoning("Hm."), Text("4")),
            StopReason.END,
            "stop",
        ),
        (
            {"content": "4", "reasoning": "Hm."},
            "stop",
            (Reasoning("Hm."), Text("4")),
            StopReason.END,
            "stop",
        ),
        ({"content": "4", "reasoning": {"x": 1}}, "stop", (Text("4"),), StopReason.END, "stop"),
        (
            {
                "content": [
                    {"type": "thinking", "thinking": "Hm."},
                    {"type": "text", "text": "4"},
                    {"type": "text", "text": ""},
                    7,
                ]
            },
            "stop",
            (Reasoning("Hm."), Text("4")),
            StopReason.END,
            "stop",
        ),
        (
            {
                "content": "See.",
                "annotations": [
                    {
                        "type": "url_citation",
                        "url_citation": {
                            "url": "https://a.example",
                            "title": "A",
                            "start_index": 0,
                            "end_index": 4,
                        },
                    },
                    {"type": "file_citation"},
                ],
            },
            "stop",
            (Text("See.", (Citation(url="https://a.example", title="A", start=0, end=4),)),),
            StopReason.END,
            "stop",
        ),
        (
            {
                "content": "",
                "images": [
                    {"type": "image_url", "image_url": {"url": PNG_URL}},
                    {"image_url": {"url": "https://a.example"}},
                ],
            },
            "stop",
            (
                Media(kind="image", media_type="image/png", data=PNG),
                Media(kind="image", url="https://a.example"),
            ),
            StopReason.END,
            "stop",
        ),
        # the words of others
        ({"content": "Hi."}, "eos", (Text("Hi."),), StopReason.END, "stop"),
        ({"content": "Hi."}, "EOS", (Text("Hi."),), StopReason.END, "stop"),
        ({"content": "Hi."}, "max_tokens", (Text("Hi."),), StopReason.LENGTH, "length"),
        ({"content": "Hi."}, "model_length", (Text("Hi."),), StopReason.LENGTH, "length"),
        ({"content": "Hi."}, "sensitive", (Text("Hi."),), StopReason.FILTER, "content_filter"),
        ({"content": "Hi."}, "because", (Text("Hi."),), StopReason.END, "stop"),
        ({"content": "Hi."}, None, (Text("Hi."),), StopReason.END, ""),
        (
            {"tool_calls": [call()]},
            "end_turn",
            (ToolCall("call_1", "weather", "{}"),),
            StopReason.TOOLS,
            "tool_calls",
        ),
    ],
)
def test_a_whole_response_is_decoded(
    message: dict[str, Any], finish: Any, blocks: tuple[Any, ...], stop: StopReason, word: str
) -> None:
    assert OPENAI_CHAT.decode_response(completion(message, finish)) == Response(
        id="chatcmpl-1", model="gpt-test", blocks=blocks, stop=stop, word=word
    )


@pytest.mark.parametrize(
    ("body", "kind", "message"),
    [
        (b"", ErrorKind.UPSTREAM, "HTTP 200 without a body"),
        (
            b"<html><style>p{}</style><b>Bad</b> gateway</html>",
            ErrorKind.UPSTREAM,
            "200: Bad gateway",
        ),
        (b"[]", ErrorKind.UPSTREAM, "HTTP 200: []"),
        (b"{}", ErrorKind.UPSTREAM, "has no choices"),
        (b'{"choices":[]}', ErrorKind.UPSTREAM, "has no choices"),
        (b'{"choices":[{"text":"legacy"}]}', ErrorKind.UPSTREAM, "has no choices"),
        (b'{"error":{"message":"Slow.","code":429}}', ErrorKind.LIMITED, "Slow."),
        (b'{"error":{"message":"Slow.","code":429},"choices":[]}', ErrorKind.LIMITED, "Slow."),
        (b'{"error":{"message":"No.","type":"overloaded_error"}}', ErrorKind.OVERLOADED, "No."),
        (b'{"error":"It broke."}', ErrorKind.UPSTREAM, "It broke."),
        (completion({"content": ""}, "error"), ErrorKind.UPSTREAM, "finish_reason"),
        (
            b'{"choices":[{"message":{},"error":{"code":502,"message":"Vendor."}}]}',
            ErrorKind.UPSTREAM,
            "Vendor.",
        ),
    ],
)
def test_an_invalid_response_is_an_error(body: bytes, kind: ErrorKind, message: str) -> None:
    with pytest.raises(APIError) as caught:
        OPENAI_CHAT.decode_response(body)
    assert caught.value.kind is kind
    assert message in caught.value.message


def test_a_whole_response_is_encoded() -> None:
    face = OpenAIChat(now=lambda: 1.9, new_id=lambda: "chatcmpl-new")
    answer = Response(
        id="",
        model="m",
        blocks=(
            Reasoning("Hm.", {"anthropic": {"signature": "c2ln"}}),
            Text("One "),
            Text(
                "two.",
                (
                    Citation(url="https://a.example", quote="q"),
                    Citation(title="t", quote="q", start=1, end=2),
                ),
            ),
            Refusal("No."),
            ToolCall("a", "f", '{"a":1}', {"gemini": {"signature": "c2ln"}}),
            Media(kind="image", media_type="image/png", data=PNG),
            Media(kind="audio", data="AAAA"),
            Opaque("anthropic", {"type": "new"}),
        ),
        stop=StopReason.OTHER,
        usage=Usage(
            input=9,
            output=5,
            cache_read=4,
            cache_write=2,
            reasoning=3,
            audio_input=1,
            audio_output=1,
        ),
        refusal="Because.",
    )
    assert json.loads(face.encode_response(answer, Request(model="m", messages=()))) == {
        "id": "chatcmpl-new",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": "One two.",
                    "refusal": "No.",
                    "reasoning_content": "Hm.",
                    "reasoning_details": [
                        {
                            "type": "reasoning.text",
                            "text": "Hm.",
                            "signature": "c2ln",
                            "format": "anthropic-claude-v1",
                            "index": 0,
                        },
                        {
                            "type": "reasoning.encrypted",
                            "data": "r t4 t4 c i",
                            "format": "aiproxy-order-v1",
                            "index": 1,
                        },
                    ],
                    "annotations": [
                        {
                            "type": "url_citation",
                            "url_citation": {
                                "start_index": 4,
                                "end_index": 8,
                                "url": "https://a.example",
                                "title": "",
                            },
                        },
                        {
                            "type": "url_citation",
                            "url_citation": {
                                "start_index": 1,
                                "end_index": 2,
                                "url": "",
                                "title": "t",
                                "quote": "q",
                            },
                        },
                    ],
                    "images": [{"type": "image_url", "image_url": {"url": PNG_URL}}],
                    "tool_calls": [
                        {
                            "id": "a",
                            "type": "function",
                            "function": {"name": "f", "arguments": '{"a":1}'},
                            "extra_content": {"google": {"thought_signature": "c2ln"}},
                        }
                    ],
                },
                "logprobs": None,
                "finish_reason": "tool_calls",
            }
        ],
        "usage": {
            "prompt_tokens": 9,
            "completion_tokens": 5,
            "total_tokens": 14,
            "prompt_tokens_details": {
                "cached_tokens": 4,
                "audio_tokens": 1,
                "cache_write_tokens": 2,
            },
            "completion_tokens_details": {"reasoning_tokens": 3, "audio_tokens": 1},
        },
    }


@pytest.mark.parametrize(
    ("stop", "called", "word"),
    [
        (StopReason.END, False, "stop"),
        (StopReason.END, True, "tool_calls"),
        (StopReason.OTHER, False, "stop"),
        (StopReason.OTHER, True, "tool_calls"),
        (StopReason.TOOLS, True, "tool_calls"),
        (StopReason.LENGTH, True, "length"),
        (StopReason.FILTER, True, "content_filter"),
    ],
)
def test_an_answer_that_calls_tools_says_so(stop: StopReason, called: bool, word: str) -> None:
    assert responses.finish_reason(stop, called) == word


def test_an_answer_that_only_calls_has_no_content() -> None:
    answer = Response(id="x", model="m", blocks=(ToolCall("a", "f", "{}"),), stop=StopReason.TOOLS)
    reported = json.loads(OPENAI_CHAT.encode_response(answer, Request(model="m", messages=())))
    assert reported["choices"][0]["message"]["content"] is None
    assert "usage" not in reported


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (None, None),
        ([], None),
        ({}, Usage()),
        (
            {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14},
            Usage(input=9, output=5),
        ),
        (
            {
                "prompt_tokens": 9,
                "completion_tokens": 5,
                "total_tokens": 14,
                "prompt_tokens_details": {
                    "cached_tokens": 4,
                    "audio_tokens": 1,
                    "cache_write_tokens": 2,
                },
                "completion_tokens_details": {"reasoning_tokens": 3, "audio_tokens": 2},
            },
            Usage(
                input=9,
                output=5,
                cache_read=4,
                cache_write=2,
                reasoning=3,
                audio_input=1,
                audio_output=2,
            ),
        ),
        (
            {"prompt_tokens": 9, "completion_tokens": 5, "prompt_tokens_details": None},
            Usage(input=9, output=5),
        ),
        # xAI: thoughts beside the completion
        (
            {
                "prompt_tokens": 9,
                "completion_tokens": 5,
                "total_tokens": 34,
                "completion_tokens_details": {"reasoning_tokens": 20},
            },
            Usage(input=9, output=25, reasoning=20),
        ),
        # DeepSeek, Mistral, and others
        (
            {"prompt_tokens": 9, "completion_tokens": 5, "prompt_cache_hit_tokens": 4},
            Usage(input=9, output=5, cache_read=4),
        ),
        (
            {"prompt_tokens": 9, "completion_tokens": 5, "num_cached_tokens": 4},
            Usage(input=9, output=5, cache_read=4),
        ),
        (
            {"prompt_tokens": 9, "completion_tokens": 5, "reasoning_tokens": 2},
            Usage(input=9, output=5, reasoning=2),
        ),
        ({"prompt_tokens": None, "completion_tokens": "5"}, Usage(output=5)),
        ({"prompt_tokens": 12.0, "completion_tokens": 5.5}, Usage(input=12)),
    ],
)
def test_usage_is_read_in_every_format(usage: Any, expected: Usage | None) -> None:
    assert OPENAI_CHAT.decode_response(completion({"content": "x"}, usage=usage)).usage == expected
