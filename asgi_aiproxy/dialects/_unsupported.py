"""Reports the members of a request that the provider's dialect cannot carry."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from asgi_aiproxy.errors import invalid
from asgi_aiproxy.messages import Media, Opaque, Part, Refusal, Request, Tool, ToolResult

# Dialects whose requests mark what is to be cached.
_WITH_CACHE_POINTS = frozenset({"anthropic", "bedrock"})
# What services choose themselves whose requests only carry messages, and how clients name it.
_CHOSEN_BY_SERVICE = (
    ("max_tokens", "max_tokens"),
    ("temperature", "temperature"),
    ("top_p", "top_p"),
    ("top_k", "top_k"),
    ("stop", "stop"),
    ("seed", "seed"),
    ("presence_penalty", "presence_penalty"),
    ("frequency_penalty", "frequency_penalty"),
    ("tools", "tools"),
    ("output", "response_format"),
    ("thinking", "reasoning_effort"),
)


def chosen_by_service(request: Request) -> list[str]:
    """Members of the request that a service has no place for whose requests only carry messages."""
    return [
        called for name, called in _CHOSEN_BY_SERVICE if getattr(request, name) not in (None, (), 0)
    ]


def vendor_fields(request: Request, known: Collection[str]) -> dict[str, Any]:
    """Members of the caller's request that no dialect of a client has, but the vendor knows.

    OpenAI's SDK sends them as `extra_body`, for example.
    """
    return {
        name: value
        for members in request.extra.values()
        for name, value in members.items()
        if name in known
    }


def unsupported_fields(
    request: Request, dialect: str, *, names: bool = False, known: Collection[str] = ()
) -> list[str]:
    """Members of the caller's request that `dialect` cannot carry, named as the caller wrote them.

    `names`: whether the dialect supports `messages[].name`. `known`: members that were carried as
    `vendor_fields`.
    """
    if dialect != "gemini" and request.extra.get("gemini", {}).get("cachedContent"):
        raise invalid(
            "'cachedContent' is stored by Google, and not available to the provider of this model: "
            "send the content itself.",
            "cachedContent",
            "unsupported_parameter",
        )
    found = [
        name
        for source, members in request.extra.items()
        if source != dialect
        for name in members
        if name not in known
    ]
    if not names and any(message.name for message in request.messages):
        found.append("messages[].name")
    if request.tool_choice is not None and request.tool_choice.mode == "required":
        found += () if request.tools else ("tool_choice",)
    parts = [part for message in request.messages for part in message.parts]
    if any(isinstance(part, Opaque) and part.dialect != dialect for part in parts):
        found.append("messages[].content")
    if dialect not in _WITH_CACHE_POINTS and any(map(_is_cache_point, (*parts, *request.tools))):
        found.append("cache_control")
    assistant_parts = (p for m in request.messages if m.role == "assistant" for p in m.parts)
    if dialect.startswith("openai") and any(isinstance(part, Media) for part in assistant_parts):
        found.append("messages[].images")  # assistant messages cannot hold images
    if not dialect.startswith("openai") and any(map(_has_image_detail, parts)):
        found.append("messages[].content[].image_url.detail")
    return found


def _has_image_detail(part: Part) -> bool:
    """Whether a part is, or contains, an image with a `detail` other than `auto`."""
    if isinstance(part, ToolResult):
        return any(map(_has_image_detail, part.parts))
    options = part.extra.get("openai", {}) if isinstance(part, Media) else {}
    return bool(options.get("detail", "auto") != "auto")


def _is_cache_point(part: Part | Tool) -> bool:
    """Whether a part, or a part inside it, has an Anthropic cache point."""
    if isinstance(part, Opaque | Refusal):
        return False
    if isinstance(part, ToolResult) and any(map(_is_cache_point, part.parts)):
        return True
    return "cache_control" in part.extra.get("anthropic", ())
