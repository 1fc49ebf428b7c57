"""What a provider's error response is about, and the errors for clients that no provider served.
Pure.

`classify` decides for every error response, of shims and of the proxy, what it is about: the key,
its account, the model, the provider, or the request (`RefusalScope`). That decides which key or
target is tried next and whether the key cools down. The machine-readable codes of the error are
looked up first, in the tables of `asgi_aiproxy.providers.refusal_codes`, then the status. A 400
whose code is unknown and whose message names no member of the request is unclear: it may be about
the account, so one more attempt is made.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from asgi_aiproxy import _json
from asgi_aiproxy.errors import CONTEXT_LENGTH, APIError, ErrorKind, RefusalScope
from asgi_aiproxy.keys import NoKeyError
from asgi_aiproxy.providers.base import Provider
from asgi_aiproxy.providers.refusal_codes import BY_DIALECT, OPENAI, refusal_scope
from asgi_aiproxy.providers.vendor_headers import ERROR_CODE_HEADERS
from asgi_aiproxy.retry_after import retry_after, retry_after_in_message
from asgi_aiproxy.upstream.base import Headers

NO_KEY = "no_key"  # the error code when another provider may still serve the request


def model_not_found_error(model: str, provider: str = "") -> APIError:
    """The error when no target is configured for a model, or none of `provider` if it is given."""
    if provider:
        return APIError(
            ErrorKind.NOT_FOUND,
            f"The provider {provider!r} is not configured here.",
            param="provider",
        )
    return APIError(
        ErrorKind.NOT_FOUND,
        f"The model {model!r} does not exist or you do not have access to it.",
        param="model",
        code="model_not_found",
    )


def model_not_allowed_error(model: str) -> APIError:
    """The error when the caller may not use a model."""
    return APIError(
        ErrorKind.FORBIDDEN,
        f"You do not have access to the model {model!r}.",
        param="model",
        code="model_not_allowed",
    )


def no_key_error(error: NoKeyError, provider: str, model: str, *, owner: str = "") -> APIError:
    """The error when no API key of a provider is available; another provider may serve the request.

    `owner` describes the pool if it is not a provider's.
    """
    owner = owner or f"provider {provider!r}"
    if error.unknown:
        return APIError(
            ErrorKind.UNAUTHORIZED, f"{owner[:1].upper()}{owner[1:]}: {error}", code=NO_KEY
        )
    if error.empty:
        message = f"{owner[:1].upper()}{owner[1:]} has no keys: add one."
        return APIError(ErrorKind.KEY_REJECTED, message, status=503, code=NO_KEY)
    if not error.exists:
        message = f"No key of {owner} may be used for the model {model!r}."
        return APIError(ErrorKind.NOT_FOUND, message, param="model", code=NO_KEY)
    found = APIError(
        ErrorKind.LIMITED if error.limited else ErrorKind.KEY_REJECTED,
        f"No API key for {owner} is available: {error}",
        retry_after=error.retry_after,
    )
    if not error.limited and not error.rejected:
        found.status = 503  # all are disabled
    return found


def error_from_response(
    provider: Provider,
    status: int,
    headers: Headers,
    body: bytes,
    *,
    now: float,
    native: bool,
    members: Collection[str] = (),
    model: str = "",
) -> APIError:
    """Return the error for a response with an error status.

    `now` is Unix time in seconds. `native` means that the client speaks the provider's dialect:
    then the client may be sent the body itself. `members` are the names of the members of the
    request's body, `model` is the requested model.
    """
    if 300 <= status < 400:
        return APIError(
            ErrorKind.UPSTREAM,
            f"The provider {provider.name!r} answered with a redirect (HTTP {status}): "
            f"its base_url may be wrong.",
        )
    error = provider.dialect.decode_error(status, body)
    for name, value in headers:
        if name in ERROR_CODE_HEADERS:
            error.words = (value.partition(":")[0], *error.words)
    classify(error, provider, members=members, model=model)
    if error.retry_after is None and (error.retryable or error.about is RefusalScope.MODEL):
        error.retry_after = retry_after(headers, now)
        if error.retry_after is None and error.kind is ErrorKind.LIMITED:
            error.retry_after = retry_after_in_message(error.message)
    own_format = native and provider.strict_format and provider.dialect.native_errors
    # (What a provider says of the gateway's own key is not for clients.)
    shown = not error.retryable or (
        provider.dialect.clients_match_errors and error.kind is not ErrorKind.KEY_REJECTED
    )
    if own_format and shown and _is_object(body):
        error.body = body
        if error.kind is ErrorKind.OVERLOADED:
            error.status = status  # Anthropic's is 529
    return error


def classify(
    error: APIError, provider: Provider, *, members: Collection[str] = (), model: str = ""
) -> None:
    """Set what a provider's error is about (`about`), and adapt its kind, status and code.

    `members` are the names of the members of the request's body, as far as they are known.
    """
    if error.kind in (ErrorKind.INVALID, ErrorKind.TOO_LARGE) and (
        CONTEXT_LENGTH in error.words or _TOO_LONG.search(error.message[:2000]) is not None
    ):
        error.code = CONTEXT_LENGTH
    table = provider.refusals
    if table is None:
        table = BY_DIALECT.get(provider.dialect.name, OPENAI)
    found = refusal_scope(table, error.upstream_status or 0, error.words)
    found = error.about = found if found is not None else _scope_by_status(error, members, model)
    if found in (RefusalScope.KEY, RefusalScope.ACCOUNT) and error.kind is not ErrorKind.LIMITED:
        error.kind, error.status = ErrorKind.KEY_REJECTED, 502
    elif found is RefusalScope.VENDOR and (
        not error.retryable or error.kind is ErrorKind.KEY_REJECTED
    ):
        error.kind, error.status = ErrorKind.UPSTREAM, 502
    elif found is RefusalScope.REQUEST and error.kind is ErrorKind.KEY_REJECTED:
        error.kind, error.status = ErrorKind.FORBIDDEN, error.upstream_status or 403


def _scope_by_status(error: APIError, members: Collection[str], model: str) -> RefusalScope:
    """What an error is about if its codes are unknown."""
    match error.kind:
        case ErrorKind.LIMITED:
            return RefusalScope.MODEL if model else RefusalScope.KEY
        case ErrorKind.KEY_REJECTED:
            by_status = {402: RefusalScope.ACCOUNT, 403: RefusalScope.MODEL}
            return by_status.get(error.upstream_status or 0, RefusalScope.KEY)
        case ErrorKind.NOT_FOUND if error.param == "model":
            return RefusalScope.MODEL
        case ErrorKind.INVALID if error.upstream_status == 400 and error.param is None:
            return (
                RefusalScope.REQUEST
                if _names_member(error.message, members)
                else RefusalScope.UNCLEAR
            )
        case kind if kind in (ErrorKind.UPSTREAM, ErrorKind.OVERLOADED, ErrorKind.TIMEOUT):
            return RefusalScope.VENDOR
    return RefusalScope.REQUEST


# How vendors say that a request is longer than the model's context; only OpenAI, Groq and some
# others have a code for it.
_CONTEXT = r"context[_ ](?:window|length|size)"
_TOO_LONG = re.compile(
    r"prompt (?:is too long|exceeds max)|input is too long|input token count\b.{0,60}\bexceeds"
    rf"|maximum (?:context|prompt|input) length|exceed\w*\b.{{0,60}}\b{_CONTEXT}"
    rf"|{_CONTEXT}\b.{{0,60}}\bexceed|exceeded model token limit"
    r"|range of input length|too many tokens.{0,20}size limit",
    re.IGNORECASE,
)


# Names of members as errors quote them: `temperature`, "max_tokens", 'tools[0].name',
# messages.0.content, GenerateContentRequest.contents, "stream: ..."
_MEMBER_NAMES = re.compile(
    r"""[`'"]([\w.\[\]]+)[`'"]|\b(\w+(?:\.\w+|\[\d+\])+)|(?:^|\W)(\w+):(?:\s|$)"""
)


def _names_member(message: str, members: Collection[str]) -> bool:
    """Whether an error message names a member of the request."""
    for found in _MEMBER_NAMES.finditer(message[:2000]):
        path = found[1] or found[2] or found[3]
        if not set(members).isdisjoint(re.split(r"\W+", path)):
            return True
    return False


def gateway_key_rejected_error(
    error: APIError, provider: str, status: int, *, had_key: bool
) -> APIError:
    """Set the message for the client when a provider refused the gateway's own key.

    The provider's message is added unless the key is wrong (401, 407): some providers quote it.
    """
    said = f"The provider {provider!r} refused the gateway's key (HTTP {status})"
    if not had_key:
        said = f"The provider {provider!r} requires a key, and the gateway has none (HTTP {status})"
    quotes_key = status in (401, 407)
    hint = f"The operator of the gateway must {'replace or renew it' if had_key else 'add one'}."
    error.message = f"{said}. {hint}" if quotes_key else f"{said}: {error.message}"
    return error


def bad_request_if_provider_said_400(error: APIError) -> APIError:
    """Return the error for the client, once no other key or target is left.

    Google uses 400 and nearly the same message for an invalid key and for an invalid request. The
    client gets 400 with that message, because it may be about its request.
    """
    if error.kind is ErrorKind.KEY_REJECTED and error.upstream_status == 400:
        error.kind, error.status = ErrorKind.INVALID, 400
    return error


def _is_object(body: bytes) -> bool:
    """Whether the body is a complete JSON object, and not an HTML page of some proxy."""
    try:
        return isinstance(_json.loads(body), dict)
    except _json.NotJSONError:
        return False


def more_relevant_error(before: APIError | None, error: APIError) -> APIError:
    """Return the failure to report: in general the last one, with the earliest `retry_after`."""
    if before is None:
        return error
    if error.code == NO_KEY and before.code != NO_KEY:
        return before
    if before.about is RefusalScope.UNCLEAR:
        return before  # the further attempt was only made to find out
    if before.kind is ErrorKind.LIMITED and error.kind is ErrorKind.KEY_REJECTED:
        error, before = before, error  # the rate limit passes by itself
    if before.kind in _KEY_KINDS and error.kind in _KEY_KINDS and before.retry_after is not None:
        error.retry_after = min(before.retry_after, error.retry_after or before.retry_after)
    return error


_KEY_KINDS = frozenset({ErrorKind.LIMITED, ErrorKind.KEY_REJECTED})
