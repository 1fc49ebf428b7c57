"""Requests: the neutral format to Google's."""

from __future__ import annotations

from typing import Any

import pytest

from asgi_aiproxy.messages import (
    Media,
    Message,
    Request,
)
from tests.dialects.gemini.samples import (
    PATH,
    PNG,
    SCHEMA,
    called,
    returned,
)
from tests.support.dialect_requests import (
    HI,
    anthropic,
    decode_client_request,
    gemini,
    openai,
    written,
)


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
def test_a_decoded_and_encoded_request_is_the_same(body: dict[str, Any]) -> None:
    draft = written("gemini", decode_client_request("gemini", body))
    assert draft.path == PATH
    assert draft.query == ""
    assert draft.body == body
    assert draft.ignored == ()


def test_a_conversation_that_begins_with_a_call_gets_a_user_turn_before_it() -> None:
    history = [
        {"role": "assistant", "tool_calls": [fcall("a", "f")]},
        {"role": "tool", "tool_call_id": "a", "content": "x"},
    ]
    contents = body_of(openai(history))["contents"]
    assert [content["role"] for content in contents] == ["user", "model", "user"]
    assert list(contents[0]["parts"][0]) == ["text"]


def test_an_error_of_a_tool_is_sent_as_an_error() -> None:
    parts = [called("f", id="a"), {"text": "x"}]
    failed = [returned("f", {"error": '{"code":1}'}, id="a")]
    body = written(
        "gemini",
        gemini([{"parts": [{"text": "Hi"}]}, {"role": "model", "parts": parts}, {"parts": failed}]),
    ).body
    assert body["contents"][2]["parts"] == [
        {"functionResponse": {"id": "a", "name": "f", "response": {"error": '{"code":1}'}}}
    ]


def body_of(request: Request, model: str = "gemini-2.5-flash") -> dict[str, Any]:
    return dict(written("gemini", request, model).body)


def test_a_stream_is_requested_by_the_path() -> None:
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
                *HI,
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
                {"role": "user", "parts": [{"text": "Hi"}]},
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
def test_a_conversation_of_openais_format_is_encoded(
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
def test_every_file_has_a_media_type(media: Media, part: dict[str, Any]) -> None:
    body = body_of(Request(model="m", messages=(Message("user", (media,)),)))
    assert body["contents"][0]["parts"] == [part]


def test_arguments_that_are_not_an_object_are_sent_as_text() -> None:
    draft = written(
        "gemini", openai([*HI, {"role": "assistant", "tool_calls": [fcall("a", "f", "[1]")]}])
    )
    (part,) = draft.body["contents"][1]["parts"]
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


def test_a_signed_call_needs_no_substitute_signature() -> None:
    call = {**fcall("b", "g"), "extra_content": {"google": {"thought_signature": "c2ln"}}}
    history = [*HI, {"role": "assistant", "tool_calls": [fcall("a", "f"), call]}]
    parts = body_of(openai(history), "gemini-3-pro")["contents"][1]["parts"]
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
def test_tool_choices_are_encoded(choice: Any, expected: Any) -> None:
    body = body_of(openai(tools=TOOLS, tool_choice=choice))
    assert body.get("toolConfig", {}).get("functionCallingConfig") == expected


def test_a_tool_choice_without_tools_is_left_out() -> None:
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
def test_thinking_options_depend_on_the_generation(
    members: dict[str, Any], model: str, thinking: Any
) -> None:
    body = body_of(openai(**members), model)
    assert body.get("generationConfig", {}).get("thinkingConfig") == thinking


def test_a_thinking_budget_of_anthropics_client_is_kept() -> None:
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
def test_json_output_is_requested(wanted: Any, config: dict[str, Any]) -> None:
    assert body_of(openai(response_format=wanted)).get("generationConfig", {}) == config


def test_members_that_gemini_lacks_are_reported() -> None:
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
