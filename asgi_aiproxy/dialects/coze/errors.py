"""Coze's errors: `{"code", "msg"}`, in responses of any status and in events.

https://www.coze.com/open/docs/developer_guides/coze_error_codes
"""

from __future__ import annotations

from typing import Any

from asgi_aiproxy.dialects import _parsing
from asgi_aiproxy.errors import APIError, ErrorKind, error_kind_for_status

_KINDS = {
    4000: ErrorKind.INVALID,
    4001: ErrorKind.INVALID,
    4008: ErrorKind.KEY_REJECTED,  # the quota or the credit of the account is used up
    4009: ErrorKind.KEY_REJECTED,
    4011: ErrorKind.KEY_REJECTED,
    4027: ErrorKind.KEY_REJECTED,
    4028: ErrorKind.KEY_REJECTED,
    4013: ErrorKind.LIMITED,  # requests per second, minute or day
    4014: ErrorKind.LIMITED,
    4015: ErrorKind.NOT_FOUND,  # the bot is not published to the API
    4016: ErrorKind.INVALID,  # the conversation has a chat that is not finished
    4100: ErrorKind.KEY_REJECTED,
    4101: ErrorKind.KEY_REJECTED,
    4200: ErrorKind.NOT_FOUND,
    700012006: ErrorKind.KEY_REJECTED,
}
_CONVERSATION_IS_BUSY, _CONFLICT = 4016, 409


def decode_error(status: int, body: bytes) -> APIError:
    """Read an error response. `body` may be anything."""
    answer = _parsing.parse_object(body)
    if answer is None or not ("code" in answer or "msg" in answer):
        return _parsing.unparsable_response_error(status, body)
    return to_api_error(answer, status)


def to_api_error(error: Any, status: int = 0) -> APIError:
    """The error for `{"code", "msg"}`; `status` is that of the response, 0 within a stream."""
    code = error.get("code") if isinstance(error, dict) else None
    message = _parsing.get_text(error, "msg") or _parsing.get_text(error, "message")
    kind = _KINDS.get(code) if isinstance(code, int) else None
    if kind is None:
        kind = error_kind_for_status(status) if status >= 400 else ErrorKind.UPSTREAM
    shown = _parsing.client_status(status, kind)
    return APIError(
        kind,
        message or f"The provider reported {f'the error {code}' if code else 'an error'}.",
        status=_CONFLICT if code == _CONVERSATION_IS_BUSY else shown,
        param="model" if kind is ErrorKind.NOT_FOUND else None,
        upstream_status=status if status >= 400 else None,
        words=(str(code),) if code else (),
    )
