"""Errors in OpenAI's format, read and written.

https://platform.openai.com/docs/guides/error-codes
"""

from __future__ import annotations

from typing import Any

from asgi_aiproxy import _json
from asgi_aiproxy.dialects import _parsing
from asgi_aiproxy.errors import APIError, ErrorKind, error_kind_for_status

# Finish reasons that report a failure of the vendor, or of the one behind it (OpenRouter, Z.ai).
FAILED = ("error", "network_error")


# Finish reasons that report a failure if there is no content: those of a vendor behind a bridge
# (Google's, also after "function_call_filter: "), of DeepSeek, and of inference servers.
FAILED_EMPTY = frozenset(
    {"malformed_function_call", "malformed_response", "unexpected_tool_call"}
    | {"too_many_tool_calls", "missing_thought_signature", "finish_reason_unspecified", "other"}
    | {"unknown", "insufficient_system_resource", "abort"}
)

TYPES = {
    ErrorKind.INVALID: "invalid_request_error",
    ErrorKind.UNAUTHORIZED: "invalid_request_error",
    ErrorKind.FORBIDDEN: "invalid_request_error",
    ErrorKind.NOT_FOUND: "invalid_request_error",
    ErrorKind.TOO_LARGE: "invalid_request_error",
    ErrorKind.LIMITED: "requests",
    ErrorKind.KEY_REJECTED: "server_error",
    ErrorKind.UPSTREAM: "server_error",
    ErrorKind.OVERLOADED: "server_error",
    ErrorKind.TIMEOUT: "server_error",
    ErrorKind.INTERNAL: "server_error",
}
CODES = {
    ErrorKind.UNAUTHORIZED: "invalid_api_key",
    ErrorKind.LIMITED: "rate_limit_exceeded",
    ErrorKind.OVERLOADED: "server_is_overloaded",
    ErrorKind.TIMEOUT: "timeout",
}
# Codes that reject the key, whatever the status.
_KEY_CODES = frozenset({"invalid_api_key", "account_deactivated", "billing_not_active"})
_STREAM_KINDS = {
    "authentication_error": ErrorKind.KEY_REJECTED,
    "permission_error": ErrorKind.KEY_REJECTED,
    "requests": ErrorKind.LIMITED,
    "tokens": ErrorKind.LIMITED,
    "rate_limit_exceeded": ErrorKind.LIMITED,
    "insufficient_quota": ErrorKind.LIMITED,
    "rate_limit_error": ErrorKind.LIMITED,
    "overloaded_error": ErrorKind.OVERLOADED,
    "overloaded": ErrorKind.OVERLOADED,
    "engine_overloaded": ErrorKind.OVERLOADED,
    "server_is_overloaded": ErrorKind.OVERLOADED,
    "slow_down": ErrorKind.OVERLOADED,
    "service_unavailable": ErrorKind.OVERLOADED,
    "timeout": ErrorKind.TIMEOUT,
    "timeout_error": ErrorKind.TIMEOUT,
    "not_found_error": ErrorKind.NOT_FOUND,
    "model_not_found": ErrorKind.NOT_FOUND,
    "invalid_prompt": ErrorKind.INVALID,
    "bio_policy": ErrorKind.INVALID,
    "misalignment_policy_violation": ErrorKind.INVALID,
    "data_residency_mismatch": ErrorKind.INVALID,
    "content_filter": ErrorKind.INVALID,
    "content_policy_violation": ErrorKind.INVALID,
    "invalid_request_error": ErrorKind.INVALID,
    "context_length_exceeded": ErrorKind.INVALID,
    "tool_use_failed": ErrorKind.INVALID,
}
# Codes of the Responses API for pictures in the request.
_IMAGE_CODES = frozenset(
    {"invalid_image", "invalid_image_format", "invalid_base64_image", "invalid_image_url"}
    | {"image_too_large", "image_too_small", "image_parse_error", "invalid_image_mode"}
    | {"image_content_policy_violation", "image_file_too_large", "unsupported_image_media_type"}
    | {"empty_image_file", "failed_to_download_image", "image_file_not_found"}
)


_FIRST_OWN_CODE = 1000  # smaller numbers are statuses


def encode_error(error: APIError) -> bytes:
    """Write `{"error": {...}}`."""
    return _json.dumps(
        {
            "error": {
                "message": error.message,
                "type": TYPES[error.kind],
                "param": error.param,
                "code": error.code or CODES.get(error.kind),
            }
        }
    )


def decode_error(status: int, body: bytes) -> APIError:
    """Read an error response of OpenAI or of a compatible server."""
    # Google's OpenAI-compatible API wraps its errors in a list.
    answer = _parsing.parse_object(body.strip().removeprefix(b"[").removesuffix(b"]"))
    if answer is None:
        return _parsing.unparsable_response_error(status, body)
    return read_error(answer, status)


def raise_error(answer: dict[str, Any]) -> None:
    """Raise the error that a response or chunk with status 200 contains, if any."""
    choices = answer.get("choices")
    if answer.get("error") or (not choices and (_is_error(answer) or _base_response(answer))):
        raise read_error(answer, 200)
    for choice in _parsing.objects(choices):
        if choice.get("error") or choice.get("finish_reason") in FAILED:
            raise read_error(choice, 200)


def _is_error(answer: dict[str, Any]) -> bool:
    """Whether an answer without choices is an error that is not in a member `error`.

    Inference servers send `{"object": "error", ...}`, or the error alone in an event of that name.
    """
    if answer.get("object") == "error":
        return True
    named = "message" in answer and ("code" in answer or "type" in answer)
    return named and "choices" not in answer and isinstance(answer["message"], str)


# MiniMax's codes, which come with status 200, as statuses.
_BASE_RESPONSE_STATUSES = {
    **dict.fromkeys((1002, 1039, 2045), 429),
    **dict.fromkeys((1004, 2049), 401),
    **dict.fromkeys((1008, 2056), 402),
    **dict.fromkeys((1026, 1027, 1042, 2013), 400),
}


def _base_response(answer: dict[str, Any]) -> dict[str, Any]:
    """MiniMax's error: `{"base_resp": {"status_code", "status_msg"}}` with another code than 0."""
    found = answer.get("base_resp")
    if not isinstance(found, dict) or not (code := _parsing.read_count(found, "status_code")):
        return {}
    return {"code": str(code), "message": found.get("status_msg")}


def read_error(answer: dict[str, Any], status: int) -> APIError:
    """The error in a parsed body, or in a chunk of a stream (then `status` is 200)."""
    found = answer.get("error")
    if not isinstance(found, dict):
        found = {**answer, "message": found} if isinstance(found, str) else answer
    if base := _base_response(answer):
        found, status = base, _BASE_RESPONSE_STATUSES.get(int(base["code"]), 500)
    elif found is answer and (listed := next(iter(_parsing.objects(answer.get("errors"))), None)):
        found = listed  # Cloudflare
    code = found.get("code")
    if isinstance(code, int) and code >= _FIRST_OWN_CODE:
        code = str(code)  # some vendors number their errors
    if status == 200:
        numbers = (_parsing.read_count(found, name) for name in ("code", "status", "status_code"))
        status = next((number for number in numbers if 400 <= number < 600), status)
    word = code if isinstance(code, str) else None
    kind = error_kind_for_status(status) if status >= 400 else _stream_kind(word, found.get("type"))
    if word in _KEY_CODES:
        kind = ErrorKind.KEY_REJECTED
    message = found.get("message") or found.get("detail") or answer.get("detail")
    if not isinstance(message, str) or not message:
        message = _parsing.excerpt(_json.dumps(answer))
    metadata = found.get("metadata")
    azure_error = found.get("innererror")
    words = _parsing.words(
        metadata.get("limit_source") if isinstance(metadata, dict) else None,  # OpenRouter
        code,
        azure_error.get("code") if isinstance(azure_error, dict) else None,
        found.get("error_code"),
        found.get("reason"),
        found.get("type"),
        found.get("status"),
    )
    if isinstance(metadata, dict) and "flagged_input" in metadata:
        words = ("moderation", *words)  # OpenRouter: the input was flagged
    if isinstance(metadata, dict) and isinstance(metadata.get("raw"), str):
        message = f"{message}: {metadata['raw']}"  # OpenRouter: the message of the vendor behind it
    param = found.get("param")
    return APIError(
        kind,
        message,
        status=_parsing.client_status(status, kind),
        param=param if isinstance(param, str) and param else None,
        code=word,
        upstream_status=status,
        words=words,
    )


def _stream_kind(code: str | None, type_: Any) -> ErrorKind:
    for word in (code, type_):
        if isinstance(word, str) and word in _STREAM_KINDS:
            return _STREAM_KINDS[word]
        if isinstance(word, str) and word in _IMAGE_CODES:
            return ErrorKind.INVALID
    return ErrorKind.UPSTREAM


def raise_failure(word: Any) -> None:
    """Raise the error of a response without content, if its finish reason is a failure."""
    if isinstance(word, str) and word.lower().rpartition(" ")[2] in FAILED_EMPTY:
        raise _parsing.failed(word)
