"""Requests: the neutral format to OpenAI's."""

from __future__ import annotations

from typing import Any

import pytest

from asgi_aiproxy.errors import APIError, ErrorKind
from asgi_aiproxy.messages import (
    Media,
    Message,
    Opaque,
    Output,
    Reasoning,
    Refusal,
    Request,
    Text,
    Thinking,
    ToolChoice,
    ToolResult,
)
from tests.dialects.openai_chat.samples import (
    CLOCK,
    NAMED,
    PNG,
    PNG_URL,
    SCHEMA,
    WEATHER,
    call,
)
from tests.support.dialect_requests import HI, decode_client_request, written


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
def test_a_decoded_and_encoded_request_is_the_same(body: dict[str, Any]) -> None:
    body = {"model": "gpt-test", "stream": False, **body}
    draft = written("openai_chat", decode_client_request("openai_chat", body))
    assert draft.path == "/chat/completions"
    assert draft.body == body
    assert draft.ignored == ()


def openai_body(request: Request) -> dict[str, Any]:
    return dict(written("openai_chat", request).body)


def test_media_of_a_tool_result_follows_its_text() -> None:
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
def test_members_with_another_format_are_converted(part: Any, content: Any) -> None:
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
def test_content_that_openai_does_not_accept_is_refused(part: Media) -> None:
    with pytest.raises(APIError, match=f"does not accept {part.kind} in this form") as caught:
        openai_body(Request(model="m", messages=(Message("user", (part,)),)))
    assert (caught.value.kind, caught.value.param) == (ErrorKind.INVALID, "messages")


def test_an_invalid_document_is_refused() -> None:
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


def test_members_that_openai_lacks_are_reported() -> None:
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


HI = Message("user", (Text("Hi"),))


def answer_of(*parts: Any) -> dict[str, Any]:
    request = Request(model="m", messages=(HI, Message("assistant", parts)))
    answer: dict[str, Any] = openai_body(request)["messages"][1]
    return answer


def test_reasoning_goes_back_to_the_vendor_that_wrote_it() -> None:
    """DeepSeek, Kimi and others require it; it has no signature. Signed reasoning is another's."""
    parts = (Reasoning("Hm."), Text("So."))
    assert answer_of(*parts) == {"role": "assistant", "content": "So.", "reasoning_content": "Hm."}
    extras: tuple[Any, ...] = (
        {"anthropic": {"signature": "s"}},
        {"anthropic": {"redacted": "r"}},
        {"gemini": {"signature": "s"}},
        {"openai_responses": {"id": "rs_1", "encrypted_content": "e"}},
    )
    for extra in extras:
        signed = (Reasoning("Theirs.", extra), Text("So."))
        assert answer_of(*signed) == {"role": "assistant", "content": "So."}
    unsigned = Reasoning("Hm.", {"openai_responses": {"id": "rs_1"}})
    assert answer_of(unsigned, Text("So."))["reasoning_content"] == "Hm."


def test_an_answer_without_content_is_left_out() -> None:
    """Vendors refuse it; Anthropic's clients send back answers that are only thinking."""
    for part in (Text(""), Reasoning("Hm.", {"anthropic": {"signature": "s"}}), Reasoning("Hm.")):
        messages = (HI, Message("assistant", (part,)), HI)
        body = openai_body(Request(model="m", messages=messages))
        assert [message["role"] for message in body["messages"]] == ["user", "user"]
