"""Errors in Google's format, read and written.

https://ai.google.dev/gemini-api/docs/troubleshooting
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from asgi_aiproxy import _json
from asgi_aiproxy.dialects import _parsing
from asgi_aiproxy.errors import APIError, ErrorKind, error_kind_for_status

STATUSES = {
    ErrorKind.INVALID: "INVALID_ARGUMENT",
    ErrorKind.UNAUTHORIZED: "UNAUTHENTICATED",
    ErrorKind.FORBIDDEN: "PERMISSION_DENIED",
    ErrorKind.NOT_FOUND: "NOT_FOUND",
    ErrorKind.TOO_LARGE: "INVALID_ARGUMENT",
    ErrorKind.LIMITED: "RESOURCE_EXHAUSTED",
    ErrorKind.KEY_REJECTED: "INTERNAL",
    ErrorKind.UPSTREAM: "INTERNAL",
    ErrorKind.OVERLOADED: "UNAVAILABLE",
    ErrorKind.TIMEOUT: "DEADLINE_EXCEEDED",
    ErrorKind.INTERNAL: "INTERNAL",
}


def encode_error(error: APIError) -> bytes:
    """Write `{"error": {...}}`."""
    said: dict[str, Any] = {
        "code": error.status,
        "message": _parsing.error_message(error),
        "status": STATUSES[error.kind],
    }
    if error.request_id:
        # https://github.com/googleapis/googleapis/blob/master/google/rpc/error_details.proto
        kind = "type.googleapis.com/google.rpc.RequestInfo"
        said["details"] = [{"@type": kind, "requestId": error.request_id}]
    return _json.dumps({"error": said})


def decode_error(status: int, body: bytes) -> APIError:
    """Read an error response; a stream without `alt=sse` wraps it in a list."""
    try:
        answer = _json.loads(body)
    except _json.NotJSONError:
        return _parsing.unparsable_response_error(status, body)
    if isinstance(answer, list) and answer:
        answer = answer[0]
    found = answer.get("error") if isinstance(answer, dict) else None
    if not isinstance(found, dict):
        return _parsing.unparsable_response_error(status, body)
    return read_error(found, status)


def read_error(error: Any, status: int) -> APIError:
    """The error in an `error` member; within a stream its own code counts, not `status`."""
    found = error if isinstance(error, dict) else {"message": error}
    if status < 400:
        code = _parsing.read_count(found, "code")
        status = code if code >= 400 else 500
    kind = error_kind_for_status(status)
    details = _parsing.client_status(status, kind)
    retry_after = param = None
    words: list[str] = []
    for detail in _parsing.objects(found.get("details")):
        match detail:
            case {"reason": str(reason)}:
                words.append(reason)
                if reason in ("API_KEY_INVALID", "API_KEY_EXPIRED"):
                    kind = ErrorKind.KEY_REJECTED  # Google answers 400 here
            case {"retryDelay": str(delay)} if delay.endswith("s"):
                retry_after = _seconds(delay[:-1])
            case {"violations": violations}:
                words += _quotas(violations)
            case {"fieldViolations": [{"field": str(field)}, *_]}:
                param = field
    if DAILY in words:
        retry_after = max(retry_after or 0.0, _DAILY_REST)
    message = found.get("message")
    return APIError(
        kind,
        message if isinstance(message, str) and message else _parsing.excerpt(_json.dumps(found)),
        status=details,
        param=param,
        retry_after=retry_after,
        upstream_status=status,
        words=(*words, *_parsing.words(found.get("status"))),
    )


def _quotas(violations: Any) -> Iterator[str]:
    """The scopes of the exhausted quotas; a `quotaId` ends in ...PerProjectPerModel, for example.

    https://ai.google.dev/gemini-api/docs/rate-limits: limits apply to a project, most of them per
    model, some per minute and some per day.
    """
    ids = [str(each.get("quotaId", "")) for each in _parsing.objects(violations)]
    if any("PerDay" in id for id in ids):
        yield DAILY
    if ids and not any("PerModel" in id or "PerBaseModel" in id for id in ids):
        yield PROJECT


# This package's own words for a `QuotaFailure` with several violations.
DAILY, PROJECT = "quota_per_day", "quota_per_project"
_DAILY_REST = (
    3600.0  # seconds; the delay that Google sends with a daily quota is only that of a minute
)


def _seconds(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
