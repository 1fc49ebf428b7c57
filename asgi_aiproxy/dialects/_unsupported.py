"""What a request holds that another language has no words for: reported, never silently lost."""

from __future__ import annotations

from asgi_aiproxy.messages import Media, Opaque, Part, Refusal, Request, Tool, ToolResult


def unsupported_fields(request: Request, dialect: str, *, names: bool = False) -> list[str]:
    """Members of the caller's request that `dialect` can not carry, in the caller's own words.

    `names` tells that the dialect has names for those who speak.
    """
    found = [name for own, more in request.extra.items() if own != dialect for name in more]
    if not names and any(message.name for message in request.messages):
        found.append("messages[].name")
    if request.tool_choice is not None and request.tool_choice.mode == "required":
        found += () if request.tools else ("tool_choice",)
    parts = [part for message in request.messages for part in message.parts]
    if any(isinstance(part, Opaque) and part.dialect != dialect for part in parts):
        found.append("messages[].content")
    if dialect != "anthropic" and any(map(_marked, (*parts, *request.tools))):
        found.append("cache_control")
    drawn = (p for m in request.messages if m.role == "assistant" for p in m.parts)
    if dialect.startswith("openai") and any(isinstance(part, Media) for part in drawn):
        found.append("messages[].images")  # a turn of the assistant has no place for them
    if not dialect.startswith("openai") and any(map(_sized, parts)):
        found.append("messages[].content[].image_url.detail")
    return found


def _sized(part: Part) -> bool:
    """Whether a part is an image, or holds one, that is to be seen in another size than usual."""
    if isinstance(part, ToolResult):
        return any(map(_sized, part.parts))
    wished = part.extra.get("openai", {}) if isinstance(part, Media) else {}
    return bool(wished.get("detail", "auto") != "auto")


def _marked(part: Part | Tool) -> bool:
    """Whether a part, or one within it, is a cache point; only Anthropic lets clients set them."""
    if isinstance(part, Opaque | Refusal):
        return False
    if isinstance(part, ToolResult) and any(map(_marked, part.parts)):
        return True
    return "cache_control" in part.extra.get("anthropic", ())
