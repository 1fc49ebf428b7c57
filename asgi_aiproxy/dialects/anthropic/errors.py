"""Errors in Anthropic's format, read and written.

https://docs.anthropic.com/en/api/errors
"""

from __future__ import annotations

import re
from typing import Any

from asgi_aiproxy import _json
from asgi_aiproxy.dialects import _parsing
from asgi_aiproxy.errors import CONTEXT_LENGTH, APIError, ErrorKind, error_kind_for_status

TYPES = {
    ErrorKind.INVALID: "invalid_request_error",
    ErrorKind.UNAUTHORIZED: "authentication_error",
    ErrorKind.FORBIDDEN: "permission_error",
    ErrorKind.NOT_FOUND: "not_found_error",
    ErrorKind.TOO_LARGE: "request_too_large",
    ErrorKind.LIMITED: "rate_limit_error",
    ErrorKind.KEY_REJECTED: "api_error",
    ErrorKind.UPSTREAM: "api_error",
    ErrorKind.OVERLOADED: "overloaded_error",
    ErrorKind.TIMEOUT: "timeout_error",
    ErrorKind.INTERNAL: "api_error",
}
_KINDS = {
    "invalid_request_error": ErrorKind.INVALID,
    "authentication_error": ErrorKind.KEY_REJECTED,
    "permission_error": ErrorKind.KEY_REJECTED,
    "billing_error": ErrorKind.KEY_REJECTED,
    "not_found_error": ErrorKind.NOT_FOUND,
    "request_too_large": ErrorKind.TOO_LARGE,
    "rate_limit_error": ErrorKind.LIMITED,
    "overloaded_error": ErrorKind.OVERLOADED,
    "timeout_error": ErrorKind.TIMEOUT,
    "api_error": ErrorKind.UPSTREAM,
}


# Codes on which Anthropic's SDKs act: they stand in `error.details`.
THREAD_UNSUPPORTED = "thread_unsupported_request"
_DETAILED_CODES = frozenset({THREAD_UNSUPPORTED})

# How Anthropic's own message begins; Claude Code shortens the conversation when it reads this.
_TOO_LONG = "prompt is too long"

# A message about a member of the request starts with its path: "messages.0.content: ...".
_MEMBER_PATH = re.compile(r"([a-z][a-z_]*(?:\.\w+)*): ")


def encode_error(error: APIError) -> bytes:
    """Write `{"type": "error", "error": {...}}`."""
    message = _parsing.error_message(error)
    if error.code == CONTEXT_LENGTH and _TOO_LONG not in message.lower():
        message = f"{_TOO_LONG}: {message}"
    details: dict[str, Any] = {"type": TYPES[error.kind], "message": message}
    if error.code in _DETAILED_CODES:
        details["details"] = {"error_code": error.code}
    body: dict[str, Any] = {"type": "error", "error": details}
    if error.request_id:
        body["request_id"] = error.request_id
    return _json.dumps(body)


def decode_error(status: int, body: bytes) -> APIError:
    """Read an error response."""
    answer = _parsing.parse_object(body)
    if answer is None:
        return _parsing.unparsable_response_error(status, body)
    return read_error(answer.get("error"), status, body)


def raise_error(answer: dict[str, Any], body: bytes) -> None:
    """Raise the error that a response with status 200 contains, if any."""
    if answer.get("type") == "error" or (answer.get("error") and "content" not in answer):
        raise decode_error(200, body)


def read_error(found: Any, status: int, body: bytes) -> APIError:
    """The error in the `error` member of a response, or of a frame (then `status` is 200)."""
    error = found if isinstance(found, dict) else {}
    word = error.get("type")
    kind = _KINDS.get(word) if isinstance(word, str) else None
    message = error.get("message")
    if not isinstance(message, str) or not message:
        message = _parsing.excerpt(body)
    if kind is None or (status >= 400 and error_kind_for_status(status) is not ErrorKind.INVALID):
        kind = error_kind_for_status(status)
    member = _MEMBER_PATH.match(message)
    return APIError(
        kind,
        message,
        status=_parsing.client_status(status, kind),
        param=member[1]
        if member is not None and kind in (ErrorKind.INVALID, ErrorKind.NOT_FOUND)
        else None,
        upstream_status=status,
        words=_parsing.words(word),
    )
