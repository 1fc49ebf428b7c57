"""The request id: the same in the response, in errors, in log lines and in the usage record.

It is the caller's `x-request-id` if that has at most 128 letters, digits and `._:@=+/-`, and a new
one otherwise. The first app or middleware of this package that handles a scope sets it there for
the inner ones. Usage records also have an `id` of their own, because callers' ids are not unique.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from random import getrandbits
from typing import Any

from asgi_aiproxy._asgi import RawHeaders, Scope, header

HEADER = b"aiproxy-request-id"
SENT_NAME = "x-request-id"  # the request header, also for applications behind the proxy
FORWARDED = SENT_NAME.encode()
_SCOPE_KEY = "asgi_aiproxy.request_id"
_VALID_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@=+/-]{0,127}")


def request_id(scope: Scope, read: Mapping[str, str] | None = None) -> str:
    """Return the request id of a scope, and set it there.

    `read` are the headers of the request by name, if `SENT_NAME` was read already.
    """
    id: str | None = scope.get(_SCOPE_KEY)
    if id is None:
        id = header(scope, FORWARDED) if read is None else read.get(SENT_NAME)
        if id is None or _VALID_ID.fullmatch(id) is None:
            id = getrandbits(128).to_bytes(16, "big").hex()
        scope[_SCOPE_KEY] = id
    return id


def with_request_id(scope: Scope, id: str) -> dict[str, Any]:
    """Return a copy of a scope with another request id: for one of several requests in it."""
    return {**scope, _SCOPE_KEY: id}


def named(id: str) -> tuple[bytes, bytes]:
    """Return the response header with the request id."""
    return HEADER, id.encode("latin-1")


def with_id(headers: RawHeaders, id: str) -> RawHeaders:
    """Return response headers with this request id, in place of any other."""
    return [*(pair for pair in headers if pair[0].lower() != HEADER), named(id)]
