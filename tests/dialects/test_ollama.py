from __future__ import annotations

import json
from typing import Any

import pytest

from asgi_aiproxy.dialects import OLLAMA_CHAT, Ollama
from asgi_aiproxy.errors import APIError, ErrorKind
from asgi_aiproxy.framing import NDJSONFramer
from asgi_aiproxy.messages import (
    Media,
    Message,
    Reasoning,
    Request,
    Response,
    StopReason,
    Text,
    ToolCall,
    ToolResult,
    Usage,
)
from tests.support.dialect_requests import HI, anthropic, openai, written

PNG = "iVBORw0KGgo="
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}


def body_of(request: Request) -> dict[str, Any]:
    return dict(written("ollama", request).body)


def fcall(call_id: str, name: str, arguments: str = "{}") -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def used(name: str, arguments: Any) -> dict[str, Any]:
    return {"function": {"name": name, "arguments": arguments}}


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        (
            [{"role": "system", "content": "A"}, *HI, {"role": "developer", "content": "B"}],
            [{"role": "system", "content": "A"}, *HI, {"role": "system", "content": "B"}],
        ),
        ([*HI, {"role": "assistant", "content": ""}], HI),
        (
            [
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "See "},
                        {
                            "type": "image_url",
                            "image_url": {"url": f"data:image/png;base64,{PNG}"},
                        },
                        {"type": "text", "text": "this."},
                    ],
                }
            ],
            [{"role": "user", "content": "See this.", "images": [PNG]}],
        ),
        (
            [
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "Read:"},
                        {
                            "type": "file",
                            "file": {
                                "file_data": "data:text/plain;base64,SGk=",
                                "filename": "a.txt",
                            },
                        },
                    ],
                }
            ],
            [{"role": "user", "content": "Read:\na.txt\nHi"}],
        ),
        (
            [
                *HI,
                {
                    "role": "assistant",
                    "content": "Both.",
                    "reasoning_content": "Hm.",
                    "tool_calls": [fcall("a", "f", '{"x":1}'), fcall("b", "g", "")],
                },
                {"role": "tool", "tool_call_id": "a", "content": "sunny"},
                {
                    "role": "tool",
                    "tool_call_id": "b",
                    "content": [
                        {"type": "text", "text": "see"},
                        {
                            "type": "image_url",
                            "image_url": {"url": f"data:image/png;base64,{PNG}"},
                        },
                    ],
                },
            ],
            [
                *HI,
                {
                    "role": "assistant",
                    "content": "Both.",
                    "thinking": "Hm.",
                    "tool_calls": [used("f", {"x": 1}), used("g", {})],
                },
                {"role": "tool", "tool_name": "f", "content": "sunny"},
                {"role": "tool", "tool_name": "g", "content": "see"},
                {"role": "user", "content": "", "images": [PNG]},
            ],
        ),
        ([{"role": "assistant", "refusal": "No."}], [{"role": "assistant", "content": "No."}]),
    ],
)
def test_a_conversation_of_openais_format_is_encoded(
    messages: list[dict[str, Any]], expected: list[dict[str, Any]]
) -> None:
    draft = written("ollama", openai(messages))
    assert draft.path == "/api/chat"
    assert draft.body == {"model": "llama-test", "messages": expected, "stream": False}
    assert draft.ignored == ()


def test_results_of_anthropics_clients_get_the_name_of_their_call() -> None:
    request = anthropic(
        [
            {
                "role": "assistant",
                "content": [{"type": "tool_use", "id": "a", "name": "f", "input": {}}],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "a", "content": "sunny"},
                    {"type": "tool_result", "tool_use_id": "lost", "content": "?"},
                    {"type": "text", "text": "And?"},
                ],
            },
        ]
    )
    assert body_of(request)["messages"][1:] == [
        {"role": "tool", "tool_name": "f", "content": "sunny"},
        {"role": "tool", "tool_name": "", "content": "?"},
        {"role": "user", "content": "And?"},
    ]


@pytest.mark.parametrize(
    "media",
    [
        Media(kind="image", url="https://a.example/a.png"),
        Media(kind="document", media_type="application/pdf", data="JVBERg=="),
        Media(kind="audio", data="AAAA"),
    ],
)
def test_content_that_ollama_does_not_accept_is_refused(media: Media) -> None:
    for part in (media, ToolResult("a", (media,))):
        with pytest.raises(APIError, match="accepts images only") as caught:
            body_of(Request(model="m", messages=(Message("user", (part,)),)))
        assert (caught.value.kind, caught.value.param) == (ErrorKind.INVALID, "messages")


def test_arguments_that_are_not_an_object_are_sent_as_text() -> None:
    draft = written(
        "ollama", openai([{"role": "assistant", "tool_calls": [fcall("a", "f", '{"x":')]}])
    )
    assert draft.body["messages"][0]["tool_calls"] == [used("f", {"arguments": '{"x":'})]
    assert draft.ignored == ("tool_calls[].function.arguments",)


FUNCTION: dict[str, Any] = {"name": "f", "description": "F.", "parameters": SCHEMA}
TOOL = {"type": "function", "function": FUNCTION}


@pytest.mark.parametrize(
    ("members", "expected", "ignored"),
    [
        ({"tools": [TOOL]}, {"tools": [TOOL]}, ()),
        (
            {"tools": [{"type": "function", "function": {"name": "g"}}], "tool_choice": "auto"},
            {
                "tools": [
                    {
                        "type": "function",
                        "function": {
                            "name": "g",
                            "description": "",
                            "parameters": {"type": "object", "properties": {}},
                        },
                    }
                ]
            },
            (),
        ),
        ({"tools": [TOOL], "tool_choice": "none"}, {}, ()),
        ({"tools": [TOOL], "tool_choice": "required"}, {"tools": [TOOL]}, ("tool_choice",)),
        (
            {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "f"}}},
            {"tools": [TOOL]},
            ("tool_choice",),
        ),
        (
            {"tools": [TOOL], "parallel_tool_calls": False},
            {"tools": [TOOL]},
            ("parallel_tool_calls",),
        ),
        (
            {"tools": [{"type": "function", "function": {**FUNCTION, "strict": True}}]},
            {"tools": [TOOL]},
            ("tools[].function.strict",),
        ),
        ({"response_format": {"type": "json_object"}}, {"format": "json"}, ()),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "a", "schema": SCHEMA},
                }
            },
            {"format": SCHEMA},
            (),
        ),
        ({"reasoning_effort": "low"}, {"think": "low"}, ()),
        ({"reasoning_effort": "none"}, {"think": False}, ()),
        ({"reasoning_effort": "minimal"}, {"think": True}, ()),
        ({"reasoning": {"max_tokens": 2000}}, {"think": True}, ()),
        (
            {
                "max_tokens": 5,
                "temperature": 0,
                "top_p": 0.9,
                "top_k": 3,
                "stop": ["a"],
                "seed": 0,
                "presence_penalty": 1,
                "frequency_penalty": 2,
            },
            {
                "options": {
                    "num_predict": 5,
                    "temperature": 0,
                    "top_p": 0.9,
                    "top_k": 3,
                    "stop": ["a"],
                    "seed": 0,
                    "presence_penalty": 1,
                    "frequency_penalty": 2,
                }
            },
            (),
        ),
        ({"stream": True}, {"stream": True}, ()),
        ({"user": "u", "store": True}, {}, ("store", "user")),
    ],
)
def test_parameters_have_ollamas_names(
    members: dict[str, Any], expected: dict[str, Any], ignored: tuple[str, ...]
) -> None:
    draft = written("ollama", openai(**members))
    plain = {"model": "llama-test", "messages": HI, "stream": False}
    assert draft.body == {**plain, **expected}
    assert draft.ignored == ignored


def test_names_are_reported() -> None:
    request = openai([{"role": "user", "content": "Hi", "name": "bob"}])
    assert written("ollama", request).ignored == ("messages[].name",)


# ── answers ──────────────────────────────────────────────────────────────────


def answer(message: dict[str, Any], **members: Any) -> bytes:
    body = {
        "model": "llama-test",
        "message": {"role": "assistant", "content": "", **message},
        "done": True,
        "done_reason": "stop",
        **members,
    }
    return json.dumps(body, indent=1).encode()


@pytest.mark.parametrize(
    ("message", "members", "blocks", "stop", "usage"),
    [
        ({"content": "Hi."}, {}, (Text("Hi."),), StopReason.END, None),
        (
            {"content": "4", "thinking": "Hm."},
            {"prompt_eval_count": 3, "eval_count": 5},
            (Reasoning("Hm."), Text("4")),
            StopReason.END,
            Usage(input=3, output=5),
        ),
        (
            {
                "tool_calls": [
                    used("f", {"x": 1}),
                    used("g", {}),
                    {"id": "c", **used("h", '{"y":2}')},
                ]
            },
            {"eval_count": 5},
            (
                ToolCall("new", "f", '{"x":1}'),
                ToolCall("new_2", "g", "{}"),  # every call has an id of its own
                ToolCall("c", "h", '{"y":2}'),
            ),
            StopReason.TOOLS,
            Usage(output=5),
        ),
        ({"content": "Hi"}, {"done_reason": "length"}, (Text("Hi"),), StopReason.LENGTH, None),
        (
            {"tool_calls": [used("f", {})]},
            {"done_reason": "length"},
            (ToolCall("new", "f", "{}"),),
            StopReason.LENGTH,
            None,
        ),
        ({}, {"done_reason": "unload"}, (), StopReason.OTHER, None),
        ({"content": "Hi."}, {"done_reason": None}, (Text("Hi."),), StopReason.END, None),
    ],
)
def test_a_whole_response_is_decoded(
    message: dict[str, Any],
    members: dict[str, Any],
    blocks: tuple[Any, ...],
    stop: StopReason,
    usage: Usage | None,
) -> None:
    found = Ollama(new_id=lambda: "new").decode_response(answer(message, **members))
    word = members.get("done_reason") or "stop"
    assert found == Response(
        id="", model="llama-test", blocks=blocks, stop=stop, usage=usage, word=word
    )


def test_calls_get_generated_ids() -> None:
    calls = {"tool_calls": [used("f", {}), used("f", {})]}
    one, two = OLLAMA_CHAT.decode_response(answer(calls)).blocks
    assert isinstance(one, ToolCall)
    assert isinstance(two, ToolCall)
    assert one.id.startswith("call_")
    assert one.id != two.id


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "200 without a body"),
        (b"<html>Oops</html>", "200: Oops"),
        (b"[]", "200: []"),
        (b"{}", "ended before it was done"),
        (b'{"error":"out of memory"}', "out of memory"),
        (b'{"error":{"a":1}}', "{'a': 1}"),
    ],
)
def test_an_invalid_response_is_an_error(body: bytes, message: str) -> None:
    with pytest.raises(APIError) as caught:
        OLLAMA_CHAT.decode_response(body)
    assert caught.value.kind is ErrorKind.UPSTREAM
    assert message in caught.value.message


@pytest.mark.parametrize(
    ("status", "body", "kind", "out", "message"),
    [
        (404, b'{"error":"model not found"}', ErrorKind.NOT_FOUND, 404, "model not found"),
        (
            400,
            b'{"error":"does not support tools"}',
            ErrorKind.INVALID,
            400,
            "does not support tools",
        ),
        (500, b'{"error":"oops"}', ErrorKind.UPSTREAM, 502, "oops"),
        (503, b'{"error":"server busy"}', ErrorKind.OVERLOADED, 503, "server busy"),
        (500, b"oops", ErrorKind.UPSTREAM, 502, "The provider answered HTTP 500: oops"),
        (
            500,
            b'{"error":""}',
            ErrorKind.UPSTREAM,
            502,
            'The provider answered HTTP 500: {"error":""}',
        ),
    ],
)
def test_an_error_response_is_decoded(
    status: int, body: bytes, kind: ErrorKind, out: int, message: str
) -> None:
    error = OLLAMA_CHAT.decode_error(status, body)
    assert (error.kind, error.status, error.message) == (kind, out, message)
    assert error.upstream_status == status


def test_a_stream_is_lines() -> None:
    assert isinstance(OLLAMA_CHAT.framer("application/x-ndjson"), NDJSONFramer)


def test_models_are_listed() -> None:
    assert OLLAMA_CHAT.models_request().path == "/api/tags"
    assert OLLAMA_CHAT.decode_models(b'{"models":[{"name":"a:latest"}]}') == ("a:latest",)
