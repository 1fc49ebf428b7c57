"""The id by which an exchange is known in its answer, in errors, logs and records.

It is the caller's `x-request-id`, if that is a word of harmless characters, else a new one. Whoever
sees a scope first (a middleware or an app of this package) decides, and leaves it there for those
behind. Records have an `id` of their own besides: what callers choose is not unique.
"""

from __future__ import annotations

import re
from random import getrandbits

from asgi_aiproxy._asgi import RawHeaders, Scope, header

HEADER = b"aiproxy-request-id"
FORWARDED = b"x-request-id"  # what applications behind a proxy read
_SCOPE_KEY = "asgi_aiproxy.request_id"
_FIT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@=+/-]{0,127}")


def request_id(scope: Scope) -> str:
    """The id of the request that a scope is about."""
    known: str | None = scope.get(_SCOPE_KEY)
    if known is None:
        said = header(scope, FORWARDED)
        fit = said is not None and _FIT.fullmatch(said) is not None
        known = said if said is not None and fit else f"{getrandbits(128):032x}"
        scope[_SCOPE_KEY] = known
    return known


def named(id: str) -> tuple[bytes, bytes]:
    """The header of an answer that tells the id."""
    return HEADER, id.encode("latin-1")


def with_id(headers: RawHeaders, id: str) -> RawHeaders:
    """Headers of an answer that tell this id, and no other one's."""
    return [*(pair for pair in headers if pair[0].lower() != HEADER), named(id)]
