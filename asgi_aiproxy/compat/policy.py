"""What these apps refuse, and why: retired services, and what must not be done for a caller."""

from __future__ import annotations

from asgi_aiproxy.compat.routing import CompatCall, Handler
from asgi_aiproxy.errors import APIError, ErrorKind


def retired(what: str, successor: str) -> APIError:
    """Return the error (410) for a service that no longer exists; names what to use instead."""
    message = f"{what} no longer exists. {successor}"
    return APIError(ErrorKind.NOT_FOUND, message, status=410, code="provider_retired")


def unsupported(what: str, instead: str) -> APIError:
    """Return the error (403) for what this gateway does not do by policy: solving challenges,
    imitating browsers, signing in to other sites with a password, automating personal accounts.
    """
    message = f"{what} is not supported by this gateway. {instead}"
    return APIError(ErrorKind.FORBIDDEN, message, code="unsupported_by_policy")


def not_enabled(what: str, option: str) -> APIError:
    """Return the error (403) for an upstream that the operator has not switched on."""
    message = f"{what} is switched off. The operator can set {option}."
    return APIError(ErrorKind.FORBIDDEN, message, code="not_enabled")


def challenge(site: str) -> APIError:
    """Return the error (403) for a site that requires a person before it answers."""
    message = (
        f"{site} requests a challenge (captcha or browser check) for this credential. This gateway "
        "solves none: open the site in a browser, or use the vendor's API with an API key."
    )
    return APIError(ErrorKind.FORBIDDEN, message, code="challenge")


def refuse(error: APIError) -> Handler:
    """Return a handler that always answers with a copy of this error."""

    async def run(call: CompatCall) -> None:
        raise APIError(error.kind, error.message, status=error.status, code=error.code)

    return run
