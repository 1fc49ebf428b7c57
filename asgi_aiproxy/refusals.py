"""The errors that a call ends with before a provider has answered it."""

from __future__ import annotations

from asgi_aiproxy.errors import APIError, Kind
from asgi_aiproxy.keys import NoKeyError

NO_KEY = "no_key"  # the code of a call that another provider may still serve


def no_such_model(model: str, provider: str = "") -> APIError:
    """Nobody is configured to answer."""
    if provider:
        return APIError(
            Kind.NOT_FOUND, f"There is no provider {provider!r} here.", param="provider"
        )
    return APIError(
        Kind.NOT_FOUND,
        f"The model {model!r} does not exist, or not for you.",
        param="model",
        code="model_not_found",
    )


def not_allowed(model: str) -> APIError:
    """The caller may not use this model."""
    return APIError(
        Kind.FORBIDDEN,
        f"The model {model!r} is not among those you may use.",
        param="model",
        code="model_not_allowed",
    )


def no_key(error: NoKeyError, provider: str, model: str) -> APIError:
    """The error for a client whose call no key can serve. Another provider may."""
    if error.unknown:
        return APIError(Kind.UNAUTHORIZED, f"Provider {provider!r}: {error}", code=NO_KEY)
    if not error.exists:
        message = f"No key of provider {provider!r} may be used for the model {model!r}."
        return APIError(Kind.NOT_FOUND, message, param="model", code=NO_KEY)
    return APIError(
        Kind.LIMITED,
        f"All keys of provider {provider!r} are resting or busy.",
        retry_after=error.retry_after,
    )


def worse(before: APIError | None, error: APIError) -> APIError:
    """The failure to report: the last that was tried, but with the soonest time to try again."""
    if before is None:
        return error
    if error.code == NO_KEY and before.code != NO_KEY:
        return before
    if before.kind is error.kind is Kind.LIMITED and before.retry_after is not None:
        error.retry_after = min(before.retry_after, error.retry_after or before.retry_after)
    return error
