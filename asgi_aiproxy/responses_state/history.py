"""The history of a conversation as items of the Responses API. Pure.

A history consists of segments: the items of a request, and those of its response. Items stay
encoded. When a conversation continues, its history and the new items become the `input` of one
request that refers to nothing (`expanded_input`), which any vendor can be sent.

Items of a response lose their ids and statuses, if they are messages, reasoning or calls: OpenAI
looks up items by their ids, and refuses those that it does not keep. Reasoning is sent to a vendor
of the Responses API only with its `encrypted_content`, and only to the account that encrypted it:
the `origin` of its segment. What signs the reasoning of other vendors is a carrier (see
`dialects._carriers`), which stays in the history and is left out of native requests.

https://platform.openai.com/docs/guides/conversation-state
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from asgi_aiproxy import _json
from asgi_aiproxy.dialects._carriers import is_carrier
from asgi_aiproxy.dialects.openai_responses.schemas import NAME
from asgi_aiproxy.errors import APIError, ErrorKind, invalid

_WITHOUT_IDS = frozenset({"message", "function_call", "custom_tool_call"})
_REASONING = b'"reasoning"'
_INPUT = msgspec.json.Decoder(str | list[msgspec.Raw])


class Segment(msgspec.Struct, frozen=True, omit_defaults=True):
    """Items of one request, or of the response to it, with the account that answered.

    The origin is empty for items that no provider has read yet.
    """

    items: tuple[msgspec.Raw, ...]
    origin: str = ""


class History(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is known of a response, and of the conversation up to it.

    - `segments`: the content; None if only the provider has it.
    - `provider`, `key_id`, `model`: what answered.
    - `kept`: the provider keeps the response, so that a request can refer to it there.
    - `tokens`: those of the whole conversation, as the provider counted them.
    """

    provider: str
    key_id: str = ""
    model: str = ""
    kept: bool = False
    tokens: int = 0
    segments: tuple[Segment, ...] | None = None

    @property
    def size(self) -> int:
        """The size of the content in bytes."""
        return sum(len(item) + 1 for segment in self.segments or () for item in segment.items)


def origin(provider: str, key_id: str) -> str:
    """The account that answered: reasoning that it encrypted is readable for it alone."""
    return f"{provider}/{key_id}"


def input_items(fields: Mapping[str, msgspec.Raw]) -> tuple[msgspec.Raw, ...]:
    """The items of a request's `input`. Raises APIError if it is neither a string nor a list."""
    raw = fields.get("input")
    if raw is None or bytes(raw) == b"null":
        return ()
    try:
        found = _INPUT.decode(raw)
    except msgspec.DecodeError as error:
        message = "Invalid type for 'input': expected a string or a list of items."
        raise invalid(message, "input", "invalid_type") from error
    if isinstance(found, list):
        return tuple(item.copy() for item in found)  # the body can be freed
    part = {"type": "input_text", "text": found}
    return (_encoded({"type": "message", "role": "user", "content": [part]}),)


def output_items(response: Mapping[str, Any]) -> tuple[msgspec.Raw, ...]:
    """The items of a response's `output`, as they are sent back."""
    output = response.get("output")
    found = output if isinstance(output, list) else []
    return tuple(_encoded(sendable(item)) for item in found if isinstance(item, dict))


def sendable(item: Mapping[str, Any]) -> dict[str, Any]:
    """An item of a response as it can be an item of `input`."""
    kind = item.get("type")
    dropped: tuple[str, ...] = ()
    if kind in _WITHOUT_IDS:
        dropped = ("id", "status")
    elif kind == "reasoning":
        dropped = ("status",) if item.get("encrypted_content") else ("status", "id")
    return {name: value for name, value in item.items() if name not in dropped}


def _encoded(item: Mapping[str, Any]) -> msgspec.Raw:
    return msgspec.Raw(_json.dumps(item))


def reasoning_origin(history: History) -> str:
    """The origin of the last reasoning that only its own account can read; empty without any."""
    for segment in reversed(history.segments or ()):
        if segment.origin and any(_encrypted_reasoning(item) for item in segment.items):
            return segment.origin
    return ""


def _encrypted_reasoning(item: msgspec.Raw) -> bool:
    """Whether an item is reasoning that OpenAI, or a vendor like it, encrypted."""
    if _REASONING not in bytes(item):
        return False
    found = _json.loads(bytes(item))
    content = found.get("encrypted_content") if isinstance(found, dict) else None
    return found.get("type") == "reasoning" and bool(content) and not is_carrier(NAME, content)


def expanded_input(
    history: History,
    items: Iterable[msgspec.Raw],
    *,
    native: bool,
    reader: str,
    limit: int,
) -> msgspec.Raw:
    """The `input` that says all of a history, and then the new items.

    `native`: a provider of the Responses API may be sent it; `reader` is the origin whose
    reasoning that provider can read. Raises APIError (413) above `limit` bytes.
    """
    pieces = [bytes(item) for item in _readable(history, native=native, reader=reader)]
    pieces += map(bytes, items)
    body = b"[" + b",".join(pieces) + b"]"
    if len(body) > limit:
        raise conversation_too_large(limit)
    return msgspec.Raw(body)


def _readable(history: History, *, native: bool, reader: str) -> Iterator[msgspec.Raw]:
    for segment in history.segments or ():
        for item in segment.items:
            if native and _REASONING in bytes(item) and not _may_read(item, segment, reader):
                continue
            yield item


def _may_read(item: msgspec.Raw, segment: Segment, reader: str) -> bool:
    found = _json.loads(bytes(item))
    if not isinstance(found, dict) or found.get("type") != "reasoning":
        return True
    content = found.get("encrypted_content")
    return bool(content) and (is_carrier(NAME, content) or segment.origin in ("", reader))


def conversation_too_large(limit: int) -> APIError:
    """The error for an `input` that is larger than `limit` bytes with what was kept."""
    return APIError(
        ErrorKind.TOO_LARGE,
        f"The conversation is larger than {limit} bytes. Begin a new one with a shorter input.",
        param="input",
        code="conversation_too_large",
    )
