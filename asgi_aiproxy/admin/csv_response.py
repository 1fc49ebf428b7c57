"""CSV as the response to a request of the admin API, whole or in pieces."""

from __future__ import annotations

from collections.abc import AsyncIterator

from asgi_aiproxy._asgi import ASGIApp, Receive, Scope, Send
from asgi_aiproxy.admin.routing import TextBody

_MEDIA_TYPE = "text/csv; charset=utf-8"
_HEADERS = [
    (b"content-type", _MEDIA_TYPE.encode()),
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
]


def csv_text(text: str) -> TextBody:
    """Return a whole response."""
    return TextBody(text.encode("utf-8", "replace"), _MEDIA_TYPE)


async def csv_response(pieces: AsyncIterator[str]) -> ASGIApp:
    """Return an app that sends the pieces as they are read from the store.

    The first two are read before the response starts, so that an invalid query is an error.
    """
    first = await anext(pieces, "")
    first += await anext(pieces, "")

    async def send_pieces(scope: Scope, receive: Receive, send: Send) -> None:
        start = {"type": "http.response.start", "status": 200, "headers": _HEADERS}
        await send(start)
        body = {"type": "http.response.body", "more_body": True}
        await send({**body, "body": first.encode("utf-8", "replace")})
        async for piece in pieces:
            await send({**body, "body": piece.encode("utf-8", "replace")})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    return send_pieces
