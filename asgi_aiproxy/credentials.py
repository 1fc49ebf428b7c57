"""Where callers put their credentials, and how a secret is kept out of what others are shown."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from urllib.parse import parse_qs, unquote_plus

from asgi_aiproxy._asgi import RawHeaders, Scope, header


def credential(scope: Scope) -> str | None:
    """The caller's token, from wherever the clients of the vendors put it.

    `Authorization: Bearer`, `x-api-key`, `x-goog-api-key`, `api-key` (Azure's), or `?key=`; with a
    WebSocket also OpenAI's subprotocol `openai-insecure-api-key.<token>`.
    """
    found = _found(scope)
    # What is not printable is no token, and would break the header that it may travel on in.
    return found if found and found.isprintable() else None


def _found(scope: Scope) -> str | None:
    authorization = header(scope, b"authorization")
    if authorization is not None:
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() == "bearer" and token.strip():
            return token.strip()
    for name in (b"x-api-key", b"x-goog-api-key", b"api-key"):
        value = (header(scope, name) or "").strip()
        if value:
            return value
    query: bytes = scope.get("query_string", b"")
    if b"key=" in query:
        values = parse_qs(query.decode("latin-1")).get("key")
        if values:
            return values[0].strip()
    for offered in scope.get("subprotocols", ()):
        if offered.startswith(_SUBPROTOCOL):
            return str(offered.removeprefix(_SUBPROTOCOL))
    return None


# Where `InjectKey` says that the credential in the headers is its own: the id of the key.
INJECTED = "asgi_aiproxy.injected_key"

_HEADERS = frozenset({b"authorization", b"x-api-key", b"x-goog-api-key", b"api-key"})
_OWN_KEY = b"x-provider-key"
# OpenAI's way for browsers, which can set no headers when they open a WebSocket.
_SUBPROTOCOL = "openai-insecure-api-key."
_SHORT = 8  # what is shorter may stand in a header by chance


def presented(scope: Scope) -> frozenset[str]:
    """All that a caller shows as its credential, wherever it is."""
    found = set()
    for name, value in scope["headers"]:
        if name in _HEADERS or name == _OWN_KEY:
            text = value.decode("latin-1").strip()
            found |= {text, text.partition(" ")[2].strip()}
    query = scope.get("query_string", b"").decode("latin-1")
    if "key=" in query:
        found.update(parse_qs(query).get("key", ()))
    for offered in scope.get("subprotocols", ()):
        if offered.startswith(_SUBPROTOCOL):
            found.add(offered.removeprefix(_SUBPROTOCOL))
    return frozenset(found - {""})


def without(headers: RawHeaders, shown: frozenset[str]) -> RawHeaders:
    """Headers without those for credentials, and without any that repeats one of `shown`."""
    return [
        (name, value)
        for name, value in headers
        if name not in _HEADERS and name != _OWN_KEY and not _tells(value.decode("latin-1"), shown)
    ]


def query_without(query: bytes, shown: frozenset[str]) -> bytes:
    """A query without the parameters that hold one of `shown`; the others stay as they are."""
    if not shown or not query:
        return query
    return b"&".join(
        part
        for part in query.split(b"&")
        if not _tells(unquote_plus(part.partition(b"=")[2].decode("latin-1")), shown)
    )


def subprotocols_without(offered: Iterable[str], shown: frozenset[str]) -> list[str]:
    """The subprotocols that are none for credentials, and repeat none of `shown`."""
    return [
        each for each in offered if not each.startswith(_SUBPROTOCOL) and not _tells(each, shown)
    ]


def _tells(value: str, shown: frozenset[str]) -> bool:
    for secret in shown:  # noqa: SIM110 (this is asked for every header of every request)
        if secret == value or (len(secret) >= _SHORT and secret in value):
            return True
    return False


class Blot:
    """Takes a secret out of what others are shown, in whatever way it is written there.

    That is as it is, percent-encoded, escaped as in JSON, and in the base64 of `Basic` (RFC 7617);
    of one with colons also what follows them (a password). What takes its place is as long, so
    that lengths that were told stay true. See `blot`.
    """

    __slots__ = ("_find", "_forms", "reach")

    def __init__(self, secret: str) -> None:
        forms = {form.encode("utf-8", "replace") for form in _forms(secret) if len(form) >= _SHORT}
        self._forms = sorted(forms, key=len, reverse=True)
        self._find: re.Pattern[bytes] | None = None  # seldom needed, and takes long to make
        self.reach = _LONGEST_ESCAPE * len(self._forms[0])  # bytes that it may stand in

    def __repr__(self) -> str:
        return "Blot()"  # no secrets

    def data(self, data: bytes) -> bytes:
        """The same bytes, as many of them, without it."""
        if b"%" not in data and b"\\" not in data:
            for form in self._forms:
                if form in data:
                    break
            else:
                return data
        if self._find is None:
            self._find = re.compile(b"|".join(map(_written, self._forms)))
        return self._find.sub(lambda found: b"[key]".ljust(len(found[0]), b"*"), data)

    def headers(self, headers: RawHeaders) -> RawHeaders:
        """The same headers, their values without it."""
        joined = b"\n".join([value for _, value in headers])
        if self.data(joined) == joined:
            return headers
        return [(name, self.data(value)) for name, value in headers]


class BlotStream:
    """The same for bytes that come in pieces: what may be its beginning is held back."""

    def __init__(self, blot: Blot) -> None:
        self._blot = blot
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """What can be shown now."""
        whole = self._blot.data(self._held + data)
        cut = max(0, len(whole) - self._blot.reach)
        self._held = whole[cut:]
        return whole[:cut]

    def close(self) -> bytes:
        """The rest."""
        rest, self._held = self._held, b""
        return rest


@lru_cache(maxsize=4096)
def blot(secret: str) -> Blot | None:
    """What takes this secret out; None if it is so short that it stands anywhere by chance."""
    return Blot(secret) if len(secret) >= _SHORT else None


_LONGEST_ESCAPE = 6  # \u0041


def _forms(secret: str) -> Iterator[str]:
    """The texts that tell a secret."""
    texts = {secret}
    try:
        texts.add(base64.b64decode(secret, validate=True).decode("ascii"))  # if it is for `Basic`
    except ValueError:
        pass
    for text in texts:
        yield text
        rest = text
        while ":" in rest:
            rest = rest.partition(":")[2]
            yield rest
        for pair in (text, f"{text}:", f":{text}"):
            encoded = base64.b64encode(pair.encode()).decode().rstrip("=")
            yield encoded
            yield encoded.translate(_URL_SAFE)


_URL_SAFE = str.maketrans("+/", "-_")


def _written(form: bytes) -> bytes:
    """A pattern for all the ways to write these bytes."""
    ways = []
    for byte in form:
        code = "".join(f"[{d}{d.upper()}]" if d.isalpha() else d for d in f"{byte:02x}")
        way = f"\\x{byte:02x}|%(?:25)?{code}|\\\\u00{code}"
        ways.append(f"(?:{way}|\\\\/)" if byte == 0x2F else f"(?:{way})")
    return "".join(ways).encode()
