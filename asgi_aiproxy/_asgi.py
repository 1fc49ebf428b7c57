"""ASGI shared by all apps: paths below a mount, bodies, lifespan, plain answers."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar
from urllib.parse import quote, unquote

from asgi_aiproxy._cancellation import ClientGoneError, Deadline
from asgi_aiproxy._headers import combine_values
from asgi_aiproxy.errors import APIError, ErrorKind

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]
_In = TypeVar("_In")
_Out = TypeVar("_Out")
RawHeaders = list[tuple[bytes, bytes]]


def local_path(scope: Scope) -> str | None:
    """The path below the mount, percent-encoded as it came; None if it is not below the mount.

    Hosts differ: most leave the whole path and put the mount into `root_path`, behind a prefix of
    their own that the path may lack; Litestar cuts the mount off and adds a slash at the end;
    some match mounts without a segment boundary. What they have in common is that the mount is a
    whole-segment suffix of `root_path`.
    """
    rest = _relative_to_root(scope["path"], scope.get("root_path", ""))
    if not rest.startswith("/"):
        return None
    raw = scope.get("raw_path")
    if raw is None:
        return quote(rest, safe=_SAFE)
    sent = raw.decode("latin-1").partition("?")[0]
    if rest != "/" and rest.endswith("/") and not unquote(sent).endswith("/"):
        rest = rest[:-1]  # Litestar's
    return _tail(sent, rest)


_SAFE = "/:@!$&'()*+,;=~"  # what may stand in a path as it is


def _relative_to_root(path: str, root: str) -> str:
    """The path without the longest end of `root` that it begins with."""
    while root:
        prefix = root if root.startswith("/") else "/" + root
        if path == prefix or path.startswith(prefix + "/"):
            return path[len(prefix) :] or "/"
        root = root[:-1] if root.endswith("/") else root.lstrip("/").partition("/")[2]
    return path or "/"


def _tail(sent: str, rest: str) -> str:
    """The end of the path as it was sent that decodes to `rest`."""
    if "%" not in sent and sent.endswith(rest):
        return rest
    at, missing = len(sent), len(rest)
    while missing > 0 and (slash := sent.rfind("/", 0, at)) >= 0:
        missing -= 1 + len(unquote(sent[slash + 1 : at]))
        at = slash
    if missing == 0 and unquote(sent[at:]) == rest:
        return sent[at:]
    return quote(rest, safe=_SAFE)  # the host has rewritten the path


def header(scope: Scope, name: bytes) -> str | None:
    """The value of a request header, see `combined`; `name` in lower case."""
    found: str | None = None
    for key, value in scope["headers"]:
        if key == name:
            text = value.decode("latin-1")
            found = text if found is None else combine_values(found, text)
    return found


def headers(scope: Scope, names: Mapping[bytes, str]) -> dict[str, str]:
    """Those of the request headers that have one of `names`, by its text; see `combined`."""
    found: dict[str, str] = {}
    for key, value in scope["headers"]:
        if key in names:
            name, text = names[key], value.decode("latin-1")
            found[name] = combine_values(found[name], text) if name in found else text
    return found


def content_length(scope: Scope) -> int | None:
    """How long the client says its body is."""
    said = header(scope, b"content-length")
    return int(said) if said is not None and said.isdecimal() and len(said) < 20 else None


async def next_piece(receive: Receive, seconds: float | None) -> Message:
    """The next message of a request's body.

    Raises ClientGoneError, and APIError (408) if nothing comes for so many seconds.
    """
    if seconds is None:
        message = await receive()
    else:
        with Deadline(seconds, _SLOW.format(seconds), ErrorKind.INVALID, 408):
            message = await receive()
    if message["type"] == "http.disconnect":
        raise ClientGoneError("The client left while it sent its request.")
    return message


_SLOW = "Nothing of the request's body has come for {:g} seconds."


def closes(scope: Scope, error: APIError) -> bool:
    """Whether a connection is of no use after an error: the rest of a body may still come on it.

    (HTTP/2 has no such header.)
    """
    return error.status == 408 and not scope.get("http_version", "1.1").startswith(("2", "3"))


async def read_body(
    scope: Scope, receive: Receive, limit: int, seconds: float | None = 60.0
) -> bytes:
    """The whole request body.

    Raises APIError above `limit` bytes (413), or if nothing comes for so many seconds (408), and
    ClientGoneError.
    """
    length = content_length(scope)
    if length is not None and length > limit:
        raise too_large(limit)
    message = await next_piece(receive, seconds)
    body: bytes = message.get("body", b"")
    if not message.get("more_body", False) and len(body) <= limit:
        return body
    pieces, size = [body], len(body)
    while message.get("more_body", False) and size <= limit:
        message = await next_piece(receive, seconds)
        pieces.append(message.get("body", b""))
        size += len(pieces[-1])
    if size > limit:
        raise too_large(limit)
    return b"".join(pieces)


_LARGE = 256 * 1024


async def off_loop(size: int, work: Callable[[_In], _Out], given: _In) -> _Out:
    """Do some work on `size` bytes: what takes long does not hold up the event loop."""
    return work(given) if size <= _LARGE else await asyncio.to_thread(work, given)


def too_large(limit: int) -> APIError:
    """The body is too large."""
    return APIError(ErrorKind.TOO_LARGE, f"The request body is larger than {limit} bytes.")


def error_headers(error: APIError) -> RawHeaders:
    """What the headers of an answer tell of an error."""
    headers: RawHeaders = []
    if error.retry_after is not None:
        headers.append((b"retry-after", b"%d" % max(1, math.ceil(error.retry_after))))
    if error.request_id:
        headers.append((b"aiproxy-request-id", error.request_id.encode("latin-1")))
    if error.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if error.allow:
        headers.append((b"allow", ", ".join(error.allow).encode()))
    if error.provider:
        headers.append((b"aiproxy-provider", error.provider.encode("latin-1", "replace")))
    return headers


async def send_response(
    send: Send,
    status: int,
    body: bytes,
    headers: RawHeaders,
    media_type: bytes = b"application/json",
    *,
    head: bool = False,
) -> None:
    """Send a whole answer, of which `head` leaves the body out.

    Raises ClientGoneError if nobody is there to take it.
    """
    start = [(b"content-type", media_type), (b"content-length", b"%d" % len(body)), *headers]
    try:
        await send({"type": "http.response.start", "status": status, "headers": start})
        await send({"type": "http.response.body", "body": b"" if head else body})
    except OSError as error:
        raise ClientGoneError("The client left.") from error


async def serve_lifespan(
    app: AbstractAsyncContextManager[Any], receive: Receive, send: Send
) -> None:
    """Answer a `lifespan` scope by entering and leaving `app`."""
    await receive()
    try:
        await app.__aenter__()
    except Exception as error:
        await send({"type": "lifespan.startup.failed", "message": str(error)})
        raise
    try:
        await send({"type": "lifespan.startup.complete"})
        while (await receive())["type"] != "lifespan.shutdown":
            pass
    except BaseException:  # the server is going without a word
        await app.__aexit__(None, None, None)
        raise
    try:
        await app.__aexit__(None, None, None)
    except Exception as error:
        await send({"type": "lifespan.shutdown.failed", "message": str(error)})
        raise
    await send({"type": "lifespan.shutdown.complete"})


async def refuse_websocket(
    scope: Scope,
    receive: Receive,
    send: Send,
    status: int,
    body: bytes,
    headers: RawHeaders,
    media_type: bytes = b"application/json",
) -> None:
    """Refuse the handshake of a WebSocket with a whole answer, see `deny_websocket`."""
    await receive()  # websocket.connect
    try:
        await deny_websocket(scope, send, status, body, [(b"content-type", media_type), *headers])
    except (OSError, RuntimeError):  # the client left, which some servers tell in this way
        pass


async def deny_websocket(
    scope: Scope, send: Send, status: int, body: bytes, headers: RawHeaders
) -> None:
    """Answer a handshake that has come: as it should be where the server can, else with its 403.

    https://asgi.readthedocs.io/en/latest/extensions.html#websocket-denial-response
    """
    if "websocket.http.response" not in (scope.get("extensions") or {}):
        await send({"type": "websocket.close", "code": 1000})
        return
    headers = [*headers, (b"content-length", b"%d" % len(body))]
    if status == 426 and scope.get("http_version", "1.1").startswith("1"):
        # RFC 9110, 15.5.22 and 7.8: what to change to, and that this is about one connection.
        headers += [(b"upgrade", b"HTTP/1.1"), (b"connection", b"upgrade, close")]
    await send({"type": "websocket.http.response.start", "status": status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": body})


def no_websocket() -> APIError:
    """The answer to a WebSocket where only HTTP is spoken: clients that know both go over to it."""
    return APIError(ErrorKind.INVALID, "There are no WebSockets here: use HTTP.", status=426)
