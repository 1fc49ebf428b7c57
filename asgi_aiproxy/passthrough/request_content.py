"""Read the body of a proxied request, as far as it decides what the caller may do."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from asgi_aiproxy._asgi import Receive
from asgi_aiproxy._cancellation import RequestMonitor
from asgi_aiproxy.inspection import NOTHING, Inspection
from asgi_aiproxy.multipart import FormParser
from asgi_aiproxy.passthrough.body import Content, read_content
from asgi_aiproxy.passthrough.context import ProxyContext
from asgi_aiproxy.passthrough.inspection import (
    check_readable,
    check_uncompressed,
    inspect_body,
    is_json,
    models_in_fields,
    peek_model,
)
from asgi_aiproxy.passthrough.request import ProxyRequest

_INSPECTED = "The body is inspected before it is sent on, so it cannot be longer."
# Methods whose body, if any, is short.
_USUALLY_BODILESS = frozenset({"GET", "HEAD", "OPTIONS", "DELETE"})


async def read_request_content(
    context: ProxyContext,
    request: ProxyRequest,
    receive: Receive,
    monitor: RequestMonitor,
    *,
    peek: bool,
    change: Callable[[bytes], Awaitable[bytes | None]] | None,
    references: bool = False,
) -> tuple[Content, Inspection]:
    """Return the body to send, and the models it names.

    `peek`: the model is also read if nothing depends on it. `change` is called with the whole body
    and returns the one to send, before it is inspected. `references`: a body that may refer to
    resources is read completely. Raises APIError, ClientGoneError.
    """
    bodiless = request.method in _USUALLY_BODILESS
    inspected = request.inspected and (bodiless or not request.route.free)
    limit, whole, kind = context.max_body, context.whole_body_reason, None
    # (An upload may be bytes of any type; the body of a call is JSON, whatever its type says.)
    references = references and (
        not request.content_type
        or is_json(request.content_type)
        or not (request.route.stateful or request.content_type.lower().startswith("multipart/"))
    )
    if references and not bodiless:
        check_uncompressed(request.content_encoding)
    if (inspected or references or change is not None) and request.length != 0:
        if inspected and not bodiless:
            kind = check_readable(request.content_type, request.content_encoding)
        if kind != "multipart" or change is not None:
            limit = context.max_inspected if limit is None else min(limit, context.max_inspected)
            whole = whole or _INSPECTED
    body = await read_content(
        receive,
        monitor,
        length=request.length,
        limit=limit,
        replay=context.max_replay,
        seconds=context.timeouts.body,
        whole_reason=whole,
        unsized=request.target.provider is not None or bodiless,
    )
    if change is not None:
        if body is not None:
            check_uncompressed(request.content_encoding)
        body = await change(body if isinstance(body, bytes) else b"")
    if body is None:
        return body, NOTHING
    if inspected and bodiless:
        kind = check_readable(request.content_type, request.content_encoding)
    if kind is None:
        peeked = peek and isinstance(body, bytes) and is_json(request.content_type)
        return body, peek_model(body) if peeked and isinstance(body, bytes) else NOTHING
    if isinstance(body, bytes):
        return body, await inspect_body(kind, request.content_type, body)
    form = FormParser.from_content_type(request.content_type)
    body.observe(form.feed, form.close)
    await body.prefetch(context.max_replay, lambda: bool(form.field))
    while form.field and form.model is None and not await body.prefetch(body.held):
        pass  # its value, which is short, has not arrived yet
    form.allow_no_model()  # one that follows later would not be checked
    return body, models_in_fields(form.field, form.model)
