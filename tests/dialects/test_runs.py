"""Runs: events of a vendor's stream with nothing but text, which decoders read at once."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, strategies as st

from asgi_aiproxy.dialects import (
    BEDROCK_CONVERSE,
    COHERE_CHAT,
    COZE_CHAT,
    GEMINI_CONTENT,
    OLLAMA_CHAT,
    OPENAI_CHAT,
)
from asgi_aiproxy.dialects.base import Decoder, OutboundDialect
from asgi_aiproxy.messages import BlockDelta

WORDS = st.lists(st.text(min_size=1, max_size=3), min_size=4, max_size=12)


def cohere(text: str) -> dict[str, Any]:
    content = {"message": {"content": {"text": text}}}
    return {"type": "content-delta", "index": 0, "delta": content}


def coze(text: str) -> dict[str, Any]:
    ids = {"id": "7", "chat_id": "8", "conversation_id": "9"}
    return {**ids, "role": "assistant", "type": "answer", "content": text}


def bedrock(text: str) -> dict[str, Any]:
    return {"contentBlockIndex": 0, "delta": {"text": text}, "p": "abc"}


def ollama(text: str) -> dict[str, Any]:
    return {"model": "m", "message": {"role": "assistant", "content": text}, "done": False}


def gemini(text: str) -> dict[str, Any]:
    content = {"parts": [{"text": text}], "role": "model"}
    return {"candidates": [{"content": content, "index": 0}], "responseId": "r"}


def chat(text: str) -> dict[str, Any]:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    return {"id": "c", "object": "chat.completion.chunk", "created": 1, "choices": [choice]}


KINDS: list[tuple[OutboundDialect, Callable[[str], dict[str, Any]]]] = [
    (COHERE_CHAT, cohere),
    (COZE_CHAT, coze),
    (BEDROCK_CONVERSE, bedrock),
    (OLLAMA_CHAT, ollama),
    (GEMINI_CONTENT, gemini),
    (OPENAI_CHAT, chat),
]


def begun(dialect: OutboundDialect, event: dict[str, Any]) -> Decoder:
    """A decoder that has read the first text."""
    decoder = dialect.decoder()
    decoder.feed(json.dumps(event).encode())
    return decoder


@pytest.mark.parametrize(("dialect", "event"), KINDS, ids=lambda kind: getattr(kind, "name", ""))
@given(words=WORDS)
def test_a_run_has_the_texts_of_its_events(
    dialect: OutboundDialect, event: Callable[[str], dict[str, Any]], words: list[str]
) -> None:
    pieces = [json.dumps(event(word)).encode() for word in words]
    alone = begun(dialect, event("b"))
    expected = [found for piece in pieces for found in alone.feed(piece)]
    run = begun(dialect, event("b")).run(pieces)
    assert run is not None
    number, texts, used = run
    assert expected == [BlockDelta(number, text) for text in texts]
    assert used == len(pieces)


@pytest.mark.parametrize(("dialect", "event"), KINDS, ids=lambda kind: getattr(kind, "name", ""))
@pytest.mark.parametrize("other", [{"error": {"message": "failed"}}, {"done": ""}, []])
def test_an_event_of_another_kind_is_not_part_of_a_run(
    dialect: OutboundDialect, event: Callable[[str], dict[str, Any]], other: Any
) -> None:
    pieces = [json.dumps(event(word)).encode() for word in "abcdef"]
    pieces[3] = json.dumps(other).encode()
    assert begun(dialect, event("b")).run(pieces) is None
