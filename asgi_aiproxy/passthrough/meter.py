"""Usage and model of an answer that passes, read on the side from copies of its ends.

Vendors tell usage at the end of an answer, some of it at the beginning: so 8 KiB of the head and
16 KiB of the tail are enough, however long the answer is, and reading them costs nothing while it
passes. Members are looked for by name: the copies are no whole JSON.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import Any

from asgi_aiproxy.dialects.anthropic.responses import decode_usage as anthropic_usage
from asgi_aiproxy.dialects.gemini.responses import decode_usage as gemini_usage
from asgi_aiproxy.dialects.openai_chat.usage import decode_usage as openai_usage
from asgi_aiproxy.messages import Usage

HEAD = 8 * 1024
TAIL = 16 * 1024
# So much may wait before it is cut, lest it be copied again and again.
_MOST, _MOST_PIECES = 4 * TAIL, 256

_TYPES = {"application/json", "text/event-stream", "application/x-ndjson"}
_TYPES |= {"application/stream+json", "application/jsonl"}
# Within a string of JSON these names would have backslashes before their quotes.
_USAGE = re.compile(rb'"usage(?:Metadata)?"\s*:\s*(?=\{)')
_MODEL = re.compile(rb'"(?:model|modelVersion)"\s*:\s*"([^"\\]{1,200})"')
_OLLAMA = re.compile(rb'"(prompt_eval_count|eval_count)"\s*:\s*(\d{1,15})')
_LONGEST = 4096  # of an object of usage
_FIRST = 4096  # what is told at the beginning is told in the first event
_scan = json.JSONDecoder().raw_decode


class Meter:
    """Is shown an answer, and asked at its end, whatever that was."""

    __slots__ = ("_head", "_held", "_pieces")

    def __init__(self) -> None:
        self._head = b""  # once something between it and the rest may be missing
        self._pieces: list[bytes] = []
        self._held = 0

    @classmethod
    def for_type(cls, content_type: str, content_encoding: str) -> Meter | None:
        """A meter for such an answer, if it may tell usage in words that can be read."""
        return cls() if content_encoding in ("", "identity") and _tells(content_type) else None

    @property
    def head(self) -> bytes:
        """How it began."""
        return self._head or b"".join(self._pieces)[:HEAD]

    def feed(self, data: bytes) -> None:
        """See some more of it."""
        if len(data) > TAIL:
            # (Its end is copied, so that all the rest need not be kept for it.)
            self._head = self._head or (b"".join(self._pieces) + data[:HEAD])[:HEAD]
            self._pieces, self._held = [data[-TAIL:]], TAIL
            return
        self._pieces.append(data)
        self._held += len(data)
        if self._held > _MOST or len(self._pieces) > _MOST_PIECES:
            self._cut()

    def told(self) -> tuple[str, Usage | None]:
        """The model and the usage, as far as they were told."""
        rest = b"".join(self._pieces)
        head = self._head or rest
        return model_in(head) or (model_in(rest) if self._head else ""), usage_in(rest, head)

    def _cut(self) -> None:
        rest = b"".join(self._pieces)
        if len(rest) > HEAD + TAIL:
            self._head = self._head or rest[:HEAD]
            rest = rest[-TAIL:]
        self._pieces = [rest]
        self._held = len(rest)


@lru_cache(maxsize=256)
def _tells(content_type: str) -> bool:
    return content_type.partition(";")[0].strip().lower() in _TYPES


def model_in(data: bytes) -> str:
    """The model that JSON, events or lines tell first."""
    found = _MODEL.search(data)
    return found[1].decode("utf-8", "replace") if found else ""


def usage_in(data: bytes, head: bytes) -> Usage | None:
    """The usage that JSON, events or lines tell: what is told last, and what only the beginning
    tells."""
    counts: dict[str, Any] = {}
    at, low = len(data), max(len(data) - TAIL, 0)
    while not counts and (at := data.rfind(b'"usage', low, at)) >= 0:
        counts = _object(data, at)
    if "total_tokens" not in counts and "totalTokenCount" not in counts:
        first: dict[str, Any] = {}
        at = -1
        while not first and (at := head.find(b'"usage', at + 1, _FIRST)) >= 0:
            first = _object(head, at)
        counts = first | {name: value for name, value in counts.items() if value is not None}
    if not counts and data.rfind(b'"eval_count"', low) >= 0:
        counts = {name.decode(): int(count) for name, count in _OLLAMA.findall(data, low)}
    return _read(counts) if counts else None


def _object(data: bytes, at: int) -> dict[str, Any]:
    """The usage that is told here; nothing if there is none, or not all of it."""
    found = _USAGE.match(data, at)
    if found is None:
        return {}
    text = data[found.end() : found.end() + _LONGEST].decode("utf-8", "replace")
    try:
        counts: dict[str, Any] = _scan(text)[0]
    except (ValueError, RecursionError):
        return {}
    return counts


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
                self.model = model_in(text.encode())
            return
        data = text.encode()
        found = usage_in(data, data)
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
