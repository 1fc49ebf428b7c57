"""Bedrock's errors: `{"message"}` in a response, or an exception within a stream.

https://docs.aws.amazon.com/bedrock/latest/userguide/troubleshooting-api-error-codes.html

The name of a response's exception is in the header `x-amzn-errortype`, which the caller of
`decode_error` reads; some gateways of AWS put it into the body, as `__type`.
"""

from __future__ import annotations

from typing import Any

from asgi_aiproxy.dialects import _parsing
from asgi_aiproxy.errors import APIError, ErrorKind, error_kind_for_status

_KINDS = {
    "ThrottlingException": ErrorKind.LIMITED,
    "ServiceQuotaExceededException": ErrorKind.LIMITED,
    "ModelNotReadyException": ErrorKind.OVERLOADED,
    "ServiceUnavailableException": ErrorKind.OVERLOADED,
    "ModelTimeoutException": ErrorKind.TIMEOUT,
    "ModelErrorException": ErrorKind.UPSTREAM,
    "ModelStreamErrorException": ErrorKind.UPSTREAM,
    "InternalServerException": ErrorKind.UPSTREAM,
    "ValidationException": ErrorKind.INVALID,
    "AccessDeniedException": ErrorKind.KEY_REJECTED,
    "ResourceNotFoundException": ErrorKind.NOT_FOUND,
}
_MODEL_FAILED = 424


def decode_error(status: int, body: bytes) -> APIError:
    """Read an error response. `body` may be anything."""
    answer = _parsing.parse_object(body) or {}
    message = _parsing.get_text(answer, "message") or _parsing.get_text(answer, "Message")
    name = _parsing.get_text(answer, "__type").rpartition("#")[2]
    if not message and not name:
        return _parsing.unparsable_response_error(status, body)
    kind = _KINDS.get(name)
    if kind is None:
        kind = ErrorKind.UPSTREAM if status == _MODEL_FAILED else error_kind_for_status(status)
    return APIError(
        kind,
        message or name,
        status=_parsing.client_status(status, kind),
        param="model" if kind is ErrorKind.NOT_FOUND else None,
        upstream_status=status,
        words=_parsing.words(name),
    )


def stream_error(name: str, payload: Any) -> APIError:
    """The error for an exception within a stream, such as `throttlingException`."""
    name = _parsing.get_text(payload, "code") or name
    name = name[:1].upper() + name[1:]
    message = _parsing.get_text(payload, "message") or _parsing.get_text(payload, "originalMessage")
    kind = _KINDS.get(name, ErrorKind.UPSTREAM)
    return APIError(kind, message or f"The provider reported {name}.", words=_parsing.words(name))
