"""Strict readers of each client API: an answer's meaning, or an assertion about its form.

They share no code with the package, so that an encoder's fault is not excused by its own decoder.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.support.readers import chat, completions, gemini, messages, responses
from tests.support.readers.answer import Answer


@dataclass(frozen=True)
class Reader:
    """Reads the streams and the whole bodies of one API."""

    stream: Callable[[bytes], Answer]
    whole: Callable[[bytes], Answer]


READERS = {
    "openai_chat": Reader(chat.stream, chat.whole),
    "openai_completions": Reader(completions.stream, completions.whole),
    "openai_responses": Reader(responses.stream, responses.whole),
    "anthropic": Reader(messages.stream, messages.whole),
    "gemini": Reader(gemini.stream, gemini.whole),
}

__all__ = ["READERS", "Answer", "Reader"]
