"""Token usage in OpenAI's formats, and in the variants of compatible servers.

Cached tokens are in `prompt_tokens_details.cached_tokens` (OpenAI, xAI, Groq, Mistral, OpenRouter),
`cached_tokens` (Kimi), `prompt_cache_hit_tokens` (DeepSeek), `num_cached_tokens` (Mistral, earlier)
or `cache_read_input_tokens` (relays of Anthropic). Where a chunk has its usage, see `normalize`.
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


_NO_PROMPT_DETAILS, _NO_COMPLETION_DETAILS = _PromptDetails(), _CompletionDetails()


def to_usage(fields: UsageFields) -> Usage:
    """Convert `usage`. Reasoning that a vendor counts outside the completion (xAI) is added."""
    prompt = fields.prompt_tokens_details or _NO_PROMPT_DETAILS
    details = fields.completion_tokens_details or _NO_COMPLETION_DETAILS
    completion = fields.completion_tokens
    reasoning = details.reasoning_tokens or fields.reasoning_tokens
    if reasoning and fields.total_tokens == fields.prompt_tokens + completion + reasoning:
        completion += reasoning
    return Usage(
        input=fields.prompt_tokens,
        output=completion,
        cache_read=prompt.cached_tokens
        or fields.cached_tokens
        or fields.prompt_cache_hit_tokens
        or fields.num_cached_tokens
        or fields.cache_read_input_tokens,
        cache_write=prompt.cache_write_tokens
        or prompt.cache_creation_tokens
        or fields.cache_creation_input_tokens,
        reasoning=reasoning,
        audio_input=prompt.audio_tokens,
        audio_output=details.audio_tokens,
        image_input=prompt.image_tokens,
        image_output=details.image_tokens,
    )


def decode_new_usage(usage: Any) -> Usage:
    """Read OpenAI's newer format: of responses, realtime, images and transcriptions."""
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
    """Read `usage`; numbers may be strings. None if it is not an object."""
    fields = read_usage(usage)
    return to_usage(fields) if fields is not None else None


def read_usage(usage: Any) -> UsageFields | None:
    """The members of `usage`; None if it is not an object."""
    if not isinstance(usage, dict):
        return None
    try:
        return msgspec.convert(usage, UsageFields)
    except ValueError:  # numbers as strings, names that are not Unicode
        fields = msgspec.convert(_counts(usage, UsageFields), UsageFields)
        prompt = usage.get("prompt_tokens_details")
        completion = usage.get("completion_tokens_details")
        fields.prompt_tokens_details = _PromptDetails(**_counts(prompt, _PromptDetails))
        fields.completion_tokens_details = _CompletionDetails(
            **_counts(completion, _CompletionDetails)
        )
    return fields


def _counts(where: Any, kind: type[msgspec.Struct]) -> dict[str, int]:
    """The token counts that are members of `kind`."""
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
