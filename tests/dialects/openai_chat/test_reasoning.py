"""Reasoning and its signatures through OpenAI's format, in both directions."""

from __future__ import annotations

import json
from typing import Any

import pytest

from asgi_aiproxy.messages import (
    Message,
    Reasoning,
    Refusal,
    Request,
    Text,
    ToolCall,
    ToolResult,
)
from tests.dialects.openai_chat.samples import (
    PNG_URL,
    call,
    replayed,
)
from tests.support.dialect_requests import HI, openai, written

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
def test_a_response_that_a_client_sends_back_is_unchanged(
    blocks: tuple[Any, ...], how: str
) -> None:
    assert replayed(blocks, how) == blocks


@pytest.mark.parametrize("how", HOW)
def test_claude_gets_its_thinking_blocks_back_signed(how: str) -> None:
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
def test_gemini_gets_its_signatures_back_in_their_places(how: str) -> None:
    blocks = (
        Reasoning("Hm."),
        Text("Look:", extra={"gemini": {"signature": "dGV4dA=="}}),
        ToolCall("call_1", "weather", '{"city":"Rome"}', GEMINI),
        ToolCall("call_2", "clock", "{}"),
    )
    said = Message("assistant", replayed(blocks, how))
    question = Message("user", (Text("Rome?"),))
    draft = written("gemini", Request(model="m", messages=(question, said)), "gemini-3-pro-preview")
    assert draft.body["contents"] == [
        {"role": "user", "parts": [{"text": "Rome?"}]},
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
        },
    ]


@pytest.mark.parametrize("how", HOW)
def test_signatures_are_not_sent_to_another_vendor(how: str) -> None:
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
            (Reasoning("Hm.", {"openai_responses": {"encrypted_content": "x"}}),),
        ),
        (  # as OpenRouter sends it
            {
                "reasoning_details": [
                    {
                        "type": "reasoning.summary",
                        "summary": "Hm.",
                        "id": "rs_1",
                        "format": "openai-responses-v1",
                    },
                    {
                        "type": "reasoning.encrypted",
                        "data": "x",
                        "id": "rs_1",
                        "format": "openai-responses-v1",
                    },
                ],
            },
            (Reasoning("Hm.", {"openai_responses": {"encrypted_content": "x", "id": "rs_1"}}),),
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
def test_reasoning_is_found_where_other_clients_put_it(
    message: dict[str, Any], parts: tuple[Any, ...]
) -> None:
    (said,) = openai([{"role": "assistant", **message}]).messages
    assert said.parts == parts


def test_images_that_a_model_generated_are_reported_where_they_cannot_be_sent_back() -> None:
    drawn = {"role": "assistant", "content": "So.", "images": [{"image_url": {"url": PNG_URL}}]}
    draft = written("openai_chat", openai([*HI, drawn, *HI]))
    assert draft.body["messages"][1] == {"role": "assistant", "content": "So."}
    assert draft.ignored == ("messages[].images",)
