"""Requests: OpenAI's format to the neutral one."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from asgi_aiproxy.errors import APIError, ErrorKind
from asgi_aiproxy.messages import (
    Media,
    Message,
    Output,
    Reasoning,
    Refusal,
    Request,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from tests.dialects.openai_chat.samples import (
    CLOCK,
    NAMED,
    PNG,
    PNG_URL,
    SCHEMA,
    WEATHER,
    call,
)
from tests.support.dialect_requests import HI, decode_client_request, openai, written


def user(*parts: Any) -> tuple[Message, ...]:
    return (Message("user", parts),)


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("Hi", (Text("Hi"),)),
        ("", (Text(""),)),
        (None, ()),
        ([], ()),
        ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], (Text("a"), Text("b"))),
        ([{"text": "a"}], (Text("a"),)),
        ([{"type": "input_text", "text": "a"}], (Text("a"),)),
        (
            [{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}],
            (Text("a", extra={"anthropic": {"cache_control": {"type": "ephemeral"}}}),),
        ),
        (
            [{"type": "image_url", "image_url": {"url": "https://a.example/a.png"}}],
            (Media(kind="image", url="https://a.example/a.png"),),
        ),
        (
            [{"type": "image_url", "image_url": {"url": PNG_URL, "detail": "low"}}],
            (
                Media(
                    kind="image",
                    media_type="image/png",
                    data=PNG,
                    extra={"openai": {"detail": "low"}},
                ),
            ),
        ),
        (
            [{"type": "image_url", "image_url": PNG_URL}],
            (Media(kind="image", media_type="image/png", data=PNG),),
        ),
        (
            [{"type": "image_url", "image_url": {"url": f"data:;base64,{PNG}"}}],
            (Media(kind="image", media_type="image/*", data=PNG),),
        ),
        (
            [{"type": "image_url", "image_url": {"url": "data:image/svg+xml,%3Csvg/%3E"}}],
            (Media(kind="image", media_type="image/svg+xml", data="PHN2Zy8+"),),
        ),
        (
            [{"type": "video_url", "video_url": {"url": "gs://bucket/a.mp4"}}],
            (Media(kind="video", url="gs://bucket/a.mp4"),),
        ),
        (
            [{"type": "input_audio", "input_audio": {"data": "AAAA", "format": "mp3"}}],
            (Media(kind="audio", media_type="audio/mpeg", data="AAAA"),),
        ),
        (
            [{"type": "input_audio", "input_audio": {"data": "AAAA", "format": "flac"}}],
            (Media(kind="audio", media_type="audio/flac", data="AAAA"),),
        ),
        (
            [{"type": "file", "file": {"file_id": "file-1", "filename": "a.pdf"}}],
            (Media(kind="document", file="file-1", name="a.pdf"),),
        ),
        (
            [
                {
                    "type": "file",
                    "file": {"file_data": "data:application/pdf;base64,JVBERg=="},
                }
            ],
            (Media(kind="document", media_type="application/pdf", data="JVBERg=="),),
        ),
        (
            [{"type": "file", "file": {"file_data": "JVBERg==", "filename": "a.pdf"}}],
            (Media(kind="document", media_type="application/pdf", data="JVBERg==", name="a.pdf"),),
        ),
    ],
)
def test_content_of_user_messages_is_decoded(content: Any, parts: tuple[Any, ...]) -> None:
    assert openai([{"role": "user", "content": content}]).messages == user(*parts)


def test_system_and_developer_are_one_role() -> None:
    request = openai(
        [
            {"role": "system", "content": "A"},
            {"role": "user", "content": "Hi", "name": "bob"},
            {"role": "developer", "content": [{"type": "text", "text": "B"}]},
        ]
    )
    assert request.messages == (
        Message("system", (Text("A"),)),
        Message("user", (Text("Hi"),), "bob"),
        Message("system", (Text("B"),)),
    )


@pytest.mark.parametrize(
    ("message", "parts"),
    [
        ({"content": "Yes."}, (Text("Yes."),)),
        ({"content": ""}, ()),
        ({}, ()),
        ({"content": [{"type": "output_text", "text": "Yes."}]}, (Text("Yes."),)),
        ({"content": None, "refusal": "No."}, (Refusal("No."),)),
        ({"content": [{"type": "refusal", "refusal": "No."}]}, (Refusal("No."),)),
        (
            {"content": "Both.", "tool_calls": [call(), call("call_2", '{"a":1}', "f")]},
            (
                Text("Both."),
                ToolCall("call_1", "weather", "{}"),
                ToolCall("call_2", "f", '{"a":1}'),
            ),
        ),
        # arguments are passed on as they are, and read where they come parsed
        ({"tool_calls": [call(arguments="")]}, (ToolCall("call_1", "weather", ""),)),
        ({"tool_calls": [call(arguments=None)]}, (ToolCall("call_1", "weather", ""),)),
        ({"tool_calls": [call(arguments='{"a"')]}, (ToolCall("call_1", "weather", '{"a"'),)),
        ({"tool_calls": [call(arguments={"a": 1})]}, (ToolCall("call_1", "weather", '{"a":1}'),)),
        (
            {
                "tool_calls": [
                    {"id": "c", "type": "custom", "custom": {"name": "sh", "input": "ls"}}
                ]
            },
            (ToolCall("c", "sh", '{"input":"ls"}'),),
        ),
        (
            {
                "tool_calls": [
                    {**call(), "extra_content": {"google": {"thought_signature": "c2ln"}}},
                    {**call("call_2"), "extra_content": {"google": None}},
                    {**call("call_3"), "extra_content": {"other": 1}},
                ]
            },
            (
                ToolCall("call_1", "weather", "{}", {"gemini": {"signature": "c2ln"}}),
                ToolCall("call_2", "weather", "{}"),
                ToolCall("call_3", "weather", "{}"),
            ),
        ),
        # thoughts, in all the places where clients put them
        ({"content": "4", "reasoning_content": "Hm."}, (Reasoning("Hm."), Text("4"))),
        ({"content": "4", "reasoning": "Hm."}, (Reasoning("Hm."), Text("4"))),
        (
            {
                "content": [
                    {"type": "thinking", "thinking": [{"type": "text", "text": "Hm"}, {"x": 1}, 7]},
                    {"type": "thinking", "thinking": "."},
                    {"type": "thinking", "thinking": 7},
                    {"type": "text", "text": "4"},
                ]
            },
            (Reasoning("Hm"), Reasoning("."), Reasoning(""), Text("4")),
        ),
    ],
)
def test_content_of_assistant_messages_is_decoded(
    message: dict[str, Any], parts: tuple[Any, ...]
) -> None:
    (said,) = openai([{"role": "assistant", **message}]).messages
    assert said == Message("assistant", parts)


def test_results_have_the_name_of_their_call() -> None:
    request = openai(
        [
            {"role": "assistant", "tool_calls": [call("a"), call("b", name="clock")]},
            {"role": "tool", "tool_call_id": "b", "content": "12:00"},
            {
                "role": "tool",
                "tool_call_id": "a",
                "content": [
                    {"type": "text", "text": "so"},
                    {"type": "image_url", "image_url": {"url": PNG_URL}},
                ],
            },
            {"role": "tool", "tool_call_id": "c", "name": "lost", "content": None},
        ]
    )
    assert request.messages[1:] == (
        Message("user", (ToolResult("b", (Text("12:00"),), "clock"),)),
        Message(
            "user",
            (
                ToolResult(
                    "a",
                    (Text("so"), Media(kind="image", media_type="image/png", data=PNG)),
                    "weather",
                ),
            ),
        ),
        Message("user", (ToolResult("c", (), "lost"),)),
    )


def test_legacy_functions_become_tools() -> None:
    request = openai(
        [
            *HI,
            {"role": "assistant", "function_call": {"name": "weather", "arguments": "{}"}},
            {"role": "function", "name": "weather", "content": "sunny"},
            {"role": "assistant", "function_call": {"name": "clock", "arguments": '{"a":1}'}},
            {"role": "function", "name": "clock", "content": "12:00"},
        ],
        functions=[WEATHER["function"]],
        function_call={"name": "weather"},
    )
    assert request.messages[1:] == (
        Message("assistant", (ToolCall("call_1", "weather", "{}"),)),
        Message("user", (ToolResult("call_1", (Text("sunny"),), "weather"),)),
        Message("assistant", (ToolCall("call_2", "clock", '{"a":1}'),)),
        Message("user", (ToolResult("call_2", (Text("12:00"),), "clock"),)),
    )
    assert request.tools == (Tool(name="weather", description="The weather.", schema=SCHEMA),)
    assert request.tool_choice == ToolChoice("required", ("weather",))


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({}, {}),
        (
            {"tools": [WEATHER, CLOCK]},
            {
                "tools": (
                    Tool(name="weather", description="The weather.", schema=SCHEMA),
                    Tool(name="clock"),
                )
            },
        ),
        (
            {"tools": [{"type": "function", "function": {"name": "f", "strict": True}}]},
            {"tools": (Tool(name="f", strict=True),)},
        ),
        (
            {"tools": [{**CLOCK, "cache_control": {"type": "ephemeral"}}]},
            {
                "tools": (
                    Tool(
                        name="clock", extra={"anthropic": {"cache_control": {"type": "ephemeral"}}}
                    ),
                )
            },
        ),
        ({"tool_choice": "auto"}, {"tool_choice": ToolChoice("auto")}),
        ({"tool_choice": "none"}, {"tool_choice": ToolChoice("none")}),
        ({"tool_choice": "required"}, {"tool_choice": ToolChoice("required")}),
        ({"tool_choice": "any"}, {"tool_choice": ToolChoice("required")}),
        ({"tool_choice": NAMED}, {"tool_choice": ToolChoice("required", ("weather",))}),
        (
            {"tool_choice": {"type": "function", "name": "weather"}},
            {"tool_choice": ToolChoice("required", ("weather",))},
        ),
        (
            {
                "tool_choice": {
                    "type": "allowed_tools",
                    "allowed_tools": {"mode": "auto", "tools": [NAMED]},
                }
            },
            {"tool_choice": ToolChoice("auto", ("weather",))},
        ),
        (
            {
                "tool_choice": {
                    "type": "allowed_tools",
                    "allowed_tools": {"mode": "required", "tools": [NAMED, {"name": "clock"}]},
                }
            },
            {"tool_choice": ToolChoice("required", ("weather", "clock"))},
        ),
        ({"parallel_tool_calls": False}, {"parallel_tools": False}),
        ({"response_format": {"type": "text"}}, {}),
        ({"response_format": {"type": "json_object"}}, {"output": Output()}),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {
                        "name": "a",
                        "description": "b",
                        "schema": SCHEMA,
                        "strict": True,
                    },
                }
            },
            {"output": Output(schema=SCHEMA, name="a", description="b", strict=True)},
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "a"}}},
            {"output": Output(schema={}, name="a")},
        ),
        ({"max_tokens": 5}, {"max_tokens": 5}),
        ({"max_completion_tokens": 6}, {"max_tokens": 6}),
        ({"max_tokens": 5, "max_completion_tokens": 6}, {"max_tokens": 6}),
        ({"stop": "a"}, {"stop": ("a",)}),
        ({"stop": ["a", "b"]}, {"stop": ("a", "b")}),
        ({"stop": None}, {}),
        (
            {
                "temperature": 0,
                "top_p": 0.5,
                "top_k": 3,
                "seed": 0,
                "presence_penalty": 1,
                "frequency_penalty": -1,
                "user": "u",
            },
            {
                "temperature": 0.0,
                "top_p": 0.5,
                "top_k": 3,
                "seed": 0,
                "presence_penalty": 1.0,
                "frequency_penalty": -1.0,
                "user": "u",
            },
        ),
        ({"stream": True}, {"stream": True}),
        (
            {"stream": True, "stream_options": {"include_usage": True}},
            {"stream": True, "stream_usage": True},
        ),
        # thinking, in four vocabularies
        ({"reasoning_effort": "low"}, {"thinking": Thinking(effort="low")}),
        ({"reasoning_effort": "none"}, {"thinking": Thinking(effort="none")}),
        ({"reasoning": {"effort": "high"}}, {"thinking": Thinking(effort="high")}),
        (
            {"reasoning": {"max_tokens": 2000, "exclude": True}},
            {"thinking": Thinking(budget=2000, summary=False)},
        ),
        ({"reasoning": {"exclude": False}}, {"thinking": Thinking(summary=True)}),
        ({"reasoning": {"enabled": False}}, {"thinking": Thinking(effort="none")}),
        ({"reasoning": {"effort": "none"}}, {"thinking": Thinking(effort="none")}),
        ({"thinking": {"type": "disabled"}}, {"thinking": Thinking(effort="none")}),
        (
            {"thinking": {"type": "enabled", "budget_tokens": 5000}},
            {"thinking": Thinking(budget=5000)},
        ),
        (
            {"thinking": {"type": "adaptive"}, "reasoning_effort": "low"},
            {"thinking": Thinking(effort="low")},
        ),
        # what only means something to OpenAI is kept under its name
        (
            {
                "store": True,
                "metadata": {"a": "b"},
                "logit_bias": None,
                "n": 1,
                "logprobs": False,
                "modalities": ["text"],
                "provider": "groq",
            },
            {"extra": {"openai_chat": {"store": True, "metadata": {"a": "b"}}}},
        ),
    ],
)
def test_parameters_get_their_neutral_meaning(
    members: dict[str, Any], expected: dict[str, Any]
) -> None:
    plain = Request(model="m", messages=user(Text("Hi")), stream_usage=False)
    assert openai(**members) == msgspec.structs.replace(plain, **expected)


@pytest.mark.parametrize(
    ("members", "param", "message"),
    [
        # what is not of this shape at all
        ({"messages": [{"content": "Hi"}]}, "messages[0].role", "Missing required"),
        ({"messages": [{"role": "user", "content": 7}]}, "messages[0].content", "Invalid type"),
        ({"messages": [*HI, "Hi"]}, "messages[1]", "Invalid type"),
        ({"messages": {"role": "user"}}, "messages", "Invalid type"),
        ({"temperature": "hot"}, "temperature", "Invalid type for 'temperature': expected"),
        ({"max_tokens": 1.5}, "max_tokens", "Invalid type"),
        ({"stop": [1]}, "stop[0]", "Invalid type"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name", "Missing"),
        ({"tools": {"type": "function"}}, "tools", "Invalid type"),
        ({"response_format": {}}, "response_format.type", "Missing required"),
        ({"tool_choice": 7}, "tool_choice", "Invalid type"),
        # what does not exist
        ({"messages": [{"role": "robot", "content": "Hi"}]}, "messages[0].role", "'robot'"),
        (
            {"messages": [{"role": "user", "content": [{"type": "smell"}]}]},
            "messages[0].content[0]",
            "of type 'smell'",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
            "messages[0].content[0]",
            "of type 'text'",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "text": "x"}]}]},
            "messages[0].content[0]",
            "of type 'image_url'",
        ),
        (
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [{"type": "image_url", "image_url": {"url": "a.png"}}],
                    }
                ]
            },
            "messages[0].content[0].image_url.url",
            "Expected a URL",
        ),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "image_url", "image_url": "file:///etc"}]}
                ]
            },
            "messages[0].content[0].image_url",
            "Expected a URL",
        ),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "file", "file": {"file_data": ""}}]}
                ]
            },
            "messages[0].content[0]",
            "Expected a URL",
        ),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"id": "a"}]}]},
            "messages[0].tool_calls[0].function",
            "Missing required",
        ),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f"}}]}]},
            "messages[0].tool_calls[0].id",
            "Missing required",
        ),
        (
            {"messages": [{"role": "tool", "content": "x"}]},
            "messages[0].tool_call_id",
            "Missing required",
        ),
        (
            {
                "messages": [
                    {
                        "role": "tool",
                        "tool_call_id": "a",
                        "content": [{"type": "refusal", "refusal": "no"}],
                    }
                ]
            },
            "messages[0].content",
            "text or media",
        ),
        ({"tool_choice": "sometimes"}, "tool_choice", "'sometimes'"),
        ({"tool_choice": {"type": "function"}}, "tool_choice", "tool_choice.function.name"),
        (
            {
                "tool_choice": {
                    "type": "allowed_tools",
                    "allowed_tools": {"mode": "auto", "tools": [7]},
                }
            },
            "tool_choice",
            "tool_choice.function.name",
        ),
        ({"response_format": {"type": "xml"}}, "response_format.type", "'xml'"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema", "Missing"),
        ({"tools": [{"type": "function"}]}, "tools[0].function", "Missing required"),
        # what exists with OpenAI alone
        ({"tools": [{"type": "custom", "custom": {"name": "sh"}}]}, "tools[0].type", "'custom'"),
        ({"n": 2}, "n", "must be 1"),
        ({"modalities": ["text", "audio"]}, "modalities", "Audio output"),
        ({"audio": {"voice": "alloy", "format": "wav"}}, "modalities", "Audio output"),
    ],
)
def test_an_invalid_request_is_refused_with_the_name_of_the_member(
    members: dict[str, Any], param: str, message: str
) -> None:
    with pytest.raises(APIError) as caught:
        decode_client_request("openai_chat", {"model": "m", "messages": HI, **members})
    error = caught.value
    assert (error.kind, error.param) == (ErrorKind.INVALID, param)
    assert message in error.message


@pytest.mark.parametrize("body", [b"{", b"\xff", b'{"model":"m","x":' + b"[" * 10**6])
def test_a_request_that_is_not_json_is_refused(body: bytes) -> None:
    with pytest.raises(APIError, match="could not be read as JSON"):
        decode_client_request("openai_chat", body)


def test_half_a_surrogate_pair_in_a_request_does_no_harm() -> None:
    body = b'{"model":"m","messages":[{"role":"assistant","content":"\\ud83d","tool_calls":[%s]}]}'
    request = decode_client_request(
        "openai_chat", body % json.dumps(call(arguments='{"a":"\ud83d"}')).encode()
    )
    (message,) = request.messages
    assert message.parts[0] == Text("\ud83d")
    assert written("anthropic", request).body["messages"][0]["content"][1]["input"] == {
        "a": "\ud83d"
    }
