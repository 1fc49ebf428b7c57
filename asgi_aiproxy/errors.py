"""The exceptions of the package.

AIProxyError
├── ConfigurationError   raised while an app is built; the message is for the developer
└── APIError             ends a request; its kind decides the status and the fallback

An `APIError` never holds a secret. Each dialect turns one into its own error body and back.
"""

from __future__ import annotations

from enum import StrEnum


class ErrorKind(StrEnum):
    """The kind of an error: decides the HTTP status and whether to try another key or target."""

    INVALID = "invalid"
    UNAUTHORIZED = "unauthorized"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not_found"
    TOO_LARGE = "too_large"
    LIMITED = "limited"
    KEY_REJECTED = "key_rejected"
    UPSTREAM = "upstream"
    OVERLOADED = "overloaded"
    TIMEOUT = "timeout"
    INTERNAL = "internal"


STATUS = {
    ErrorKind.INVALID: 400,
    ErrorKind.UNAUTHORIZED: 401,
    ErrorKind.FORBIDDEN: 403,
    ErrorKind.NOT_FOUND: 404,
    ErrorKind.TOO_LARGE: 413,
    ErrorKind.LIMITED: 429,
    ErrorKind.KEY_REJECTED: 502,
    ErrorKind.UPSTREAM: 502,
    ErrorKind.OVERLOADED: 503,
    ErrorKind.TIMEOUT: 504,
    ErrorKind.INTERNAL: 500,
}

RETRYABLE = frozenset(
    {
        ErrorKind.LIMITED,
        ErrorKind.KEY_REJECTED,
        ErrorKind.UPSTREAM,
        ErrorKind.OVERLOADED,
        ErrorKind.TIMEOUT,
    }
)


# The code of a request that is longer than the model's context: OpenAI's word, on which clients
# act (Codex and others shorten the conversation).
CONTEXT_LENGTH = "context_length_exceeded"


class RefusalScope(StrEnum):
    """What a provider's error is about: decides what is tried next, and which key cools down.

    `UNCLEAR` is a 400 that names no member of the request: some vendors send it when an account
    has no credit. One more attempt is made elsewhere, and no key cools down.
    """

    REQUEST = "request"  # every provider would refuse it
    UNCLEAR = "unclear"
    MODEL = "model"  # this model, for this key
    KEY = "key"
    ACCOUNT = "account"  # all keys of the account
    VENDOR = "vendor"


class AIProxyError(Exception):
    """Base class of the exceptions of this package."""


class ConfigurationError(AIProxyError):
    """An invalid argument or combination of arguments; the message says what to change."""


class APIError(AIProxyError):
    """An error that ends a request.

    Arguments:

    - `kind`: decides the status and whether another key or target is tried.
    - `message`: for the client; must not hold a secret.
    - `status`: the HTTP status for the client, if it is not that of the kind.
    - `param`: the request field at fault.
    - `code`: a machine-readable code.
    - `retry_after`: seconds to wait before the next request.
    - `upstream_status`: the status of the provider's response.
    - `words`: all machine-readable codes of the provider's error, the most specific first.
    """

    def __init__(
        self,
        kind: ErrorKind,
        message: str,
        *,
        status: int | None = None,
        param: str | None = None,
        code: str | None = None,
        retry_after: float | None = None,
        upstream_status: int | None = None,
        words: tuple[str, ...] = (),
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.status = STATUS[kind] if status is None else status
        self.param = param
        self.code = code
        self.retry_after = retry_after
        self.upstream_status = upstream_status
        self.words = words
        self.about: RefusalScope | None = None  # of a provider's error, once it is classified
        # The provider's own error body, if the client speaks the same dialect.
        self.body: bytes | None = None
        self.request_id = ""  # of the request that it ends
        # The name of the provider that failed, and the methods allowed for the path (405).
        self.provider = ""
        self.allow: tuple[str, ...] = ()
        self.accept_encoding: tuple[str, ...] = ()  # what a body may be encoded as (415)

    def __str__(self) -> str:
        return self.message

    def __repr__(self) -> str:
        return f"APIError({self.kind.value}, {self.message!r}, status={self.status})"

    @property
    def retryable(self) -> bool:
        """Whether another key or target may succeed."""
        return self.kind in RETRYABLE


def require_int_at_least(least: int = 1, **limits: object) -> None:
    """Raise ConfigurationError if one of `limits` is not an integer, or less than `least`."""
    for name, limit in limits.items():
        if isinstance(limit, bool) or not isinstance(limit, int) or limit < least:
            raise ConfigurationError(f"{name} must be an integer >= {least}, got {limit!r}.")


def internal_error(id: str = "") -> APIError:
    """Return the error for an unexpected exception, whose details appear only in the log."""
    error = APIError(ErrorKind.INTERNAL, "Internal error of the gateway.")
    error.request_id = id
    return error


def invalid(message: str, param: str | None = None, code: str | None = None) -> APIError:
    """Return the error for an invalid request; `param` is the field at fault."""
    return APIError(ErrorKind.INVALID, message, param=param, code=code)


def error_kind_for_status(status: int) -> ErrorKind:
    """Return the kind of error for the HTTP status of a provider's response.

    401 and 403 are about the gateway's key, not the client's token. Other 4xx statuses are about
    the request.
    """
    if status in (401, 402, 403, 407):
        return ErrorKind.KEY_REJECTED
    match status:
        case 404 | 410:
            return ErrorKind.NOT_FOUND
        case 408 | 504 | 524:
            return ErrorKind.TIMEOUT
        case 413:
            return ErrorKind.TOO_LARGE
        case 429:
            return ErrorKind.LIMITED
        case 503 | 529:
            return ErrorKind.OVERLOADED
    return ErrorKind.INVALID if 400 <= status < 500 else ErrorKind.UPSTREAM
