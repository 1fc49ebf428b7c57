"""Requests: the neutral format to Anthropic's."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from asgi_aiproxy.errors import APIError, ErrorKind
from asgi_aiproxy.messages import (
    Media,
    Message,
    Request,
    ToolCall,
)
from tests.dialects.anthropic.samples import (
    CACHE,
    CALL_A,
    GIF,
    JPEG,
    PNG,
    SCHEMA,
    SONNET_4,
    TOOL,
    WEBP,
    body_of,
    said,
    text,
)
from tests.support.dialect_requests import HI, decode_client_request, openai, written


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
def test_a_decoded_and_encoded_request_is_the_same(body: dict[str, Any]) -> None:
    body = {"model": "claude-sonnet-4-5", "max_tokens": 9000, **body}
    draft = written("anthropic", decode_client_request("anthropic", body), "claude-sonnet-4-5")
    assert draft.path == "/v1/messages"
    assert draft.body == body
    assert draft.ignored == ()
    assert draft.headers == {}


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
def test_a_conversation_of_openais_format_is_encoded(
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
def test_an_image_is_sent_with_the_type_of_its_bytes(
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
def test_an_image_that_anthropic_does_not_accept_is_refused_with_its_path(
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


def test_a_document_that_is_not_a_pdf_is_refused_with_its_path() -> None:
    docx = {"file_data": "data:application/msword;base64,0M8R4A==", "filename": "a.doc"}
    with pytest.raises(APIError, match="msword") as caught:
        body_of(openai(said([{"type": "file", "file": docx}])))
    assert caught.value.param == "messages[0].content[0]"


def test_a_pdf_declared_as_an_image_is_sent_as_a_document() -> None:
    pdf = {"url": "data:image/png;base64,JVBERi0xLjcK"}
    body = body_of(openai(said([{"type": "image_url", "image_url": pdf}])))
    source = {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0xLjcK"}
    assert body["messages"][0]["content"] == [{"type": "document", "source": source}]


@pytest.mark.parametrize(
    "user",
    ["jane.roe@example.org", "+49 30 1234567", "030-1234567", "Jane Roe", "Jané", "x" * 300],
)
def test_a_user_is_sent_as_a_hash_where_the_name_identifies_a_person(user: str) -> None:
    draft = written("anthropic", openai(user=user))
    reported = draft.body["metadata"]["user_id"]
    assert re.fullmatch("[0-9a-f]{64}", reported)
    assert reported == written("anthropic", openai(user=user)).body["metadata"]["user_id"]
    assert reported != written("anthropic", openai(user=user + "x")).body["metadata"]["user_id"]


@pytest.mark.parametrize("user", ["team-1", "u", "123e4567-e89b-12d3-a456-426614174000", "123456"])
def test_an_opaque_user_is_sent_unchanged(user: str) -> None:
    assert written("anthropic", openai(user=user)).body["metadata"] == {"user_id": user}


@pytest.mark.parametrize("members", [{}, {"reasoning_effort": "low"}, {"max_tokens": 3000}])
def test_a_request_with_instructions_only_sends_them_as_user_text(members: dict[str, Any]) -> None:
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
def test_audio_and_video_are_refused(kind: Any) -> None:
    with pytest.raises(APIError, match=f"do not accept {kind}") as caught:
        body_of(Request(model="m", messages=(Message("user", (Media(kind=kind, data="A"),)),)))
    assert caught.value.kind is ErrorKind.INVALID


def test_ids_of_calls_have_only_characters_that_anthropic_accepts() -> None:
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
def test_a_call_without_arguments_has_an_empty_object_however_the_client_writes_it(
    arguments: str, language: str
) -> None:
    call = {**CALL_A, "function": {"name": "f", "arguments": arguments}}
    result = {"role": "tool", "tool_call_id": "a", "content": "x"}
    draft = written(language, openai([*HI, {"role": "assistant", "tool_calls": [call]}, result]))
    sent = json.dumps(draft.body)
    assert any(f'"{name}": {{}}' in sent for name in ("input", "args", "arguments"))
    assert draft.ignored == ()


@pytest.mark.parametrize("arguments", ["[1]", '{"a":', "hello"])
def test_arguments_that_are_not_an_object_are_sent_as_text(arguments: str) -> None:
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
def test_tool_choices_are_encoded(members: dict[str, Any], choice: Any, tools: str) -> None:
    body = body_of(openai(tools=OPENAI_TOOLS, **members))
    assert body.get("tool_choice") == choice
    assert "".join(tool["name"] for tool in body["tools"]) == tools


def test_a_tool_choice_without_tools_is_left_out() -> None:
    body = body_of(openai(tool_choice="auto", parallel_tool_calls=False))
    assert "tools" not in body
    assert "tool_choice" not in body


def test_strict_tools_need_a_model_that_supports_them() -> None:
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


def test_json_with_a_schema_is_requested_with_closed_objects() -> None:
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


def test_json_without_a_schema_is_requested_by_an_instruction() -> None:
    draft = written(
        "anthropic",
        openai([{"role": "system", "content": "A"}, *HI], response_format={"type": "json_object"}),
    )
    assert draft.body["system"] == "A\n\nAnswer with a single JSON object and nothing else."
    assert draft.ignored == ("response_format",)


def test_calls_that_have_the_same_id_get_different_ones_and_keep_their_results() -> None:
    """Some vendors start with `call_0` again in every answer; Anthropic refuses repeated ids."""
    both = [{**CALL_B, "id": "call_0"}, {**CALL_B, "id": "call_0"}]
    messages = [
        *HI,
        {"role": "assistant", "tool_calls": [{**CALL_B, "id": "call_0"}]},
        {"role": "tool", "tool_call_id": "call_0", "content": "1"},
        {"role": "assistant", "tool_calls": both},
        {"role": "tool", "tool_call_id": "call_0", "content": "2"},
        {"role": "tool", "tool_call_id": "call_0", "content": "3"},
    ]
    blocks = [b for turn in body_of(openai(messages))["messages"] for b in turn["content"]]
    made = [block["id"] for block in blocks if block["type"] == "tool_use"]
    results = [b for b in blocks if b["type"] == "tool_result"]
    assert made == ["call_0", "call_0_2", "call_0_3"]
    assert [result["tool_use_id"] for result in results] == made
    assert [result["content"] for result in results] == ["1", "2", "3"]
