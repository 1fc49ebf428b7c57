"""Signatures of other vendors in Google's API.

Google's API has one place for what a vendor wants back unread: `thoughtSignature` of a part, which
clients return unchanged. Its values are base64 of bytes (Google's SDKs decode them), so a carrier
(see `dialects._carriers`) stands there in base64. Other vendors sign reasoning only, so a carrier
is always that of a thought. A stream has the text of a thought before its signature: then the
signature comes in a part of its own, with an empty text, and belongs to the thought before it.

Many clients drop thoughts, but keep the signature of a call, which Google requires. So the first
call after signed thoughts has them as its signature again, all in one carrier::

    <vendor>.before:[[<characters of text before it>, <text>, <carrier>], ...]

Thoughts are restored from it only if the client dropped them.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from asgi_aiproxy import _json
from asgi_aiproxy.dialects import _carriers
from asgi_aiproxy.messages import Block, Extra, Part, Reasoning, Refusal, Text, ToolCall

NAME = "gemini"

Fields = Mapping[str, msgspec.Raw]
Thoughts = tuple[tuple[int, Reasoning], ...]


def _needle(name: bytes) -> bytes:
    """The beginning of the base64 of a carrier, as far as all carriers of a vendor share it."""
    return base64.b64encode(name)[: len(name) * 4 // 3]


NEEDLES = tuple(_needle(needle.lstrip(b'"')) for needle in _carriers.needles(NAME))
_BEFORE = ".before:"
_thoughts = msgspec.json.Decoder(list[tuple[int, str, str]]).decode
_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_MEMBERS = ("thoughtSignature", "thought_signature")


def encode_carrier(block: Reasoning, extra: Extra) -> str:
    """The `thoughtSignature` for what another vendor signed; empty if none did."""
    carrier = _carriers.encode_carrier(NAME, block, extra)
    return base64.b64encode(carrier.encode("utf-8", "surrogatepass")).decode() if carrier else ""


def decode_carrier(signature: str | None) -> Extra | None:
    """What another vendor signed; None for a signature of Google's own."""
    carrier = _decoded(signature)
    return _carriers.decode_carrier(carrier)[1] if carrier else None


def _decoded(signature: str | None) -> str:
    """The carrier in a `thoughtSignature`; empty for a signature of Google's own."""
    if signature is None or not signature.encode("utf-8", "replace").startswith(NEEDLES):
        return ""
    try:
        plain = signature.replace("-", "+").replace("_", "/")
        padded = plain + "=" * (-len(plain) % 4)
        carrier = base64.b64decode(padded, validate=True).decode("utf-8", "surrogatepass")
    except (binascii.Error, UnicodeDecodeError):
        return ""
    return carrier if _carriers.is_carrier(NAME, carrier) else ""


class CarriedThoughts:
    """Collects the thoughts that another vendor signed, for the signature of the next call."""

    def __init__(self) -> None:
        self._length = 0  # characters of text since the last call
        self._thoughts: list[tuple[int, str, str]] = []

    def add(self, block: Block, text: str, extra: Extra) -> None:
        """Add a complete block with its `text` and all of its `extra`."""
        if isinstance(block, Reasoning):
            if carrier := _carriers.encode_carrier(NAME, block, extra):
                self._thoughts.append((self._length, text, carrier))
        elif isinstance(block, Text | Refusal):
            self._length += len(text)

    def take(self) -> str:
        """The `thoughtSignature` of a call; empty without thoughts since the call before it."""
        thoughts, self._thoughts, self._length = self._thoughts, [], 0
        if not thoughts:
            return ""
        vendor = thoughts[0][2].partition(".")[0]
        return base64.b64encode(f"{vendor}{_BEFORE}".encode() + _json.dumps(thoughts)).decode()


def carried_thoughts(signature: str | None) -> Thoughts:
    """The thoughts before a call, each with the characters of text before it."""
    head, _, value = _decoded(signature).partition(":")
    if not head.endswith(_BEFORE[:-1]):
        return ()
    try:
        found = _thoughts(value.encode("utf-8", "surrogatepass"))
    except ValueError:
        return ()
    return tuple(
        (at, Reasoning(text, _carriers.decode_carrier(carrier)[1]))
        for at, text, carrier in found
        if _carriers.is_carrier(NAME, carrier)
    )


def restore_thoughts(parts: Iterable[Part], carried: Mapping[str, Thoughts]) -> list[Part]:
    """The parts of a turn with the thoughts that the client dropped.

    `carried` are the thoughts before the calls with these ids.
    """
    out: list[Part] = []
    start = 0  # after the call before
    for part in parts:
        if isinstance(part, ToolCall):
            if thoughts := carried.get(part.id):
                out[start:] = _with_thoughts(out[start:], thoughts)
            start = len(out) + 1
        out.append(part)
    return out


def _with_thoughts(parts: list[Part], thoughts: Thoughts) -> list[Part]:
    known = [part.extra for part in parts if isinstance(part, Reasoning)]
    if any(thought.extra in known for _, thought in thoughts):
        return parts
    left = list(thoughts)
    out: list[Part] = []
    length = 0
    for part in parts:
        if isinstance(part, Reasoning):
            continue  # its text is that of one of the thoughts
        rest = part
        while isinstance(rest, Text) and left and left[0][0] < length + len(rest.text):
            at, thought = left.pop(0)
            if cut := max(at - length, 0):
                out.append(Text(rest.text[:cut]))
                rest = msgspec.structs.replace(rest, text=rest.text[cut:])
                length += cut
            out.append(thought)
        out.append(rest)
        length += len(rest.text) if isinstance(rest, Text) else 0
    return [*out, *(thought for _, thought in left)]


def join_thoughts(parts: Iterable[Part]) -> list[Part]:
    """The parts of a turn, with each thought in one piece and its signature."""
    out: list[Part] = []
    for part in parts:
        before = out[-1] if out else None
        if not isinstance(part, Reasoning) or not isinstance(before, Reasoning) or before.extra:
            out.append(part)
        elif not part.extra or (not part.text and _signs_text_before(part.extra)):
            out[-1] = Reasoning(before.text + part.text, part.extra)
        else:
            out.append(part)
    return out


def _signs_text_before(extra: Extra) -> bool:
    return NAME not in extra and not any("redacted" in members for members in extra.values())


def own_members(fields: Fields) -> Fields:
    """The members of a request without signatures of other vendors."""
    found = {
        name: raw
        for name in ("contents", "generateContentRequest", "generate_content_request")
        if (raw := bytes(fields.get(name, b""))) and any(needle in raw for needle in NEEDLES)
    }
    out = dict(fields)
    for name, raw in found.items():
        if name == "contents":
            own = without_carriers(raw)
            out[name] = out[name] if own is None else msgspec.Raw(_json.dumps(own))
        elif raw.startswith(b"{"):
            inner = own_members(_object(raw))
            out[name] = msgspec.Raw(_json.dumps(inner))
    return out if found else fields


def without_carriers(contents: bytes) -> Any | None:
    """Contents, still encoded, without signatures of other vendors; None if they have none."""
    found = _json.loads(contents)
    if not isinstance(found, list):
        return None
    out = [_own(content) for content in found]
    if all(now is before for now, before in zip(out, found, strict=True)):
        return None
    return [content for content in out if content is not None]


def _own(content: Any) -> Any:
    """A content with what Google can read of it; None if that is nothing."""
    parts = content.get("parts") if isinstance(content, dict) else None
    if not isinstance(parts, list):
        return content
    own = list(map(_own_part, parts))
    if all(now is before for now, before in zip(own, parts, strict=True)):
        return content
    kept = [part for part in own if part is not None]
    return {**content, "parts": kept} if kept else None


def _own_part(part: Any) -> Any:
    """A part without another vendor's signature; None for a thought, which is of no use then."""
    if not isinstance(part, dict):
        return part
    foreign = {name for name in _MEMBERS if _is_carrier(part.get(name))}
    if not foreign:
        return part
    if part.get("thought"):
        return None
    return {name: value for name, value in part.items() if name not in foreign}


def _is_carrier(value: Any) -> bool:
    return isinstance(value, str) and decode_carrier(value) is not None
