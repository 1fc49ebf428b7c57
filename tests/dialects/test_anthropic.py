from __future__ import annotations

import json
import re
from typing import Any

import msgspec
import pytest

from asgi_aiproxy.dialects import ANTHROPIC_MESSAGES, Anthropic, Operation
from asgi_aiproxy.errors import APIError, ErrorKind
from asgi_aiproxy.messages import (
    Citation,
    Media,
    Message,
    Opaque,
    Output,
    Reasoning,
    Refusal,
    Request,
    Response,
    StopReason,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    Usage,
)
from tests.asking import HI, anthropic, asked, gemini, openai, written

MESSAGES = Operation("messages", "/v1/messages", chat=True)
PNG = "iVBORw0KGgo="
GIF = "R0lGODlh"
JPEG = "/9j/4AAQ"
WEBP = "UklGRiQAAABXRUJQVlA4IA=="
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
CACHE = {"cache_control": {"type": "ephemeral"}}
MARKED = {"anthropic": {"cache_control": {"type": "ephemeral"}}}
SONNET_4 = "claude-sonnet-4-20250514"
OPUS_46 = "claude-opus-4-6"
OPUS_47 = "claude-opus-4-7"


# ── paths, and what passes through ───────────────────────────────────────────


@pytest.mark.parametrize(
    ("method", "path", "known"),
    [
        ("POST", "/v1/messages", True),
        ("GET", "/v1/messages", False),
        ("POST", "/v1/messages/", False),
        ("POST", "/v1/complete", False),
    ],
)
def test_paths_mean_operations(method: str, path: str, known: bool) -> None:
    assert (ANTHROPIC_MESSAGES.match(method, path) is not None) is known


def test_routing_reads_model_and_streaming_and_passes_the_rest() -> None:
    body = {"model": "m", "max_tokens": 1, "messages": HI, "stream": True, "unknown": {"a": 1}}
    head = ANTHROPIC_MESSAGES.summarize(MESSAGES, json.dumps(body).encode())
    assert (head.model, head.stream, head.usage_wanted) == ("m", True, True)
    draft = ANTHROPIC_MESSAGES.native_request(MESSAGES, "other", head.fields, stream=True)
    assert draft.path == "/v1/messages"
    assert json.loads(msgspec.json.encode(draft.body)) == {**body, "model": "other"}


@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        (b"", None, "could not be read as JSON"),
        (b"[]", None, "must be a JSON object"),
        (b'{"model":"\xff"}', None, "not valid UTF-8"),
        (b'{"model":"m","messages":[],"x":"\\ud83d"}', None, "half of a surrogate pair"),
        (b'{"model":"m"}', "messages", "Missing required parameter"),
        (b'{"model":"m","messages":"Hi"}', "messages", "expected an array"),
        (b'{"messages":[]}', "model", "Missing required parameter"),
        (b'{"model":"m","messages":[],"stream":1}', "stream", "Invalid type"),
    ],
)
def test_a_body_that_can_not_be_routed_is_refused_by_name(
    body: bytes, param: str | None, message: str
) -> None:
    with pytest.raises(APIError, match=message) as caught:
        ANTHROPIC_MESSAGES.summarize(MESSAGES, body)
    assert (caught.value.kind, caught.value.param) == (ErrorKind.INVALID, param)


def test_models_are_listed() -> None:
    draft = ANTHROPIC_MESSAGES.models_request()
    assert (draft.path, draft.query) == ("/v1/models", "limit=1000")
    assert ANTHROPIC_MESSAGES.decode_models(b'{"data":[{"id":"a"},{"id":"b"}]}') == ("a", "b")


# ── requests to neutral ──────────────────────────────────────────────────────


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
def test_what_a_user_says_and_shows(content: Any, parts: tuple[Any, ...]) -> None:
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
def test_what_the_assistant_said(content: Any, parts: tuple[Any, ...]) -> None:
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


TOOL = {"name": "weather", "description": "The weather.", "input_schema": SCHEMA}


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
            "not a whole part of type 'text'",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image", "source": "a.png"}]}]},
            "messages[0].content[0]",
            "not a whole part of type 'image'",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "tool_result"}]}]},
            "messages[0].content[0]",
            "not a whole part of type 'tool_result'",
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
        ({"system": [{"type": "image"}]}, "system[0]", "not a whole part"),
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
def test_a_request_that_can_not_be_understood_is_refused_by_name(
    members: dict[str, Any], param: str, message: str
) -> None:
    with pytest.raises(APIError) as caught:
        asked("anthropic", {"model": "m", "messages": HI, **members})
    assert (caught.value.kind, caught.value.param) == (ErrorKind.INVALID, param)
    assert message in caught.value.message


# ── neutral to requests ──────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "body",
    [
        {
            "system": "A",
            "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}],
        },
        {
            "system": [{"type": "text", "text": "A"}, {"type": "text", "text": "B", **CACHE}],
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "Hi", **CACHE}]},
                {
                    "role": "assistant",
                    "content": [
                        {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"},
                        {"type": "redacted_thinking", "data": "cmVk"},
                        {"type": "text", "text": "4"},
                        {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}},
                        {
                            "type": "web_search_tool_result",
                            "tool_use_id": "s",
                            "content": [
                                {"type": "web_search_result", "url": "u", "page_age": None}
                            ],
                        },
                        {"type": "tool_use", "id": "a", "name": "f", "input": {"a": [1, "é"]}},
                        {"type": "tool_use", "id": "b", "name": "g", "input": {}},
                    ],
                },
                {
                    "role": "user",
                    "content": [
                        {"type": "tool_result", "tool_use_id": "a", "content": "x", **CACHE},
                        {
                            "type": "tool_result",
                            "tool_use_id": "b",
                            "content": [
                                {"type": "text", "text": "see"},
                                {
                                    "type": "image",
                                    "source": {"type": "url", "url": "https://a.example/a.png"},
                                },
                            ],
                            "is_error": True,
                        },
                        {"type": "text", "text": "And?"},
                    ],
                },
            ],
        },
        {
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {
                            "type": "image",
                            "source": {
                                "type": "base64",
                                "media_type": "image/webp",
                                "data": WEBP,
                            },
                        },
                        {
                            "type": "document",
                            "source": {
                                "type": "base64",
                                "media_type": "application/pdf",
                                "data": "JVBERg==",
                            },
                            "title": "a.pdf",
                        },
                        {
                            "type": "document",
                            "source": {"type": "text", "media_type": "text/plain", "data": "Hi"},
                        },
                    ],
                }
            ],
            "tools": [
                {
                    **TOOL,
                    "strict": True,
                    "input_schema": {**SCHEMA, "additionalProperties": False},
                    **CACHE,
                },
                {"name": "f", "input_schema": {"type": "object", "properties": {}}},
            ],
            "tool_choice": {"type": "tool", "name": "weather", "disable_parallel_tool_use": True},
        },
        {
            "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}],
            "output_config": {
                "format": {
                    "type": "json_schema",
                    "schema": {**SCHEMA, "additionalProperties": False},
                }
            },
            "temperature": 0.5,
            "top_k": 5,
            "stop_sequences": ["a"],
            "metadata": {"user_id": "u"},
            "stream": True,
            "container": "c",
            "context_management": {"edits": []},
        },
        {
            "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}],
            "thinking": {"type": "enabled", "budget_tokens": 2048},
        },
    ],
)
def test_a_request_read_and_written_again_is_the_same(body: dict[str, Any]) -> None:
    body = {"model": "claude-sonnet-4-5", "max_tokens": 9000, **body}
    draft = written("anthropic", asked("anthropic", body), "claude-sonnet-4-5")
    assert draft.path == "/v1/messages"
    assert draft.body == body
    assert draft.ignored == ()
    assert draft.headers == {}


def body_of(request: Request, model: str = SONNET_4) -> dict[str, Any]:
    return dict(written("anthropic", request, model).body)


def said(content: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": content}]


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


CALL_A = {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}}
CALL_B = {"id": "b", "type": "function", "function": {"name": "g", "arguments": ""}}
USE_A = {"type": "tool_use", "id": "a", "name": "f", "input": {"x": 1}}
USE_B = {"type": "tool_use", "id": "b", "name": "g", "input": {}}


@pytest.mark.parametrize(
    ("messages", "system", "turns"),
    [
        (HI, None, said([text("Hi")])),
        # instructions at the beginning
        (
            [
                {"role": "system", "content": "A"},
                {"role": "developer", "content": [text("B"), text("")]},
                *HI,
            ],
            "A\n\nB",
            said([text("Hi")]),
        ),
        (
            [{"role": "system", "content": [{**text("A"), **CACHE}, text("B")]}, *HI],
            [{**text("A"), **CACHE}, text("B")],
            said([text("Hi")]),
        ),
        # turns alternate, and none is empty
        (
            [*HI, {"role": "user", "content": "there"}, {"role": "assistant", "content": ""}],
            None,
            said([text("Hi"), text("there")]),
        ),
        ([*HI, {"role": "user", "content": "  "}], None, said([text("Hi")])),
        # a beginning for the answer must not end in white space
        (
            [*HI, {"role": "assistant", "content": "Well, "}],
            None,
            [*said([text("Hi")]), {"role": "assistant", "content": [text("Well,")]}],
        ),
        # the results of calls come first, all in one turn
        (
            [
                *HI,
                {"role": "assistant", "content": "Both.", "tool_calls": [CALL_A, CALL_B]},
                {"role": "tool", "tool_call_id": "a", "content": "x"},
                {"role": "user", "content": "And?"},
                {"role": "tool", "tool_call_id": "b", "content": [text("y"), text("z")]},
            ],
            None,
            [
                *said([text("Hi")]),
                {"role": "assistant", "content": [text("Both."), USE_A, USE_B]},
                *said(
                    [
                        {"type": "tool_result", "tool_use_id": "a", "content": "x"},
                        {"type": "tool_result", "tool_use_id": "b", "content": "yz"},
                        text("And?"),
                    ]
                ),
            ],
        ),
        (
            [{"role": "assistant", "refusal": "No."}, *HI],
            None,
            [{"role": "assistant", "content": [text("No.")]}, *said([text("Hi")])],
        ),
        # what is shown
        (
            said(
                [
                    text("See"),
                    {"type": "image_url", "image_url": {"url": "https://a.example/a.png"}},
                ]
            ),
            None,
            said(
                [
                    text("See"),
                    {"type": "image", "source": {"type": "url", "url": "https://a.example/a.png"}},
                ]
            ),
        ),
        (
            said([{"type": "image_url", "image_url": {"url": f"data:image/gif;base64,{GIF}"}}]),
            None,
            said(
                [
                    {
                        "type": "image",
                        "source": {"type": "base64", "media_type": "image/gif", "data": GIF},
                    }
                ]
            ),
        ),
        (
            said(
                [
                    {
                        "type": "file",
                        "file": {
                            "file_data": "data:application/pdf;base64,JVBERg==",
                            "filename": "a.pdf",
                        },
                    },
                    {"type": "file", "file": {"file_data": "data:text/csv;base64,YSxi"}},
                ]
            ),
            None,
            said(
                [
                    {
                        "type": "document",
                        "source": {
                            "type": "base64",
                            "media_type": "application/pdf",
                            "data": "JVBERg==",
                        },
                        "title": "a.pdf",
                    },
                    {
                        "type": "document",
                        "source": {"type": "text", "media_type": "text/plain", "data": "a,b"},
                    },
                ]
            ),
        ),
        (
            [
                {"role": "assistant", "tool_calls": [CALL_A]},
                {
                    "role": "tool",
                    "tool_call_id": "a",
                    "content": [
                        text("see"),
                        {"type": "image_url", "image_url": {"url": "https://a.example/a.png"}},
                    ],
                },
            ],
            None,
            [
                {"role": "assistant", "content": [USE_A]},
                *said(
                    [
                        {
                            "type": "tool_result",
                            "tool_use_id": "a",
                            "content": [
                                text("see"),
                                {
                                    "type": "image",
                                    "source": {"type": "url", "url": "https://a.example/a.png"},
                                },
                            ],
                        }
                    ]
                ),
            ],
        ),
    ],
)
def test_a_conversation_in_openais_words(
    messages: list[dict[str, Any]], system: Any, turns: list[dict[str, Any]]
) -> None:
    body = body_of(openai(messages))
    assert body["messages"] == turns
    assert body.get("system") == system


@pytest.mark.parametrize(
    ("media_type", "data", "expected"),
    [
        ("image/*", JPEG, "image/jpeg"),
        ("image/jpg", JPEG, "image/jpeg"),
        ("image/png", JPEG, "image/jpeg"),
        ("application/octet-stream", "R0lGODlh", "image/gif"),
        ("", WEBP, "image/webp"),
        ("image/*", PNG, "image/png"),
        ("image/webp", PNG, "image/png"),
    ],
)
@pytest.mark.parametrize("kind", ["image", "document"])
def test_an_image_is_sent_as_what_its_bytes_are(
    kind: Any, media_type: str, data: str, expected: str
) -> None:
    image = Media(kind=kind, media_type=media_type, data=data)
    body = body_of(Request(model="m", messages=(Message("user", (image,)),)))
    source = {"type": "base64", "media_type": expected, "data": data}
    assert body["messages"][0]["content"] == [{"type": "image", "source": source}]


@pytest.mark.parametrize(
    ("media_type", "data", "named"),
    [
        ("image/png", "PHN2ZyB4bWxucz0iaHR0cDovL3d3dy53My5vcmcvMjAwMC9zdmciLz4=", "svg"),
        ("image/svg+xml", "PHN2ZyB4bWxucz0iaHR0cDovL3d3dy53My5vcmcvMjAwMC9zdmciLz4=", "svg"),
        ("image/tiff", "SUkqAAgAAAA=", "tiff"),
        ("image/bmp", "aGVsbG8=", "bmp"),
        ("image/*", "aGVsbG8=", "unknown"),
    ],
)
def test_an_image_that_anthropic_does_not_take_is_refused_by_its_member(
    media_type: str, data: str, named: str
) -> None:
    image = {"type": "image_url", "image_url": {"url": f"data:{media_type};base64,{data}"}}
    for message in (
        {"role": "user", "content": [text("See"), image]},
        {"role": "tool", "tool_call_id": "a", "content": [text("See"), image]},
    ):
        with pytest.raises(APIError, match=named) as caught:
            body_of(openai([*HI, message]))
        assert (caught.value.kind, caught.value.param) == (
            ErrorKind.INVALID,
            "messages[1].content[1]",
        )


def test_a_document_that_is_no_pdf_is_refused_by_its_member() -> None:
    docx = {"file_data": "data:application/msword;base64,0M8R4A==", "filename": "a.doc"}
    with pytest.raises(APIError, match="msword") as caught:
        body_of(openai(said([{"type": "file", "file": docx}])))
    assert caught.value.param == "messages[0].content[0]"


def test_a_pdf_is_a_document_also_where_an_image_was_announced() -> None:
    pdf = {"url": "data:image/png;base64,JVBERi0xLjcK"}
    body = body_of(openai(said([{"type": "image_url", "image_url": pdf}])))
    source = {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0xLjcK"}
    assert body["messages"][0]["content"] == [{"type": "document", "source": source}]


@pytest.mark.parametrize(
    "user",
    ["jane.roe@example.org", "+49 30 1234567", "030-1234567", "Jane Roe", "Jané", "x" * 300],
)
def test_a_user_is_told_by_a_hash_where_the_name_says_who_it_is(user: str) -> None:
    draft = written("anthropic", openai(user=user))
    told = draft.body["metadata"]["user_id"]
    assert re.fullmatch("[0-9a-f]{64}", told)
    assert told == written("anthropic", openai(user=user)).body["metadata"]["user_id"]
    assert told != written("anthropic", openai(user=user + "x")).body["metadata"]["user_id"]


@pytest.mark.parametrize("user", ["team-1", "u", "123e4567-e89b-12d3-a456-426614174000", "123456"])
def test_a_user_that_tells_nothing_is_sent_as_it_is(user: str) -> None:
    assert written("anthropic", openai(user=user)).body["metadata"] == {"user_id": user}


@pytest.mark.parametrize("members", [{}, {"reasoning_effort": "low"}, {"max_tokens": 3000}])
def test_instructions_alone_are_the_users_words(members: dict[str, Any]) -> None:
    body = body_of(openai([{"role": "system", "content": "A"}], **members))
    assert body["messages"] == said([text("A")])
    assert "system" not in body


def test_files_need_a_header() -> None:
    file = Media(kind="document", file="file_1")
    draft = written("anthropic", Request(model="m", messages=(Message("user", (file,)),)))
    assert draft.body["messages"][0]["content"][0]["source"] == {
        "type": "file",
        "file_id": "file_1",
    }
    assert draft.headers == {"anthropic-beta": "files-api-2025-04-14"}


@pytest.mark.parametrize("kind", ["audio", "video"])
def test_sound_and_video_are_refused(kind: Any) -> None:
    with pytest.raises(APIError, match=f"take no {kind}") as caught:
        body_of(Request(model="m", messages=(Message("user", (Media(kind=kind, data="A"),)),)))
    assert caught.value.kind is ErrorKind.INVALID


def test_ids_of_calls_are_made_of_what_anthropic_takes() -> None:
    call = {**CALL_A, "id": "call:1/é"}
    turns = body_of(
        openai(
            [
                {"role": "assistant", "tool_calls": [call]},
                {"role": "tool", "tool_call_id": "call:1/é", "content": "x"},
            ]
        )
    )["messages"]
    assert turns[0]["content"][0]["id"] == turns[1]["content"][0]["tool_use_id"] == "call_1__"


@pytest.mark.parametrize("language", ["anthropic", "gemini", "ollama"])
@pytest.mark.parametrize("arguments", ["null", "", " ", " null\n", "{}"])
def test_a_call_without_arguments_has_none_however_its_client_writes_that(
    arguments: str, language: str
) -> None:
    call = {**CALL_A, "function": {"name": "f", "arguments": arguments}}
    result = {"role": "tool", "tool_call_id": "a", "content": "x"}
    draft = written(language, openai([*HI, {"role": "assistant", "tool_calls": [call]}, result]))
    sent = json.dumps(draft.body)
    assert any(f'"{name}": {{}}' in sent for name in ("input", "args", "arguments"))
    assert draft.ignored == ()


@pytest.mark.parametrize("arguments", ["[1]", '{"a":', "hello"])
def test_arguments_that_are_no_object_go_along_as_text(arguments: str) -> None:
    call = ToolCall("a", "f", arguments)
    draft = written("anthropic", Request(model="m", messages=(Message("assistant", (call, call)),)))
    assert draft.body["messages"][0]["content"][0]["input"] == {"arguments": arguments}
    assert draft.ignored == ("tool_calls[].function.arguments",)


OPENAI_TOOLS = [
    {"type": "function", "function": {"name": "f", "description": "F.", "parameters": SCHEMA}},
    {"type": "function", "function": {"name": "g"}},
    {"type": "function", "function": {"name": "h", "parameters": {"properties": {}}}},
]
EMPTY = {"type": "object", "properties": {}}


def test_tools_have_a_schema_of_an_object() -> None:
    assert body_of(openai(tools=OPENAI_TOOLS))["tools"] == [
        {"name": "f", "description": "F.", "input_schema": SCHEMA},
        {"name": "g", "input_schema": EMPTY},
        {"name": "h", "input_schema": {"type": "object", "properties": {}}},
    ]


def named(*names: str) -> list[dict[str, Any]]:
    return [{"type": "function", "function": {"name": name}} for name in names]


def allowed(mode: str, *names: str) -> dict[str, Any]:
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": named(*names)}}


@pytest.mark.parametrize(
    ("members", "choice", "tools"),
    [
        ({}, None, "fgh"),
        ({"tool_choice": "auto"}, {"type": "auto"}, "fgh"),
        ({"tool_choice": "none"}, {"type": "none"}, "fgh"),
        ({"tool_choice": "required"}, {"type": "any"}, "fgh"),
        ({"tool_choice": named("g")[0]}, {"type": "tool", "name": "g"}, "fgh"),
        ({"tool_choice": allowed("auto", "g")}, {"type": "auto"}, "g"),
        ({"tool_choice": allowed("auto", "f", "g")}, {"type": "auto"}, "fg"),
        ({"tool_choice": allowed("required", "f", "h")}, {"type": "any"}, "fh"),
        ({"tool_choice": allowed("required", "f")}, {"type": "tool", "name": "f"}, "fgh"),
        ({"parallel_tool_calls": True}, None, "fgh"),
        (
            {"parallel_tool_calls": False},
            {"type": "auto", "disable_parallel_tool_use": True},
            "fgh",
        ),
        (
            {"parallel_tool_calls": False, "tool_choice": "required"},
            {"type": "any", "disable_parallel_tool_use": True},
            "fgh",
        ),
        ({"parallel_tool_calls": False, "tool_choice": "none"}, {"type": "none"}, "fgh"),
    ],
)
def test_the_choice_of_tools(members: dict[str, Any], choice: Any, tools: str) -> None:
    body = body_of(openai(tools=OPENAI_TOOLS, **members))
    assert body.get("tool_choice") == choice
    assert "".join(tool["name"] for tool in body["tools"]) == tools


def test_a_choice_without_tools_is_none() -> None:
    body = body_of(openai(tool_choice="auto", parallel_tool_calls=False))
    assert "tools" not in body
    assert "tool_choice" not in body


def test_strict_tools_need_a_model_that_knows_them() -> None:
    function = {"name": "f", "parameters": SCHEMA, "strict": True}
    request = openai(tools=[{"type": "function", "function": function}] * 2)
    new = written("anthropic", request, "claude-haiku-4-5")
    assert new.body["tools"][0] == {
        "name": "f",
        "strict": True,
        "input_schema": {**SCHEMA, "additionalProperties": False},
    }
    assert new.ignored == ()
    old = written("anthropic", request, SONNET_4)
    assert old.body["tools"][0] == {"name": "f", "input_schema": SCHEMA}
    assert old.ignored == ("tools[].function.strict",)


def test_json_of_a_schema_is_asked_for_with_closed_objects() -> None:
    schema = {
        "type": "object",
        "properties": {
            "list": {"type": "array", "items": {"properties": {"a": {"type": "integer"}}}},
            "one": {"anyOf": [{"type": "object", "properties": {}}, {"type": "null"}]},
            "any": True,
        },
        "$defs": {"d": {"type": "object"}},
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    body = body_of(openai(response_format=wanted), "claude-sonnet-4-5")
    assert body["output_config"] == {
        "format": {
            "type": "json_schema",
            "schema": {
                "type": "object",
                "additionalProperties": False,
                "properties": {
                    "list": {
                        "type": "array",
                        "items": {
                            "properties": {"a": {"type": "integer"}},
                            "additionalProperties": False,
                        },
                    },
                    "one": {
                        "anyOf": [
                            {"type": "object", "properties": {}, "additionalProperties": False},
                            {"type": "null"},
                        ]
                    },
                    "any": True,
                },
                "$defs": {"d": {"type": "object", "additionalProperties": False}},
            },
        }
    }


def test_json_without_a_schema_is_asked_for_in_words() -> None:
    draft = written(
        "anthropic",
        openai([{"role": "system", "content": "A"}, *HI], response_format={"type": "json_object"}),
    )
    assert draft.body["system"] == "A\n\nAnswer with a single JSON object and nothing else."
    assert draft.ignored == ("response_format",)


# ── thinking, per generation ─────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("members", "model", "thinking", "max_tokens"),
    [
        ({}, SONNET_4, None, 32_000),
        ({"reasoning_effort": "none"}, SONNET_4, None, 32_000),
        ({"reasoning_effort": "minimal"}, SONNET_4, 1024, 32_000),
        ({"reasoning_effort": "low"}, SONNET_4, 2048, 32_000),
        ({"reasoning_effort": "medium"}, SONNET_4, 8192, 32_000),
        ({"reasoning_effort": "high"}, SONNET_4, 16384, 32_000),
        ({"reasoning_effort": "xhigh"}, SONNET_4, 24576, 32_000),
        ({"reasoning": {"max_tokens": 3000}}, SONNET_4, 3000, 32_000),
        ({"reasoning": {"max_tokens": 50_000}}, SONNET_4, 50_000, 54_096),
        ({"thinking": {"type": "enabled", "budget_tokens": 3000}}, SONNET_4, 3000, 32_000),
        # within what the caller allows, and the answer keeps a share
        ({"reasoning_effort": "high", "max_tokens": 5000}, SONNET_4, 3750, 5000),
        ({"reasoning_effort": "high", "max_completion_tokens": 18_000}, SONNET_4, 13_904, 18_000),
        ({"reasoning_effort": "low", "max_tokens": 5000}, SONNET_4, 2048, 5000),
        # below Anthropic's least: not at all
        ({"reasoning_effort": "high", "max_tokens": 1000}, SONNET_4, "reasoning_effort", 1000),
        ({"reasoning": {"max_tokens": 100}}, SONNET_4, "thinking.budget_tokens", 32_000),
    ],
)
def test_older_models_think_within_a_budget(
    members: dict[str, Any], model: str, thinking: Any, max_tokens: int
) -> None:
    draft = written("anthropic", openai(**members), model)
    assert draft.body["max_tokens"] == max_tokens
    if isinstance(thinking, int):
        assert draft.body["thinking"] == {"type": "enabled", "budget_tokens": thinking}
        assert draft.ignored == ()
    else:
        assert "thinking" not in draft.body
        assert draft.ignored == ((thinking,) if thinking else ())


@pytest.mark.parametrize(
    ("members", "model", "effort"),
    [
        ({"reasoning_effort": "minimal"}, OPUS_46, "low"),
        ({"reasoning_effort": "low"}, OPUS_46, "low"),
        ({"reasoning_effort": "medium"}, OPUS_46, "medium"),
        ({"reasoning_effort": "high"}, OPUS_46, "high"),
        ({"reasoning_effort": "xhigh"}, OPUS_46, "high"),
        ({"reasoning_effort": "xhigh"}, OPUS_47, "xhigh"),
        ({"reasoning_effort": "max"}, OPUS_46, "max"),
        ({"reasoning_effort": "max"}, OPUS_47, "max"),
        ({"reasoning_effort": "max"}, "claude-sonnet-4-6", "max"),
        ({"reasoning": {"max_tokens": 2000}}, OPUS_46, "low"),
        ({"reasoning": {"max_tokens": 8000}}, OPUS_46, "medium"),
        ({"reasoning": {"max_tokens": 30000}}, OPUS_46, "high"),
        ({"thinking": {"type": "adaptive"}}, OPUS_46, "high"),
    ],
)
def test_newer_models_think_with_an_effort(
    members: dict[str, Any], model: str, effort: str
) -> None:
    body = body_of(openai(**members), model)
    assert body["thinking"]["type"] == "adaptive"
    assert body["output_config"] == {"effort": effort}


def test_thoughts_are_shown_unless_they_are_not_wanted() -> None:
    assert body_of(openai(reasoning_effort="low"), OPUS_47)["thinking"] == {
        "type": "adaptive",
        "display": "summarized",
    }
    hidden = openai(reasoning={"effort": "low", "exclude": True})
    assert body_of(hidden, OPUS_47)["thinking"] == {"type": "adaptive"}
    assert body_of(openai(reasoning_effort="low"), OPUS_46)["thinking"] == {"type": "adaptive"}


def test_effort_and_a_schema_stand_side_by_side() -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "string"}}}
    body = body_of(openai(reasoning_effort="low", response_format=wanted), OPUS_46)
    assert body["output_config"] == {
        "format": {"type": "json_schema", "schema": {"type": "string"}},
        "effort": "low",
    }


SIGNED = {"reasoning_details": [{"type": "reasoning.text", "text": "Hm.", "signature": "c2ln"}]}
RESULT = {"role": "tool", "tool_call_id": "a", "content": "x"}


@pytest.mark.parametrize(
    ("messages", "thinks"),
    [
        (HI, True),
        # in the midst of a turn whose thoughts were lost Anthropic refuses to think
        ([*HI, {"role": "assistant", "tool_calls": [CALL_A]}, RESULT], False),
        ([*HI, {"role": "assistant", "tool_calls": [CALL_A], **SIGNED}, RESULT], True),
        (
            [
                *HI,
                {"role": "assistant", "tool_calls": [CALL_A]},
                RESULT,
                {"role": "user", "content": "?"},
            ],
            True,
        ),
        ([*HI, {"role": "assistant", "content": "Hello"}, *HI], True),
        ([{"role": "assistant", "content": "Hello"}], True),
        ([RESULT], True),
    ],
)
def test_thinking_in_the_midst_of_a_turn_needs_its_thoughts(
    messages: list[dict[str, Any]], thinks: bool
) -> None:
    draft = written("anthropic", openai(messages, reasoning_effort="low"), SONNET_4)
    assert ("thinking" in draft.body) is thinks
    assert draft.ignored == (() if thinks else ("reasoning_effort",))


# ── sampling, per generation ─────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("members", "model", "sampling", "ignored"),
    [
        ({"temperature": 0.5}, SONNET_4, {"temperature": 0.5}, ()),
        ({"temperature": 0}, SONNET_4, {"temperature": 0}, ()),
        ({"temperature": 1.5}, SONNET_4, {"temperature": 1}, ("temperature",)),
        (
            {"temperature": 0.5, "top_p": 0.9, "top_k": 5},
            SONNET_4,
            {"temperature": 0.5, "top_p": 0.9, "top_k": 5},
            (),
        ),
        # from Opus 4.1 on one excludes the other
        (
            {"temperature": 0.5, "top_p": 0.9},
            "claude-opus-4-1",
            {"temperature": 0.5},
            ("top_p",),
        ),
        ({"top_p": 0.9}, "claude-sonnet-4-5", {"top_p": 0.9}, ()),
        # from Opus 4.7 on there is none
        ({"temperature": 0.5, "top_p": 0.9}, OPUS_47, {}, ("temperature", "top_p")),
        ({"temperature": 1, "top_p": 1}, OPUS_47, {}, ()),
        ({"top_k": 5}, OPUS_47, {}, ("top_k",)),
        # nor beside thinking
        ({"temperature": 0.5, "reasoning_effort": "low"}, SONNET_4, {}, ("temperature",)),
        ({"temperature": 1, "reasoning_effort": "low"}, SONNET_4, {}, ()),
        ({"temperature": 1, "reasoning_effort": "none"}, SONNET_4, {"temperature": 1}, ()),
        # what Claude never had
        ({"seed": 0}, SONNET_4, {}, ("seed",)),
        ({"presence_penalty": 0, "frequency_penalty": 0}, SONNET_4, {}, ()),
        (
            {"presence_penalty": 1, "frequency_penalty": -1},
            SONNET_4,
            {},
            ("presence_penalty", "frequency_penalty"),
        ),
    ],
)
def test_sampling_keeps_to_what_a_model_takes(
    members: dict[str, Any], model: str, sampling: dict[str, Any], ignored: tuple[str, ...]
) -> None:
    draft = written("anthropic", openai(**members), model)
    names = ("temperature", "top_p", "top_k")
    assert {n: draft.body[n] for n in names if n in draft.body} == sampling
    assert draft.ignored == ignored


def test_the_callers_limit_is_kept() -> None:
    assert body_of(openai(max_tokens=5))["max_tokens"] == 5


def test_stop_words_of_white_space_are_left_out_and_reported() -> None:
    draft = written("anthropic", openai(stop=["a", "\n\n"]))
    assert draft.body["stop_sequences"] == ["a"]
    assert draft.ignored == ("stop",)
    assert written("anthropic", openai(stop="a")).ignored == ()


def test_what_anthropic_has_no_word_for_is_reported() -> None:
    draft = written(
        "anthropic",
        openai([{"role": "user", "content": "Hi", "name": "bob"}], store=True, logit_bias={"1": 1}),
    )
    assert draft.ignored == ("store", "logit_bias", "messages[].name")
    google = gemini(
        [{"role": "model", "parts": [{"executableCode": {"code": "x"}}, {"text": "a"}]}],
        safetySettings=[],
        generationConfig={"mediaResolution": "LOW"},
    )
    draft = written("anthropic", google)
    assert draft.ignored == (
        "safetySettings",
        "generationConfig.mediaResolution",
        "messages[].content",
    )
    assert draft.body["messages"] == [{"role": "assistant", "content": [text("a")]}]


def test_log_probabilities_are_reported() -> None:
    for language in ("anthropic", "ollama"):
        draft = written(language, openai(logprobs=True, top_logprobs=3))
        assert draft.ignored == ("logprobs", "top_logprobs")
        assert written(language, openai(logprobs=False, top_logprobs=0)).ignored == ()


DRAWN = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}


@pytest.mark.parametrize(
    "drawn",
    [
        {"content": "See", "images": [DRAWN]},
        {"content": [text("See"), DRAWN]},
    ],
)
def test_pictures_that_a_model_drew_are_reported(drawn: dict[str, Any]) -> None:
    """Claude's turns hold none, and would be refused with them."""
    draft = written("anthropic", openai([*HI, {"role": "assistant", **drawn}, *HI]))
    assert draft.body["messages"][1] == {"role": "assistant", "content": [text("See")]}
    assert draft.ignored == ("messages[].images",)


def test_pictures_that_a_model_drew_are_read_with_their_signature() -> None:
    google = {"extra_content": {"google": {"thought_signature": "c2ln"}}}
    message = {"role": "assistant", "content": None, "images": [{**DRAWN, **google}]}
    (said,) = openai([message]).messages
    signed = {"gemini": {"signature": "c2ln"}}
    image = Media(kind="image", media_type="image/png", data=PNG, extra=signed)
    assert said == Message("assistant", (image,))


# ── answers ──────────────────────────────────────────────────────────────────


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
def test_a_whole_answer_is_read(content: list[Any], blocks: tuple[Any, ...]) -> None:
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
def test_why_an_answer_ended(
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
def test_usage_is_read(usage: Any, expected: Usage | None) -> None:
    found = ANTHROPIC_MESSAGES.decode_response(answer([], usage=usage))
    assert found.usage == expected
    if expected is not None:
        told = ANTHROPIC_MESSAGES.encode_response(found, Request(model="m", messages=()))
        assert ANTHROPIC_MESSAGES.decode_response(told).usage == expected


def test_cached_tokens_beyond_the_input_do_not_make_it_negative() -> None:
    usage = Usage(input=5, cache_read=9)
    found = Response(id="x", model="m", usage=usage)
    told = json.loads(ANTHROPIC_MESSAGES.encode_response(found, Request(model="m", messages=())))
    assert told["usage"]["input_tokens"] == 0


@pytest.mark.parametrize(
    ("body", "kind", "message"),
    [
        (b"", ErrorKind.UPSTREAM, "200 without a body"),
        (b"<html>Oops</html>", ErrorKind.UPSTREAM, "200: Oops"),
        (b'{"type":"message"}', ErrorKind.UPSTREAM, "holds no content"),
        (b'{"content":1}', ErrorKind.UPSTREAM, "holds no content"),
        (
            b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}',
            ErrorKind.OVERLOADED,
            "Overloaded",
        ),
        (b'{"error":{"type":"api_error","message":"m"}}', ErrorKind.UPSTREAM, "m"),
    ],
)
def test_a_body_that_is_no_answer_is_an_error(body: bytes, kind: ErrorKind, message: str) -> None:
    with pytest.raises(APIError) as caught:
        ANTHROPIC_MESSAGES.decode_response(body)
    assert caught.value.kind is kind
    assert message in caught.value.message
    if message != "holds no content":  # which is not asked of an answer that passes
        with pytest.raises(APIError) as caught:
            ANTHROPIC_MESSAGES.native_stream(usage_wanted=True, exact=True).whole(body)
        assert caught.value.kind is kind


def test_a_whole_answer_is_written() -> None:
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
def test_why_an_answer_ended_in_anthropics_words(
    stop: StopReason, word: str, called: bool, reason: str
) -> None:
    blocks = (ToolCall("a", "f", "{}"),) if called else ()
    found = Response(id="x", model="m", blocks=blocks, stop=stop, word=word)
    told = json.loads(ANTHROPIC_MESSAGES.encode_response(found, Request(model="m", messages=())))
    assert told["stop_reason"] == reason


def test_a_refusal_says_why() -> None:
    found = Response(id="x", model="m", stop=StopReason.FILTER, refusal="Unsafe.")
    told = json.loads(ANTHROPIC_MESSAGES.encode_response(found, Request(model="m", messages=())))
    assert told["stop_details"]["explanation"] == "Unsafe."


def test_a_passing_answer_is_read_for_model_and_usage() -> None:
    body = answer([text("Hi.")], usage={"input_tokens": 3, "output_tokens": 5})
    echo = ANTHROPIC_MESSAGES.native_stream(usage_wanted=True, exact=True)
    assert echo.whole(body) == body
    assert (echo.model, echo.usage) == ("claude-test", Usage(input=3, output=5))

    silent = ANTHROPIC_MESSAGES.native_stream(usage_wanted=True, exact=True)
    silent.whole(answer([text("Hi.")]))
    assert silent.usage is None


# ── errors ───────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("status", "type_", "kind", "out"),
    [
        (400, "invalid_request_error", ErrorKind.INVALID, 400),
        (401, "authentication_error", ErrorKind.KEY_REJECTED, 502),
        (402, "billing_error", ErrorKind.KEY_REJECTED, 502),
        (403, "permission_error", ErrorKind.KEY_REJECTED, 502),
        (404, "not_found_error", ErrorKind.NOT_FOUND, 404),
        (413, "request_too_large", ErrorKind.TOO_LARGE, 413),
        (429, "rate_limit_error", ErrorKind.LIMITED, 429),
        (500, "api_error", ErrorKind.UPSTREAM, 502),
        (504, "timeout_error", ErrorKind.TIMEOUT, 504),
        (529, "overloaded_error", ErrorKind.OVERLOADED, 503),
        # the word says more than a 400
        (400, "authentication_error", ErrorKind.KEY_REJECTED, 502),
        (422, "overloaded_error", ErrorKind.OVERLOADED, 503),
        (400, "newer_error", ErrorKind.INVALID, 400),
        (400, 7, ErrorKind.INVALID, 400),
        # the status says more than a word
        (529, "api_error", ErrorKind.OVERLOADED, 503),
    ],
)
def test_an_error_answer_is_understood(status: int, type_: Any, kind: ErrorKind, out: int) -> None:
    body = {"type": "error", "error": {"type": type_, "message": "So."}, "request_id": "req_1"}
    error = ANTHROPIC_MESSAGES.decode_error(status, json.dumps(body).encode())
    assert (error.kind, error.status, error.message) == (kind, out, "So.")
    assert error.upstream_status == status


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "The provider answered HTTP 500 without a body"),
        (b"<h1>Oops</h1>", "The provider answered HTTP 500: Oops"),
        (b'{"message":"m"}', '{"message":"m"}'),
        (b'{"error":"m"}', '{"error":"m"}'),
        (b'{"error":{"message":""}}', '{"error":{"message":""}}'),
    ],
)
def test_an_error_of_another_shape_is_understood(body: bytes, message: str) -> None:
    error = ANTHROPIC_MESSAGES.decode_error(500, body)
    assert (error.kind, error.message) == (ErrorKind.UPSTREAM, message)


@pytest.mark.parametrize("kind", ErrorKind)
def test_every_error_has_anthropics_form(kind: ErrorKind) -> None:
    error = APIError(kind, "So.")
    told = json.loads(ANTHROPIC_MESSAGES.encode_error(error))
    assert told == {"type": "error", "error": {"type": told["error"]["type"], "message": "So."}}
    frame = b"event: error\ndata: " + ANTHROPIC_MESSAGES.encode_error(error) + b"\n\n"
    assert ANTHROPIC_MESSAGES.encode_stream_error(error) == frame
    with pytest.raises(APIError) as caught:
        ANTHROPIC_MESSAGES.decoder().feed(ANTHROPIC_MESSAGES.encode_error(error))
    expected = {
        ErrorKind.UNAUTHORIZED: ErrorKind.KEY_REJECTED,
        ErrorKind.FORBIDDEN: ErrorKind.KEY_REJECTED,
        ErrorKind.KEY_REJECTED: ErrorKind.UPSTREAM,
        ErrorKind.INTERNAL: ErrorKind.UPSTREAM,
    }
    assert caught.value.kind is expected.get(kind, kind)
