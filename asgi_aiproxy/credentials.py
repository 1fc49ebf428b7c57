"""Where callers put their credentials."""

from __future__ import annotations

from collections.abc import Iterable
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
