"""The exception tree.

AIProxyError
├── ConfigurationError   raised while building; a plain sentence for the developer
└── APIError             anything that ends a call; its kind decides status and fall-back

An `APIError` never holds a secret. Each dialect turns one into its own error body and back.
"""

from __future__ import annotations

from enum import StrEnum


class ErrorKind(StrEnum):
    """What went wrong, in the few words that decide what happens next."""

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


class RefusalScope(StrEnum):
    """What a provider's refusal is about: it decides who is asked next, and which key cools down.

    `UNCLEAR` is a 400 that names no member of the request: some vendors answer so when an account
    has no credit. It may cost one more attempt elsewhere, and says nothing about a key.
    """

    REQUEST = "request"  # everybody would refuse it
    UNCLEAR = "unclear"
    MODEL = "model"  # this key, for this model
    KEY = "key"
    ACCOUNT = "account"  # the key, and others of its account
    VENDOR = "vendor"


class AIProxyError(Exception):
    """Base class of everything this package raises on purpose."""


class ConfigurationError(AIProxyError):
    """The pieces do not fit together; the message says what to change."""


class APIError(AIProxyError):
    """A call that ended badly.

    `status` is the HTTP status for the client, by default the one of its kind. `param` names the
    offending request field, `code` is a machine-readable word, `retry_after` is in seconds, and
    `upstream_status` is what the provider answered, if it did. `words` are all machine-readable
    words of a provider's error, the most specific first.
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
        self.about: RefusalScope | None = None  # of a provider's refusal, once it is classified
        # The provider's own error body, where the client speaks the same dialect.
        self.body: bytes | None = None
        self.request_id = ""  # of the exchange that it ends, for the client to quote
        # The provider that failed, and the methods that a path takes, where that is known.
        self.provider = ""
        self.allow: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.message

    def __repr__(self) -> str:
        return f"APIError({self.kind.value}, {self.message!r}, status={self.status})"

    @property
    def retryable(self) -> bool:
        """Whether another key or target might do better."""
        return self.kind in RETRYABLE


def require_int_at_least(least: int = 1, **limits: object) -> None:
    """Raise ConfigurationError naming a limit that is no whole number, or below `least`."""
    for name, limit in limits.items():
        if isinstance(limit, bool) or not isinstance(limit, int) or limit < least:
            raise ConfigurationError(f"{name} is a whole number from {least} on, not {limit!r}.")


def internal_error(id: str = "") -> APIError:
    """A bug of ours; what exactly is for the log."""
    error = APIError(ErrorKind.INTERNAL, "Something went wrong within the gateway.")
    error.request_id = id
    return error


def invalid(message: str, param: str | None = None, code: str | None = None) -> APIError:
    """The caller's request is at fault; `param` names the field."""
    return APIError(ErrorKind.INVALID, message, param=param, code=code)


def error_kind_for_status(status: int) -> ErrorKind:
    """Classify an upstream's HTTP status, seen from a client whose own request may be fine.

    401 and 403 concern our key, not the client's token. Other 4xx statuses are about the request.
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
