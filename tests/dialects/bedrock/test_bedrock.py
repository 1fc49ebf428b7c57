"""Requests to Bedrock's Converse, and its whole responses and errors.

Each request is validated as Amazon's own SDK does it, which refuses unknown members, missing ones,
wrong types and values out of range.
"""

from __future__ import annotations

import json
from functools import cache
from typing import Any
from urllib.parse import unquote

import botocore.loaders
import botocore.model
import botocore.validate
import pytest

from asgi_aiproxy.dialects import ANTHROPIC_MESSAGES, BEDROCK_CONVERSE, ProviderRequest
from asgi_aiproxy.errors import APIError, ErrorKind
from asgi_aiproxy.messages import (
    Message,
    Reasoning,
    Request,
    StopReason,
    Text,
    ToolCall,
    Usage,
    fold,
)
from tests.support.dialect_requests import HI, anthropic, openai, written

PNG, PDF = "iVBORw0KGgo=", "JVBERi0xLjQK"
CLAUDE_4 = "us.anthropic.claude-sonnet-4-20250514-v1:0"
CLAUDE_4_5 = "global.anthropic.claude-sonnet-4-5-20250929-v1:0"
CLAUDE_5 = "anthropic.claude-opus-5-v1:0"
NOVA, NOVA_2 = "amazon.nova-lite-v1:0", "us.amazon.nova-2-lite-v1:0"
GPT_OSS, LLAMA = "openai.gpt-oss-120b-1:0", "meta.llama3-1-70b-instruct-v1:0"
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
TOOL = {"type": "function", "function": {"name": "f", "parameters": SCHEMA}}
OTHER = {"type": "function", "function": {"name": "g", "parameters": SCHEMA}}
SPEC = {"toolSpec": {"name": "f", "inputSchema": {"json": SCHEMA}}}
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"n": 1}'}}
CALLED = [*HI, {"role": "assistant", "tool_calls": [CALL]}]
RESULT = {"role": "tool", "tool_call_id": "c1", "content": "2"}


@cache
def shape() -> Any:
    description = botocore.loaders.Loader().load_service_model("bedrock-runtime", "service-2")
    model = botocore.model.ServiceModel(description, "bedrock-runtime")
    return model.operation_model("Converse").input_shape


def draft_of(request: Request, model: str = CLAUDE_4) -> ProviderRequest:
    """The request, which Amazon's SDK accepts."""
    draft = written("bedrock", request, model)
    _, _, name, method = draft.path.split("/")
    assert method in ("converse", "converse-stream")
    report = botocore.validate.ParamValidator().validate(
        {"modelId": unquote(name), **draft.body}, shape()
    )
    assert not report.has_errors(), report.generate_report()
    return draft


def body_of(request: Request, model: str = CLAUDE_4) -> dict[str, Any]:
    return dict(draft_of(request, model).body)


def user(*parts: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": list(parts)}]


def text(*words: str) -> list[dict[str, str]]:
    return [{"text": word} for word in words]


@pytest.mark.parametrize(
    ("model", "path"),
    [
        (CLAUDE_4, "/model/us.anthropic.claude-sonnet-4-20250514-v1%3A0/converse"),
        (
            "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.amazon.nova-lite-v1:0",
            "/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A123456789012%3Ainference-profile%2F"
            "us.amazon.nova-lite-v1%3A0/converse",
        ),
    ],
)
def test_ids_and_arns_are_one_segment_of_the_path(model: str, path: str) -> None:
    assert draft_of(openai(), model).path == path
    assert draft_of(openai(stream=True), model).path == path + "-stream"


def test_messages_in_bedrocks_words() -> None:
    messages = [
        {"role": "system", "content": "A"},
        *HI,
        {"role": "assistant", "content": "I look.", "tool_calls": [CALL]},
        RESULT,
        {"role": "user", "content": "And?"},
    ]
    body = body_of(openai(messages, tools=[TOOL]))
    assert body["system"] == text("A")
    use = {"toolUseId": "c1", "name": "f", "input": {"n": 1}}
    assert body["messages"] == [
        {"role": "user", "content": text("Hi")},
        {"role": "assistant", "content": [*text("I look."), {"toolUse": use}]},
        {
            "role": "user",
            "content": [
                {"toolResult": {"toolUseId": "c1", "content": text("2")}},
                *text("And?"),
            ],
        },
    ]


def test_a_conversation_that_the_assistant_begins_gets_a_user_turn_before_it() -> None:
    messages = body_of(openai([{"role": "assistant", "content": "Welcome."}, *HI]))["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant", "user"]
    assert messages[1:] == [{"role": "assistant", "content": text("Welcome.")}, *user(*text("Hi"))]


def test_later_instructions_stay_where_they_are() -> None:
    messages = [*HI, {"role": "system", "content": "B"}]
    draft = draft_of(openai(messages), NOVA)
    assert draft.body["messages"] == [
        {"role": "user", "content": text("Hi", "<system>\nB\n</system>")}
    ]
    assert draft.ignored == ("messages[].role",)
    assert body_of(openai(messages), CLAUDE_5)["messages"][-1]["role"] == "system"


def test_instructions_alone_are_said_by_the_user() -> None:
    body = body_of(openai([{"role": "system", "content": "Say hi."}]))
    assert body == {"messages": [{"role": "user", "content": text("Say hi.")}]}


def test_a_failed_call_is_marked() -> None:
    use = {"type": "tool_use", "id": "c 1", "name": "f", "input": {}}
    result = {"type": "tool_result", "tool_use_id": "c 1", "content": "no", "is_error": True}
    request = anthropic(
        [*HI, {"role": "assistant", "content": [use]}, {"role": "user", "content": [result]}]
    )
    *_, use_turn, result_turn = body_of(request)["messages"]
    assert use_turn["content"][0]["toolUse"]["toolUseId"] == "c_1"
    sent = {"toolUseId": "c_1", "content": text("no"), "status": "error"}
    assert result_turn["content"] == [{"toolResult": sent}]


def test_signed_thoughts_go_back_to_claude_only() -> None:
    thought = {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"}
    hidden = {"type": "redacted_thinking", "data": "eHl6"}
    said = {"role": "assistant", "content": [thought, hidden, {"type": "text", "text": "Four."}]}
    request = anthropic([*HI, said, *HI])
    reasoning = {"reasoningContent": {"reasoningText": {"text": "Hm.", "signature": "c2ln"}}}
    redacted = {"reasoningContent": {"redactedContent": "eHl6"}}
    assert body_of(request)["messages"][1]["content"] == [reasoning, redacted, *text("Four.")]
    assert body_of(request, NOVA)["messages"][1]["content"] == text("Four.")


def test_cache_points_follow_what_they_mark() -> None:
    mark = {"cache_control": {"type": "ephemeral"}}
    hour = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}
    request = anthropic(
        user({"type": "text", "text": "Hi", **mark}),
        system=[{"type": "text", "text": "A", **hour}],
        tools=[{"name": "f", "input_schema": SCHEMA, **mark}],
    )
    draft = draft_of(request)
    point = {"cachePoint": {"type": "default"}}
    assert draft.body["messages"][0]["content"] == [*text("Hi"), point]
    assert draft.body["system"] == [*text("A"), {"cachePoint": {"type": "default", "ttl": "1h"}}]
    assert draft.body["toolConfig"]["tools"] == [SPEC, point]
    assert draft.ignored == ()


@pytest.mark.parametrize(
    ("part", "block"),
    [
        (
            {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{PNG}"}},
            {"image": {"format": "png", "source": {"bytes": PNG}}},
        ),
        (
            {"type": "image_url", "image_url": {"url": "s3://bucket/a.jpg"}},
            {"image": {"format": "jpeg", "source": {"s3Location": {"uri": "s3://bucket/a.jpg"}}}},
        ),
        (
            {
                "type": "file",
                "file": {
                    "file_data": f"data:application/pdf;base64,{PDF}",
                    "filename": "Büro_plan v2.pdf",
                },
            },
            {
                "document": {
                    "format": "pdf",
                    "name": "B ro plan v2 pdf",
                    "source": {"bytes": PDF},
                }
            },
        ),
        (
            {"type": "file", "file": {"file_data": "data:text/plain;base64,SGk="}},
            {"document": {"format": "txt", "name": "Document 1", "source": {"bytes": "SGk="}}},
        ),
        (
            {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
            {"audio": {"format": "wav", "source": {"bytes": "AAAA"}}},
        ),
        (
            {"type": "video_url", "video_url": {"url": "s3://bucket/a.mp4"}},
            {"video": {"format": "mp4", "source": {"s3Location": {"uri": "s3://bucket/a.mp4"}}}},
        ),
    ],
)
def test_files_have_the_format_of_their_bytes(part: dict[str, Any], block: dict[str, Any]) -> None:
    assert body_of(openai(user(part)), NOVA)["messages"][0]["content"] == [block]


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": "https://a.example/a.png"}},
        {"type": "image_url", "image_url": {"url": "data:image/tiff;base64,SUkqAA=="}},
        {"type": "file", "file": {"file_data": "data:application/zip;base64,UEsDBA=="}},
    ],
)
def test_other_files_are_refused_by_their_place(part: dict[str, Any]) -> None:
    with pytest.raises(APIError) as caught:
        written("bedrock", openai(user({"type": "text", "text": "See"}, part)))
    assert (caught.value.kind, caught.value.param) == (ErrorKind.INVALID, "messages[0].content[1]")


@pytest.mark.parametrize(
    ("model", "members", "sent", "ignored"),
    [
        (NOVA, {"max_tokens": 9}, {"inferenceConfig": {"maxTokens": 9}}, ()),
        (
            NOVA,
            {"temperature": 0.5, "top_p": 0.5, "stop": ["END", " "]},
            {"inferenceConfig": {"temperature": 0.5, "topP": 0.5, "stopSequences": ["END"]}},
            ("stop",),
        ),
        (NOVA, {"temperature": 1.5}, {"inferenceConfig": {"temperature": 1}}, ("temperature",)),
        (
            NOVA,
            {"top_k": 5},
            {"additionalModelRequestFields": {"inferenceConfig": {"topK": 5}}},
            (),
        ),
        (CLAUDE_4, {"top_k": 5}, {"additionalModelRequestFields": {"top_k": 5}}, ()),
        (LLAMA, {"top_k": 5}, {}, ("top_k",)),
        (CLAUDE_5, {"temperature": 0.5, "top_p": 1, "top_k": 3}, {}, ("temperature", "top_k")),
        (
            CLAUDE_4_5,
            {"temperature": 0.5, "top_p": 0.5},
            {"inferenceConfig": {"temperature": 0.5}},
            ("top_p",),
        ),
        (NOVA, {"seed": 1, "user": "ann"}, {}, ("user", "seed")),
        (
            NOVA_2,
            {"reasoning_effort": "low"},
            {
                "additionalModelRequestFields": {
                    "reasoningConfig": {"type": "enabled", "maxReasoningEffort": "low"}
                }
            },
            (),
        ),
        (
            NOVA_2,
            {"reasoning_effort": "high", "max_tokens": 9},
            {
                "inferenceConfig": {"maxTokens": 9},
                "additionalModelRequestFields": {
                    "reasoningConfig": {"type": "enabled", "maxReasoningEffort": "medium"}
                },
            },
            ("reasoning_effort",),
        ),
        (
            GPT_OSS,
            {"reasoning_effort": "minimal"},
            {"additionalModelRequestFields": {"reasoning_effort": "low"}},
            (),
        ),
        (LLAMA, {"reasoning_effort": "low"}, {}, ("reasoning_effort",)),
        (LLAMA, {"reasoning_effort": "none"}, {}, ()),
        (
            CLAUDE_4,
            {"reasoning_effort": "low", "temperature": 0.5},
            {
                "inferenceConfig": {"maxTokens": 32000},
                "additionalModelRequestFields": {
                    "thinking": {"type": "enabled", "budget_tokens": 2048}
                },
            },
            ("temperature",),
        ),
        (
            CLAUDE_5,
            {"reasoning_effort": "low"},
            {
                "additionalModelRequestFields": {
                    "thinking": {"type": "adaptive", "display": "summarized"},
                    "output_config": {"effort": "low"},
                }
            },
            (),
        ),
        (
            NOVA,
            {"additionalModelRequestFields": {"inferenceConfig": {"x": 1}}, "top_k": 5},
            {"additionalModelRequestFields": {"inferenceConfig": {"topK": 5, "x": 1}}},
            (),
        ),
        (
            NOVA,
            {"guardrailConfig": {"guardrailIdentifier": "g1", "guardrailVersion": "1"}, "x": 1},
            {"guardrailConfig": {"guardrailIdentifier": "g1", "guardrailVersion": "1"}},
            ("x",),
        ),
    ],
)
def test_parameters_in_bedrocks_words(
    model: str, members: dict[str, Any], sent: dict[str, Any], ignored: tuple[str, ...]
) -> None:
    draft = draft_of(openai(**members), model)
    assert draft.body == {"messages": [{"role": "user", "content": text("Hi")}], **sent}
    assert draft.ignored == ignored


@pytest.mark.parametrize(
    ("members", "choice", "ignored"),
    [
        ({}, None, ()),
        ({"tool_choice": "auto"}, {"auto": {}}, ()),
        ({"tool_choice": "required"}, {"any": {}}, ()),
        (
            {"tool_choice": {"type": "function", "function": {"name": "f"}}},
            {"tool": {"name": "f"}},
            (),
        ),
        ({"parallel_tool_calls": False}, None, ("parallel_tool_calls",)),
    ],
)
def test_the_choice_of_tools(members: Any, choice: Any, ignored: tuple[str, ...]) -> None:
    draft = draft_of(openai(tools=[TOOL], **members))
    assert draft.body["toolConfig"].get("toolChoice") == choice
    assert draft.ignored == ignored


def test_tools_that_must_not_be_called_are_left_out() -> None:
    draft = draft_of(openai(tools=[TOOL], tool_choice="none"))
    assert "toolConfig" not in draft.body
    assert draft.ignored == ()


def test_calls_in_the_conversation_are_declared_even_without_tools() -> None:
    anything = {"type": "object", "properties": {}}
    spec = {"toolSpec": {"name": "f", "inputSchema": {"json": anything}}}
    assert body_of(openai([*CALLED, RESULT]))["toolConfig"] == {"tools": [spec]}
    draft = draft_of(openai([*CALLED, RESULT], tools=[TOOL], tool_choice="none"))
    assert draft.body["toolConfig"] == {"tools": [SPEC]}
    assert draft.ignored == ("tool_choice",)


def test_several_allowed_tools_are_the_only_ones() -> None:
    allowed = {"mode": "auto", "tools": [{"type": "function", "function": {"name": "g"}}]}
    choice = {"type": "allowed_tools", "allowed_tools": allowed}
    body = body_of(openai(tools=[TOOL, OTHER], tool_choice=choice))
    assert [spec["toolSpec"]["name"] for spec in body["toolConfig"]["tools"]] == ["g"]


def test_a_strict_tool_where_the_model_has_structured_outputs() -> None:
    strict = {"type": "function", "function": {**TOOL["function"], "strict": True}}  # type: ignore[dict-item]
    (spec,) = body_of(openai(tools=[strict]), CLAUDE_4_5)["toolConfig"]["tools"]
    assert spec["toolSpec"]["strict"] is True
    assert spec["toolSpec"]["inputSchema"]["json"] == {**SCHEMA, "additionalProperties": False}
    assert draft_of(openai(tools=[strict]), NOVA).ignored == ("tools[].function.strict",)


def test_an_output_schema_where_the_model_has_structured_outputs() -> None:
    form = {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}}
    body = body_of(openai(response_format=form), CLAUDE_4_5)
    structure = body["outputConfig"]["textFormat"]["structure"]["jsonSchema"]
    assert structure["name"] == "a"
    assert json.loads(structure["schema"]) == {**SCHEMA, "additionalProperties": False}
    draft = draft_of(openai(response_format=form), NOVA)
    assert json.dumps(SCHEMA, separators=(",", ":")) in draft.body["system"][0]["text"]
    assert draft.ignored == ("response_format",)


def test_a_whole_response_is_read() -> None:
    answer = {
        "metrics": {"latencyMs": 9},
        "output": {
            "message": {
                "role": "assistant",
                "content": [
                    {"reasoningContent": {"reasoningText": {"text": "Hm.", "signature": "c2ln"}}},
                    {"reasoningContent": {"redactedContent": "eHl6"}},
                    {"text": "I look."},
                    {"toolUse": {"toolUseId": "t1", "name": "f", "input": {"n": 1}}},
                    {"toolUse": {"toolUseId": "t2", "name": "g", "input": {}}},
                ],
            }
        },
        "stopReason": "tool_use",
        "usage": {
            "inputTokens": 2,
            "outputTokens": 5,
            "totalTokens": 29,
            "cacheReadInputTokens": 10,
            "cacheWriteInputTokens": 12,
        },
    }
    response = BEDROCK_CONVERSE.decode_response(json.dumps(answer).encode())
    assert response.blocks == (
        Reasoning("Hm.", {"anthropic": {"signature": "c2ln"}}),
        Reasoning("", {"anthropic": {"redacted": "eHl6"}}),
        Text("I look."),
        ToolCall("t1", "f", '{"n":1}'),
        ToolCall("t2", "g", "{}"),
    )
    assert response.stop is StopReason.TOOLS
    assert response.usage == Usage(input=24, output=5, cache_read=10, cache_write=12)


@pytest.mark.parametrize(
    ("status", "body", "kind", "message"),
    [
        (400, {"message": "Bad."}, ErrorKind.INVALID, "Bad."),
        (403, {"Message": "No."}, ErrorKind.KEY_REJECTED, "No."),
        (404, {"message": "No model."}, ErrorKind.NOT_FOUND, "No model."),
        (408, {"message": "Slow."}, ErrorKind.TIMEOUT, "Slow."),
        (424, {"message": "Failed."}, ErrorKind.UPSTREAM, "Failed."),
        (429, {"message": "Wait."}, ErrorKind.LIMITED, "Wait."),
        (500, {"message": "Oh."}, ErrorKind.UPSTREAM, "Oh."),
        (503, {"message": "Busy."}, ErrorKind.OVERLOADED, "Busy."),
        (400, {"__type": "a#ThrottlingException"}, ErrorKind.LIMITED, "ThrottlingException"),
    ],
)
def test_errors(status: int, body: Any, kind: ErrorKind, message: str) -> None:
    error = BEDROCK_CONVERSE.decode_error(status, json.dumps(body).encode())
    assert (error.kind, error.message, error.upstream_status) == (kind, message, status)


def test_models_are_listed() -> None:
    body = b'{"modelSummaries":[{"modelId":"amazon.nova-lite-v1:0"}]}'
    assert BEDROCK_CONVERSE.decode_models(body) == ("amazon.nova-lite-v1:0",)


@pytest.mark.parametrize(
    ("location", "source", "url"),
    [
        ({"web": {"url": "https://a.example/b", "domain": "a.example"}}, "", "https://a.example/b"),
        ({"searchResultLocation": {"searchResultIndex": 0}}, "https://a.example/c", "https://a.example/c"),
        ({"documentChar": {"documentIndex": 0, "start": 0, "end": 2}}, "a.pdf", ""),
    ],
)  # fmt: skip
def test_citations_have_the_address_of_their_source(
    location: dict[str, Any], source: str, url: str
) -> None:
    citation = {"title": "A", "source": source, "location": location}
    content = {"content": [{"text": "Hi"}], "citations": [citation]}
    answer = {
        "output": {"message": {"role": "assistant", "content": [{"citationsContent": content}]}},
        "stopReason": "end_turn",
    }
    (block,) = BEDROCK_CONVERSE.decode_response(json.dumps(answer).encode()).blocks
    assert isinstance(block, Text)
    assert [(each.url, each.title) for each in block.citations] == [(url, "A")]


@pytest.mark.parametrize("stream", [True, False])
def test_the_stop_sequence_of_a_claude_model_is_requested_and_read(stream: bool) -> None:
    request = Request(
        model="us.anthropic.claude-sonnet-4-5-20250929-v1:0",
        messages=(Message("user", (Text("Hi"),)),),
        stop=("END",),
        stream=stream,
    )
    draft = BEDROCK_CONVERSE.encode_request(request)
    place = "/delta/stop_sequence" if stream else "/stop_sequence"
    assert draft.body["additionalModelResponseFieldPaths"] == [place]
    found = {"delta": {"stop_sequence": "END"}} if stream else {"stop_sequence": "END"}
    end = {"stopReason": "stop_sequence", "additionalModelResponseFields": found}
    decoder = BEDROCK_CONVERSE.decoder()
    if stream:
        text = {"contentBlockDelta": {"contentBlockIndex": 0, "delta": {"text": "Hi"}}}
        pieces = [{"messageStart": {"role": "assistant"}}, text, {"messageStop": end}]
        events = [event for each in pieces for event in decoder.feed(json.dumps(each).encode())]
        response = fold([*events, *decoder.close()])
    else:
        message = {"role": "assistant", "content": [{"text": "Hi"}]}
        response = BEDROCK_CONVERSE.decode_response(
            json.dumps({"output": {"message": message}, **end}).encode()
        )
    written = json.loads(ANTHROPIC_MESSAGES.encode_response(response, request))
    assert (written["stop_reason"], written["stop_sequence"]) == ("stop_sequence", "END")
