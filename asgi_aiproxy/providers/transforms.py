"""Request transformations for the quirks of vendors with OpenAI's API. Pure.

Each is made once and applied to every request of a provider's shim. Members of a request that
passes through are still encoded (`msgspec.Raw`); those of a translated one are plain values.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from asgi_aiproxy import _json
from asgi_aiproxy.dialects.base import ProviderRequest
from asgi_aiproxy.providers.base import TransformRequest

CHAT_PATH = "/chat/completions"


def rename_fields(**names: str) -> TransformRequest:
    """Rename members of the body (old=new), unless the new name already has a value."""

    def transform(draft: ProviderRequest) -> ProviderRequest:
        if names.keys().isdisjoint(draft.body):
            return draft
        body = dict(draft.body)
        for old, new in names.items():
            if old in body:
                value = body.pop(old)
                if _is_null(body.get(new)):
                    body[new] = value
        return msgspec.structs.replace(draft, body=body)

    return transform


def _is_null(value: Any) -> bool:
    return value is None or (isinstance(value, msgspec.Raw) and bytes(value) == b"null")


def drop_fields(*names: str, reported: bool = True) -> TransformRequest:
    """Remove members that the vendor rejects. They are reported, unless they are null or false."""
    unwanted = frozenset(names)

    def transform(draft: ProviderRequest) -> ProviderRequest:
        if unwanted.isdisjoint(draft.body):
            return draft
        body = {name: value for name, value in draft.body.items() if name not in unwanted}
        ignored = draft.ignored
        if reported:
            lost = [n for n in names if draft.body.get(n) not in (None, *_NO_EFFECT)]
            ignored = tuple(dict.fromkeys((*ignored, *lost)))
        return msgspec.structs.replace(draft, body=body, ignored=ignored)

    return transform


_NO_EFFECT = (False, msgspec.Raw(b"false"), msgspec.Raw(b"null"))


def roles(**others: str) -> TransformRequest:
    """Rename roles of messages that the vendor rejects (old=new)."""
    written = {f'"{old}"'.encode(): msgspec.Raw(f'"{new}"'.encode()) for old, new in others.items()}

    def transform(draft: ProviderRequest) -> ProviderRequest:
        sent = draft.body.get("messages")
        if not isinstance(sent, msgspec.Raw):
            return draft  # translated requests only have common roles
        encoded = bytes(sent)
        if not any(role in encoded for role in written):
            return draft
        try:
            messages = _messages(encoded)
        except msgspec.DecodeError:
            return draft  # the vendor reports the error
        for message in messages:
            role = bytes(message.get("role", b""))
            if role in written:
                message["role"] = written[role]
        changed = msgspec.Raw(msgspec.json.encode(messages))  # as the next transformation expects
        return msgspec.structs.replace(draft, body={**draft.body, "messages": changed})

    return transform


_messages = msgspec.json.Decoder(list[dict[str, msgspec.Raw]]).decode


def chain(*transforms: TransformRequest) -> TransformRequest:
    """Apply several transformations in order."""

    def transform(draft: ProviderRequest) -> ProviderRequest:
        for step in transforms:
            draft = step(draft)
        return draft

    return transform


def only_at(path: str, *transforms: TransformRequest) -> TransformRequest:
    """Apply transformations, in order, to the requests at one path only."""

    def transform(draft: ProviderRequest) -> ProviderRequest:
        if draft.path == path:
            for step in transforms:
                draft = step(draft)
        return draft

    return transform


def only_chat(*transforms: TransformRequest) -> TransformRequest:
    """Apply transformations to chat completions only."""
    return only_at(CHAT_PATH, *transforms)


def only_images(*transforms: TransformRequest) -> TransformRequest:
    """Apply transformations to the generation of images only."""
    return only_at("/images/generations", *transforms)


def image_size_as(write: Callable[[int, int], Mapping[str, Any]]) -> TransformRequest:
    """Replace `size` of images by the vendor's own members for width and height.

    If `write` returns none, or the vendor has no word for the size, it is reported.
    """

    def transform(draft: ProviderRequest) -> ProviderRequest:
        if "size" not in draft.body:
            return draft
        body = dict(draft.body)
        size = plain(body.pop("size"))
        found = _SIZE.fullmatch(size) if isinstance(size, str) else None
        own = write(int(found[1]), int(found[2])) if found is not None else {}
        ignored = draft.ignored
        if not own and size not in (None, "auto"):
            ignored = (*ignored, "size")
        return msgspec.structs.replace(draft, body={**own, **body}, ignored=ignored)

    return only_images(transform)


_SIZE = re.compile(r"([1-9]\d{1,4})x([1-9]\d{1,4})")


def aspect_ratio(width: int, height: int) -> Mapping[str, Any]:
    """The ratio of a size in its lowest terms, if it is a usual one."""
    divisor = math.gcd(width, height)
    ratio = f"{width // divisor}:{height // divisor}"
    ratio = {"7:4": "16:9", "4:7": "9:16"}.get(ratio, ratio)  # of OpenAI's 1792x1024
    usual = ("1:1", "3:4", "4:3", "9:16", "16:9", "2:3", "3:2", "1:2", "2:1")
    return {"aspect_ratio": ratio} if ratio in usual else {}


def replace_value(name: str, old: Any, new: Any) -> TransformRequest:
    """Replace one value of a member by the vendor's word for it."""

    def transform(draft: ProviderRequest) -> ProviderRequest:
        if name not in draft.body or plain(draft.body[name]) != old:
            return draft
        return msgspec.structs.replace(draft, body={**draft.body, name: new})

    return transform


# Since its o-series models OpenAI rejects `max_tokens` in chat requests (legacy completions have no
# other name); most other vendors only know `max_tokens`.
new_limit = rename_fields(max_tokens="max_completion_tokens")
old_limit = rename_fields(max_completion_tokens="max_tokens")
# OpenAI's name for `system` since its o-series models. Other vendors reject it, or have chat
# templates that drop such messages; `system` is accepted everywhere.
old_role = only_chat(roles(developer="system"))
older_format = chain(old_limit, old_role)


def effort_as(write: Callable[[str], Mapping[str, Any]]) -> TransformRequest:
    """Replace `reasoning_effort` of chat requests by the vendor's own members for it."""

    def transform(draft: ProviderRequest) -> ProviderRequest:
        if "reasoning_effort" not in draft.body:
            return draft
        body = dict(draft.body)
        effort = plain(body.pop("reasoning_effort"))
        if isinstance(effort, str):
            body = {**write(effort), **body}  # the vendor's own members have precedence
        return msgspec.structs.replace(draft, body=body)

    return only_chat(transform)


_EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")


def effort_within(*efforts: str) -> TransformRequest:
    """Send the nearest of the efforts that the vendor has: the next higher one, or its highest.

    A change is reported, unless the vendor's highest effort is sent for a higher one.
    """

    def transform(draft: ProviderRequest) -> ProviderRequest:
        effort = plain(draft.body.get("reasoning_effort"))
        if effort is None or effort in efforts or effort not in _EFFORTS:
            return draft
        higher = [each for each in efforts if _EFFORTS.index(each) > _EFFORTS.index(effort)]
        body = {**draft.body, "reasoning_effort": higher[0] if higher else efforts[-1]}
        ignored = (*draft.ignored, "reasoning_effort") if higher else draft.ignored
        return msgspec.structs.replace(draft, body=body, ignored=ignored)

    return only_chat(transform)


def add_fields(**members: Any) -> TransformRequest:
    """Add members to chat requests, unless they are there."""

    def transform(draft: ProviderRequest) -> ProviderRequest:
        return msgspec.structs.replace(draft, body={**members, **draft.body})

    return only_chat(transform)


def drop_value(name: str, value: Any) -> TransformRequest:
    """Remove a member that has the vendor's default value, which the vendor has no name for."""

    def transform(draft: ProviderRequest) -> ProviderRequest:
        if name not in draft.body or plain(draft.body[name]) != value:
            return draft
        body = {member: given for member, given in draft.body.items() if member != name}
        return msgspec.structs.replace(draft, body=body)

    return transform


def limit_field(name: str, lowest: float, highest: float) -> TransformRequest:
    """Move a number into the range that the vendor accepts, and report it if it was outside."""

    def transform(draft: ProviderRequest) -> ProviderRequest:
        value = plain(draft.body.get(name))
        if not isinstance(value, int | float) or lowest <= value <= highest:
            return draft
        body = {**draft.body, name: lowest if value < lowest else highest}
        ignored = tuple(dict.fromkeys((*draft.ignored, name)))
        return msgspec.structs.replace(draft, body=body, ignored=ignored)

    return only_chat(transform)


def models_at(base_url: str, path: str) -> TransformRequest:
    """Request the list of models at another address."""

    def transform(draft: ProviderRequest) -> ProviderRequest:
        if draft.path != "/models":
            return draft
        return msgspec.structs.replace(draft, base_url=base_url, path=path)

    return transform


def plain(value: Any) -> Any:
    """A member's value, which may be encoded."""
    return _json.loads(bytes(value)) if isinstance(value, msgspec.Raw) else value
