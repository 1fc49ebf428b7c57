"""Tokens, as OpenAI tells them, and as others write them in its format.

Cached tokens are in `prompt_tokens_details.cached_tokens` (OpenAI, xAI, Groq, Mistral, OpenRouter),
`cached_tokens` (Kimi), `prompt_cache_hit_tokens` (DeepSeek), `num_cached_tokens` (Mistral, earlier)
or `cache_read_input_tokens` (relays of Anthropic). Where a chunk holds its usage is `mend`'s.
"""

from __future__ import annotations

from typing import Any

import msgspec

from asgi_aiproxy.dialects import _parsing
from asgi_aiproxy.messages import Usage


class UsageFields(msgspec.Struct, gc=False):
    """`usage` as OpenAI and most others write it."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _CompletionDetails | None = None
    reasoning_tokens: int = 0
    prompt_cache_hit_tokens: int = 0
    num_cached_tokens: int = 0
    cached_tokens: int = 0
    cache_read_input_tokens: int = 0
    cache_creation_input_tokens: int = 0


class _PromptDetails(msgspec.Struct, gc=False):
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    cache_creation_tokens: int = 0
    audio_tokens: int = 0
    image_tokens: int = 0


class _CompletionDetails(msgspec.Struct, gc=False):
    reasoning_tokens: int = 0
    audio_tokens: int = 0
    image_tokens: int = 0


_NOT_INTO, _NOT_OUT = _PromptDetails(), _CompletionDetails()


def to_usage(told: UsageFields) -> Usage:
    """What `usage` means; reasoning that a vendor counts beside the completion (xAI) is added."""
    into, out = told.prompt_tokens_details or _NOT_INTO, told.completion_tokens_details or _NOT_OUT
    completion = told.completion_tokens
    thought = out.reasoning_tokens or told.reasoning_tokens
    if thought and told.total_tokens == told.prompt_tokens + completion + thought:
        completion += thought
    return Usage(
        input=told.prompt_tokens,
        output=completion,
        cache_read=into.cached_tokens
        or told.cached_tokens
        or told.prompt_cache_hit_tokens
        or told.num_cached_tokens
        or told.cache_read_input_tokens,
        cache_write=into.cache_write_tokens
        or into.cache_creation_tokens
        or told.cache_creation_input_tokens,
        reasoning=thought,
        audio_input=into.audio_tokens,
        audio_output=out.audio_tokens,
        image_input=into.image_tokens,
        image_output=out.image_tokens,
    )


def decode_new_usage(usage: Any) -> Usage:
    """Read OpenAI's second wording: of responses, realtime, images and transcriptions."""
    into = usage.get("input_tokens_details") or usage.get("input_token_details")
    out = usage.get("output_tokens_details") or usage.get("output_token_details")
    return Usage(
        input=_parsing.read_count(usage, "input_tokens"),
        output=_parsing.read_count(usage, "output_tokens"),
        cache_read=_parsing.read_count(into, "cached_tokens"),
        cache_write=_parsing.read_count(into, "cache_write_tokens"),
        reasoning=_parsing.read_count(out, "reasoning_tokens"),
        audio_input=_parsing.read_count(into, "audio_tokens"),
        audio_output=_parsing.read_count(out, "audio_tokens"),
        image_input=_parsing.read_count(into, "image_tokens"),
        image_output=_parsing.read_count(out, "image_tokens"),
    )


def decode_usage(usage: Any) -> Usage | None:
    """Read `usage`, even if numbers are written as text."""
    told = read_usage(usage)
    return to_usage(told) if told is not None else None


def read_usage(usage: Any) -> UsageFields | None:
    """The same as it was told."""
    if not isinstance(usage, dict):
        return None
    try:
        return msgspec.convert(usage, UsageFields)
    except ValueError:  # numbers written as text, names that are not Unicode
        told = msgspec.convert(_counts(usage, UsageFields), UsageFields)
        into, out = usage.get("prompt_tokens_details"), usage.get("completion_tokens_details")
        told.prompt_tokens_details = _PromptDetails(**_counts(into, _PromptDetails))
        told.completion_tokens_details = _CompletionDetails(**_counts(out, _CompletionDetails))
    return told


def _counts(where: Any, kind: type[msgspec.Struct]) -> dict[str, int]:
    """The numbers of tokens that `kind` has a place for."""
    return {
        name: _parsing.read_count(where, name)
        for name in kind.__struct_fields__
        if "details" not in name
    }


def encode_usage(usage: Usage) -> dict[str, Any]:
    """Write `usage`."""
    into = {"cached_tokens": usage.cache_read, "audio_tokens": usage.audio_input}
    if usage.cache_write:
        into["cache_write_tokens"] = usage.cache_write
    return {
        "prompt_tokens": usage.input,
        "completion_tokens": usage.output,
        "total_tokens": usage.input + usage.output,
        "prompt_tokens_details": into,
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning,
            "audio_tokens": usage.audio_output,
        },
    }
