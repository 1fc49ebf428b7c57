"""Requests to Cohere's chat API, and its responses and errors."""

from __future__ import annotations

import json
from typing import Any

import pytest

from asgi_aiproxy.dialects import COHERE_CHAT
from asgi_aiproxy.errors import APIError, ErrorKind
from asgi_aiproxy.framing import NDJSONFramer, SSEFramer
from asgi_aiproxy.messages import Request, StopReason, Text, ToolCall, Usage
from tests.support.dialect_requests import HI, anthropic, openai, written

PNG = "iVBORw0KGgo="
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
OPTIONAL = {"type": "object", "properties": {"city": {"type": "string"}}}
TOOL = {"type": "function", "function": {"name": "f", "parameters": SCHEMA}}
OTHER = {"type": "function", "function": {"name": "g", "parameters": OPTIONAL}}


def body_of(request: Request, model: str | None = None) -> dict[str, Any]:
    return dict(written("cohere", request, model).body)


def user(*parts: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": list(parts)}]


def strict(tool: dict[str, Any]) -> dict[str, Any]:
    return {"type": "function", "function": {**tool["function"], "strict": True}}


def test_messages_keep_their_roles_and_order() -> None:
    system = {"role": "system", "content": "A"}
    messages = [system, *HI, {"role": "assistant", "content": "Yes."}, {**system, "content": "B"}]
    assert body_of(openai([*messages, *HI]))["messages"] == [*messages, *HI]


def test_text_next_to_calls_is_their_plan() -> None:
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
    messages = [
        *HI,
        {"role": "assistant", "content": "First I look.", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "a", "content": "sunny"},
    ]
    sent = {**call, "function": {"name": "f", "arguments": '{"x":1}'}}
    assert body_of(openai(messages))["messages"] == [
        *HI,
        {"role": "assistant", "tool_calls": [sent], "tool_plan": "First I look."},
        {"role": "tool", "tool_call_id": "a", "content": "sunny"},
    ]


@pytest.mark.parametrize(
    ("model", "content"),
    [
        (
            "command-a-reasoning-08-2025",
            [{"type": "thinking", "thinking": "Hm."}, {"type": "text", "text": "Four."}],
        ),
        ("command-a-03-2025", "Four."),
    ],
)
def test_reasoning_is_sent_back_to_models_that_support_it(model: str, content: Any) -> None:
    said = {"role": "assistant", "content": "Four.", "reasoning_content": "Hm."}
    assert body_of(openai([*HI, said, *HI]), model)["messages"][1]["content"] == content


def test_images_are_sent_as_urls() -> None:
    data = f"data:image/png;base64,{PNG}"
    image = {"type": "image_url", "image_url": {"url": data, "detail": "low"}}
    messages = user({"type": "text", "text": "See"}, image)
    assert body_of(openai(messages))["messages"] == messages


def test_a_text_document_can_be_cited() -> None:
    document = {"file_data": "data:text/plain;base64,SGk=", "filename": "a.txt"}
    body = body_of(
        openai(user({"type": "text", "text": "Read"}, {"type": "file", "file": document}))
    )
    assert body["documents"] == [{"id": "doc:0", "data": {"text": "Hi", "title": "a.txt"}}]
    assert body["messages"] == [{"role": "user", "content": "Read"}]


def test_a_pdf_is_refused_with_its_path() -> None:
    document = {"file_data": "data:application/pdf;base64,JVBERi0xLjQK", "filename": "a.pdf"}
    with pytest.raises(APIError) as caught:
        written("cohere", openai(user({"type": "file", "file": document})))
    assert (caught.value.kind, caught.value.param) == (ErrorKind.INVALID, "messages[0].content[0]")


@pytest.mark.parametrize(
    ("members", "sent", "ignored"),
    [
        ({"max_tokens": 9}, {"max_tokens": 9}, ()),
        ({"temperature": 0.5, "top_p": 0.5}, {"temperature": 0.5, "p": 0.5}, ()),
        ({"temperature": 1.5}, {"temperature": 1}, ("temperature",)),
        ({"top_p": 1}, {"p": 0.99}, ()),
        ({"top_k": 600}, {"k": 500}, ("top_k",)),
        ({"seed": 7, "stop": "END"}, {"seed": 7, "stop_sequences": ["END"]}, ()),
        ({"stop": list("abcdef")}, {"stop_sequences": list("abcde")}, ("stop",)),
        ({"frequency_penalty": -1}, {"frequency_penalty": 0}, ("frequency_penalty",)),
        ({"presence_penalty": 0.5}, {"presence_penalty": 0.5}, ()),
        ({"reasoning_effort": "low"}, {"thinking": {"type": "enabled", "token_budget": 2048}}, ()),
        ({"reasoning_effort": "high"}, {"thinking": {"type": "enabled"}}, ()),
        ({"reasoning_effort": "none"}, {"thinking": {"type": "disabled"}}, ()),
        ({"user": "ann"}, {}, ("user",)),
        ({"documents": ["A"]}, {"documents": ["A"]}, ()),
        ({"safety_mode": "OFF", "x": 1}, {"safety_mode": "OFF"}, ("x",)),
        (
            {"response_format": {"type": "json_object"}},
            {"response_format": {"type": "json_object"}},
            (),
        ),
    ],
)
def test_parameters_have_coheres_names(
    members: dict[str, Any], sent: dict[str, Any], ignored: tuple[str, ...]
) -> None:
    draft = written("cohere", openai(**members))
    assert {**draft.body} == {"model": "command-a-reasoning-08-2025", "messages": HI, **sent}
    assert draft.ignored == ignored
    assert draft.path == "/v2/chat"


def test_thinking_is_not_requested_from_a_model_without_it() -> None:
    for effort, ignored in (("low", ("reasoning_effort",)), ("none", ())):
        draft = written("cohere", openai(reasoning_effort=effort), "command-r7b-12-2024")
        assert "thinking" not in draft.body
        assert draft.ignored == ignored


@pytest.mark.parametrize(
    ("members", "sent", "ignored"),
    [
        ({"tools": [TOOL]}, {"tools": [TOOL]}, ()),
        ({"tools": [strict(TOOL)]}, {"tools": [TOOL], "strict_tools": True}, ()),
        (
            {"tools": [strict(TOOL), strict(OTHER)]},
            {"tools": [TOOL, OTHER]},
            ("tools[].function.strict",),
        ),
        ({"tools": [TOOL], "tool_choice": "auto"}, {"tools": [TOOL]}, ()),
        (
            {"tools": [TOOL], "tool_choice": "required"},
            {"tools": [TOOL], "tool_choice": "REQUIRED"},
            (),
        ),
        ({"tools": [TOOL], "tool_choice": "none"}, {"tools": [TOOL], "tool_choice": "NONE"}, ()),
        (
            {
                "tools": [TOOL, OTHER],
                "tool_choice": {"type": "function", "function": {"name": "g"}},
            },
            {"tools": [OTHER], "tool_choice": "REQUIRED"},
            (),
        ),
        (
            {"tools": [TOOL], "parallel_tool_calls": False},
            {"tools": [TOOL]},
            ("parallel_tool_calls",),
        ),
    ],
)
def test_tools_have_coheres_format(
    members: dict[str, Any], sent: dict[str, Any], ignored: tuple[str, ...]
) -> None:
    draft = written("cohere", openai(**members))
    assert {name: draft.body[name] for name in draft.body if "tool" in name} == sent
    assert draft.ignored == ignored


def test_keywords_that_cohere_rejects_move_into_the_description() -> None:
    schema = {**SCHEMA, "properties": {"n": {"type": "integer", "minimum": 1}}, "required": ["n"]}
    form = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    draft = written("cohere", openai(response_format=form))
    sent = draft.body["response_format"]["json_schema"]
    assert sent["properties"]["n"] == {"type": "integer", "description": '{"minimum":1}'}
    assert draft.ignored == ("response_format.json_schema.schema.minimum",)


def test_json_output_together_with_tools_is_requested_by_an_instruction() -> None:
    form = {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}}
    draft = written("cohere", openai(response_format=form, tools=[TOOL]))
    assert "response_format" not in draft.body
    assert json.dumps(SCHEMA, separators=(",", ":")) in draft.body["messages"][0]["content"]
    assert draft.ignored == ("response_format",)


def test_a_request_with_instructions_only_gets_a_user_turn() -> None:
    sent = body_of(openai([{"role": "system", "content": "Say hi."}]))["messages"]
    assert sent == [{"role": "user", "content": "Say hi."}]


def test_a_request_without_content_is_refused() -> None:
    with pytest.raises(APIError, match="messages"):
        written("cohere", anthropic([{"role": "user", "content": ""}]))


def test_lists_of_models_are_those_for_chat() -> None:
    request = COHERE_CHAT.models_request()
    assert (request.path, request.query) == ("/v1/models", "endpoint=chat&page_size=1000")
    found = COHERE_CHAT.decode_models(b'{"models":[{"name":"command-a-03-2025"},{"name":"x"}]}')
    assert found == ("command-a-03-2025", "x")


def test_a_stream_may_be_events_or_lines() -> None:
    assert isinstance(COHERE_CHAT.framer("text/event-stream"), SSEFramer)
    assert isinstance(COHERE_CHAT.framer("application/stream+json"), NDJSONFramer)


def test_a_whole_response_is_read_as_its_stream() -> None:
    call = {"id": "f_1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
    answer = {
        "id": "c1",
        "finish_reason": "TOOL_CALL",
        "message": {"role": "assistant", "tool_plan": "I look.", "tool_calls": [call]},
        "usage": {
            "billed_units": {"input_tokens": 3, "output_tokens": 4},
            "tokens": {"input_tokens": 503, "output_tokens": 6},
            "cached_tokens": 448,
        },
    }
    response = COHERE_CHAT.decode_response(json.dumps(answer).encode())
    assert response.blocks == (Text("I look."), ToolCall("f_1", "f", '{"a":1}'))
    assert (response.stop, response.usage) == (StopReason.TOOLS, Usage(input=3, output=4))


def test_citations_count_from_the_beginning_of_all_text() -> None:
    answer = {
        "id": "c1",
        "finish_reason": "COMPLETE",
        "message": {
            "tool_plan": "Plan.",
            "content": [{"type": "text", "text": "Rome is old."}],
            "citations": [
                {"start": 0, "end": 4, "text": "Rome", "sources": [{"type": "tool", "id": "a:0"}]},
                {"start": 0, "end": 4, "text": "Plan", "type": "PLAN", "sources": [{"id": "b"}]},
            ],
        },
    }
    text = COHERE_CHAT.decode_response(json.dumps(answer).encode()).blocks[-1]
    assert isinstance(text, Text)
    found = [(c.start, c.end, c.title, c.quote) for c in text.citations]
    assert found == [(5, 9, "a:0", "Rome"), (0, 4, "b", "Plan")]


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, ErrorKind.INVALID),
        (401, ErrorKind.KEY_REJECTED),
        (404, ErrorKind.NOT_FOUND),
        (422, ErrorKind.INVALID),
        (429, ErrorKind.LIMITED),
        (498, ErrorKind.KEY_REJECTED),
        (499, ErrorKind.UPSTREAM),
        (500, ErrorKind.UPSTREAM),
        (503, ErrorKind.OVERLOADED),
    ],
)
def test_errors_have_the_kind_of_their_status(status: int, kind: ErrorKind) -> None:
    error = COHERE_CHAT.decode_error(status, b'{"id":"e1","message":"No."}')
    assert (error.kind, error.message, error.upstream_status) == (kind, "No.", status)
