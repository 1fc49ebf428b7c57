"""Errors in OpenAI's format, decoded and encoded."""

from __future__ import annotations

import json
from typing import Any

import pytest

from asgi_aiproxy.dialects import OPENAI_CHAT
from asgi_aiproxy.errors import APIError, ErrorKind, invalid


@pytest.mark.parametrize(
    ("status", "body", "kind", "out", "message", "param", "code"),
    [
        # OpenAI
        (
            400,
            {
                "error": {
                    "message": "Unsupported.",
                    "type": "invalid_request_error",
                    "param": "max_tokens",
                    "code": "unsupported_parameter",
                }
            },
            ErrorKind.INVALID,
            400,
            "Unsupported.",
            "max_tokens",
            "unsupported_parameter",
        ),
        (
            401,
            {"error": {"message": "Incorrect API key.", "code": "invalid_api_key"}},
            ErrorKind.KEY_REJECTED,
            502,
            "Incorrect API key.",
            None,
            "invalid_api_key",
        ),
        (
            404,
            {"error": {"message": "No model.", "param": None, "code": "model_not_found"}},
            ErrorKind.NOT_FOUND,
            404,
            "No model.",
            None,
            "model_not_found",
        ),
        (
            429,
            {"error": {"message": "Slow.", "type": "tokens", "code": "rate_limit_exceeded"}},
            ErrorKind.LIMITED,
            429,
            "Slow.",
            None,
            "rate_limit_exceeded",
        ),
        (
            429,
            {"error": {"message": "No money.", "code": "insufficient_quota"}},
            ErrorKind.LIMITED,
            429,
            "No money.",
            None,
            "insufficient_quota",
        ),
        (
            500,
            {"error": {"message": "Oops.", "type": "server_error", "code": None}},
            ErrorKind.UPSTREAM,
            502,
            "Oops.",
            None,
            None,
        ),
        (503, {"error": {"message": "Busy."}}, ErrorKind.OVERLOADED, 503, "Busy.", None, None),
        (413, {"error": {"message": "Large."}}, ErrorKind.TOO_LARGE, 413, "Large.", None, None),
        (422, {"error": {"message": "Odd."}}, ErrorKind.INVALID, 422, "Odd.", None, None),
        # an invalid key, whatever the status
        (
            400,
            {"error": {"message": "Bad key.", "code": "invalid_api_key"}},
            ErrorKind.KEY_REJECTED,
            502,
            "Bad key.",
            None,
            "invalid_api_key",
        ),
        (
            403,
            {"error": {"message": "Gone.", "code": "account_deactivated"}},
            ErrorKind.KEY_REJECTED,
            502,
            "Gone.",
            None,
            "account_deactivated",
        ),
        # those who nearly speak it
        (
            400,
            {
                "object": "error",
                "message": "Bad.",
                "type": "BadRequestError",
                "param": None,
                "code": 400,
            },
            ErrorKind.INVALID,
            400,
            "Bad.",
            None,
            None,
        ),
        (401, {"detail": "Unauthorized"}, ErrorKind.KEY_REJECTED, 502, "Unauthorized", None, None),
        (
            422,
            {"detail": [{"loc": ["body"], "msg": "field required"}]},
            ErrorKind.INVALID,
            422,
            "field required",
            None,
            None,
        ),
        (
            422,
            {
                "object": "error",
                "message": {"detail": [{"msg": "extra"}]},
                "type": "invalid_request_error",
            },
            ErrorKind.INVALID,
            422,
            "extra",
            None,
            None,
        ),
        (
            400,
            {"error": "Input is too long", "error_type": "validation"},
            ErrorKind.INVALID,
            400,
            "Input is too long",
            None,
            None,
        ),
        (
            400,
            {"code": "Client specified an invalid argument", "error": "Incorrect API key"},
            ErrorKind.INVALID,
            400,
            "Incorrect API key",
            None,
            "Client specified an invalid argument",
        ),
        (
            401,
            {"error": {"code": "401", "message": "Access denied."}},
            ErrorKind.KEY_REJECTED,
            502,
            "Access denied.",
            None,
            "401",
        ),
        (
            400,
            [{"error": {"code": 400, "message": "Bad name.", "status": "INVALID_ARGUMENT"}}],
            ErrorKind.INVALID,
            400,
            "Bad name.",
            None,
            None,
        ),
        (
            429,
            {
                "error": {
                    "message": "Provider returned error",
                    "code": 429,
                    "metadata": {"raw": "upstream busy", "provider_name": "X"},
                }
            },
            ErrorKind.LIMITED,
            429,
            "Provider returned error: upstream busy",
            None,
            None,
        ),
        (
            400,
            {"error": {"message": "m", "metadata": {"raw": {"a": 1}}, "param": 7, "code": 7}},
            ErrorKind.INVALID,
            400,
            "m",
            None,
            None,
        ),
        (418, {}, ErrorKind.INVALID, 418, "{}", None, None),
    ],
)
def test_an_error_response_is_decoded(
    status: int,
    body: Any,
    kind: ErrorKind,
    out: int,
    message: str,
    param: str | None,
    code: str | None,
) -> None:
    error = OPENAI_CHAT.decode_error(status, json.dumps(body).encode())
    assert (error.kind, error.status, error.param, error.code) == (kind, out, param, code)
    assert message in error.message
    assert error.upstream_status == status


@pytest.mark.parametrize(
    ("status", "body", "kind", "message"),
    [
        (
            502,
            b"<html><head><title>502</title></head><body>Bad Gateway</body></html>",
            ErrorKind.UPSTREAM,
            "HTTP 502: Bad Gateway",
        ),
        (503, b"upstream connect error", ErrorKind.OVERLOADED, "HTTP 503: upstream connect error"),
        (401, b"", ErrorKind.KEY_REJECTED, "HTTP 401 without a body"),
        (404, b"<script>x</script>", ErrorKind.NOT_FOUND, "HTTP 404 without a body"),
        (500, b"\xff\xfe", ErrorKind.UPSTREAM, "HTTP 500: \ufffd\ufffd"),
        (500, b"x" * 1000, ErrorKind.UPSTREAM, "HTTP 500: " + "x" * 300 + "…"),
    ],
)
def test_an_error_page_is_decoded(status: int, body: bytes, kind: ErrorKind, message: str) -> None:
    error = OPENAI_CHAT.decode_error(status, body)
    assert error.kind is kind
    assert error.message == f"The provider answered {message}"
    assert error.status == (404 if status == 404 else APIError(kind, "").status)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"message": "m", "type": "server_error"}, ErrorKind.UPSTREAM),
        ({"message": "m", "code": "rate_limit_exceeded"}, ErrorKind.LIMITED),
        ({"message": "m", "type": "rate_limit_error", "code": "unknown"}, ErrorKind.LIMITED),
        ({"message": "m", "code": "insufficient_quota"}, ErrorKind.LIMITED),
        ({"message": "m", "type": "overloaded_error"}, ErrorKind.OVERLOADED),
        ({"message": "m", "code": "context_length_exceeded"}, ErrorKind.INVALID),
        ({"message": "m", "code": 503}, ErrorKind.OVERLOADED),
        ({"message": "m", "code": 401}, ErrorKind.KEY_REJECTED),
        ({"message": "m", "code": 12}, ErrorKind.UPSTREAM),
        ({"message": "m", "code": "invalid_api_key"}, ErrorKind.KEY_REJECTED),
        ("m", ErrorKind.UPSTREAM),
    ],
)
def test_an_error_in_a_stream_is_decoded(error: Any, kind: ErrorKind) -> None:
    with pytest.raises(APIError) as caught:
        OPENAI_CHAT.decoder().feed(json.dumps({"error": error}).encode())
    assert (caught.value.kind, caught.value.message) == (kind, "m")
    assert caught.value.status == APIError(kind, "").status or isinstance(error, dict)


@pytest.mark.parametrize("kind", ErrorKind)
def test_every_error_has_openais_format(kind: ErrorKind) -> None:
    error = APIError(kind, "So.", param="p")
    body = json.loads(OPENAI_CHAT.encode_error(error))
    assert set(body) == {"error"}
    assert body["error"]["message"] == "So."
    assert body["error"]["param"] == "p"
    assert isinstance(body["error"]["type"], str)
    frame = OPENAI_CHAT.encode_stream_error(error)
    assert frame == b"data: " + OPENAI_CHAT.encode_error(error) + b"\n\n"
    again = OPENAI_CHAT.decode_error(error.status, OPENAI_CHAT.encode_error(error))
    ours = {ErrorKind.UNAUTHORIZED, ErrorKind.FORBIDDEN, ErrorKind.KEY_REJECTED, ErrorKind.INTERNAL}
    assert again.kind is kind or kind in ours


def test_openais_codes_are_reported() -> None:
    def code(error: APIError) -> Any:
        reported = json.loads(OPENAI_CHAT.encode_error(error))["error"]
        return reported["type"], reported["code"]

    assert code(APIError(ErrorKind.UNAUTHORIZED, "m")) == (
        "invalid_request_error",
        "invalid_api_key",
    )
    assert code(APIError(ErrorKind.LIMITED, "m")) == ("requests", "rate_limit_exceeded")
    assert code(invalid("m", "p", "c")) == ("invalid_request_error", "c")
    assert code(APIError(ErrorKind.UPSTREAM, "m")) == ("server_error", None)


@pytest.mark.parametrize(
    "kind",
    [
        ErrorKind.LIMITED,
        ErrorKind.OVERLOADED,
        ErrorKind.TIMEOUT,
        ErrorKind.UPSTREAM,
        ErrorKind.INVALID,
    ],
)
def test_an_error_frame_is_classified_by_its_codes(kind: ErrorKind) -> None:
    frame = OPENAI_CHAT.encode_error(APIError(kind, "m"))
    with pytest.raises(APIError) as caught:
        OPENAI_CHAT.decoder().feed(frame)
    assert caught.value.kind is kind
