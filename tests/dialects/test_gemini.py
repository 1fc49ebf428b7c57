from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, strategies as st

from asgi_aiproxy.dialects import GEMINI_CONTENT, Gemini, Operation
from asgi_aiproxy.dialects.gemini.partial_arguments import PartialArguments
from asgi_aiproxy.errors import APIError, ErrorKind
from asgi_aiproxy.framing import JSONArrayFramer, SSEFramer
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
    fold,
)
from asgi_aiproxy.translate import NativeStreamTranslator
from tests.asking import HI, anthropic, asked, gemini, openai, written

PNG = "iVBORw0KGgo="
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
PATH = "/v1beta/models/gemini-2.5-flash:generateContent"


# ── paths, and what passes through ───────────────────────────────────────────


@pytest.mark.parametrize(
    ("method", "path", "model", "stream"),
    [
        ("POST", PATH, "gemini-2.5-flash", False),
        ("POST", "/v1beta/models/g:streamGenerateContent", "g", True),
        ("POST", "/v1/models/g:generateContent", "g", False),
        ("POST", "/v1beta2/models/g:generateContent", "g", False),
        ("POST", "/v1alpha/models/g:generateContent", "g", False),
        ("POST", "/v1beta/models/openai%2Fgpt%3A4:generateContent", "openai/gpt:4", False),
        ("POST", "/v1beta/models/anthropic/claude:generateContent", "anthropic/claude", False),
        ("GET", PATH, None, None),
        ("POST", "/v1beta/models/g:embedContent", None, None),
        ("POST", "/v1beta/models/g", None, None),
        ("POST", "/v1beta/models/:generateContent", None, None),
        ("POST", "/v1beta/models/g:generateContent/", None, None),
    ],
)
def test_paths_mean_operations(
    method: str, path: str, model: str | None, stream: bool | None
) -> None:
    found = GEMINI_CONTENT.match(method, path)
    assert (found and found.model) == model
    assert (found and found.stream) == stream


def operation(path: str) -> Operation:
    found = GEMINI_CONTENT.match("POST", path)
    assert found is not None
    return found


@pytest.mark.parametrize("stream", [True, False])
def test_routing_reads_the_path_and_passes_the_body(stream: bool) -> None:
    method = "streamGenerateContent" if stream else "generateContent"
    wanted = operation(f"/v1beta/models/g:{method}")
    body = {"contents": [{"parts": [{"text": "Hi"}]}], "unknown": {"a_b": 1}}
    head = GEMINI_CONTENT.summarize(wanted, json.dumps(body).encode())
    assert (head.model, head.stream, head.usage_wanted) == ("g", stream, True)
    draft = GEMINI_CONTENT.native_request(wanted, "tuned/other", head.fields, stream=stream)
    assert draft.path == f"/v1beta/models/tuned%2Fother:{method}"
    assert draft.query == ("alt=sse" if stream else "")
    assert json.loads(msgspec.json.encode(draft.body)) == body


@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        (b"", None, "could not be read as JSON"),
        (b"[]", None, "must be a JSON object"),
        (b'{"contents":"\xff"}', None, "not valid UTF-8"),
        (b"{}", "contents", "Missing required parameter"),
    ],
)
def test_a_body_that_can_not_be_routed_is_refused_by_name(
    body: bytes, param: str | None, message: str
) -> None:
    with pytest.raises(APIError, match=message) as caught:
        GEMINI_CONTENT.summarize(operation(PATH), body)
    assert (caught.value.kind, caught.value.param) == (ErrorKind.INVALID, param)


def test_models_are_listed() -> None:
    draft = GEMINI_CONTENT.models_request()
    assert (draft.path, draft.query) == ("/v1beta/models", "pageSize=1000")
    listed = b'{"models":[{"name":"models/a"},{"name":"b"}]}'
    assert GEMINI_CONTENT.decode_models(listed) == ("a", "b")


def test_a_stream_is_events_or_an_array() -> None:
    assert isinstance(GEMINI_CONTENT.framer("text/event-stream"), SSEFramer)
    assert isinstance(GEMINI_CONTENT.framer("application/json"), JSONArrayFramer)


# ── requests to neutral ──────────────────────────────────────────────────────


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
def test_what_is_said_and_shown(contents: Any, messages: tuple[Message, ...]) -> None:
    assert gemini(contents).messages == messages


def called(name: str, **more: Any) -> dict[str, Any]:
    return {"functionCall": {"name": name, **more}}


def returned(name: str, response: Any, **more: Any) -> dict[str, Any]:
    return {"functionResponse": {"name": name, "response": response, **more}}


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


def test_results_may_be_errors_and_pictures() -> None:
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


def config(**members: Any) -> dict[str, Any]:
    return {"generationConfig": members}


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


def test_the_path_tells_model_and_streaming() -> None:
    request = asked("gemini", {"contents": "Hi"}, model="g", stream=True)
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
        ({"tools": [{"functionDeclarations": []}, {"googleSearch": {}}]}, "tools[1]", "none of"),
        (
            {"tools": [{"functionDeclarations": [{"name": "f"}], "codeExecution": {}}]},
            "tools[0]",
            "none of",
        ),
    ],
)
def test_a_request_that_can_not_be_understood_is_refused_by_name(
    members: dict[str, Any], param: str, message: str
) -> None:
    with pytest.raises(APIError) as caught:
        asked("gemini", {"contents": "Hi", **members})
    assert (caught.value.kind, caught.value.param) == (ErrorKind.INVALID, param)
    assert message in caught.value.message


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{", "could not be read as JSON"),
        (b"\xff", "not valid UTF-8"),
        (b"[]", "must be a JSON object"),
        (b'{"contents":"Hi","x":' + b"[" * 10_000, "nested too deeply"),
        (b"{}", "Missing required parameter: 'contents'"),
    ],
)
def test_a_request_that_is_no_json_object_is_refused(body: bytes, message: str) -> None:
    with pytest.raises(APIError, match=message):
        asked("gemini", body)


def test_a_body_nested_to_the_limit_is_read_or_refused() -> None:
    for depth in range(800, 1000):
        body = b'{"contents":"Hi","x":' + b'{"a":' * depth + b"1" + b"}" * depth + b"}"
        try:
            asked("gemini", body)
        except APIError as error:
            assert "nested too deeply" in error.message  # noqa: PT017


# ── neutral to requests ──────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "body",
    [
        {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}]},
        {
            "systemInstruction": {"parts": [{"text": "A"}, {"text": "B"}]},
            "contents": [
                {
                    "role": "user",
                    "parts": [
                        {"inlineData": {"mimeType": "image/png", "data": PNG}},
                        {"inlineData": {"mimeType": "text/plain", "data": "SGk="}},
                        {"fileData": {"fileUri": "gs://b/a.mp4", "mimeType": "video/mp4"}},
                    ],
                },
                {
                    "role": "model",
                    "parts": [
                        {"text": "Hm.", "thought": True, "thoughtSignature": "c2ln"},
                        {"text": "Both.", "thoughtSignature": "c2ln"},
                        {"text": "", "thoughtSignature": "c2ln"},
                        {"executableCode": {"code": "x"}, "thoughtSignature": "c2ln"},
                        {"codeExecutionResult": {"output": "y"}},
                        {
                            "functionCall": {"id": "a", "name": "f", "args": {"x_y": 1}},
                            "thoughtSignature": "c2ln",
                        },
                        {"functionCall": {"id": "b", "name": "g", "args": {}}},
                    ],
                },
                {
                    "role": "user",
                    "parts": [
                        {"functionResponse": {"id": "a", "name": "f", "response": {"x": 1}}},
                        {"functionResponse": {"id": "b", "name": "g", "response": {"result": "y"}}},
                        {"text": "And?"},
                    ],
                },
            ],
            "tools": [
                {
                    "functionDeclarations": [
                        {"name": "f", "description": "F.", "parametersJsonSchema": SCHEMA},
                        {"name": "g"},
                    ]
                }
            ],
            "toolConfig": {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["f"]}},
        },
        {
            "contents": [{"role": "user", "parts": [{"text": "Hi"}]}],
            "generationConfig": {
                "maxOutputTokens": 5,
                "temperature": 0.5,
                "topP": 0.9,
                "topK": 40,
                "stopSequences": ["a"],
                "seed": 0,
                "presencePenalty": 1.0,
                "frequencyPenalty": 2.0,
                "responseMimeType": "application/json",
                "responseJsonSchema": SCHEMA,
                "thinkingConfig": {"thinkingBudget": 2000, "includeThoughts": True},
                "mediaResolution": "LOW",
                "responseModalities": ["IMAGE"],
            },
            "safetySettings": [{"category": "C", "threshold": "T"}],
            "cachedContent": "cachedContents/x",
        },
        {
            "contents": [{"role": "user", "parts": [{"text": "Hi"}]}],
            "generationConfig": {"thinkingConfig": {"thinkingBudget": 0}},
        },
    ],
)
def test_a_request_read_and_written_again_is_the_same(body: dict[str, Any]) -> None:
    draft = written("gemini", asked("gemini", body))
    assert draft.path == PATH
    assert draft.query == ""
    assert draft.body == body
    assert draft.ignored == ()


def test_an_error_of_a_tool_stays_one() -> None:
    parts = [called("f", id="a"), {"text": "x"}]
    failed = [returned("f", {"error": '{"code":1}'}, id="a")]
    body = written("gemini", gemini([{"role": "model", "parts": parts}, {"parts": failed}])).body
    assert body["contents"][1]["parts"] == [
        {"functionResponse": {"id": "a", "name": "f", "response": {"error": '{"code":1}'}}}
    ]


def body_of(request: Request, model: str = "gemini-2.5-flash") -> dict[str, Any]:
    return dict(written("gemini", request, model).body)


def test_a_stream_is_asked_for_by_path() -> None:
    draft = written("gemini", openai(stream=True), "a/b")
    assert draft.path == "/v1beta/models/a%2Fb:streamGenerateContent"
    assert draft.query == "alt=sse"


def fcall(call_id: str, name: str, arguments: str = "{}") -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


@pytest.mark.parametrize(
    ("messages", "contents"),
    [
        # turns alternate, and none is empty
        (
            [
                {"role": "user", "content": ""},
                *HI,
                {"role": "user", "content": "there"},
                {"role": "assistant", "content": ""},
            ],
            [{"role": "user", "parts": [{"text": "Hi"}, {"text": "there"}]}],
        ),
        (
            [*HI, {"role": "assistant", "content": None, "refusal": "No."}],
            [
                {"role": "user", "parts": [{"text": "Hi"}]},
                {"role": "model", "parts": [{"text": "No."}]},
            ],
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
                {"role": "tool", "tool_call_id": "b", "content": '{"t":1}'},
                {"role": "user", "content": "And?"},
            ],
            [
                {"role": "user", "parts": [{"text": "Hi"}]},
                {
                    "role": "model",
                    "parts": [
                        {"text": "Both."},
                        {"functionCall": {"id": "a", "name": "f", "args": {"x": 1}}},
                        {"functionCall": {"id": "b", "name": "g", "args": {}}},
                    ],
                },
                {
                    "role": "user",
                    "parts": [
                        {
                            "functionResponse": {
                                "id": "a",
                                "name": "f",
                                "response": {"result": "sunny"},
                            }
                        },
                        {"functionResponse": {"id": "b", "name": "g", "response": {"t": 1}}},
                        {"text": "And?"},
                    ],
                },
            ],
        ),
        # a result whose call is not here
        (
            [{"role": "tool", "tool_call_id": "a", "content": "x"}],
            [
                {
                    "role": "user",
                    "parts": [
                        {"functionResponse": {"id": "a", "name": "a", "response": {"result": "x"}}}
                    ],
                }
            ],
        ),
        # what a tool shows follows its words
        (
            [
                {"role": "assistant", "tool_calls": [fcall("a", "f")]},
                {
                    "role": "tool",
                    "tool_call_id": "a",
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
                {
                    "role": "model",
                    "parts": [{"functionCall": {"id": "a", "name": "f", "args": {}}}],
                },
                {
                    "role": "user",
                    "parts": [
                        {
                            "functionResponse": {
                                "id": "a",
                                "name": "f",
                                "response": {"result": "see"},
                            }
                        },
                        {"inlineData": {"mimeType": "image/png", "data": PNG}},
                    ],
                },
            ],
        ),
    ],
)
def test_a_conversation_in_openais_words(
    messages: list[dict[str, Any]], contents: list[dict[str, Any]]
) -> None:
    assert body_of(openai(messages))["contents"] == contents


@pytest.mark.parametrize(
    ("media", "part"),
    [
        (
            Media(kind="image", url="https://a.example/a.webp?x=1.png"),
            {"fileData": {"fileUri": "https://a.example/a.webp?x=1.png", "mimeType": "image/webp"}},
        ),
        (
            Media(kind="image", url="https://a.example/a"),
            {"fileData": {"fileUri": "https://a.example/a", "mimeType": "image/jpeg"}},
        ),
        (
            Media(kind="video", media_type="video/*", url="https://youtu.be/x"),
            {"fileData": {"fileUri": "https://youtu.be/x", "mimeType": "video/mp4"}},
        ),
        (
            Media(kind="document", file="files/1"),
            {"fileData": {"fileUri": "files/1", "mimeType": "application/pdf"}},
        ),
        (
            Media(kind="document", text="Grüße", name="a.txt"),
            {"inlineData": {"mimeType": "text/plain", "data": "R3LDvMOfZQ=="}},
        ),
        (
            Media(kind="image", media_type="image/*", data=PNG),
            {"inlineData": {"mimeType": "image/png", "data": PNG}},
        ),
        (
            Media(kind="image", media_type="image/*", data="AAAA"),
            {"inlineData": {"mimeType": "image/jpeg", "data": "AAAA"}},
        ),
        (
            Media(kind="audio", data="AAAA"),
            {"inlineData": {"mimeType": "audio/wav", "data": "AAAA"}},
        ),
    ],
)
def test_everything_that_is_shown_has_a_type(media: Media, part: dict[str, Any]) -> None:
    body = body_of(Request(model="m", messages=(Message("user", (media,)),)))
    assert body["contents"][0]["parts"] == [part]


def test_arguments_that_are_no_object_go_along_as_text() -> None:
    draft = written(
        "gemini", openai([{"role": "assistant", "tool_calls": [fcall("a", "f", "[1]")]}])
    )
    (part,) = draft.body["contents"][0]["parts"]
    assert part["functionCall"]["args"] == {"arguments": "[1]"}
    assert draft.ignored == ("tool_calls[].function.arguments",)


@pytest.mark.parametrize(
    ("model", "signs"),
    [
        ("gemini-2.5-pro", False),
        ("gemini-3-pro-preview", True),
        ("gemini-3.5-flash", True),
        ("gemini-flash-latest", True),
    ],
)
def test_calls_of_other_models_are_signed_for_gemini_3(model: str, signs: bool) -> None:
    history: list[dict[str, Any]] = [
        {"role": "assistant", "content": "x", "tool_calls": [fcall("a", "f"), fcall("b", "g")]},
        {"role": "tool", "tool_call_id": "a", "content": "x"},
        {"role": "assistant", "tool_calls": [fcall("c", "f")]},
    ]
    contents = body_of(openai(history), model)["contents"]
    signatures = [
        part.get("thoughtSignature")
        for content in contents
        for part in content["parts"]
        if "functionCall" in part
    ]
    stand_in = "skip_thought_signature_validator" if signs else None
    assert signatures == [stand_in, None, stand_in]


def test_a_signature_of_ones_own_needs_no_stand_in() -> None:
    call = {**fcall("b", "g"), "extra_content": {"google": {"thought_signature": "c2ln"}}}
    history = [{"role": "assistant", "tool_calls": [fcall("a", "f"), call]}]
    parts = body_of(openai(history), "gemini-3-pro")["contents"][0]["parts"]
    assert [part.get("thoughtSignature") for part in parts] == [None, "c2ln"]


TOOLS = [
    {"type": "function", "function": {"name": "f", "description": "F.", "parameters": SCHEMA}},
    {"type": "function", "function": {"name": "g", "parameters": {"properties": {}}}},
    {"type": "function", "function": {"name": "h"}},
]


def named(*names: str) -> list[dict[str, Any]]:
    return [{"type": "function", "function": {"name": name}} for name in names]


def allowed(mode: str, *names: str) -> dict[str, Any]:
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": named(*names)}}


def test_tools_are_declared() -> None:
    assert body_of(openai(tools=TOOLS))["tools"] == [
        {
            "functionDeclarations": [
                {"name": "f", "description": "F.", "parametersJsonSchema": SCHEMA},
                {"name": "g", "parametersJsonSchema": {"type": "object", "properties": {}}},
                {"name": "h"},
            ]
        }
    ]


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (None, None),
        ("auto", {"mode": "AUTO"}),
        ("none", {"mode": "NONE"}),
        ("required", {"mode": "ANY"}),
        (named("f")[0], {"mode": "ANY", "allowedFunctionNames": ["f"]}),
        (allowed("auto", "f", "g"), {"mode": "VALIDATED", "allowedFunctionNames": ["f", "g"]}),
        (allowed("required", "f", "g"), {"mode": "ANY", "allowedFunctionNames": ["f", "g"]}),
    ],
)
def test_the_choice_of_tools(choice: Any, expected: Any) -> None:
    body = body_of(openai(tools=TOOLS, tool_choice=choice))
    assert body.get("toolConfig", {}).get("functionCallingConfig") == expected


def test_a_choice_without_tools_is_none() -> None:
    assert "toolConfig" not in body_of(openai(tool_choice="auto"))


@pytest.mark.parametrize(
    ("members", "model", "thinking"),
    [
        ({}, "gemini-2.5-flash", None),
        ({"reasoning": {"enabled": True}}, "gemini-2.5-flash", {"includeThoughts": True}),
        # a budget, to 2.5
        ({"reasoning_effort": "none"}, "gemini-2.5-flash", {"thinkingBudget": 0}),
        ({"reasoning_effort": "none"}, "gemini-2.5-pro", {"thinkingBudget": 128}),
        (
            {"reasoning_effort": "minimal"},
            "gemini-2.5-flash",
            {"includeThoughts": True, "thinkingBudget": 1024},
        ),
        (
            {"reasoning_effort": "medium"},
            "gemini-2.5-flash",
            {"includeThoughts": True, "thinkingBudget": 8192},
        ),
        (
            {"reasoning_effort": "xhigh"},
            "gemini-2.5-flash",
            {"includeThoughts": True, "thinkingBudget": 24576},
        ),
        (
            {"reasoning": {"effort": "low", "max_tokens": 3000}},
            "gemini-2.5-flash",
            {"includeThoughts": True, "thinkingBudget": 3000},
        ),
        (
            {"reasoning": {"max_tokens": 3000, "exclude": True}},
            "gemini-2.5-flash",
            {"thinkingBudget": 3000},
        ),
        # a level, from 3 on
        ({"reasoning_effort": "none"}, "gemini-3-flash", {"thinkingLevel": "minimal"}),
        ({"reasoning_effort": "none"}, "gemini-3-pro", {"thinkingLevel": "low"}),
        (
            {"reasoning_effort": "low"},
            "gemini-3-flash",
            {"includeThoughts": True, "thinkingLevel": "low"},
        ),
        (
            {"reasoning_effort": "medium"},
            "gemini-3-flash",
            {"includeThoughts": True, "thinkingLevel": "medium"},
        ),
        (
            {"reasoning_effort": "max"},
            "gemini-flash-latest",
            {"includeThoughts": True, "thinkingLevel": "high"},
        ),
        (
            {"reasoning": {"max_tokens": 3000}},
            "gemini-3-flash",
            {"includeThoughts": True, "thinkingBudget": 3000},
        ),
    ],
)
def test_thinking_per_generation(members: dict[str, Any], model: str, thinking: Any) -> None:
    body = body_of(openai(**members), model)
    assert body.get("generationConfig", {}).get("thinkingConfig") == thinking


def test_a_budget_of_anthropics_client_is_kept() -> None:
    request = anthropic(thinking={"type": "enabled", "budget_tokens": 2048})
    config = body_of(request)["generationConfig"]["thinkingConfig"]
    assert config == {"includeThoughts": True, "thinkingBudget": 2048}


@pytest.mark.parametrize(
    ("wanted", "config"),
    [
        ({"type": "json_object"}, {"responseMimeType": "application/json"}),
        (
            {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}},
            {"responseMimeType": "application/json", "responseJsonSchema": SCHEMA},
        ),
        ({"type": "text"}, {}),
    ],
)
def test_json_is_asked_for(wanted: Any, config: dict[str, Any]) -> None:
    assert body_of(openai(response_format=wanted)).get("generationConfig", {}) == config


def test_what_gemini_has_no_word_for_is_reported() -> None:
    strict = {"type": "function", "function": {"name": "f", "strict": True}}
    draft = written(
        "gemini",
        openai(
            [{"role": "user", "content": "Hi", "name": "bob"}],
            store=True,
            user="u",
            tools=[strict],
            parallel_tool_calls=False,
        ),
    )
    assert draft.ignored == (
        "store",
        "messages[].name",
        "user",
        "parallel_tool_calls",
        "tools[].function.strict",
    )
    parts = [{"type": "text", "text": "Hi"}, {"type": "container_upload"}]
    claude = anthropic([{"role": "user", "content": parts}])
    assert written("gemini", claude).ignored == ("messages[].content",)


# ── answers ──────────────────────────────────────────────────────────────────


def answer(parts: list[Any] | None, **members: Any) -> bytes:
    content = {} if parts is None else {"content": {"parts": parts, "role": "model"}}
    candidate = {**content, "finishReason": "STOP", **members.pop("candidate", {})}
    body = {
        "candidates": [candidate],
        "modelVersion": "gemini-test",
        "responseId": "resp_1",
        **members,
    }
    return json.dumps(body).encode()


@pytest.mark.parametrize(
    ("parts", "blocks", "stop"),
    [
        ([{"text": "Hi."}], (Text("Hi."),), StopReason.END),
        (None, (), StopReason.END),
        ([], (), StopReason.END),
        (
            [
                {"text": "Hm.", "thought": True},
                {"text": "4", "thoughtSignature": "c2ln"},
                {"functionCall": {"name": "f", "args": {"x": 1}}, "thoughtSignature": "c2ln"},
                {"functionCall": {"id": "b", "name": "g"}},
            ],
            (
                Reasoning("Hm."),
                Text("4", extra={"gemini": {"signature": "c2ln"}}),
                ToolCall("new_1", "f", '{"x":1}', {"gemini": {"signature": "c2ln"}}),
                ToolCall("b", "g", "{}"),
            ),
            StopReason.TOOLS,
        ),
        (
            [
                {"inlineData": {"mimeType": "image/png", "data": PNG}},
                {"inlineData": {"mimeType": "text/csv", "data": "YSxi"}},
                {"executableCode": {"code": "x"}},
                {"newPart": 1},
            ],
            (
                Media(kind="image", media_type="image/png", data=PNG),
                Media(kind="document", media_type="text/csv", data="YSxi"),
                Opaque("gemini", {"executableCode": {"code": "x"}}),
            ),
            StopReason.END,
        ),
    ],
)
def test_a_whole_answer_is_read(
    parts: list[Any] | None, blocks: tuple[Any, ...], stop: StopReason
) -> None:
    dialect = Gemini(new_id=lambda: "new_1")
    assert dialect.decode_response(answer(parts)) == Response(
        id="resp_1", model="gemini-test", blocks=blocks, stop=stop, word="STOP"
    )


@pytest.mark.parametrize(
    ("candidate", "stop", "refusal"),
    [
        ({"finishReason": "MAX_TOKENS"}, StopReason.LENGTH, ""),
        ({"finishReason": "SAFETY", "finishMessage": "Unsafe."}, StopReason.FILTER, "Unsafe."),
        ({"finishReason": "PROHIBITED_CONTENT"}, StopReason.FILTER, ""),
        ({"finishReason": "STOP", "finishMessage": "Called."}, StopReason.END, ""),
    ],
)
def test_why_an_answer_ended(candidate: dict[str, Any], stop: StopReason, refusal: str) -> None:
    found = GEMINI_CONTENT.decode_response(answer([], candidate=candidate))
    assert (found.stop, found.refusal, found.word) == (stop, refusal, candidate["finishReason"])


FAILURES = [
    "MALFORMED_FUNCTION_CALL",
    "MALFORMED_RESPONSE",
    "UNEXPECTED_TOOL_CALL",
    "TOO_MANY_TOOL_CALLS",
    "MISSING_THOUGHT_SIGNATURE",
    "OTHER",
    "NO_IMAGE",
    "A_NEW_ONE",
]
NOTHING: list[list[dict[str, Any]]] = [
    [],
    [{"text": "Let me see.", "thought": True}],
    [{"text": "", "thoughtSignature": "s"}],
]


@pytest.mark.parametrize("word", FAILURES)
@pytest.mark.parametrize("parts", NOTHING)
@pytest.mark.parametrize("how", ["translated", "passed on", "streamed", "passed on in a stream"])
def test_an_answer_without_content_that_failed_is_an_error(
    word: str, parts: list[Any], how: str
) -> None:
    body = answer(parts, candidate={"finishReason": word, "finishMessage": "print(f("})
    with pytest.raises(APIError, match=rf"failed with {word} \(print\(f\(\)") as caught:
        read_in(how, body)
    assert caught.value.kind is ErrorKind.UPSTREAM


@pytest.mark.parametrize("word", FAILURES)
@pytest.mark.parametrize(
    "part",
    [
        {"text": "Hi."},
        {"functionCall": {"name": "f", "args": {}}},
        {"inlineData": {"mimeType": "image/png", "data": PNG}},
    ],
)
@pytest.mark.parametrize("how", ["translated", "passed on", "streamed", "passed on in a stream"])
def test_content_is_kept_however_the_answer_ended(word: str, part: Any, how: str) -> None:
    candidate = {"finishReason": word, "finishMessage": "print(f("}
    told = read_in(how, answer([part], candidate=candidate))
    assert told is None or (told.stop, told.word, told.refusal) == (StopReason.OTHER, word, "")


@pytest.mark.parametrize("word", ["STOP", "MAX_TOKENS", "SAFETY", "PROHIBITED_CONTENT"])
@pytest.mark.parametrize("how", ["translated", "passed on", "streamed", "passed on in a stream"])
def test_an_empty_answer_that_ended_well_or_was_filtered_is_no_error(word: str, how: str) -> None:
    read_in(how, answer([], candidate={"finishReason": word}))


def read_in(how: str, body: bytes) -> Response | None:
    """A whole answer, or the same in two chunks: its content, then its end."""
    whole = json.loads(body)
    (candidate,) = whole["candidates"]
    first = {**whole, "candidates": [{"content": candidate["content"], "index": 0}]}
    last = {**whole, "candidates": [{**candidate, "content": {"role": "model"}}]}
    chunks = [json.dumps(chunk).encode() for chunk in (first, last)]
    match how:
        case "translated":
            return GEMINI_CONTENT.decode_response(body)
        case "streamed":
            decoder = GEMINI_CONTENT.decoder()
            events = [event for chunk in chunks for event in decoder.feed(chunk)]
            return fold([*events, *decoder.close()])
        case "passed on":
            assert GEMINI_CONTENT.native_stream(usage_wanted=True, exact=True).whole(body) == body
        case _:
            verbatim = NativeStreamTranslator(
                GEMINI_CONTENT.native_stream(usage_wanted=True, exact=True)
            )
            sent = b"".join(b"data: " + chunk + b"\n\n" for chunk in chunks)
            assert verbatim.feed(sent) + verbatim.close() == sent
    return None


def test_content_that_passed_unread_is_content_too() -> None:
    echo = GEMINI_CONTENT.native_stream(usage_wanted=True, exact=True)
    verbatim = NativeStreamTranslator(echo)
    thought = answer([{"text": "Hm.", "thought": True}], candidate={})
    text = answer([{"text": "Hi."}], candidate={})
    end = answer([], candidate={"finishReason": "OTHER"})
    frames = [b"data: " + chunk + b"\n\n" for chunk in (thought, thought, text, end)]
    assert b"".join([verbatim.feed(frame) for frame in frames]) == b"".join(frames)
    assert verbatim.close() == b""


def test_thoughts_that_passed_unread_are_no_content() -> None:
    verbatim = NativeStreamTranslator(GEMINI_CONTENT.native_stream(usage_wanted=True, exact=True))
    thought = answer([{"text": 'Hm "text".', "thought": True}], candidate={})
    for _ in range(3):
        verbatim.feed(b"data: " + thought + b"\n\n")
    end = answer([], candidate={"finishReason": "OTHER"})
    with pytest.raises(APIError, match="failed with OTHER"):
        verbatim.feed(b"data: " + end + b"\n\n")


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (None, None),
        ([], None),
        ({}, None),
        ({"totalTokenCount": 3}, None),
        ({"promptTokenCount": 3}, Usage(input=3)),
        (
            {
                "promptTokenCount": 30,
                "candidatesTokenCount": 5,
                "thoughtsTokenCount": 7,
                "toolUsePromptTokenCount": 4,
                "cachedContentTokenCount": 20,
                "totalTokenCount": 46,
                "promptTokensDetails": [
                    {"modality": "TEXT", "tokenCount": 20},
                    {"modality": "AUDIO", "tokenCount": 10},
                    7,
                ],
                "candidatesTokensDetails": [{"modality": "AUDIO"}],
            },
            Usage(input=34, output=12, cache_read=20, reasoning=7, audio_input=10),
        ),
    ],
)
def test_usage_is_read(usage: Any, expected: Usage | None) -> None:
    assert GEMINI_CONTENT.decode_response(answer([], usageMetadata=usage)).usage == expected


def test_thoughts_beyond_the_output_do_not_make_it_negative() -> None:
    found = Response(id="x", model="m", usage=Usage(input=1, output=2, reasoning=5))
    told = json.loads(GEMINI_CONTENT.encode_response(found, Request(model="m", messages=())))
    assert told["usageMetadata"]["candidatesTokenCount"] == 0


def test_sources_are_placed_by_characters() -> None:
    text = "Grüße 🚀. Ruby."
    end = len(text.encode())
    grounding = {
        "groundingChunks": [{"web": {"uri": "https://a.example", "title": "A"}}, {"other": 1}],
        "groundingSupports": [
            {
                "segment": {"startIndex": end - 5, "endIndex": end, "text": "Ruby."},
                "groundingChunkIndices": [0, 1, 2, -1],
            },
            {"groundingChunkIndices": []},
            {},
        ],
    }
    found = GEMINI_CONTENT.decode_response(
        answer([{"text": text}], candidate={"groundingMetadata": grounding})
    )
    assert found.blocks == (
        Text(
            text,
            (
                Citation(url="https://a.example", title="A", quote="Ruby.", start=9, end=14),
                Citation(quote="Ruby.", start=9, end=14),
            ),
        ),
    )


@pytest.mark.parametrize(
    ("body", "kind", "message"),
    [
        (b"", ErrorKind.UPSTREAM, "200 without a body"),
        (b"<html>Oops</html>", ErrorKind.UPSTREAM, "200: Oops"),
        (b"[]", ErrorKind.UPSTREAM, "200: []"),
        (b"{}", ErrorKind.UPSTREAM, "without a finish reason"),
        (
            b'{"error":{"code":503,"message":"Busy.","status":"UNAVAILABLE"}}',
            ErrorKind.OVERLOADED,
            "Busy.",
        ),
    ],
)
def test_a_body_that_is_no_answer_is_an_error(body: bytes, kind: ErrorKind, message: str) -> None:
    with pytest.raises(APIError) as caught:
        GEMINI_CONTENT.decode_response(body)
    assert caught.value.kind is kind
    assert message in caught.value.message
    if body != b"{}":
        with pytest.raises(APIError) as caught:
            GEMINI_CONTENT.native_stream(usage_wanted=True, exact=True).whole(body)
        assert caught.value.kind is kind


def test_a_passing_answer_is_read_for_model_and_usage() -> None:
    body = answer([{"text": "Hi."}], usageMetadata={"promptTokenCount": 3})
    echo = GEMINI_CONTENT.native_stream(usage_wanted=True, exact=True)
    assert echo.whole(body) == body
    assert (echo.model, echo.usage) == ("gemini-test", Usage(input=3))


def test_a_whole_answer_is_written() -> None:
    face = Gemini(new_id=lambda: "resp_new")
    found = Response(
        id="",
        model="m",
        blocks=(
            Reasoning("Hm."),
            Reasoning("So.", {"gemini": {"signature": "c2ln"}}),
            Reasoning("", {"gemini": {"signature": "c2ln"}}),
            Reasoning("", {"anthropic": {"redacted": "cmVk"}}),
            Text("One.", extra={"gemini": {"signature": "c2ln"}}),
            Refusal("No."),
            ToolCall("a", "f", '{"x":1}', {"gemini": {"signature": "c2ln"}}),
            ToolCall("b", "g", '{"x":'),
            Media(kind="image", media_type="image/png", data=PNG),
            Media(kind="image", url="https://a.example"),
            Opaque("gemini", {"executableCode": {"code": "x"}}),
            Opaque("anthropic", {"type": "new"}),
        ),
        stop=StopReason.FILTER,
        usage=Usage(input=9, output=5, cache_read=4, reasoning=2),
        refusal="Unsafe.",
    )
    assert json.loads(face.encode_response(found, Request(model="m", messages=()))) == {
        "candidates": [
            {
                "content": {
                    "parts": [
                        {"text": "Hm.", "thought": True},
                        {"text": "So.", "thought": True, "thoughtSignature": "c2ln"},
                        {"text": "", "thought": True, "thoughtSignature": "c2ln"},
                        {"text": "One.", "thoughtSignature": "c2ln"},
                        {"text": "No."},
                        {
                            "functionCall": {"id": "a", "name": "f", "args": {"x": 1}},
                            "thoughtSignature": "c2ln",
                        },
                        {
                            "functionCall": {
                                "id": "b",
                                "name": "g",
                                "args": {"arguments": '{"x":'},
                            }
                        },
                        {"inlineData": {"mimeType": "image/png", "data": PNG}},
                        {"executableCode": {"code": "x"}},
                    ],
                    "role": "model",
                },
                "finishReason": "SAFETY",
                "index": 0,
                "finishMessage": "Unsafe.",
            }
        ],
        "usageMetadata": {
            "promptTokenCount": 9,
            "candidatesTokenCount": 3,
            "totalTokenCount": 14,
            "thoughtsTokenCount": 2,
            "cachedContentTokenCount": 4,
        },
        "modelVersion": "m",
        "responseId": "resp_new",
    }


@pytest.mark.parametrize(
    ("stop", "word", "reason"),
    [
        (StopReason.END, "stop", "STOP"),
        (StopReason.TOOLS, "tool_calls", "STOP"),
        (StopReason.LENGTH, "length", "MAX_TOKENS"),
        (StopReason.FILTER, "content_filter", "SAFETY"),
        (StopReason.FILTER, "RECITATION", "RECITATION"),
        (StopReason.OTHER, "pause_turn", "OTHER"),
    ],
)
def test_why_an_answer_ended_in_googles_words(stop: StopReason, word: str, reason: str) -> None:
    found = Response(id="x", model="m", stop=stop, word=word)
    told = json.loads(GEMINI_CONTENT.encode_response(found, Request(model="m", messages=())))
    assert told["candidates"][0]["finishReason"] == reason


# ── errors ───────────────────────────────────────────────────────────────────


def problem(code: Any, **more: Any) -> dict[str, Any]:
    return {"error": {"code": code, "message": "So.", "status": "S", **more}}


BAD_KEY = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}
RETRY = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34.07s"}


@pytest.mark.parametrize(
    ("status", "body", "kind", "out", "retry_after"),
    [
        (400, problem(400), ErrorKind.INVALID, 400, None),
        (403, problem(403), ErrorKind.KEY_REJECTED, 502, None),
        (404, problem(404), ErrorKind.NOT_FOUND, 404, None),
        (429, problem(429), ErrorKind.LIMITED, 429, None),
        (
            429,
            problem(429, details=[BAD_KEY | {"reason": "X"}, RETRY]),
            ErrorKind.LIMITED,
            429,
            34.07,
        ),
        (429, problem(429, details=[{"retryDelay": "soon"}]), ErrorKind.LIMITED, 429, None),
        (429, problem(429, details=[{"retryDelay": "xs"}, 7]), ErrorKind.LIMITED, 429, None),
        (500, problem(500), ErrorKind.UPSTREAM, 502, None),
        (503, problem(503), ErrorKind.OVERLOADED, 503, None),
        (504, problem(504), ErrorKind.TIMEOUT, 504, None),
        # Google tells a bad key with a 400: asking once more would not help the client either.
        (400, problem(400, details=[BAD_KEY]), ErrorKind.KEY_REJECTED, 400, None),
        (
            400,
            problem(400, details=[{"reason": "API_KEY_EXPIRED"}]),
            ErrorKind.KEY_REJECTED,
            400,
            None,
        ),
        # without alt=sse
        (429, [problem(429, details=[RETRY])], ErrorKind.LIMITED, 429, 34.07),
    ],
)
def test_an_error_answer_is_understood(
    status: int, body: Any, kind: ErrorKind, out: int, retry_after: float | None
) -> None:
    error = GEMINI_CONTENT.decode_error(status, json.dumps(body).encode())
    assert (error.kind, error.status, error.message) == (kind, out, "So.")
    assert error.retry_after == retry_after
    assert error.upstream_status == status


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "The provider answered HTTP 500 without a body"),
        (b"<h1>Oops</h1>", "The provider answered HTTP 500: Oops"),
        (b"[]", "The provider answered HTTP 500: []"),
        (b'{"error":"m"}', 'The provider answered HTTP 500: {"error":"m"}'),
        (b'{"error":{"code":500}}', '{"code":500}'),
    ],
)
def test_an_error_of_another_shape_is_understood(body: bytes, message: str) -> None:
    error = GEMINI_CONTENT.decode_error(500, body)
    assert (error.kind, error.message) == (ErrorKind.UPSTREAM, message)


@pytest.mark.parametrize(
    ("code", "kind"),
    [(429, ErrorKind.LIMITED), (None, ErrorKind.UPSTREAM), (13, ErrorKind.UPSTREAM)],
)
def test_an_error_in_a_stream_tells_its_own_code(code: Any, kind: ErrorKind) -> None:
    with pytest.raises(APIError) as caught:
        GEMINI_CONTENT.decoder().feed(json.dumps(problem(code)).encode())
    assert caught.value.kind is kind


@pytest.mark.parametrize("kind", ErrorKind)
def test_every_error_has_googles_form(kind: ErrorKind) -> None:
    error = APIError(kind, "So.")
    told = json.loads(GEMINI_CONTENT.encode_error(error))["error"]
    assert (told["code"], told["message"]) == (error.status, "So.")
    assert told["status"].isupper()
    frame = b"data: " + GEMINI_CONTENT.encode_error(error) + b"\n\n"
    assert GEMINI_CONTENT.encode_stream_error(error) == frame


# ── arguments in pieces ──────────────────────────────────────────────────────


def put_together(*pieces: dict[str, Any]) -> dict[str, Any]:
    partial = PartialArguments()
    for piece in pieces:
        partial.add([piece])
    return partial.value


@pytest.mark.parametrize(
    ("pieces", "value"),
    [
        ([], {}),
        ([{"jsonPath": "$.a", "stringValue": "x"}], {"a": "x"}),
        (
            [{"jsonPath": "$.a", "stringValue": "x"}, {"jsonPath": "$.a", "stringValue": "y"}],
            {"a": "xy"},
        ),
        (
            [{"jsonPath": "$.a", "numberValue": 1}, {"jsonPath": "$.a", "stringValue": "y"}],
            {"a": "y"},
        ),
        (
            [{"jsonPath": "$.a", "stringValue": "x"}, {"jsonPath": "$.a", "boolValue": False}],
            {"a": False},
        ),
        ([{"jsonPath": "$.a", "nullValue": "NULL_VALUE"}], {"a": None}),
        (
            [{"jsonPath": f"$.a.b[{n}].c", "numberValue": n} for n in range(2)],
            {"a": {"b": [{"c": 0}, {"c": 1}]}},
        ),
        (
            [
                {"jsonPath": "$.a[0][0]", "numberValue": 1},
                {"jsonPath": "$.a[0][1]", "numberValue": 2},
            ],
            {"a": [[1, 2]]},
        ),
        # members come in order, whatever their numbers
        ([{"jsonPath": "$.a[999999999]", "numberValue": 2}], {"a": [2]}),
        (
            [{"jsonPath": "$.a[0]", "numberValue": 2}, {"jsonPath": "$.a.b", "numberValue": 3}],
            {"a": [2, 3]},
        ),
        ([{"jsonPath": "$['a b'].c", "numberValue": 2}], {"a b": {"c": 2}}),
        # what tells nothing
        ([{"jsonPath": "$", "stringValue": "x"}, {"stringValue": "x"}, {"jsonPath": "$.a"}], {}),
    ],
)
def test_arguments_in_pieces_are_put_together(
    pieces: list[dict[str, Any]], value: dict[str, Any]
) -> None:
    assert put_together(*pieces) == value


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text("ab", min_size=1, max_size=3),
    lambda inner: (
        st.lists(inner, min_size=1, max_size=3)
        | st.dictionaries(st.text("xyz", min_size=1, max_size=2), inner, min_size=1, max_size=3)
    ),
    max_leaves=6,
)


@given(st.dictionaries(st.text("xyz", min_size=1, max_size=2), JSON, max_size=3))
def test_any_arguments_taken_to_pieces_are_put_together(value: dict[str, Any]) -> None:
    assert put_together(*taken_apart("$", value)) == value


def taken_apart(path: str, value: Any) -> list[dict[str, Any]]:
    match value:
        case dict():
            return [p for k, v in value.items() for p in taken_apart(f"{path}.{k}", v)]
        case list():
            return [p for i, v in enumerate(value) for p in taken_apart(f"{path}[{i}]", v)]
        case str():
            return [{"jsonPath": path, "stringValue": letter} for letter in value]
        case bool():
            return [{"jsonPath": path, "boolValue": value}]
        case None:
            return [{"jsonPath": path, "nullValue": "NULL_VALUE"}]
    return [{"jsonPath": path, "numberValue": value}]
