"""Cohere's errors: `{"id", "message"}` in a response, or an error within a stream.

https://docs.cohere.com/reference/errors
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from asgi_aiproxy.dialects import _parsing
from asgi_aiproxy.errors import APIError, ErrorKind, error_kind_for_status

# 498: the key is blocked; 499: the request was cancelled.
_KINDS = {498: ErrorKind.KEY_REJECTED, 499: ErrorKind.UPSTREAM}


def decode_error(status: int, body: bytes) -> APIError:
    """Read an error response. `body` may be anything."""
    answer = _parsing.parse_object(body) or {}
    message = _parsing.get_text(answer, "message") or _parsing.get_text(answer, "data")
    if not message:
        return _parsing.unparsable_response_error(status, body)
    kind = _KINDS.get(status) or error_kind_for_status(status)
    return APIError(
        kind,
        message,
        status=_parsing.client_status(status, kind),
        param="model" if kind is ErrorKind.NOT_FOUND else None,
        upstream_status=status,
        words=_parsing.words(answer.get("code"), answer.get("type"), answer.get("error_type")),
    )


def stream_error(event: Mapping[str, Any]) -> APIError:
    """The error for an event that is not one of the documented ones but carries a message."""
    status = event.get("status_code")
    kind = error_kind_for_status(status) if isinstance(status, int) else ErrorKind.UPSTREAM
    message = _parsing.get_text(event, "message") or _parsing.get_text(event, "error")
    return APIError(kind, message or "The provider reported an error.")
