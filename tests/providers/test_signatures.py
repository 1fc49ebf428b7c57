"""Signatures that other vendors' responses left in a chat history."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from asgi_aiproxy.dialects import OPENAI_CHAT
from asgi_aiproxy.dialects.base import Operation
from asgi_aiproxy.providers import (
    CEREBRAS,
    DEEPSEEK,
    FIREWORKS,
    GROQ,
    MISTRAL,
    OPENAI,
    OPENROUTER,
    PERPLEXITY,
    TOGETHER,
    XAI,
    Provider,
    azure,
    openai_compatible,
)

CHAT = Operation("chat.completions", "/chat/completions", chat=True)
HISTORY: list[dict[str, Any]] = [
    {"role": "user", "content": 'Say "reasoning_details".'},
    {
        "role": "assistant",
        "content": None,
        "reasoning_content": "Hm.",
        "reasoning_details": [
            {
                "type": "reasoning.text",
                "text": "Hm.",
                "signature": "EqoB",
                "format": "anthropic-claude-v1",
            }
        ],
        "tool_calls": [
            {
                "id": "c",
                "type": "function",
                "function": {"name": "f", "arguments": "{}"},
                "extra_content": {"google": {"thought_signature": "CpQB"}},
            }
        ],
    },
    {"role": "tool", "tool_call_id": "c", "content": "ok"},
]
AZURES = [azure("https://a.example"), azure("https://a.example", api_version="2024-10-21")]


# What vendors that refuse unknown members get for the reasoning of an earlier answer.
THEIR_OWN: dict[Provider, dict[str, Any]] = {
    OPENAI: {},
    **{provider: {} for provider in AZURES},
    GROQ: {},
    CEREBRAS: {"reasoning": "Hm."},
    MISTRAL: {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}]},
}


def sent(provider: Provider, messages: Any) -> Any:
    raw = {"model": msgspec.Raw(b'"m"'), "messages": msgspec.Raw(json.dumps(messages).encode())}
    draft = OPENAI_CHAT.native_request(CHAT, "m", raw, stream=False)
    return json.loads(msgspec.json.encode(provider.transform_request(draft).body["messages"]))


@pytest.mark.parametrize(
    "provider",
    [OPENAI, *AZURES, MISTRAL, GROQ, DEEPSEEK, XAI, TOGETHER, FIREWORKS, PERPLEXITY, CEREBRAS],
    ids=lambda provider: provider.name,
)
def test_a_vendor_is_sent_no_signature_of_another_and_everything_else(provider: Provider) -> None:
    found = sent(provider, HISTORY)
    assert "EqoB" not in json.dumps(found)
    assert "CpQB" not in json.dumps(found)
    own = ("reasoning_details", *(["reasoning_content"] if provider in THEIR_OWN else []))
    turn = {k: v for k, v in HISTORY[1].items() if k not in own} | THEIR_OWN.get(provider, {})
    call = {k: v for k, v in HISTORY[1]["tool_calls"][0].items() if k != "extra_content"}
    assert found == [HISTORY[0], {**turn, "tool_calls": [call]}, HISTORY[2]]


@pytest.mark.parametrize(
    "provider", [OPENROUTER, openai_compatible("http://a.example/v1")], ids=lambda p: p.name
)
def test_gateways_get_signatures_as_they_are(provider: Provider) -> None:
    assert sent(provider, HISTORY) == HISTORY


@pytest.mark.parametrize(
    "odd",
    [
        "reasoning_details",
        ["reasoning_details", 5],
        [{"extra_content": 1, "tool_calls": 5}],
        [{"role": "assistant", "tool_calls": ["extra_content"]}],
    ],
)
def test_messages_of_another_shape_are_left_to_the_vendor(odd: Any) -> None:
    assert sent(OPENAI, odd) == odd
