"""The APIs that a shim serves, and what of a request's headers and query they read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from asgi_aiproxy import dialects, operations
from asgi_aiproxy._asgi import Scope
from asgi_aiproxy._control_headers import CONTROL_HEADERS
from asgi_aiproxy._request_id import SENT_NAME
from asgi_aiproxy.dialects.base import InboundDialect
from asgi_aiproxy.operations import AnyClientOperation

# The headers that control the gateway, those that describe the body, and the request's id.
_BODY_HEADERS = {"content-type", "content-encoding", "content-length"}
_READ_HEADERS = {*_BODY_HEADERS, SENT_NAME, *CONTROL_HEADERS}


def imported_faces(
    faces: Iterable[InboundDialect | str], apis: Iterable[AnyClientOperation | InboundDialect]
) -> list[InboundDialect]:
    """Return the APIs that a shim serves; this imports those that are named.

    `faces` are dialects, or names in `asgi_aiproxy.dialects` or `asgi_aiproxy.operations`; `apis`
    are further ones, as given to a shim.
    """
    from asgi_aiproxy.operations.face import as_face

    found: list[InboundDialect] = []
    for face in faces:
        if isinstance(face, str):
            face = getattr(dialects if hasattr(dialects, face) else operations, face)
        found.append(face)
    return [*found, *map(as_face, apis)]


def header_names(face: InboundDialect, more: Iterable[str]) -> dict[bytes, str]:
    """Return the names of the request headers that are read, by their spelling in the request."""
    names = {*_READ_HEADERS, *face.request_headers, *more}
    return {name.encode(): CONTROL_HEADERS.get(name, name) for name in names}


def forwarded_headers(headers: Mapping[str, str], face: InboundDialect) -> Mapping[str, str]:
    """Return the request headers that are forwarded to a provider with the caller's own API."""
    forwarded = face.request_headers
    if forwarded.isdisjoint(headers):
        return {}
    return {name: value for name, value in headers.items() if name in forwarded}


def forwarded_query(scope: Scope, face: InboundDialect) -> str:
    """Return the query parameters that are forwarded to a provider with the caller's own API."""
    query: bytes = scope.get("query_string", b"")
    if not query or not face.request_parameters:
        return ""
    parameters = query.decode("latin-1").split("&")
    return "&".join(p for p in parameters if p.partition("=")[0] in face.request_parameters)
