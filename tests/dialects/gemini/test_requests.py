"""Requests: Google's format to the neutral one."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

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
from tests.dialects.gemini.samples import (
    PNG,
    SCHEMA,
    called,
    config,
    returned,
)
from tests.support.dialect_requests import decode_client_request, gemini


@pytest.mark.parametrize(
    ("contents", "messages"),
    [
        ([{"role": "user", "parts": [{"text": "Hi"}]}], (Message("user", (Text("Hi"),)),)),
        ([{"parts": [{"text": "Hi"}]}], (Message("user", (Text("Hi"),)),)),
        ({"parts": [{"text": "Hi"}]}, (Message("user", (Text("Hi"),)),)),
        ("Hi", (Message("user", (Text("Hi"),)),)),
        ([{"role": "user"}], (Message("user", ()),)),
        ([{"role": "model", "parts": [{"text": ""}, {}]}], (Message("assistant", (Text(""),)),)),
        (
            [
                {
                    "role": "user",
                    "parts": [
                        {"inline_data": {"mime_type": "image/png", "data": "-_8="}},
                        {"inlineData": {"mimeType": "application/pdf", "data": "JVBERg=="}},
                        {"inlineData": {"mimeType": "audio/wav", "data": "AAAA"}},
                        {"fileData": {"fileUri": "https://a.example/v", "mimeType": "video/mp4"}},
                    ],
                }
            ],
            (
                Message(
                    "user",
                    (
                        Media(kind="image", media_type="image/png", data="+/8="),
                        Media(kind="document", media_type="application/pdf", data="JVBERg=="),
                        Media(kind="audio", media_type="audio/wav", data="AAAA"),
                        Media(kind="video", media_type="video/mp4", url="https://a.example/v"),
                    ),
                ),
            ),
        ),
        (
            [
                {
                    "role": "model",
                    "parts": [
                        {"text": "Hm.", "thought": True},
                        {"text": "So.", "thought": True, "thoughtSignature": "c2ln"},
                        {"text": "4", "thought_signature": "c2ln"},
                        {"thoughtSignature": "c2ln"},
                        {"executableCode": {"code": "x"}, "thoughtSignature": "c2ln"},
                        {"codeExecutionResult": {"output": "y"}},
                    ],
                }
            ],
            (
                Message(
                    "assistant",
                    (
                        Reasoning("Hm."),
                        Reasoning("So.", {"gemini": {"signature": "c2ln"}}),
                        Text("4", extra={"gemini": {"signature": "c2ln"}}),
                        Text("", extra={"gemini": {"signature": "c2ln"}}),
                        Opaque(
                            "gemini", {"executableCode": {"code": "x"}, "thoughtSignature": "c2ln"}
                        ),
                        Opaque("gemini", {"codeExecutionResult": {"output": "y"}}),
                    ),
                ),
            ),
        ),
    ],
)
def test_content_of_messages_is_decoded(contents: Any, messages: tuple[Message, ...]) -> None:
    assert gemini(contents).messages == messages


@pytest.mark.parametrize(
    ("calls", "results", "made", "found"),
    [
        # without ids results find their call by its name, in order
        (
            [called("f", args={"a_b": 1}), called("g"), called("f", args={})],
            [returned("f", {"x": 1}), returned("g", {"x": 2}), returned("f", {"x": 3})],
            [("call_1", "f", '{"a_b":1}'), ("call_2", "g", "{}"), ("call_3", "f", "{}")],
            [("call_1", '{"x":1}'), ("call_2", '{"x":2}'), ("call_3", '{"x":3}')],
        ),
        (
            [called("f", id="a"), called("f", id="b")],
            [returned("f", {"x": 2}, id="b"), returned("f", {"x": 1}, id="a")],
            [("a", "f", "{}"), ("b", "f", "{}")],
            [("b", '{"x":2}'), ("a", '{"x":1}')],
        ),
        # words that clients wrap results in
        ([called("f")], [returned("f", {"result": "sunny"})], None, [("call_1", "sunny")]),
        ([called("f")], [returned("f", {"output": [1]})], None, [("call_1", "[1]")]),
        ([called("f")], [returned("f", {"other": "x"})], None, [("call_1", '{"other":"x"}')]),
        ([called("f")], [returned("f", "sunny")], None, [("call_1", "sunny")]),
        ([called("f")], [returned("f", None)], None, [("call_1", "")]),
        # without a name results find their call by its id, or else by their order
        (
            [called("f", id="a"), called("g", id="b")],
            [{"functionResponse": {"id": "b", "response": {"x": 2}}}, returned("", {"x": 1})],
            [("a", "f", "{}"), ("b", "g", "{}")],
            [("b", '{"x":2}'), ("a", '{"x":1}')],
        ),
        # a result whose call was lost
        ([], [returned("f", {"x": 1})], None, [("f", '{"x":1}')]),
        ([], [returned("f", {"x": 1}, id="a")], None, [("a", '{"x":1}')]),
    ],
)
def test_results_find_their_calls(
    calls: list[Any], results: list[Any], made: list[Any] | None, found: list[Any]
) -> None:
    request = gemini([{"role": "model", "parts": calls}, {"role": "user", "parts": results}])
    if made is not None:
        assert request.messages[0].parts == tuple(ToolCall(*call) for call in made)
    for part, (call_id, text) in zip(request.messages[1].parts, found, strict=True):
        assert isinstance(part, ToolResult)
        assert part.id == call_id
        assert "".join(p.text for p in part.parts if isinstance(p, Text)) == text
        assert not part.error


def test_a_list_of_one_object_may_be_the_object_as_in_googles_examples() -> None:
    function = {"name": "f", "parameters": {"type": "OBJECT", "properties": {}}}
    body = {
        "contents": {"role": "user", "parts": {"text": "Hi"}},
        "system_instruction": {"parts": {"text": "Be brief."}},
        "tools": {"function_declarations": function},
    }
    request = decode_client_request("gemini", body)
    assert request.messages == (
        Message("system", (Text("Be brief."),)),
        Message("user", (Text("Hi"),)),
    )
    assert [tool.name for tool in request.tools] == ["f"]


def test_results_may_be_errors_and_images() -> None:
    request = gemini(
        [
            {"role": "model", "parts": [called("f"), called("g")]},
            {
                "role": "function",
                "parts": [
                    returned("f", {"error": "no such city"}),
                    returned(
                        "g",
                        {"ok": True},
                        parts=[
                            {"inlineData": {"mimeType": "image/png", "data": PNG}},
                            {"executableCode": {}},
                        ],
                    ),
                ],
            },
        ]
    )
    assert request.messages[1].parts == (
        ToolResult("call_1", (Text("no such city"),), "f", True),
        ToolResult(
            "call_2",
            (Text('{"ok":true}'), Media(kind="image", media_type="image/png", data=PNG)),
            "g",
        ),
    )


GOOGLE_SCHEMA = {
    "type": "OBJECT",
    "properties": {
        "type": {"type": "STRING", "nullable": True},
        "list": {"type": "ARRAY", "items": {"type": "INTEGER"}},
        "one": {"anyOf": [{"type": "NUMBER"}, True]},
    },
    "propertyOrdering": ["type"],
    "required": ["type"],
}


JSON_SCHEMA = {
    "type": "object",
    "properties": {
        "type": {"type": ["string", "null"]},
        "list": {"type": "array", "items": {"type": "integer"}},
        "one": {"anyOf": [{"type": "number"}, True]},
    },
    "required": ["type"],
}


def calling(**members: Any) -> dict[str, Any]:
    return {"toolConfig": {"functionCallingConfig": members}}


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({}, {}),
        (
            {"systemInstruction": {"parts": [{"text": "A"}, {"text": ""}, {"text": "B"}]}},
            {
                "messages": (
                    Message("system", (Text("A"), Text("B"))),
                    Message("user", (Text("Hi"),)),
                )
            },
        ),
        (
            {"system_instruction": "A"},
            {"messages": (Message("system", (Text("A"),)), Message("user", (Text("Hi"),)))},
        ),
        (
            {
                "tools": [
                    {
                        "functionDeclarations": [
                            {"name": "f", "description": "F.", "parameters": GOOGLE_SCHEMA},
                            {"name": "g", "parametersJsonSchema": SCHEMA},
                        ]
                    },
                    {"function_declarations": [{"name": "h"}]},
                    {"functionDeclarations": None},
                ]
            },
            {
                "tools": (
                    Tool(name="f", description="F.", schema=JSON_SCHEMA),
                    Tool(name="g", schema=SCHEMA),
                    Tool(name="h"),
                )
            },
        ),
        (calling(), {}),
        (calling(mode="MODE_UNSPECIFIED"), {}),
        (calling(mode="AUTO"), {"tool_choice": ToolChoice("auto")}),
        (calling(mode="NONE"), {"tool_choice": ToolChoice("none")}),
        (calling(mode="ANY"), {"tool_choice": ToolChoice("required")}),
        (
            calling(mode="ANY", allowed_function_names=["f"]),
            {"tool_choice": ToolChoice("required", ("f",))},
        ),
        (
            calling(mode="VALIDATED", allowedFunctionNames=["f", "g"]),
            {"tool_choice": ToolChoice("auto", ("f", "g"))},
        ),
        (config(responseMimeType="application/json"), {"output": Output()}),
        (config(responseMimeType="text/plain"), {}),
        (
            config(responseMimeType="application/json", responseSchema=GOOGLE_SCHEMA),
            {"output": Output(schema=JSON_SCHEMA)},
        ),
        (config(responseJsonSchema=SCHEMA), {"output": Output(schema=SCHEMA)}),
        (
            config(thinkingConfig={"thinkingBudget": 0}),
            {"thinking": Thinking(effort="none")},
        ),
        (
            config(thinkingConfig={"thinkingBudget": -1, "includeThoughts": True}),
            {"thinking": Thinking(summary=True)},
        ),
        (
            config(thinking_config={"thinking_budget": 2000}),
            {"thinking": Thinking(budget=2000)},
        ),
        (
            config(thinkingConfig={"thinkingLevel": "LOW", "includeThoughts": False}),
            {"thinking": Thinking(effort="low", summary=False)},
        ),
        (
            config(
                maxOutputTokens=5,
                temperature=0.5,
                topP=0.9,
                topK=40.0,
                stopSequences=["a"],
                seed=7,
                presencePenalty=1,
                frequencyPenalty=2,
                candidateCount=1,
                responseModalities=["TEXT"],
            ),
            {
                "max_tokens": 5,
                "temperature": 0.5,
                "top_p": 0.9,
                "top_k": 40,
                "stop": ("a",),
                "seed": 7,
                "presence_penalty": 1.0,
                "frequency_penalty": 2.0,
            },
        ),
        # what has no neutral meaning keeps its name
        (
            {
                "safety_settings": [{"category": "C"}],
                "model": "models/x",
                "cachedContent": None,
                "labels": {"a_b": "c"},
                "generation_config": {"media_resolution": "LOW", "responseModalities": ["IMAGE"]},
            },
            {
                "extra": {
                    "gemini": {
                        "safetySettings": [{"category": "C"}],
                        "labels": {"a_b": "c"},
                        "generationConfig.mediaResolution": "LOW",
                        "generationConfig.responseModalities": ["IMAGE"],
                    }
                }
            },
        ),
    ],
)
def test_parameters_get_their_neutral_meaning(
    members: dict[str, Any], expected: dict[str, Any]
) -> None:
    plain = Request(model="m", messages=(Message("user", (Text("Hi"),)),))
    assert gemini(**members) == msgspec.structs.replace(plain, **expected)


def test_the_path_has_model_and_streaming() -> None:
    request = decode_client_request("gemini", {"contents": "Hi"}, model="g", stream=True)
    assert (request.model, request.stream) == ("g", True)


@pytest.mark.parametrize(
    ("members", "param", "message"),
    [
        ({"contents": 7}, "contents", "Invalid type"),
        ({"contents": None}, "contents", "Invalid type"),
        ({"contents": [7]}, "contents[0]", "Invalid type"),
        ({"contents": [{"parts": [{"text": 7}]}]}, "contents[0].parts[0].text", "Invalid type"),
        (
            {"contents": [{"parts": [{"functionCall": {}}]}]},
            "contents[0].parts[0].functionCall.name",
            "Missing required",
        ),
        (config(temperature="hot"), "generationConfig.temperature", "Invalid type"),
        (config(candidateCount=2), "generationConfig.candidateCount", "must be 1"),
        ({"tools": [{"functionDeclarations": []}, {"googleSearch": {}}]}, "tools[1]", "not Google"),
        (
            {"tools": [{"functionDeclarations": [{"name": "f"}], "codeExecution": {}}]},
            "tools[0]",
            "not Google",
        ),
    ],
)
def test_an_invalid_request_is_refused_with_the_name_of_the_member(
    members: dict[str, Any], param: str, message: str
) -> None:
    with pytest.raises(APIError) as caught:
        decode_client_request("gemini", {"contents": "Hi", **members})
    assert (caught.value.kind, caught.value.param) == (ErrorKind.INVALID, param)
    assert message in caught.value.message


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{", "could not be read as JSON"),
        (b"\xff", "not valid UTF-8"),
        (b"[]", "must be a JSON object"),
        (b'{"contents":"Hi","x":' + b"[" * 10**6, "nested too deeply"),
        (b"{}", "Missing required parameter: 'contents'"),
    ],
)
def test_a_request_that_is_not_a_json_object_is_refused(body: bytes, message: str) -> None:
    with pytest.raises(APIError, match=message):
        decode_client_request("gemini", body)


def test_a_body_nested_to_the_limit_is_read_or_refused() -> None:
    for depth in range(800, 1000):
        body = b'{"contents":"Hi","x":' + b'{"a":' * depth + b"1" + b"}" * depth + b"}"
        try:
            decode_client_request("gemini", body)
        except APIError as error:
            assert "nested too deeply" in error.message  # noqa: PT017
