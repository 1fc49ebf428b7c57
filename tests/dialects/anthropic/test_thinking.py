"""Reasoning options, by generation of Claude models."""

from __future__ import annotations

from typing import Any

import pytest

from tests.dialects.anthropic.samples import (
    CALL_A,
    OPUS_46,
    OPUS_47,
    SONNET_4,
    body_of,
)
from tests.support.dialect_requests import HI, openai, written


@pytest.mark.parametrize(
    ("members", "model", "thinking", "max_tokens"),
    [
        ({}, SONNET_4, None, 32_000),
        ({"reasoning_effort": "none"}, SONNET_4, None, 32_000),
        ({"reasoning_effort": "minimal"}, SONNET_4, 1024, 32_000),
        ({"reasoning_effort": "low"}, SONNET_4, 2048, 32_000),
        ({"reasoning_effort": "medium"}, SONNET_4, 8192, 32_000),
        ({"reasoning_effort": "high"}, SONNET_4, 16384, 32_000),
        ({"reasoning_effort": "xhigh"}, SONNET_4, 24576, 32_000),
        ({"reasoning": {"max_tokens": 3000}}, SONNET_4, 3000, 32_000),
        ({"reasoning": {"max_tokens": 50_000}}, SONNET_4, 50_000, 54_096),
        ({"thinking": {"type": "enabled", "budget_tokens": 3000}}, SONNET_4, 3000, 32_000),
        # within what the caller allows, and the answer keeps a share
        ({"reasoning_effort": "high", "max_tokens": 5000}, SONNET_4, 3750, 5000),
        ({"reasoning_effort": "high", "max_completion_tokens": 18_000}, SONNET_4, 13_904, 18_000),
        ({"reasoning_effort": "low", "max_tokens": 5000}, SONNET_4, 2048, 5000),
        # below Anthropic's least: not at all
        ({"reasoning_effort": "high", "max_tokens": 1000}, SONNET_4, "reasoning_effort", 1000),
        ({"reasoning": {"max_tokens": 100}}, SONNET_4, "thinking.budget_tokens", 32_000),
    ],
)
def test_older_models_think_within_a_budget(
    members: dict[str, Any], model: str, thinking: Any, max_tokens: int
) -> None:
    draft = written("anthropic", openai(**members), model)
    assert draft.body["max_tokens"] == max_tokens
    if isinstance(thinking, int):
        assert draft.body["thinking"] == {"type": "enabled", "budget_tokens": thinking}
        assert draft.ignored == ()
    else:
        assert "thinking" not in draft.body
        assert draft.ignored == ((thinking,) if thinking else ())


@pytest.mark.parametrize(
    ("members", "model", "effort"),
    [
        ({"reasoning_effort": "minimal"}, OPUS_46, "low"),
        ({"reasoning_effort": "low"}, OPUS_46, "low"),
        ({"reasoning_effort": "medium"}, OPUS_46, "medium"),
        ({"reasoning_effort": "high"}, OPUS_46, "high"),
        ({"reasoning_effort": "xhigh"}, OPUS_46, "high"),
        ({"reasoning_effort": "xhigh"}, OPUS_47, "xhigh"),
        ({"reasoning_effort": "max"}, OPUS_46, "max"),
        ({"reasoning_effort": "max"}, OPUS_47, "max"),
        ({"reasoning_effort": "max"}, "claude-sonnet-4-6", "max"),
        ({"reasoning": {"max_tokens": 2000}}, OPUS_46, "low"),
        ({"reasoning": {"max_tokens": 8000}}, OPUS_46, "medium"),
        ({"reasoning": {"max_tokens": 30000}}, OPUS_46, "high"),
        ({"thinking": {"type": "adaptive"}}, OPUS_46, "high"),
    ],
)
def test_newer_models_think_with_an_effort(
    members: dict[str, Any], model: str, effort: str
) -> None:
    body = body_of(openai(**members), model)
    assert body["thinking"]["type"] == "adaptive"
    assert body["output_config"] == {"effort": effort}


def test_reasoning_is_returned_unless_it_is_not_requested() -> None:
    assert body_of(openai(reasoning_effort="low"), OPUS_47)["thinking"] == {
        "type": "adaptive",
        "display": "summarized",
    }
    hidden = openai(reasoning={"effort": "low", "exclude": True})
    assert body_of(hidden, OPUS_47)["thinking"] == {"type": "adaptive"}
    assert body_of(openai(reasoning_effort="low"), OPUS_46)["thinking"] == {"type": "adaptive"}


def test_effort_and_a_schema_can_be_combined() -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "string"}}}
    body = body_of(openai(reasoning_effort="low", response_format=wanted), OPUS_46)
    assert body["output_config"] == {
        "format": {"type": "json_schema", "schema": {"type": "string"}},
        "effort": "low",
    }


SIGNED = {"reasoning_details": [{"type": "reasoning.text", "text": "Hm.", "signature": "c2ln"}]}


RESULT = {"role": "tool", "tool_call_id": "a", "content": "x"}


@pytest.mark.parametrize(
    ("messages", "thinks"),
    [
        (HI, True),
        # in the midst of a turn whose thoughts were lost Anthropic refuses to think
        ([*HI, {"role": "assistant", "tool_calls": [CALL_A]}, RESULT], False),
        ([*HI, {"role": "assistant", "tool_calls": [CALL_A], **SIGNED}, RESULT], True),
        (
            [
                *HI,
                {"role": "assistant", "tool_calls": [CALL_A]},
                RESULT,
                {"role": "user", "content": "?"},
            ],
            True,
        ),
        ([*HI, {"role": "assistant", "content": "Hello"}, *HI], True),
        ([{"role": "assistant", "content": "Hello"}], True),
        ([RESULT], True),
    ],
)
def test_thinking_within_a_turn_requires_its_thinking_blocks(
    messages: list[dict[str, Any]], thinks: bool
) -> None:
    draft = written("anthropic", openai(messages, reasoning_effort="low"), SONNET_4)
    assert ("thinking" in draft.body) is thinks
    assert draft.ignored == (() if thinks else ("reasoning_effort",))
