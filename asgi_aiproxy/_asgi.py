"""ASGI helpers of all apps: paths below a mount, request bodies, lifespan, whole responses."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Generator, Mapping, MutableMapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager, nullcontext
from types import coroutine
from typing import Any, TypeVar
from urllib.parse import quote, unquote

from asgi_aiproxy._cancellation import ClientGoneError, Deadline
from asgi_aiproxy._control_headers import EARLIER_NAMES, conflicting_values_error
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
    """Return the path below the mount, percent-encoded as received; None if it is not below it.

    Hosts differ: most leave the whole path and append the mount to `root_path`, after a prefix of
    their own that the path may lack; Litestar removes the mount and adds a trailing slash; some
    match mounts without a segment boundary. In all of them the mount is a suffix of `root_path` of
    whole segments.
    """
    path = _relative_to_root(scope["path"], scope.get("root_path", ""))
    if not path.startswith("/"):
        return None
    raw = scope.get("raw_path")
    if raw is None:
        return quote(path, safe=_PATH_CHARACTERS)
    raw_path = raw.decode("latin-1").partition("?")[0]
    if path != "/" and path.endswith("/") and not unquote(raw_path).endswith("/"):
        path = path[:-1]  # added by Litestar
    return _encoded_suffix(raw_path, path)


_PATH_CHARACTERS = "/:@!$&'()*+,;=~"  # not percent-encoded in paths
UPSTREAM_STATUS = b"aiproxy-upstream-status"  # of a provider's error that has another one here


def _relative_to_root(path: str, root: str) -> str:
    """Return the path without the longest suffix of `root` that it begins with."""
    while root:
        prefix = root if root.startswith("/") else "/" + root
        if path == prefix or path.startswith(prefix + "/"):
            return path[len(prefix) :] or "/"
        root = root[:-1] if root.endswith("/") else root.lstrip("/").partition("/")[2]
    return path or "/"


def _encoded_suffix(raw_path: str, path: str) -> str:
    """Return the suffix of the percent-encoded `raw_path` that decodes to `path`."""
    if "%" not in raw_path and raw_path.endswith(path):
        return path
    start, missing = len(raw_path), len(path)
    while missing > 0 and (slash := raw_path.rfind("/", 0, start)) >= 0:
        missing -= 1 + len(unquote(raw_path[slash + 1 : start]))
        start = slash
    if missing == 0 and unquote(raw_path[start:]) == path:
        return raw_path[start:]
    return quote(path, safe=_PATH_CHARACTERS)  # the host has rewritten the path


def header(scope: Scope, name: bytes) -> str | None:
    """Return the value of a request header (`name` in lower case), see `combine_values`."""
    found: str | None = None
    for key, value in scope["headers"]:
        if key == name:
            text = value.decode("latin-1")
            found = text if found is None else combine_values(found, text)
    return found


def headers(scope: Scope, names: Mapping[bytes, str]) -> dict[str, str]:
    """Return the request headers in `names` by the text for their name; see `combine_values`.

    Raises APIError if a header that controls the gateway has two values.
    """
    found: dict[str, str] = {}
    for key, value in scope["headers"]:
        name = names.get(key)
        if name is not None:
            text = value.decode("latin-1")
            if name in found:
                if name in EARLIER_NAMES and text != found[name]:
                    raise conflicting_values_error(name)
                text = combine_values(found[name], text)
            found[name] = text
    return found


def content_length(scope: Scope) -> int | None:
    """Return the request's content length in bytes; None if it is missing or invalid."""
    return length_in_bytes(header(scope, b"content-length"))


def length_in_bytes(value: str | None) -> int | None:
    """Return the number in a `content-length` header; None if it is missing or invalid."""
    return int(value) if value is not None and value.isdecimal() and len(value) < 20 else None


@coroutine
def next_piece(receive: Receive, seconds: float | None) -> Generator[Any, Any, Message]:
    """Return the next message of a request body.

    Raises ClientGoneError, and APIError (408) if none arrives within `seconds`.

    A message that is there already needs no timer, which is the usual case. So the first step of
    `receive()` is run here; only if that waits for something, the deadline begins, and what happens
    to this wait is passed on to it, as `yield from` does.
    """
    work = receive().__await__()
    message: Message
    try:
        waited_for = next(work)
        with _body_deadline(seconds):
            while True:
                try:
                    value = yield waited_for
                except BaseException as error:
                    waited_for = work.throw(error)
                else:
                    waited_for = next(work) if value is None else work.send(value)
    except StopIteration as end:
        message = end.value
    if message["type"] == "http.disconnect":
        raise ClientGoneError("The client disconnected while it sent its request.")
    return message


def _body_deadline(seconds: float | None) -> AbstractContextManager[object]:
    if seconds is None:
        return nullcontext()
    message = "No part of the request body arrived for {:g} seconds."
    return Deadline(seconds, message, ErrorKind.INVALID, 408)


def is_http1(scope: Scope) -> bool:
    """Whether the connection can be closed with a header; HTTP/2 and HTTP/3 have none for it."""
    return not scope.get("http_version", "1.1").startswith(("2", "3"))


async def read_body(
    scope: Scope, receive: Receive, limit: int, seconds: float | None = 60.0
) -> bytes:
    """Return the whole request body.

    Raises ClientGoneError, and APIError above `limit` bytes (413) or if no part of it arrives
    within `seconds` (408).
    """
    return await read_announced_body(receive, limit, content_length(scope), seconds)


async def read_announced_body(
    receive: Receive, limit: int, length: int | None, seconds: float | None
) -> bytes:
    """Do what `read_body` does, for an announced length in bytes (None: it is not announced)."""
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


_MAX_BYTES_ON_LOOP = 256 * 1024


async def off_loop(size: int, work: Callable[[_In], _Out], given: _In) -> _Out:
    """Call `work(given)`, in a thread if it works on so many bytes that it would block the loop."""
    return work(given) if size <= _MAX_BYTES_ON_LOOP else await asyncio.to_thread(work, given)


def too_large(limit: int) -> APIError:
    """Return the error for a request body of more than `limit` bytes."""
    return APIError(ErrorKind.TOO_LARGE, f"The request body is larger than {limit} bytes.")


def error_headers(error: APIError) -> RawHeaders:
    """Return the response headers for an error."""
    headers: RawHeaders = []
    if error.retry_after is not None:
        headers.append((b"retry-after", b"%d" % max(1, math.ceil(error.retry_after))))
    if error.request_id:
        headers.append((b"aiproxy-request-id", error.request_id.encode("latin-1")))
    if error.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if error.allow:
        headers.append((b"allow", ", ".join(error.allow).encode()))
    if error.accept_encoding:
        headers.append((b"accept-encoding", ", ".join(error.accept_encoding).encode()))
    if error.provider:
        headers.append((b"aiproxy-provider", error.provider.encode("latin-1", "replace")))
    if (status := error.upstream_status or 0) >= 400 and status != error.status:
        headers.append((UPSTREAM_STATUS, b"%d" % status))
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
    """Send a whole response; with `head` without its body.

    Raises ClientGoneError if the client has disconnected.
    """
    start = [(b"content-type", media_type), (b"content-length", b"%d" % len(body)), *headers]
    try:
        await send({"type": "http.response.start", "status": status, "headers": start})
        await send({"type": "http.response.body", "body": b"" if head else body})
    except OSError as error:
        raise ClientGoneError("The client disconnected.") from error


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
    except BaseException:  # the server stops without `lifespan.shutdown`
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
    """Refuse a WebSocket handshake with an HTTP response, see `deny_websocket`."""
    await receive()  # websocket.connect
    try:
        await deny_websocket(scope, send, status, body, [(b"content-type", media_type), *headers])
    except (OSError, RuntimeError):  # the client has disconnected
        pass


async def deny_websocket(
    scope: Scope, send: Send, status: int, body: bytes, headers: RawHeaders
) -> None:
    """Answer a received handshake with an HTTP response, or 403 if the server cannot send one.

    https://asgi.readthedocs.io/en/latest/extensions.html#websocket-denial-response
    """
    if "websocket.http.response" not in (scope.get("extensions") or {}):
        await send({"type": "websocket.close", "code": 1000})
        return
    headers = [*headers, (b"content-length", b"%d" % len(body))]
    if status == 426 and is_http1(scope):
        headers += UPGRADE_TO_HTTP
    await send({"type": "websocket.http.response.start", "status": status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": body})


# RFC 9110, 15.5.22 and 7.8: the protocol to use, and that this is a hop-by-hop header.
UPGRADE_TO_HTTP: RawHeaders = [(b"upgrade", b"HTTP/1.1"), (b"connection", b"upgrade, close")]


def no_websocket() -> APIError:
    """Return the error for a WebSocket on a path that serves only HTTP; some clients then use
    HTTP.
    """
    return APIError(
        ErrorKind.INVALID, "This path does not accept WebSockets: use HTTP.", status=426
    )
