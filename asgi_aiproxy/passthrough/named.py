"""The models that a request names in its body, also in one of which only the beginning has come."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Protocol

import msgspec

from asgi_aiproxy import _json
from asgi_aiproxy.errors import invalid
from asgi_aiproxy.uploads import ModelField

_INSIDE = re.compile(rb'(?:[^"\\]+|\\.)*', re.DOTALL)
_MEMBERS = re.compile(rb'["{}\[\],:]')
_DEEPER = re.compile(rb'["{}\[\]]')
_LONGEST = 1024  # of a name


class Named(msgspec.Struct, frozen=True, gc=False):
    """What a body says: `model`, and of a batch those of the calls in it; and whether to store."""

    model: str = ""
    inner: tuple[str, ...] = ()
    store: bool | None = None


class Finder(Protocol):
    """Is fed a body; `model` is the one that it names, None as long as it has not."""

    model: str | None

    def feed(self, data: bytes) -> None:
        """Read on. Raises APIError if the model is named twice."""


class _Body(msgspec.Struct):
    model: str | None = None
    store: bool | None = None
    requests: msgspec.Raw = msgspec.Raw(b"")


def members_of(body: bytes) -> Collection[str]:
    """The names of the members of a JSON body; none if it is no object."""
    try:
        found = _json.loads(body)
    except _json.NotJSONError:
        return ()
    return found.keys() if isinstance(found, dict) else ()


class _Params(msgspec.Struct):
    model: str = ""


class _Call(msgspec.Struct):
    params: _Params | None = None


_body = msgspec.json.Decoder(_Body)
_calls = msgspec.json.Decoder(list[_Call])
UNNAMED = Named()


def named_in(body: bytes, content_type: str) -> Named:
    """What a whole body names. Raises APIError if it does so twice."""
    if not _is_json(content_type):
        finder = finder_for(content_type)
        if finder is None:
            return UNNAMED
        finder.feed(body)
        return Named(model=finder.model or "")
    try:
        found = _json.typed(_body, body)
    except ValueError:
        return UNNAMED
    inner: tuple[str, ...] = ()
    if found.requests:
        try:
            calls = _json.typed(_calls, bytes(found.requests))
        except ValueError:
            return UNNAMED
        inner = tuple({call.params.model if call.params else "" for call in calls})
    return Named(plain(found.model or ""), inner, found.store)


def finder_for(content_type: str) -> Finder | None:
    """Who finds the model in a body of this type; None if nobody can."""
    return ModelMember() if _is_json(content_type) else ModelField.of(content_type)


def _is_json(content_type: str) -> bool:
    return "json" in content_type.partition(";")[0].lower()


def plain(model: str) -> str:
    """The model's name as paths have it: Google's bodies have `models/` before it."""
    return model.removeprefix("models/")


class ModelMember:
    """Finds the member `model` of a JSON object that is fed in pieces.

    Members of what is within it do not count. What comes after may be fed, too: a second one is an
    error, for nobody knows which one a provider would heed.
    """

    def __init__(self) -> None:
        self.model: str | None = None
        self._depth = 0
        self._object = False
        self._open = False  # a string is
        self._text: bytearray | None = None  # of that string, if it matters
        self._rest = b""  # half an escape
        self._name = ""
        self._value = False  # whether one is expected, or else a name

    def feed(self, data: bytes) -> None:
        """Read on. Raises APIError if there are two."""
        if self._rest:
            data, self._rest = self._rest + data, b""
        at, end = 0, len(data)
        while at < end:
            if self._open:
                inside = _INSIDE.match(data, at)
                stop = inside.end() if inside is not None else at
                if self._text is not None and len(self._text) <= _LONGEST:
                    self._text += data[at:stop]
                if stop == end:
                    return
                if data[stop] != _QUOTE:
                    self._rest = data[stop:]
                    return
                at = stop + 1
                self._open = False
                self._closed()
                continue
            sign = (_MEMBERS if self._depth == 1 else _DEEPER).search(data, at)
            if sign is None:
                return
            at = sign.end()
            self._see(sign[0])

    def _see(self, sign: bytes) -> None:
        if sign == b'"':
            matters = self._depth == 1 and self._object
            matters = matters and (not self._value or self._name == "model")
            self._open, self._text = True, bytearray() if matters else None
        elif sign in b"{[":
            self._object = self._object or (self._depth == 0 and sign == b"{")
            self._depth += 1
        elif sign in b"}]":
            self._depth -= 1
        else:
            self._value = sign == b":"

    def _closed(self) -> None:
        if self._text is None:
            return
        try:
            text = _json.loads(b'"%b"' % bytes(self._text))
        except ValueError:
            text = ""
        if not self._value:
            self._name = text
        elif self.model is not None:
            raise invalid("The member 'model' is given twice.", "model")
        else:
            self.model = plain(text)


_QUOTE = 0x22
