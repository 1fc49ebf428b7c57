from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings, strategies as st

from asgi_aiproxy.dialects import OPENAI_CHAT, OpenAIChat, Operation
from asgi_aiproxy.dialects.openai_chat import normalize, responses
from asgi_aiproxy.dialects.openai_chat.native_stream import (
    NormalizingNativeStream,
    OpenAINativeStream,
    openai_usage,
)
from asgi_aiproxy.errors import APIError, ErrorKind, invalid
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
from asgi_aiproxy.translate import NativeStreamTranslator
from tests import strict
from tests.asking import HI, asked, openai, written

CHAT = Operation("chat.completions", "/chat/completions", chat=True)
PNG = "iVBORw0KGgo="
PNG_URL = f"data:image/png;base64,{PNG}"
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
WEATHER = {
    "type": "function",
    "function": {"name": "weather", "description": "The weather.", "parameters": SCHEMA},
}
CLOCK = {"type": "function", "function": {"name": "clock"}}


# ── paths ────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("method", "path", "name"),
    [
        ("POST", "/v1/chat/completions", "chat.completions"),
        ("POST", "/v1/embeddings", "embeddings"),
        ("POST", "/v1/moderations", "moderations"),
        ("POST", "/v1/images/generations", "images.generations"),
        ("POST", "/v1/images/edits", "images.edits"),
        ("POST", "/v1/images/variations", "images.variations"),
        ("POST", "/v1/audio/speech", "audio.speech"),
        ("POST", "/v1/audio/transcriptions", "audio.transcriptions"),
        ("POST", "/v1/audio/translations", "audio.translations"),
        ("GET", "/v1/models", "models"),
        ("GET", "/v1/models/gpt-4o", "model"),
        ("GET", "/v1/models/", None),
        ("GET", "/v1/chat/completions", None),
        ("POST", "/v1/models", None),
        ("POST", "/chat/completions", None),
        ("POST", "/v1/chat/completions/", None),
        ("DELETE", "/v1/models/x", None),
    ],
)
def test_paths_mean_operations(method: str, path: str, name: str | None) -> None:
    found = OPENAI_CHAT.match(method, path)
    assert (found and found.name) == name


def test_only_chat_can_be_put_into_other_languages() -> None:
    chat = OPENAI_CHAT.match("POST", "/v1/chat/completions")
    assert chat is not None
    assert chat.chat
    embeddings = OPENAI_CHAT.match("POST", "/v1/embeddings")
    assert embeddings is not None
    assert not embeddings.chat


def test_the_model_in_a_path_may_hold_a_slash() -> None:
    found = OPENAI_CHAT.match("GET", "/v1/models/openai%2Fgpt%204")
    assert found is not None
    assert found.model == "openai/gpt 4"


# ── what routing reads, and what passes through ──────────────────────────────


def head(body: Any, operation: Operation = CHAT) -> Any:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return OPENAI_CHAT.summarize(operation, data)


def test_routing_reads_model_streaming_and_wishes() -> None:
    plain = head({"model": "m", "messages": HI})
    assert (plain.model, plain.stream, plain.usage_wanted, plain.provider) == (
        "m",
        False,
        False,
        "",
    )
    full = head(
        {
            "model": "m",
            "messages": HI,
            "stream": True,
            "stream_options": {"include_usage": True, "include_obfuscation": False},
            "provider": "groq",
        }
    )
    assert (full.model, full.stream, full.usage_wanted, full.provider) == ("m", True, True, "groq")
    null = head({"model": "m", "messages": HI, "stream": None, "stream_options": None})
    assert (null.stream, null.usage_wanted) == (False, False)
    # OpenRouter has an object in the place of our word.
    assert head({"model": "m", "messages": HI, "provider": {"order": ["a"]}}).provider == ""


BAD_BODIES: list[tuple[Any, str | None, str | None, str]] = [
    (b"", None, None, "could not be read as JSON"),
    (b"hello", None, None, "could not be read as JSON"),
    (b'{"model":"m",', None, None, "could not be read as JSON"),
    (b"[]", None, None, "must be a JSON object"),
    (b'"x"', None, None, "must be a JSON object"),
    (b'{"model":"\xff","messages":[]}', None, None, "not valid UTF-8"),
    (b'{"model":"m","messages":[],"x":"\\ud83d"}', None, None, "half of a surrogate pair"),
    (b'{"model":"\\ud83d\\ude00","messages":[],}', None, None, "trailing comma"),
    (b'{"model":"m","messages":' + b"[" * 10_000 + b"]" * 10_000 + b"}", None, None, "too deeply"),
    (b'{"model":"m","messages":[],"seed":NaN}', None, None, "could not be read as JSON"),
    ({"messages": HI}, "model", "missing_required_parameter", "Missing required parameter"),
    ({"model": "", "messages": HI}, "model", "missing_required_parameter", "Missing required"),
    ({"model": None, "messages": HI}, "model", "missing_required_parameter", "Missing required"),
    ({"model": 7, "messages": HI}, "model", "invalid_type", "Invalid type for 'model'"),
    ({"model": "m"}, "messages", "missing_required_parameter", "Missing required parameter"),
    ({"model": "m", "messages": "Hi"}, "messages", "invalid_type", "expected an array"),
    ({"model": "m", "messages": None}, "messages", "invalid_type", "expected an array"),
    ({"model": "m", "messages": HI, "stream": "yes"}, "stream", "invalid_type", "Invalid type"),
    ({"model": "m", "messages": HI, "stream_options": 1}, "stream_options", "invalid_type", "Inv"),
    ({"model": "m", "messages": HI, "provider": "x\n"}, None, None, ""),
]


@pytest.mark.parametrize(("body", "param", "code", "message"), BAD_BODIES[:-1])
def test_a_body_that_can_not_be_routed_is_refused_by_name(
    body: Any, param: str | None, code: str | None, message: str
) -> None:
    with pytest.raises(APIError) as caught:
        head(body)
    error = caught.value
    assert (error.kind, error.status, error.param, error.code) == (
        ErrorKind.INVALID,
        400,
        param,
        code,
    )
    assert message in error.message
    assert error.message.endswith(".")


def test_operations_that_are_no_chat_need_a_model_only() -> None:
    assert head({"model": "m"}, Operation("embeddings", "/embeddings")).model == "m"


def forward(body: dict[str, Any], model: str = "other", stream: bool = True) -> Any:
    draft = OPENAI_CHAT.native_request(CHAT, model, head(body).fields, stream=stream)
    assert draft.path == "/chat/completions"
    return json.loads(msgspec.json.encode(draft.body))


def test_a_request_passes_with_its_model_renamed_and_usage_asked_for() -> None:
    body = {"model": "m", "stream": True, "messages": HI, "unknown": {"a": [1]}}
    assert forward(body) == {
        **body,
        "model": "other",
        "stream_options": {"include_usage": True},
    }
    options = {"include_usage": False, "include_obfuscation": False}
    assert forward({**body, "stream_options": options})["stream_options"] == {
        "include_usage": True,
        "include_obfuscation": False,
    }
    assert forward({**body, "stream_options": None})["stream_options"] == {"include_usage": True}


def test_a_request_that_does_not_stream_passes_as_it_is() -> None:
    body = {"model": "m", "messages": HI, "temperature": 0.0}
    assert forward(body, "m", stream=False) == body


def test_the_wish_for_one_of_our_providers_does_not_pass_but_openrouters_does() -> None:
    body = {"model": "m", "messages": HI}
    assert "provider" not in forward({**body, "provider": "groq"})
    assert forward({**body, "provider": {"order": ["a"]}})["provider"] == {"order": ["a"]}


def test_models_are_listed() -> None:
    assert OPENAI_CHAT.models_request().path == "/models"
    listed = b'{"object":"list","data":[{"id":"a"},{"id":7},{"x":1},8,{"id":"b"}]}'
    assert OPENAI_CHAT.decode_models(listed) == ("a", "b")
    for body in (b"", b"[]", b"{}", b'{"data":{}}'):
        with pytest.raises(ValueError, match="no list"):
            OPENAI_CHAT.decode_models(body)


# ── requests to neutral ──────────────────────────────────────────────────────


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
def test_what_a_user_says_and_shows(content: Any, parts: tuple[Any, ...]) -> None:
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


def call(call_id: str = "call_1", arguments: Any = "{}", name: str = "weather") -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {"id": call_id, "type": "function", "function": function}


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
def test_what_the_assistant_said(message: dict[str, Any], parts: tuple[Any, ...]) -> None:
    (said,) = openai([{"role": "assistant", **message}]).messages
    assert said == Message("assistant", parts)


def test_results_know_the_name_of_their_call() -> None:
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


def test_functions_of_old_become_tools() -> None:
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


NAMED = {"type": "function", "function": {"name": "weather"}}


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
def test_a_request_that_can_not_be_understood_is_refused_by_name(
    members: dict[str, Any], param: str, message: str
) -> None:
    with pytest.raises(APIError) as caught:
        asked("openai_chat", {"model": "m", "messages": HI, **members})
    error = caught.value
    assert (error.kind, error.param) == (ErrorKind.INVALID, param)
    assert message in error.message


@pytest.mark.parametrize("body", [b"{", b"\xff", b'{"model":"m","x":' + b"[" * 10_000])
def test_a_request_that_is_no_json_is_refused(body: bytes) -> None:
    with pytest.raises(APIError, match="could not be read as JSON"):
        asked("openai_chat", body)


def test_half_a_pair_in_a_request_does_no_harm() -> None:
    body = b'{"model":"m","messages":[{"role":"assistant","content":"\\ud83d","tool_calls":[%s]}]}'
    request = asked("openai_chat", body % json.dumps(call(arguments='{"a":"\ud83d"}')).encode())
    (message,) = request.messages
    assert message.parts[0] == Text("\ud83d")
    assert written("anthropic", request).body["messages"][0]["content"][1]["input"] == {
        "a": "\ud83d"
    }


# ── neutral to requests ──────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "body",
    [
        {"messages": [{"role": "user", "content": "Hi", "name": "bob"}]},
        {"messages": [{"role": "system", "content": "A"}, {"role": "user", "content": "Hi"}]},
        {
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "See"},
                        {"type": "image_url", "image_url": {"url": PNG_URL, "detail": "high"}},
                        {"type": "image_url", "image_url": {"url": "https://a.example/a.png"}},
                        {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "mp3"}},
                        {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
                        {"type": "video_url", "video_url": {"url": "https://a.example/a.mp4"}},
                        {"type": "file", "file": {"file_id": "file-1"}},
                        {
                            "type": "file",
                            "file": {
                                "file_data": "data:application/pdf;base64,JVBERg==",
                                "filename": "a.pdf",
                            },
                        },
                    ],
                }
            ]
        },
        {
            "messages": [
                {"role": "user", "content": [{"type": "image_url", "image_url": {"url": PNG_URL}}]}
            ]
        },
        {
            "messages": [
                *HI,
                {"role": "assistant", "content": None, "tool_calls": [call("a"), call("b")]},
                {"role": "tool", "tool_call_id": "a", "content": "x"},
                {"role": "tool", "tool_call_id": "b", "content": "y"},
                {"role": "assistant", "content": "Well.", "name": "ann"},
                {"role": "assistant", "content": None, "refusal": "No."},
                {"role": "assistant", "content": ""},
            ]
        },
        {
            "messages": HI,
            "tools": [WEATHER, CLOCK],
            "tool_choice": NAMED,
            "parallel_tool_calls": False,
        },
        {"messages": HI, "tools": [CLOCK], "tool_choice": "none"},
        {
            "messages": HI,
            "tools": [CLOCK],
            "tool_choice": {
                "type": "allowed_tools",
                "allowed_tools": {"mode": "auto", "tools": [NAMED]},
            },
        },
        {"messages": HI, "response_format": {"type": "json_object"}},
        {
            "messages": HI,
            "response_format": {
                "type": "json_schema",
                "json_schema": {
                    "name": "a",
                    "description": "b",
                    "schema": SCHEMA,
                    "strict": False,
                },
            },
        },
        {
            "messages": HI,
            "max_completion_tokens": 5,
            "temperature": 0.5,
            "top_p": 1.0,
            "seed": 0,
            "presence_penalty": 0.0,
            "frequency_penalty": 1.5,
            "stop": ["a"],
            "user": "u",
            "reasoning_effort": "low",
        },
        {"messages": HI, "store": True, "logit_bias": {"1": 2}, "service_tier": "flex"},
        {"messages": HI, "stream": True, "stream_options": {"include_usage": True}},
    ],
)
def test_a_request_read_and_written_again_is_the_same(body: dict[str, Any]) -> None:
    body = {"model": "gpt-test", "stream": False, **body}
    draft = written("openai_chat", asked("openai_chat", body))
    assert draft.path == "/chat/completions"
    assert draft.body == body
    assert draft.ignored == ()


def openai_body(request: Request) -> dict[str, Any]:
    return dict(written("openai_chat", request).body)


def test_what_a_tool_showed_follows_its_words() -> None:
    image = Media(kind="image", media_type="image/png", data=PNG)
    request = Request(
        model="m",
        messages=(
            Message(
                "user",
                (
                    ToolResult("a", (Text("one, "), image, Text("two"))),
                    Text("And?"),
                    ToolResult("b", (Text("failed"),), error=True),
                ),
            ),
        ),
    )
    assert openai_body(request)["messages"] == [
        {"role": "tool", "tool_call_id": "a", "content": "one, two"},
        {"role": "tool", "tool_call_id": "b", "content": "failed"},
        {
            "role": "user",
            "content": [
                {"type": "image_url", "image_url": {"url": PNG_URL}},
                {"type": "text", "text": "And?"},
            ],
        },
    ]


@pytest.mark.parametrize(
    ("part", "content"),
    [
        (Media(kind="document", text="Hi", name="a.txt"), "a.txt\nHi"),
        (Media(kind="document", text="Hi"), "Hi"),
        (Media(kind="document", media_type="text/csv", data="YSxi"), "a,b"),
        (Refusal("No."), "No."),
        (Opaque("anthropic", {"type": "new"}), ""),
        (Reasoning("Hm."), ""),
    ],
)
def test_what_has_another_form_with_openai(part: Any, content: Any) -> None:
    request = Request(model="m", messages=(Message("user", (part,)),))
    assert openai_body(request)["messages"] == [{"role": "user", "content": content}]


@pytest.mark.parametrize(
    "part",
    [
        Media(kind="image", file="file_1"),
        Media(kind="video", file="file_1"),
        Media(kind="audio", url="https://a.example/a.mp3"),
        Media(kind="document", url="https://a.example/a.pdf"),
    ],
)
def test_what_openai_can_not_be_shown_is_refused(part: Media) -> None:
    with pytest.raises(APIError, match=f"takes no {part.kind} in this form") as caught:
        openai_body(Request(model="m", messages=(Message("user", (part,)),)))
    assert (caught.value.kind, caught.value.param) == (ErrorKind.INVALID, "messages")


def test_a_broken_document_is_refused() -> None:
    part = Media(kind="document", media_type="text/plain", data="a")
    with pytest.raises(APIError, match="not valid base64"):
        openai_body(Request(model="m", messages=(Message("user", (part,)),)))


@pytest.mark.parametrize(
    ("thinking", "effort"),
    [
        (Thinking(effort="minimal"), "minimal"),
        (Thinking(effort="none"), "none"),
        (Thinking(budget=1024), "low"),
        (Thinking(budget=8000), "medium"),
        (Thinking(budget=30000), "high"),
        (Thinking(effort="low", budget=30000), "low"),
        (Thinking(summary=True), None),
    ],
)
def test_a_budget_becomes_an_effort(thinking: Thinking, effort: str | None) -> None:
    request = Request(model="m", messages=(), thinking=thinking)
    assert openai_body(request).get("reasoning_effort") == effort


def test_what_openai_has_no_word_for_is_reported() -> None:
    request = Request(
        model="m",
        messages=(Message("user", (Text("a"), Opaque("gemini", {"x": 1})), "bob"),),
        top_k=5,
        tool_choice=ToolChoice("required"),
        parallel_tools=False,
        extra={"anthropic": {"container": "c", "mcp_servers": []}},
    )
    draft = written("openai_chat", request)
    assert set(draft.ignored) == {
        "container",
        "mcp_servers",
        "top_k",
        "messages[].content",
        "tool_choice",
    }
    assert "tool_choice" not in draft.body  # nothing to choose from
    assert "parallel_tool_calls" not in draft.body


def test_a_schema_without_a_name_gets_one() -> None:
    request = Request(model="m", messages=(), output=Output(schema=SCHEMA))
    named = openai_body(request)["response_format"]["json_schema"]
    assert named == {"name": "answer", "schema": SCHEMA}


# ── answers ──────────────────────────────────────────────────────────────────


def completion(message: dict[str, Any], finish: Any = "stop", **members: Any) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}
    return json.dumps(
        {"id": "chatcmpl-1", "model": "gpt-test", "choices": [choice], **members}
    ).encode()


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
def test_a_whole_answer_is_read(
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
        (b"{}", ErrorKind.UPSTREAM, "holds no choices"),
        (b'{"choices":[]}', ErrorKind.UPSTREAM, "holds no choices"),
        (b'{"choices":[{"text":"legacy"}]}', ErrorKind.UPSTREAM, "holds no choices"),
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
def test_a_body_that_is_no_answer_is_an_error(body: bytes, kind: ErrorKind, message: str) -> None:
    with pytest.raises(APIError) as caught:
        OPENAI_CHAT.decode_response(body)
    assert caught.value.kind is kind
    assert message in caught.value.message


def test_a_whole_answer_is_written() -> None:
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
    told = json.loads(OPENAI_CHAT.encode_response(answer, Request(model="m", messages=())))
    assert told["choices"][0]["message"]["content"] is None
    assert "usage" not in told


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
def test_usage_is_read_in_every_spelling(usage: Any, expected: Usage | None) -> None:
    assert OPENAI_CHAT.decode_response(completion({"content": "x"}, usage=usage)).usage == expected


# ── errors ───────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("status", "body", "kind", "out", "message", "param", "code"),
    [
        # OpenAI
        (
            400,
            {
                "error": {
                    "message": "Unsupported.",
                    "type": "invalid_request_error",
                    "param": "max_tokens",
                    "code": "unsupported_parameter",
                }
            },
            ErrorKind.INVALID,
            400,
            "Unsupported.",
            "max_tokens",
            "unsupported_parameter",
        ),
        (
            401,
            {"error": {"message": "Incorrect API key.", "code": "invalid_api_key"}},
            ErrorKind.KEY_REJECTED,
            502,
            "Incorrect API key.",
            None,
            "invalid_api_key",
        ),
        (
            404,
            {"error": {"message": "No model.", "param": None, "code": "model_not_found"}},
            ErrorKind.NOT_FOUND,
            404,
            "No model.",
            None,
            "model_not_found",
        ),
        (
            429,
            {"error": {"message": "Slow.", "type": "tokens", "code": "rate_limit_exceeded"}},
            ErrorKind.LIMITED,
            429,
            "Slow.",
            None,
            "rate_limit_exceeded",
        ),
        (
            429,
            {"error": {"message": "No money.", "code": "insufficient_quota"}},
            ErrorKind.LIMITED,
            429,
            "No money.",
            None,
            "insufficient_quota",
        ),
        (
            500,
            {"error": {"message": "Oops.", "type": "server_error", "code": None}},
            ErrorKind.UPSTREAM,
            502,
            "Oops.",
            None,
            None,
        ),
        (503, {"error": {"message": "Busy."}}, ErrorKind.OVERLOADED, 503, "Busy.", None, None),
        (413, {"error": {"message": "Large."}}, ErrorKind.TOO_LARGE, 413, "Large.", None, None),
        (422, {"error": {"message": "Odd."}}, ErrorKind.INVALID, 422, "Odd.", None, None),
        # a key that is none, whatever the status
        (
            400,
            {"error": {"message": "Bad key.", "code": "invalid_api_key"}},
            ErrorKind.KEY_REJECTED,
            502,
            "Bad key.",
            None,
            "invalid_api_key",
        ),
        (
            403,
            {"error": {"message": "Gone.", "code": "account_deactivated"}},
            ErrorKind.KEY_REJECTED,
            502,
            "Gone.",
            None,
            "account_deactivated",
        ),
        # those who nearly speak it
        (
            400,
            {
                "object": "error",
                "message": "Bad.",
                "type": "BadRequestError",
                "param": None,
                "code": 400,
            },
            ErrorKind.INVALID,
            400,
            "Bad.",
            None,
            None,
        ),
        (401, {"detail": "Unauthorized"}, ErrorKind.KEY_REJECTED, 502, "Unauthorized", None, None),
        (
            422,
            {"detail": [{"loc": ["body"], "msg": "field required"}]},
            ErrorKind.INVALID,
            422,
            "field required",
            None,
            None,
        ),
        (
            422,
            {
                "object": "error",
                "message": {"detail": [{"msg": "extra"}]},
                "type": "invalid_request_error",
            },
            ErrorKind.INVALID,
            422,
            "extra",
            None,
            None,
        ),
        (
            400,
            {"error": "Input is too long", "error_type": "validation"},
            ErrorKind.INVALID,
            400,
            "Input is too long",
            None,
            None,
        ),
        (
            400,
            {"code": "Client specified an invalid argument", "error": "Incorrect API key"},
            ErrorKind.INVALID,
            400,
            "Incorrect API key",
            None,
            "Client specified an invalid argument",
        ),
        (
            401,
            {"error": {"code": "401", "message": "Access denied."}},
            ErrorKind.KEY_REJECTED,
            502,
            "Access denied.",
            None,
            "401",
        ),
        (
            400,
            [{"error": {"code": 400, "message": "Bad name.", "status": "INVALID_ARGUMENT"}}],
            ErrorKind.INVALID,
            400,
            "Bad name.",
            None,
            None,
        ),
        (
            429,
            {
                "error": {
                    "message": "Provider returned error",
                    "code": 429,
                    "metadata": {"raw": "upstream busy", "provider_name": "X"},
                }
            },
            ErrorKind.LIMITED,
            429,
            "Provider returned error: upstream busy",
            None,
            None,
        ),
        (
            400,
            {"error": {"message": "m", "metadata": {"raw": {"a": 1}}, "param": 7, "code": 7}},
            ErrorKind.INVALID,
            400,
            "m",
            None,
            None,
        ),
        (418, {}, ErrorKind.INVALID, 418, "{}", None, None),
    ],
)
def test_an_error_answer_is_understood(
    status: int,
    body: Any,
    kind: ErrorKind,
    out: int,
    message: str,
    param: str | None,
    code: str | None,
) -> None:
    error = OPENAI_CHAT.decode_error(status, json.dumps(body).encode())
    assert (error.kind, error.status, error.param, error.code) == (kind, out, param, code)
    assert message in error.message
    assert error.upstream_status == status


@pytest.mark.parametrize(
    ("status", "body", "kind", "message"),
    [
        (
            502,
            b"<html><head><title>502</title></head><body>Bad Gateway</body></html>",
            ErrorKind.UPSTREAM,
            "HTTP 502: Bad Gateway",
        ),
        (503, b"upstream connect error", ErrorKind.OVERLOADED, "HTTP 503: upstream connect error"),
        (401, b"", ErrorKind.KEY_REJECTED, "HTTP 401 without a body"),
        (404, b"<script>x</script>", ErrorKind.NOT_FOUND, "HTTP 404 without a body"),
        (500, b"\xff\xfe", ErrorKind.UPSTREAM, "HTTP 500: \ufffd\ufffd"),
        (500, b"x" * 1000, ErrorKind.UPSTREAM, "HTTP 500: " + "x" * 300 + "…"),
    ],
)
def test_an_error_page_is_understood(
    status: int, body: bytes, kind: ErrorKind, message: str
) -> None:
    error = OPENAI_CHAT.decode_error(status, body)
    assert error.kind is kind
    assert error.message == f"The provider answered {message}"
    assert error.status == (404 if status == 404 else APIError(kind, "").status)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"message": "m", "type": "server_error"}, ErrorKind.UPSTREAM),
        ({"message": "m", "code": "rate_limit_exceeded"}, ErrorKind.LIMITED),
        ({"message": "m", "type": "rate_limit_error", "code": "unknown"}, ErrorKind.LIMITED),
        ({"message": "m", "code": "insufficient_quota"}, ErrorKind.LIMITED),
        ({"message": "m", "type": "overloaded_error"}, ErrorKind.OVERLOADED),
        ({"message": "m", "code": "context_length_exceeded"}, ErrorKind.INVALID),
        ({"message": "m", "code": 503}, ErrorKind.OVERLOADED),
        ({"message": "m", "code": 401}, ErrorKind.KEY_REJECTED),
        ({"message": "m", "code": 12}, ErrorKind.UPSTREAM),
        ({"message": "m", "code": "invalid_api_key"}, ErrorKind.KEY_REJECTED),
        ("m", ErrorKind.UPSTREAM),
    ],
)
def test_an_error_in_a_stream_is_understood(error: Any, kind: ErrorKind) -> None:
    with pytest.raises(APIError) as caught:
        OPENAI_CHAT.decoder().feed(json.dumps({"error": error}).encode())
    assert (caught.value.kind, caught.value.message) == (kind, "m")
    assert caught.value.status == APIError(kind, "").status or isinstance(error, dict)


@pytest.mark.parametrize("kind", ErrorKind)
def test_every_error_has_openais_form(kind: ErrorKind) -> None:
    error = APIError(kind, "So.", param="p")
    body = json.loads(OPENAI_CHAT.encode_error(error))
    assert set(body) == {"error"}
    assert body["error"]["message"] == "So."
    assert body["error"]["param"] == "p"
    assert isinstance(body["error"]["type"], str)
    frame = OPENAI_CHAT.encode_stream_error(error)
    assert frame == b"data: " + OPENAI_CHAT.encode_error(error) + b"\n\n"
    again = OPENAI_CHAT.decode_error(error.status, OPENAI_CHAT.encode_error(error))
    ours = {ErrorKind.UNAUTHORIZED, ErrorKind.FORBIDDEN, ErrorKind.KEY_REJECTED, ErrorKind.INTERNAL}
    assert again.kind is kind or kind in ours


def test_openais_codes_are_told() -> None:
    def code(error: APIError) -> Any:
        told = json.loads(OPENAI_CHAT.encode_error(error))["error"]
        return told["type"], told["code"]

    assert code(APIError(ErrorKind.UNAUTHORIZED, "m")) == (
        "invalid_request_error",
        "invalid_api_key",
    )
    assert code(APIError(ErrorKind.LIMITED, "m")) == ("requests", "rate_limit_exceeded")
    assert code(invalid("m", "p", "c")) == ("invalid_request_error", "c")
    assert code(APIError(ErrorKind.UPSTREAM, "m")) == ("server_error", None)


@pytest.mark.parametrize(
    "kind",
    [
        ErrorKind.LIMITED,
        ErrorKind.OVERLOADED,
        ErrorKind.TIMEOUT,
        ErrorKind.UPSTREAM,
        ErrorKind.INVALID,
    ],
)
def test_what_an_error_frame_means_is_told_by_its_words(kind: ErrorKind) -> None:
    frame = OPENAI_CHAT.encode_error(APIError(kind, "m"))
    with pytest.raises(APIError) as caught:
        OPENAI_CHAT.decoder().feed(frame)
    assert caught.value.kind is kind


# ── mending ──────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("message", "finish", "fixed", "word"),
    [
        ({"content": "Hi."}, "eos", {"content": "Hi."}, "stop"),
        ({"content": "Hi.", "role": "model"}, "", {"content": "Hi."}, "stop"),
        (
            {"content": [{"type": "thinking", "thinking": "Hm."}, {"text": "4"}, 7]},
            "stop",
            {"content": "4", "reasoning_content": "Hm."},
            "stop",
        ),
        ({"content": 7}, "stop", {"content": ""}, "stop"),
        (
            {"content": "4", "function_call": {"name": "", "arguments": ""}},
            "stop",
            {"content": "4"},
            "stop",
        ),
        ({"content": "4", "tool_calls": []}, "stop", {"content": "4"}, "stop"),
        (
            {
                "content": None,
                "tool_calls": [
                    {"function": {"name": "f", "arguments": {"a": 1}}},
                    {"id": "", "type": "", "function": {"name": "g"}},
                ],
            },
            "stop",
            {
                "content": None,
                "tool_calls": [
                    {
                        "id": "call_0",
                        "type": "function",
                        "function": {"name": "f", "arguments": '{"a":1}'},
                    },
                    {
                        "id": "call_1",
                        "type": "function",
                        "function": {"name": "g", "arguments": "{}"},
                    },
                ],
            },
            "tool_calls",
        ),
        (
            {"content": None, "tool_calls": [{"id": "c", "custom": {"name": "sh", "input": "ls"}}]},
            "tool_calls",
            {
                "content": None,
                "tool_calls": [
                    {"id": "c", "type": "custom", "custom": {"name": "sh", "input": "ls"}}
                ],
            },
            "tool_calls",
        ),
    ],
)
def test_a_whole_answer_is_mended(
    message: dict[str, Any], finish: Any, fixed: dict[str, Any], word: str
) -> None:
    echo = NormalizingNativeStream(usage_wanted=True, new_id="chatcmpl-new")
    body = {"choices": [{"message": message, "finish_reason": finish}, {"delta": {}}], "extra": 1}
    told = json.loads(echo.whole(json.dumps(body).encode()))
    assert told["choices"][0] == {
        "message": {"role": "assistant", **fixed},
        "finish_reason": word,
        "index": 0,
    }
    assert told["choices"][1] == {"delta": {}}
    assert (told["id"], told["object"], told["model"], told["extra"]) == (
        "chatcmpl-new",
        "chat.completion",
        "",
        1,
    )
    assert type(told["created"]) is int


def test_an_answer_with_nothing_wrong_passes_as_it_is() -> None:
    body = completion(
        {"content": "Hi."}, object="chat.completion", created=1, usage={"prompt_tokens": 1}
    ).replace(b": ", b":  ")
    echo = NormalizingNativeStream(usage_wanted=True, new_id="x")
    assert echo.whole(body) == body
    assert (echo.model, echo.usage) == ("gpt-test", Usage(input=1))

    exact = OpenAINativeStream(usage_wanted=True)
    assert exact.whole(body) == body
    assert (exact.model, exact.usage) == ("gpt-test", Usage(input=1))
    # Other operations answer without choices.
    assert echo.whole(b'{"data": []}') == b'{"data": []}'


def whole_answer(word: str | None, **message: Any) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": word}
    head = {"id": "x", "object": "chat.completion", "created": 1, "model": "m"}
    return json.dumps({**head, "choices": [choice]}).encode()


EMPTY_CUSTOM = {"input": "", "name": ""}
CALLS: list[tuple[dict[str, Any], str, str, str]] = [
    # the call as it came, its kind, name and arguments
    ({"function": {"name": "f", "arguments": "{}"}, "custom": EMPTY_CUSTOM}, "function", "f", "{}"),
    ({"function": {"name": "f", "arguments": "{}"}, "custom": {}}, "function", "f", "{}"),
    ({"function": {"name": "f", "arguments": ""}, "custom": EMPTY_CUSTOM}, "function", "f", ""),
    ({"custom": {"name": "sh", "input": "ls"}}, "custom", "sh", "ls"),
    (
        {"custom": {"name": "sh", "input": "ls"}, "function": {"name": "", "arguments": ""}},
        "custom",
        "sh",
        "ls",
    ),
]


@pytest.mark.parametrize(("call", "kind", "name", "arguments"), CALLS)
def test_an_empty_member_beside_a_calls_own_says_nothing_of_its_kind(
    call: dict[str, Any], kind: str, name: str, arguments: str
) -> None:
    body = whole_answer("tool_calls", content=None, tool_calls=[{"id": "c", **call}])
    (made,) = OPENAI_CHAT.decode_response(body).blocks
    assert made == ToolCall("c", name, arguments or "{}")
    mended = json.loads(NormalizingNativeStream(usage_wanted=True, new_id="x").whole(body))
    (told,) = mended["choices"][0]["message"]["tool_calls"]
    field = "input" if kind == "custom" else "arguments"
    part = {"name": name, field: arguments}
    assert told == {"id": "c", "type": kind, kind: part}
    # and when the client sends it back
    (*_, replayed) = openai(
        [*HI, {"role": "assistant", "tool_calls": [{"id": "c", **call}]}]
    ).messages
    (part_back,) = replayed.parts
    assert isinstance(part_back, ToolCall)
    as_function = arguments if kind == "function" else '{"input":"ls"}'
    assert (part_back.name, part_back.arguments) == (name, as_function)


@pytest.mark.parametrize(
    "word",
    [
        "function_call_filter: MALFORMED_FUNCTION_CALL",
        "UNEXPECTED_TOOL_CALL",
        "other",
        "abort",
        "insufficient_system_resource",
    ],
)
@pytest.mark.parametrize(
    "message", [{"content": ""}, {"content": None, "reasoning_content": "Hm."}]
)
def test_an_answer_without_content_that_failed_is_an_error(
    word: str, message: dict[str, Any]
) -> None:
    body = whole_answer(word, **message)
    for read in (
        OPENAI_CHAT.decode_response,
        NormalizingNativeStream(usage_wanted=True, new_id="x").whole,
    ):
        with pytest.raises(APIError, match=f"failed with {word}") as caught:
            read(body)
        assert caught.value.kind is ErrorKind.UPSTREAM
    with_content = whole_answer(word, content="Hi.")
    assert OPENAI_CHAT.decode_response(with_content).blocks == (Text("Hi."),)
    assert b"Hi." in NormalizingNativeStream(usage_wanted=True, new_id="x").whole(with_content)


@pytest.mark.parametrize(
    "echo",
    [NormalizingNativeStream(usage_wanted=True, new_id="x"), OpenAINativeStream(usage_wanted=True)],
)
@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"<html>", ErrorKind.UPSTREAM),
        (b"[]", ErrorKind.UPSTREAM),
        (b'{"error":{"message":"m","code":429}}', ErrorKind.LIMITED),
        (b'{"error":"m"}', ErrorKind.UPSTREAM),
    ],
)
def test_a_passing_body_that_is_no_answer_is_an_error(
    echo: Any, body: bytes, kind: ErrorKind
) -> None:
    with pytest.raises(APIError) as caught:
        echo.whole(body)
    assert caught.value.kind is kind


def test_a_body_of_any_kind_may_tell_usage() -> None:
    assert openai_usage(b'{"model":"m","usage":{"prompt_tokens":3}}') == ("m", Usage(input=3))
    assert openai_usage(b'{"data":[]}') == ("", None)
    for body in (b"", b"RIFF", b"[]", b'{"usage":7}'):
        assert openai_usage(body) == ("", None)


def test_an_echo_is_exact_or_mending_as_the_provider_needs() -> None:
    assert isinstance(OPENAI_CHAT.native_stream(usage_wanted=True, exact=True), OpenAINativeStream)
    assert isinstance(
        OPENAI_CHAT.native_stream(usage_wanted=True, exact=False), NormalizingNativeStream
    )


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 2) | st.sampled_from(["", "a", "stop", 1.5]),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text("ab", max_size=1), inner, max_size=2)
    ),
    max_leaves=3,
)


def shaped(**members: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """An object that may have these members; each may also be junk."""
    return st.fixed_dictionaries({}, optional={n: v | JUNK for n, v in members.items()})


TEXTS = st.sampled_from(["", "a", '{"a"', ":1}"])
FUNCTIONS = shaped(name=TEXTS, arguments=TEXTS | st.just({"a": 1}))
CALLS = shaped(
    index=st.integers(0, 1),
    id=TEXTS,
    type=TEXTS,
    function=FUNCTIONS,
    custom=shaped(name=TEXTS, input=TEXTS),
)
PARTS = shaped(type=st.sampled_from(["text", "thinking"]), text=TEXTS, thinking=TEXTS)
DELTAS = shaped(
    role=st.sampled_from(["assistant", "model"]),
    content=TEXTS | st.lists(PARTS, max_size=2),
    refusal=TEXTS,
    reasoning=TEXTS,
    tool_calls=st.lists(CALLS, max_size=2),
    function_call=FUNCTIONS,
)
CHOICES = shaped(
    index=st.integers(0, 1),
    delta=DELTAS,
    message=DELTAS,
    finish_reason=st.sampled_from(["stop", "eos", "tool_calls", ""]),
)
CHUNKS = shaped(
    id=TEXTS,
    object=TEXTS,
    created=st.integers(0, 9),
    model=TEXTS,
    choices=st.lists(CHOICES, max_size=2),
    usage=shaped(prompt_tokens=st.integers(0, 9)),
    x_groq=shaped(usage=shaped(prompt_tokens=st.integers(0, 9))),
)


@given(st.lists(CHUNKS, max_size=5))
@settings(max_examples=600, deadline=None)
def test_whatever_looks_like_a_chunk_is_mended_into_one(sent: list[dict[str, Any]]) -> None:
    chunks = normalize.ChunkNormalizer("chatcmpl-new")
    told = [out for chunk in sent if (out := chunks.chunk(chunk)) is not None]
    told += chunks.end(usage_wanted=True)
    if chunks.head is None:
        return  # nothing was said
    strict.read(told)
    for index in {c["index"] for chunk in told for c in chunk["choices"]}:
        ends = [
            c["finish_reason"] for chunk in told for c in chunk["choices"] if c["index"] == index
        ]
        assert [end for end in ends if end] == [end for end in [chunks.finish(index)] if end]


# ── thoughts and signatures, there and back ──────────────────────────────────


def replayed(blocks: tuple[Any, ...], how: str) -> tuple[Any, ...]:
    """What a client of the OpenAI face sends back for an answer, read again."""
    answer = Response(id="x", model="m", blocks=blocks, stop=StopReason.END)
    request = Request(model="m", messages=())
    if how == "whole":
        body = json.loads(OPENAI_CHAT.encode_response(answer, request))
        message = body["choices"][0]["message"]
    else:
        message = streamed(answer, request).model_dump(exclude_none=how != "dumped")
    (said,) = openai([message]).messages
    return said.parts


def streamed(answer: Response, request: Request) -> Any:
    """A stream of the answer, put together by OpenAI's own client."""
    from openai.lib.streaming.chat import ChatCompletionStreamState
    from openai.types.chat import ChatCompletionChunk

    from asgi_aiproxy.messages import unfold

    encoder = OPENAI_CHAT.encoder(request)
    chunks, _ = strict.chunks_in(b"".join([encoder.feed(event) for event in unfold(answer)]))
    state = ChatCompletionStreamState()
    for chunk in chunks:
        state.handle_chunk(ChatCompletionChunk.model_validate(chunk))
    return state.get_final_completion().choices[0].message


HOW = ["whole", "dumped", "dumped without nulls"]
CLAUDE = {"anthropic": {"signature": "c2lnLTE="}}
CLAUDE_2 = {"anthropic": {"signature": "c2lnLTI="}}
HIDDEN = {"anthropic": {"redacted": "cmVk"}}
GEMINI = {"gemini": {"signature": "c2lnLTM="}}
CALL = ToolCall("call_1", "weather", '{"city":"Rome"}')


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize(
    "blocks",
    [
        (Reasoning("Hm."), Text("4")),
        (Reasoning("Hm.", CLAUDE), Text("4")),
        (Reasoning("Hm.", CLAUDE), CALL),
        (Reasoning("Hm.", CLAUDE), Reasoning("So.", CLAUDE_2), Text("4"), CALL),
        (Reasoning("", CLAUDE), Text("4")),
        (Reasoning("", HIDDEN), Text("4")),
        (Reasoning("", HIDDEN), Reasoning("Hm.", CLAUDE), Reasoning("", HIDDEN), CALL),
        (Text("4", extra=GEMINI),),
        (Text("4", extra=GEMINI), CALL),
        (ToolCall("call_1", "weather", "{}", GEMINI), ToolCall("call_2", "clock", "{}")),
        (Reasoning("Hm.", GEMINI), Text("4")),
        (Reasoning("", GEMINI), CALL),
        (Text("Hi."), CALL, ToolCall("call_2", "clock", "{}")),
        (Refusal("No."),),
    ],
)
def test_an_answer_that_a_client_sends_back_is_what_it_was(
    blocks: tuple[Any, ...], how: str
) -> None:
    assert replayed(blocks, how) == blocks


@pytest.mark.parametrize("how", HOW)
def test_claudes_thoughts_come_back_to_claude_signed(how: str) -> None:
    blocks = (Reasoning("", HIDDEN), Reasoning("Hm.", CLAUDE), Text("4"), CALL)
    said = Message("assistant", replayed(blocks, how))
    result = Message("user", (ToolResult("call_1", (Text("sunny"),)),))
    draft = written("anthropic", Request(model="m", messages=(said, result)))
    assert draft.body["messages"][0] == {
        "role": "assistant",
        "content": [
            {"type": "redacted_thinking", "data": "cmVk"},
            {"type": "thinking", "thinking": "Hm.", "signature": "c2lnLTE="},
            {"type": "text", "text": "4"},
            {"type": "tool_use", "id": "call_1", "name": "weather", "input": {"city": "Rome"}},
        ],
    }


@pytest.mark.parametrize("how", HOW)
def test_geminis_signatures_come_back_to_gemini_in_their_places(how: str) -> None:
    blocks = (
        Reasoning("Hm."),
        Text("Look:", extra={"gemini": {"signature": "dGV4dA=="}}),
        ToolCall("call_1", "weather", '{"city":"Rome"}', GEMINI),
        ToolCall("call_2", "clock", "{}"),
    )
    said = Message("assistant", replayed(blocks, how))
    draft = written("gemini", Request(model="m", messages=(said,)), "gemini-3-pro-preview")
    assert draft.body["contents"] == [
        {
            "role": "model",
            "parts": [
                {"text": "Look:", "thoughtSignature": "dGV4dA=="},
                {
                    "functionCall": {"id": "call_1", "name": "weather", "args": {"city": "Rome"}},
                    "thoughtSignature": "c2lnLTM=",
                },
                {"functionCall": {"id": "call_2", "name": "clock", "args": {}}},
            ],
        }
    ]


@pytest.mark.parametrize("how", HOW)
def test_one_vendors_signatures_are_not_shown_to_another(how: str) -> None:
    blocks = (Reasoning("Hm.", CLAUDE), Text("4"), CALL)
    said = (Message("assistant", replayed(blocks, how)),)
    for language in ("gemini", "openai_chat", "ollama"):
        assert "c2ln" not in json.dumps(written(language, Request(model="m", messages=said)).body)
    blocks = (Reasoning("", GEMINI), Text("4", extra=GEMINI), CALL)
    said = (Message("assistant", replayed(blocks, how)),)
    for language in ("anthropic", "openai_chat", "ollama"):
        assert "c2ln" not in json.dumps(written(language, Request(model="m", messages=said)).body)


@pytest.mark.parametrize(
    ("message", "parts"),
    [
        # OpenRouter's clients: words beside details, details in pieces, calls signed by id
        (
            {
                "reasoning": "Hm.",
                "reasoning_details": [
                    {
                        "type": "reasoning.text",
                        "text": "H",
                        "format": "anthropic-claude-v1",
                        "index": 0,
                    },
                    {"type": "reasoning.text", "text": "m.", "signature": "c2lnLTE=", "index": 0},
                ],
            },
            (Reasoning("Hm.", CLAUDE),),
        ),
        (
            {
                "reasoning": "Hm.",
                "reasoning_details": [{"type": "reasoning.text", "signature": "c2lnLTE="}],
            },
            (Reasoning("Hm.", CLAUDE),),
        ),
        (
            {
                "reasoning": "Hm.",
                "reasoning_details": [
                    {"type": "reasoning.encrypted", "data": "cmVk", "format": "anthropic-claude-v1"}
                ],
            },
            (Reasoning("Hm."), Reasoning("", HIDDEN)),
        ),
        (
            {"reasoning_details": [{"type": "reasoning.summary", "summary": "In short."}]},
            (Reasoning("In short."),),
        ),
        (
            {
                "reasoning": "Hm.",
                "reasoning_details": [
                    {"type": "reasoning.encrypted", "data": "x", "format": "openai-responses-v1"}
                ],
            },
            (Reasoning("Hm."),),
        ),
        ({"reasoning_details": []}, ()),
        (
            {
                "content": [
                    {"type": "text", "text": "4"},
                    {"type": "refusal", "refusal": "No."},
                ],
                "reasoning_details": [
                    {
                        "type": "reasoning.encrypted",
                        "data": "c2lnLTM=",
                        "format": "google-gemini-v1",
                    }
                ],
            },
            (Text("4", extra=GEMINI), Refusal("No.")),
        ),
        (
            {
                "tool_calls": [call("a"), call("b")],
                "reasoning_details": [
                    {
                        "type": "reasoning.encrypted",
                        "data": "c2lnLTM=",
                        "format": "google-gemini-v1",
                        "id": "b",
                    }
                ],
            },
            (ToolCall("a", "weather", "{}"), ToolCall("b", "weather", "{}", GEMINI)),
        ),
    ],
)
def test_thoughts_are_found_where_other_clients_put_them(
    message: dict[str, Any], parts: tuple[Any, ...]
) -> None:
    (said,) = openai([{"role": "assistant", **message}]).messages
    assert said.parts == parts


def test_images_that_a_model_drew_are_named_where_they_cannot_go_back() -> None:
    drawn = {"role": "assistant", "content": "So.", "images": [{"image_url": {"url": PNG_URL}}]}
    draft = written("openai_chat", openai([*HI, drawn, *HI]))
    assert draft.body["messages"][1] == {"role": "assistant", "content": "So."}
    assert draft.ignored == ("messages[].images",)


# ── what mending leaves as it is ─────────────────────────────────────────────

HEAD = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m", "fp": "fp_1"}
PROBS = {"content": [{"token": "Hi", "logprob": -0.1, "bytes": [72, 105], "top_logprobs": []}]}


def chunk_of(delta: dict[str, Any], word: str | None = None, **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": word}
    return {**HEAD, "system_fingerprint": "fp_2", "choices": [choice | more]}


def mended(chunks: list[dict[str, Any]], *, wanted: bool = True, spaces: bool = False) -> bytes:
    separators = None if spaces else (",", ":")
    frames = [json.dumps(chunk, separators=separators).encode() for chunk in chunks]
    data = b"".join(b"data: " + frame + b"\n\n" for frame in [*frames, b"[DONE]"])
    verbatim = NativeStreamTranslator(NormalizingNativeStream(usage_wanted=wanted, new_id="new"))
    # Frame by frame, and all at once.
    parts = [part + b"\n\n" for part in data.split(b"\n\n")[:-1]]
    out = b"".join([verbatim.feed(part) for part in parts]) + verbatim.close()
    other = NativeStreamTranslator(NormalizingNativeStream(usage_wanted=wanted, new_id="new"))
    assert other.feed(data) + other.close() == out
    return out


CALLING = [
    {"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": ""}, "x": 1},
    {"index": 0, "function": {"arguments": "{}"}, "y": 2},
]
USED = {**HEAD, "system_fingerprint": "fp_2", "choices": [], "usage": {"prompt_tokens": 1}, "z": 3}


@pytest.mark.parametrize("spaces", [False, True])
@pytest.mark.parametrize(
    "chunks",
    [
        [
            chunk_of({"role": "assistant", "content": "", "refusal": None}),
            chunk_of({"content": "Hi"}, logprobs=PROBS),
            chunk_of({}, "stop", stop_reason=7),
            USED,
        ],
        [
            chunk_of({"role": "assistant", "content": "Hi"}, logprobs=PROBS) | {"usage": None},
            chunk_of({"content": "!"}) | {"usage": None},
            chunk_of({}, "length") | {"usage": None, "x_own": {"a": [1]}},
            USED,
        ],
        [
            chunk_of({"role": "assistant", "content": None, "tool_calls": CALLING[:1]}),
            chunk_of({"tool_calls": CALLING[1:]}),
            chunk_of({}, "tool_calls"),
            USED,
        ],
    ],
)
def test_a_compatible_servers_stream_that_is_right_passes_byte_for_byte(
    chunks: list[dict[str, Any]], spaces: bool
) -> None:
    separators = None if spaces else (",", ":")
    sent = [json.dumps(chunk, separators=separators).encode() for chunk in chunks]
    expected = b"".join(b"data: " + data + b"\n\n" for data in [*sent, b"[DONE]"])
    assert mended(chunks, spaces=spaces) == expected


def test_unknown_members_of_the_last_chunk_survive_its_mending() -> None:
    ending = chunk_of({}, "eos", logprobs=PROBS, stop_reason=7) | {"usage": {"prompt_tokens": 1}}
    chunks, _ = strict.chunks_in(mended([chunk_of({"role": "assistant", "content": "Hi"}), ending]))
    expected = chunk_of({}, "stop", logprobs=PROBS, stop_reason=7)
    usage = {**HEAD, "choices": [], "usage": {"prompt_tokens": 1}}
    assert chunks[1:] == [expected, {k: v for k, v in usage.items() if k != "fp"}]
    unasked = mended([chunk_of({"role": "assistant", "content": "Hi"}), ending], wanted=False)
    assert strict.chunks_in(unasked)[0][1:] == [expected]


def test_a_last_chunk_with_words_tells_its_members_with_them() -> None:
    ending = chunk_of({"role": "assistant", "content": "Hi"}, "stop", logprobs=PROBS)
    chunks, _ = strict.chunks_in(mended([ending]))
    said, end = chunks
    assert said["choices"] == [{**ending["choices"][0], "finish_reason": None}]
    assert end["choices"] == [{"index": 0, "delta": {}, "finish_reason": "stop"}]
    assert end["system_fingerprint"] == said["system_fingerprint"] == "fp_2"


def test_unknown_members_of_a_whole_answer_survive_its_mending() -> None:
    choice = {"index": 0, "message": {"role": "assistant", "content": "Hi", "own": 1}}
    body = {
        "id": "x",
        "created": 1,
        "model": "m",
        "system_fingerprint": "fp",
        "prompt_logprobs": [],
    }
    answer = json.dumps({**body, "choices": [{**choice, "logprobs": PROBS}]}).encode()
    found = json.loads(NormalizingNativeStream(usage_wanted=True, new_id="x").whole(answer))
    ended = {**choice, "logprobs": PROBS, "finish_reason": "stop"}
    assert found == {**body, "object": "chat.completion", "choices": [ended]}
