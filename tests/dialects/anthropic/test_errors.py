"""Errors in Anthropic's format, decoded and encoded."""

from __future__ import annotations

import json
from typing import Any

import pytest

from asgi_aiproxy.dialects import ANTHROPIC_MESSAGES
from asgi_aiproxy.errors import APIError, ErrorKind


@pytest.mark.parametrize(
    ("status", "type_", "kind", "out"),
    [
        (400, "invalid_request_error", ErrorKind.INVALID, 400),
        (401, "authentication_error", ErrorKind.KEY_REJECTED, 502),
        (402, "billing_error", ErrorKind.KEY_REJECTED, 502),
        (403, "permission_error", ErrorKind.KEY_REJECTED, 502),
        (404, "not_found_error", ErrorKind.NOT_FOUND, 404),
        (413, "request_too_large", ErrorKind.TOO_LARGE, 413),
        (429, "rate_limit_error", ErrorKind.LIMITED, 429),
        (500, "api_error", ErrorKind.UPSTREAM, 502),
        (504, "timeout_error", ErrorKind.TIMEOUT, 504),
        (529, "overloaded_error", ErrorKind.OVERLOADED, 503),
        # the word says more than a 400
        (400, "authentication_error", ErrorKind.KEY_REJECTED, 502),
        (422, "overloaded_error", ErrorKind.OVERLOADED, 503),
        (400, "newer_error", ErrorKind.INVALID, 400),
        (400, 7, ErrorKind.INVALID, 400),
        # the status says more than a word
        (529, "api_error", ErrorKind.OVERLOADED, 503),
    ],
)
def test_an_error_response_is_decoded(status: int, type_: Any, kind: ErrorKind, out: int) -> None:
    body = {"type": "error", "error": {"type": type_, "message": "So."}, "request_id": "req_1"}
    error = ANTHROPIC_MESSAGES.decode_error(status, json.dumps(body).encode())
    assert (error.kind, error.status, error.message) == (kind, out, "So.")
    assert error.upstream_status == status


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "The provider answered HTTP 500 without a body"),
        (b"<h1>Oops</h1>", "The provider answered HTTP 500: Oops"),
        (b'{"message":"m"}', '{"message":"m"}'),
        (b'{"error":"m"}', '{"error":"m"}'),
        (b'{"error":{"message":""}}', '{"error":{"message":""}}'),
    ],
)
def test_an_error_of_another_format_is_decoded(body: bytes, message: str) -> None:
    error = ANTHROPIC_MESSAGES.decode_error(500, body)
    assert (error.kind, error.message) == (ErrorKind.UPSTREAM, message)


@pytest.mark.parametrize("kind", ErrorKind)
def test_every_error_has_anthropics_format(kind: ErrorKind) -> None:
    error = APIError(kind, "So.")
    reported = json.loads(ANTHROPIC_MESSAGES.encode_error(error))
    assert reported == {
        "type": "error",
        "error": {"type": reported["error"]["type"], "message": "So."},
    }
    frame = b"event: error\ndata: " + ANTHROPIC_MESSAGES.encode_error(error) + b"\n\n"
    assert ANTHROPIC_MESSAGES.encode_stream_error(error) == frame
    with pytest.raises(APIError) as caught:
        ANTHROPIC_MESSAGES.decoder().feed(ANTHROPIC_MESSAGES.encode_error(error))
    expected = {
        ErrorKind.UNAUTHORIZED: ErrorKind.KEY_REJECTED,
        ErrorKind.FORBIDDEN: ErrorKind.KEY_REJECTED,
        ErrorKind.KEY_REJECTED: ErrorKind.UPSTREAM,
        ErrorKind.INTERNAL: ErrorKind.UPSTREAM,
    }
    assert caught.value.kind is expected.get(kind, kind)
