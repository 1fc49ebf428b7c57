"""The errors that a call ends with when no provider has answered it. Pure."""

from __future__ import annotations

from asgi_aiproxy import _json
from asgi_aiproxy.errors import APIError, Kind
from asgi_aiproxy.keys import NoKeyError
from asgi_aiproxy.providers.base import Provider
from asgi_aiproxy.retry_after import retry_after, told_to_retry
from asgi_aiproxy.upstream.base import Headers

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


def refused(
    provider: Provider, status: int, headers: Headers, body: bytes, *, now: float, native: bool
) -> APIError:
    """The error for an answer whose status says that it is none; `now` is Unix time.

    Its own body goes to the client if that speaks the same language (`native`).
    """
    if 300 <= status < 400:
        return APIError(
            Kind.UPSTREAM,
            f"The provider {provider.name!r} answered with a redirect (HTTP {status}): "
            f"its base_url may be wrong.",
        )
    error = provider.dialect.decode_error(status, body)
    if error.retry_after is None and error.retryable:
        error.retry_after = retry_after(headers, now)
        if error.retry_after is None and error.kind is Kind.LIMITED:
            error.retry_after = told_to_retry(error.message)
    if native and provider.exact and not error.retryable and _is_object(body):
        error.body = body
    return error


def our_key_refused(error: APIError, provider: str, status: int, *, had_key: bool) -> APIError:
    """The same error in words for a client, who can not mend our key.

    What a provider says about it is not for the client; Google says of no more than that the
    request is wrong, and so it is told.
    """
    said = f"The provider {provider!r} refused the gateway's key"
    if not had_key:
        said = f"The provider {provider!r} wants a key, and the gateway has none"
    error.message = f"{said}: {error.message}" if error.status == status else f"{said}."
    return error


def _is_object(body: bytes) -> bool:
    """Whether it is all of a JSON object, as errors are, and no page of some proxy's."""
    try:
        return isinstance(_json.loads(body), dict)
    except _json.NotJSONError:
        return False


def worse(before: APIError | None, error: APIError) -> APIError:
    """The failure to report: the last that was tried, but with the soonest time to try again."""
    if before is None:
        return error
    if error.code == NO_KEY and before.code != NO_KEY:
        return before
    if before.kind is error.kind is Kind.LIMITED and before.retry_after is not None:
        error.retry_after = min(before.retry_after, error.retry_after or before.retry_after)
    return error
