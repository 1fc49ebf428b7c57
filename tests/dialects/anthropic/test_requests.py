"""Requests: Anthropic's format to the neutral one."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from asgi_aiproxy.dialects import ANTHROPIC_MESSAGES
from asgi_aiproxy.errors import APIError, ErrorKind
from asgi_aiproxy.messages import (
    Media,
    Message,
    Opaque,
    Output,
    Reasoning,
    Request,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from tests.dialects.anthropic.samples import (
    CACHE,
    MARKED,
    PNG,
    SCHEMA,
    TOOL,
)
from tests.support.dialect_requests import HI, anthropic, decode_client_request


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("Hi", (Text("Hi"),)),
        ([], ()),
        ([{"type": "text", "text": "a", **CACHE}], (Text("a", extra=MARKED),)),
        ([{"type": "text", "text": "a", "citations": None}], (Text("a"),)),
        (
            [
                {
                    "type": "image",
                    "source": {"type": "base64", "media_type": "image/png", "data": PNG},
                    **CACHE,
                }
            ],
            (Media(kind="image", media_type="image/png", data=PNG, extra=MARKED),),
        ),
        (
            [{"type": "image", "source": {"type": "url", "url": "https://a.example/a.png"}}],
            (Media(kind="image", url="https://a.example/a.png"),),
        ),
        (
            [{"type": "image", "source": {"type": "file", "file_id": "file_1"}}],
            (Media(kind="image", file="file_1"),),
        ),
        (
            [
                {
                    "type": "document",
                    "title": "a.pdf",
                    "context": "c",
                    "citations": {"enabled": True},
                    "source": {
                        "type": "base64",
                        "media_type": "application/pdf",
                        "data": "JVBERg==",
                    },
                }
            ],
            (Media(kind="document", media_type="application/pdf", data="JVBERg==", name="a.pdf"),),
        ),
        (
            [
                {
                    "type": "document",
                    "source": {"type": "text", "media_type": "text/plain", "data": "Hi"},
                }
            ],
            (Media(kind="document", media_type="text/plain", text="Hi"),),
        ),
        (
            [
                {
                    "type": "document",
                    "source": {
                        "type": "content",
                        "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
                    },
                }
            ],
            (Media(kind="document", media_type="text/plain", text="a\nb"),),
        ),
        (
            [
                {"type": "tool_result", "tool_use_id": "a", "content": "sunny", **CACHE},
                {"type": "tool_result", "tool_use_id": "b", "is_error": True},
                {
                    "type": "tool_result",
                    "tool_use_id": "c",
                    "content": [
                        {"type": "text", "text": "see"},
                        {
                            "type": "image",
                            "source": {"type": "base64", "media_type": "image/png", "data": PNG},
                        },
                        {
                            "type": "search_result",
                            "source": "https://a.example",
                            "title": "t",
                            "content": [{"type": "text", "text": "x"}],
                        },
                        {"type": "tool_reference", "tool_name": "f"},
                        {"type": "tool_use", "id": "x", "name": "f", "input": {}},
                    ],
                },
            ],
            (
                ToolResult("a", (Text("sunny"),), extra=MARKED),
                ToolResult("b", (Text(""),), error=True),
                ToolResult(
                    "c",
                    (
                        Text("see"),
                        Media(kind="image", media_type="image/png", data=PNG),
                        Text(
                            '{"type":"search_result","source":"https://a.example","title":"t",'
                            '"content":[{"type":"text","text":"x"}]}'
                        ),
                        Text('{"type":"tool_reference","tool_name":"f"}'),
                        Text('{"type":"tool_use","id":"x","name":"f","input":{}}'),
                    ),
                ),
            ),
        ),
        # what only Anthropic understands stays whole
        (
            [{"type": "search_result", "source": "https://a.example", "title": "t", "content": []}],
            (
                Opaque(
                    "anthropic",
                    {
                        "type": "search_result",
                        "source": "https://a.example",
                        "title": "t",
                        "content": [],
                    },
                ),
            ),
        ),
        (
            [{"type": "container_upload", "file_id": "f", "newer": {"a": 1}}],
            (Opaque("anthropic", {"type": "container_upload", "file_id": "f", "newer": {"a": 1}}),),
        ),
    ],
)
def test_content_of_user_messages_is_decoded(content: Any, parts: tuple[Any, ...]) -> None:
    request = anthropic([{"role": "user", "content": content}])
    assert request.messages == (Message("user", parts),)


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("Yes.", (Text("Yes."),)),
        (
            [
                {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"},
                {"type": "thinking", "thinking": "So.", "signature": ""},
                {"type": "redacted_thinking", "data": "cmVk"},
                {"type": "text", "text": "4"},
                {"type": "tool_use", "id": "a", "name": "f", "input": {"a": "é"}, **CACHE},
                {"type": "tool_use", "id": "b", "name": "g", "input": {}},
            ],
            (
                Reasoning("Hm.", {"anthropic": {"signature": "c2ln"}}),
                Reasoning("So."),
                Reasoning("", {"anthropic": {"redacted": "cmVk"}}),
                Text("4"),
                ToolCall("a", "f", '{"a":"é"}', MARKED),
                ToolCall("b", "g", "{}"),
            ),
        ),
        (
            [
                {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"q": "x"}},
                {
                    "type": "web_search_tool_result",
                    "tool_use_id": "s",
                    "content": [{"type": "web_search_result", "encrypted_content": "ZW5j"}],
                },
            ],
            (
                Opaque(
                    "anthropic",
                    {
                        "type": "server_tool_use",
                        "id": "s",
                        "name": "web_search",
                        "input": {"q": "x"},
                    },
                ),
                Opaque(
                    "anthropic",
                    {
                        "type": "web_search_tool_result",
                        "tool_use_id": "s",
                        "content": [{"type": "web_search_result", "encrypted_content": "ZW5j"}],
                    },
                ),
            ),
        ),
    ],
)
def test_content_of_assistant_messages_is_decoded(content: Any, parts: tuple[Any, ...]) -> None:
    request = anthropic([{"role": "assistant", "content": content}])
    assert request.messages == (Message("assistant", parts),)


def test_the_system_prompt_comes_first() -> None:
    assert anthropic(system="A").messages[0] == Message("system", (Text("A"),))
    marked = [{"type": "text", "text": "A"}, {"type": "text", "text": "B", **CACHE}]
    assert anthropic(system=marked).messages[0] == Message(
        "system", (Text("A"), Text("B", extra=MARKED))
    )
    assert anthropic(system="").messages == anthropic().messages
    between = anthropic([*HI, {"role": "system", "content": "From now on"}])
    assert between.messages[1] == Message("system", (Text("From now on"),))


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({}, {}),
        (
            {"tools": [TOOL, {"type": "custom", "name": "f", "strict": True, **CACHE}]},
            {
                "tools": (
                    Tool(name="weather", description="The weather.", schema=SCHEMA),
                    Tool(name="f", strict=True, extra=MARKED),
                )
            },
        ),
        ({"tool_choice": {"type": "auto"}}, {"tool_choice": ToolChoice("auto")}),
        ({"tool_choice": {"type": "none"}}, {"tool_choice": ToolChoice("none")}),
        (
            {"tool_choice": {"type": "any", "disable_parallel_tool_use": True}},
            {"tool_choice": ToolChoice("required"), "parallel_tools": False},
        ),
        (
            {"tool_choice": {"type": "tool", "name": "f"}},
            {"tool_choice": ToolChoice("required", ("f",))},
        ),
        (
            {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}},
            {"output": Output(schema=SCHEMA)},
        ),
        (
            {"output_format": {"type": "json_schema", "schema": SCHEMA}},
            {"output": Output(schema=SCHEMA)},
        ),
        ({"thinking": {"type": "disabled"}}, {"thinking": Thinking(effort="none")}),
        (
            {"thinking": {"type": "enabled", "budget_tokens": 2048}},
            {"thinking": Thinking(budget=2048)},
        ),
        ({"thinking": {"type": "adaptive"}}, {"thinking": Thinking(effort="high")}),
        (
            {
                "thinking": {"type": "adaptive", "display": "omitted"},
                "output_config": {"effort": "low"},
            },
            {"thinking": Thinking(effort="low", summary=False)},
        ),
        (
            {"thinking": {"type": "adaptive", "display": "summarized"}},
            {"thinking": Thinking(effort="high", summary=True)},
        ),
        ({"output_config": {"effort": "max"}}, {"thinking": Thinking(effort="max")}),
        (
            {
                "temperature": 0.5,
                "top_p": 0.9,
                "top_k": 5,
                "stop_sequences": ["a", "b"],
                "metadata": {"user_id": "u"},
                "stream": True,
            },
            {
                "temperature": 0.5,
                "top_p": 0.9,
                "top_k": 5,
                "stop": ("a", "b"),
                "user": "u",
                "stream": True,
            },
        ),
        (
            {"container": "c", "service_tier": "auto", "mcp_servers": None},
            {"extra": {"anthropic": {"container": "c", "service_tier": "auto"}}},
        ),
    ],
)
def test_parameters_get_their_neutral_meaning(
    members: dict[str, Any], expected: dict[str, Any]
) -> None:
    plain = Request(model="m", messages=(Message("user", (Text("Hi"),)),), max_tokens=100)
    assert anthropic(**members) == msgspec.structs.replace(plain, **expected)


@pytest.mark.parametrize(
    ("members", "param", "message"),
    [
        ({"model": 7}, "model", "Invalid type"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "Missing required"),
        ({"messages": [{"role": "user", "content": 7}]}, "messages[0].content", "Invalid type"),
        (
            {"messages": [*HI, {"role": "user", "content": [{"text": "a"}]}]},
            "messages[1].content[0].type",
            "Missing required",
        ),
        ({"max_tokens": "many"}, "max_tokens", "Invalid type"),
        ({"messages": [{"role": "robot", "content": "Hi"}]}, "messages[0].role", "'robot'"),
        (
            {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
            "messages[0].content[0]",
            "incomplete part of type 'text'",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image", "source": "a.png"}]}]},
            "messages[0].content[0]",
            "incomplete part of type 'image'",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "tool_result"}]}]},
            "messages[0].content[0]",
            "incomplete part of type 'tool_result'",
        ),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "image", "source": {"type": "smell"}}]}
                ]
            },
            "messages[0].content[0].source",
            "known type",
        ),
        (
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [{"type": "tool_result", "tool_use_id": "a", "content": {}}],
                    }
                ]
            },
            "messages[0].content[0].content",
            "expected a string or a list",
        ),
        ({"system": [{"type": "image"}]}, "system[0]", "incomplete part"),
        ({"tools": [{"description": "d"}]}, "tools[0].name", "Missing required"),
        (
            {"tools": [TOOL, {"type": "web_search_20250305", "name": "web_search"}]},
            "tools[1].type",
            "web_search_20250305",
        ),
        ({"tool_choice": {"type": "tool"}}, "tool_choice.type", "'tool'"),
        ({"tool_choice": {"type": "some"}}, "tool_choice.type", "'some'"),
        ({"tool_choice": "auto"}, "tool_choice", "Invalid type"),
    ],
)
def test_an_invalid_request_is_refused_with_the_name_of_the_member(
    members: dict[str, Any], param: str, message: str
) -> None:
    with pytest.raises(APIError) as caught:
        decode_client_request("anthropic", {"model": "m", "messages": HI, **members})
    assert (caught.value.kind, caught.value.param) == (ErrorKind.INVALID, param)
    assert message in caught.value.message


@pytest.mark.parametrize(
    "thread",
    [{"type": "create"}, {"type": "continue", "previous_message_id": "msg_1"}, "create"],
    ids=str,
)
def test_a_thread_is_refused_with_the_code_on_which_the_sdk_sends_the_whole(thread: Any) -> None:
    with pytest.raises(APIError) as caught:
        anthropic(thread=thread)
    assert (caught.value.status, caught.value.param) == (400, "thread")
    error = json.loads(ANTHROPIC_MESSAGES.encode_error(caught.value))["error"]
    assert error["type"] == "invalid_request_error"
    assert error["details"] == {"error_code": "thread_unsupported_request"}


def test_a_request_without_a_thread_is_read() -> None:
    assert anthropic(thread=None) == anthropic()
