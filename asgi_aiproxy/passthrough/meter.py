"""Usage and model of an answer that passes, read on the side from copies of its ends.

Vendors tell usage at the end of an answer, some of it at the beginning: so 8 KiB of the head and
16 KiB of the tail are enough, however long the answer is, and reading them costs nothing while it
passes. Members are looked for by name: the copies are no whole JSON.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from asgi_aiproxy.dialects.anthropic.responses import decode_usage as anthropic_usage
from asgi_aiproxy.dialects.gemini.responses import decode_usage as gemini_usage
from asgi_aiproxy.dialects.openai_chat.responses import decode_usage as openai_usage
from asgi_aiproxy.messages import Usage

HEAD = 8 * 1024
TAIL = 16 * 1024

_TYPES = {"application/json", "text/event-stream", "application/x-ndjson"}
_TYPES |= {"application/stream+json", "application/jsonl"}
# Within a string of JSON these names would have backslashes before their quotes.
_USAGE = re.compile(r'"usage(?:Metadata)?"\s*:\s*(?=\{)')
_MODEL = re.compile(r'"(?:model|modelVersion)"\s*:\s*"([^"\\]{1,200})"')
_OLLAMA = re.compile(r'"(prompt_eval_count|eval_count)"\s*:\s*(\d{1,15})')
_scan = json.JSONDecoder().raw_decode


class Meter:
    """Is shown an answer, and asked at its end, whatever that was."""

    def __init__(self) -> None:
        self._head = bytearray()
        self._tail: list[bytes] = []
        self._held = 0

    @classmethod
    def for_type(cls, content_type: str, content_encoding: str) -> Meter | None:
        """A meter for such an answer, if it may tell usage in words that can be read."""
        kind = content_type.partition(";")[0].strip().lower()
        return cls() if kind in _TYPES and content_encoding in ("", "identity") else None

    def feed(self, data: bytes) -> None:
        """See some more of it."""
        room = HEAD - len(self._head)
        if room > 0:
            self._head += data[:room]
            data = data[room:]
        if data:
            self._tail.append(data)
            self._held += len(data)
            if self._held > 4 * TAIL or len(self._tail) > 256:
                self._trim()

    def told(self) -> tuple[str, Usage | None]:
        """The model and the usage, as far as they were told."""
        self._trim()
        tail = b"".join(self._tail)
        if self._held < TAIL:  # all of it is here
            text = (bytes(self._head) + tail).decode("utf-8", "replace")
        else:
            text = bytes(self._head).decode("utf-8", "replace") + "\n"
            text += tail.decode("utf-8", "replace")
        model = _MODEL.search(text)
        return model[1] if model else "", usage_in(text)

    def _trim(self) -> None:
        tail = b"".join(self._tail)[-TAIL:]
        self._tail, self._held = [tail], len(tail)


def usage_in(text: str) -> Usage | None:
    """The usage that a text of JSON, events or lines tells; what is told later goes before."""
    counts: dict[str, Any] = {}
    for found in _objects(text):
        counts.update({name: value for name, value in found.items() if value is not None})
    if not counts:
        counts = {name: int(count) for name, count in _OLLAMA.findall(text)}
    return _read(counts) if counts else None


def _objects(text: str) -> Iterator[dict[str, Any]]:
    for name in _USAGE.finditer(text):
        try:
            found, _ = _scan(text, name.end())
        except (ValueError, RecursionError):
            continue  # cut off
        yield found


def _read(counts: dict[str, Any]) -> Usage | None:
    """Counts in whichever vendor's words."""
    try:
        if "promptTokenCount" in counts:
            return gemini_usage(counts)
        if "prompt_tokens" in counts or "completion_tokens" in counts:
            return openai_usage(counts)
        if "prompt_eval_count" in counts or "eval_count" in counts:
            return Usage(
                input=counts.get("prompt_eval_count", 0), output=counts.get("eval_count", 0)
            )
        if "total_tokens" in counts and "input_tokens" in counts:
            return _of_responses(counts)
        if "input_tokens" in counts or "output_tokens" in counts:
            return anthropic_usage(counts)
    except (AttributeError, TypeError, ValueError):
        return None  # counts that are none
    return None


def _of_responses(counts: dict[str, Any]) -> Usage:
    """OpenAI's second wording: of responses, realtime, images and transcriptions."""
    into = counts.get("input_tokens_details") or counts.get("input_token_details") or {}
    out = counts.get("output_tokens_details") or counts.get("output_token_details") or {}
    return Usage(
        input=counts.get("input_tokens") or 0,
        output=counts.get("output_tokens") or 0,
        cache_read=into.get("cached_tokens") or 0,
        cache_write=into.get("cache_write_tokens") or 0,
        reasoning=out.get("reasoning_tokens") or 0,
        audio_input=into.get("audio_tokens") or 0,
        audio_output=out.get("audio_tokens") or 0,
    )


class Sum:
    """Adds up the usage that the events of a session tell, one answer after the other."""

    def __init__(self) -> None:
        self.usage: Usage | None = None
        self.model = ""

    def feed(self, text: str) -> None:
        """See one event."""
        if '"usage' not in text:
            if not self.model and '"model"' in text:
                model = _MODEL.search(text)
                self.model = model[1] if model else ""
            return
        found = usage_in(text)
        if found is not None:
            before = self.usage or Usage()
            self.usage = Usage(
                input=before.input + found.input,
                output=before.output + found.output,
                cache_read=before.cache_read + found.cache_read,
                cache_write=before.cache_write + found.cache_write,
                reasoning=before.reasoning + found.reasoning,
                audio_input=before.audio_input + found.audio_input,
                audio_output=before.audio_output + found.audio_output,
            )
