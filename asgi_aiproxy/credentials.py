"""Where callers put their credentials."""

from __future__ import annotations

from urllib.parse import parse_qs

from asgi_aiproxy._asgi import Scope, header


def credential(scope: Scope) -> str | None:
    """The caller's token, from wherever the clients of the vendors put it.

    `Authorization: Bearer`, `x-api-key`, `x-goog-api-key`, `api-key` (Azure's), or `?key=`.
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
        return values[0].strip() if values else None
    return None
