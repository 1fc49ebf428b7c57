"""Errors in Google's format, decoded and encoded."""

from __future__ import annotations

import json
from typing import Any

import pytest

from asgi_aiproxy.dialects import GEMINI_CONTENT
from asgi_aiproxy.errors import APIError, ErrorKind


def problem(code: Any, **more: Any) -> dict[str, Any]:
    return {"error": {"code": code, "message": "So.", "status": "S", **more}}


BAD_KEY = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}


RETRY = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34.07s"}


@pytest.mark.parametrize(
    ("status", "body", "kind", "out", "retry_after"),
    [
        (400, problem(400), ErrorKind.INVALID, 400, None),
        (403, problem(403), ErrorKind.KEY_REJECTED, 502, None),
        (404, problem(404), ErrorKind.NOT_FOUND, 404, None),
        (429, problem(429), ErrorKind.LIMITED, 429, None),
        (
            429,
            problem(429, details=[BAD_KEY | {"reason": "X"}, RETRY]),
            ErrorKind.LIMITED,
            429,
            34.07,
        ),
        (429, problem(429, details=[{"retryDelay": "soon"}]), ErrorKind.LIMITED, 429, None),
        (429, problem(429, details=[{"retryDelay": "xs"}, 7]), ErrorKind.LIMITED, 429, None),
        (500, problem(500), ErrorKind.UPSTREAM, 502, None),
        (503, problem(503), ErrorKind.OVERLOADED, 503, None),
        (504, problem(504), ErrorKind.TIMEOUT, 504, None),
        # Google answers a wrong key with 400: another attempt would not help the client either.
        (400, problem(400, details=[BAD_KEY]), ErrorKind.KEY_REJECTED, 400, None),
        (
            400,
            problem(400, details=[{"reason": "API_KEY_EXPIRED"}]),
            ErrorKind.KEY_REJECTED,
            400,
            None,
        ),
        # without alt=sse
        (429, [problem(429, details=[RETRY])], ErrorKind.LIMITED, 429, 34.07),
    ],
)
def test_an_error_response_is_decoded(
    status: int, body: Any, kind: ErrorKind, out: int, retry_after: float | None
) -> None:
    error = GEMINI_CONTENT.decode_error(status, json.dumps(body).encode())
    assert (error.kind, error.status, error.message) == (kind, out, "So.")
    assert error.retry_after == retry_after
    assert error.upstream_status == status


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "The provider answered HTTP 500 without a body"),
        (b"<h1>Oops</h1>", "The provider answered HTTP 500: Oops"),
        (b"[]", "The provider answered HTTP 500: []"),
        (b'{"error":"m"}', 'The provider answered HTTP 500: {"error":"m"}'),
        (b'{"error":{"code":500}}', '{"code":500}'),
    ],
)
def test_an_error_of_another_format_is_decoded(body: bytes, message: str) -> None:
    error = GEMINI_CONTENT.decode_error(500, body)
    assert (error.kind, error.message) == (ErrorKind.UPSTREAM, message)


@pytest.mark.parametrize(
    ("code", "kind"),
    [(429, ErrorKind.LIMITED), (None, ErrorKind.UPSTREAM), (13, ErrorKind.UPSTREAM)],
)
def test_an_error_in_a_stream_has_its_own_code(code: Any, kind: ErrorKind) -> None:
    with pytest.raises(APIError) as caught:
        GEMINI_CONTENT.decoder().feed(json.dumps(problem(code)).encode())
    assert caught.value.kind is kind


@pytest.mark.parametrize("kind", ErrorKind)
def test_every_error_has_googles_format(kind: ErrorKind) -> None:
    error = APIError(kind, "So.")
    reported = json.loads(GEMINI_CONTENT.encode_error(error))["error"]
    assert (reported["code"], reported["message"]) == (error.status, "So.")
    assert reported["status"].isupper()
    frame = b"data: " + GEMINI_CONTENT.encode_error(error) + b"\n\n"
    assert GEMINI_CONTENT.encode_stream_error(error) == frame
