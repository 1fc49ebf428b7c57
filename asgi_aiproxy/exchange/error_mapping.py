"""What a provider's refusal means, and the errors that a call ends with when no provider has
answered it. Pure.

Every error answer of a provider, whoever reads it (relay or proxy), is classified by `classify`:
what it is about decides who is asked next and what becomes of the key. First the machine-readable
words of the error count, by the tables in `asgi_aiproxy.providers.refusal_codes`, then the status.
A 400 that says neither with a word nor with the name of a member that it is about the request
may be
about the account: then one more attempt is worth it.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from asgi_aiproxy import _json
from asgi_aiproxy.errors import APIError, ErrorKind, RefusalScope
from asgi_aiproxy.keys import NoKeyError
from asgi_aiproxy.providers.base import Provider
from asgi_aiproxy.providers.refusal_codes import BY_DIALECT, OPENAI, refusal_scope
from asgi_aiproxy.retry_after import retry_after, retry_after_in_message
from asgi_aiproxy.upstream.base import Headers

NO_KEY = "no_key"  # the code of a call that another provider may still serve


def model_not_found_error(model: str, provider: str = "") -> APIError:
    """Nobody is configured to answer."""
    if provider:
        return APIError(
            ErrorKind.NOT_FOUND, f"There is no provider {provider!r} here.", param="provider"
        )
    return APIError(
        ErrorKind.NOT_FOUND,
        f"The model {model!r} does not exist or you do not have access to it.",
        param="model",
        code="model_not_found",
    )


def model_not_allowed_error(model: str) -> APIError:
    """The caller may not use this model."""
    return APIError(
        ErrorKind.FORBIDDEN,
        f"The model {model!r} is not among those you may use.",
        param="model",
        code="model_not_allowed",
    )


def no_key_error(error: NoKeyError, provider: str, model: str, *, owner: str = "") -> APIError:
    """The error for a client whose call no key can serve. Another provider may.

    `owner` is whose keys they are, if they are no provider's.
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
    """The error for an answer whose status says that it is none; `now` is Unix time.

    Its own body goes to the client if that speaks the same language (`native_operations`).
    `members` are those
    of the request's body, `model` is what it asked for.
    """
    if 300 <= status < 400:
        return APIError(
            ErrorKind.UPSTREAM,
            f"The provider {provider.name!r} answered with a redirect (HTTP {status}): "
            f"its base_url may be wrong.",
        )
    error = provider.dialect.decode_error(status, body)
    for name, value in headers:
        if name == "x-amzn-errortype":  # AWS: "Name:http://..."
            error.words = (value.partition(":")[0], *error.words)
    classify(error, provider, members=members, model=model)
    if error.retry_after is None and (error.retryable or error.about is RefusalScope.MODEL):
        error.retry_after = retry_after(headers, now)
        if error.retry_after is None and error.kind is ErrorKind.LIMITED:
            error.retry_after = retry_after_in_message(error.message)
    if native and provider.strict_format and not error.retryable and _is_object(body):
        error.body = body
    return error


def classify(
    error: APIError, provider: Provider, *, members: Collection[str] = (), model: str = ""
) -> None:
    """Find out what a provider's error is about, and have its kind agree with that.

    `members` are those of the request's body, as far as they are known.
    """
    table = provider.refusals
    if table is None:
        table = BY_DIALECT.get(provider.dialect.name, OPENAI)
    found = refusal_scope(table, error.upstream_status or 0, error.words)
    found = error.about = found if found is not None else _usual(error, members, model)
    if found in (RefusalScope.KEY, RefusalScope.ACCOUNT) and error.kind is not ErrorKind.LIMITED:
        error.kind, error.status = ErrorKind.KEY_REJECTED, 502
    elif found is RefusalScope.VENDOR and (
        not error.retryable or error.kind is ErrorKind.KEY_REJECTED
    ):
        error.kind, error.status = ErrorKind.UPSTREAM, 502
    elif found is RefusalScope.REQUEST and error.kind is ErrorKind.KEY_REJECTED:
        error.kind, error.status = ErrorKind.FORBIDDEN, error.upstream_status or 403


def _usual(error: APIError, members: Collection[str], model: str) -> RefusalScope:
    """What a refusal is about, where no word says it."""
    match error.kind:
        case ErrorKind.LIMITED:
            return RefusalScope.MODEL if model else RefusalScope.KEY
        case ErrorKind.KEY_REJECTED:
            by_status = {402: RefusalScope.ACCOUNT, 403: RefusalScope.MODEL}
            return by_status.get(error.upstream_status or 0, RefusalScope.KEY)
        case ErrorKind.NOT_FOUND if error.param == "model":
            return RefusalScope.MODEL
        case ErrorKind.INVALID if error.upstream_status == 400 and error.param is None:
            return RefusalScope.REQUEST if _names(error.message, members) else RefusalScope.UNCLEAR
        case kind if kind in (ErrorKind.UPSTREAM, ErrorKind.OVERLOADED, ErrorKind.TIMEOUT):
            return RefusalScope.VENDOR
    return RefusalScope.REQUEST


# Names as errors write them: `temperature`, "max_tokens", 'tools[0].name', messages.0.content,
# GenerateContentRequest.contents, "stream: ..."
_NAMES = re.compile(r"""[`'"]([\w.\[\]]+)[`'"]|\b(\w+(?:\.\w+|\[\d+\])+)|(?:^|\W)(\w+):(?:\s|$)""")


def _names(message: str, members: Collection[str]) -> bool:
    """Whether an error names a member of the request."""
    for found in _NAMES.finditer(message[:2000]):
        path = found[1] or found[2] or found[3]
        if not set(members).isdisjoint(re.split(r"\W+", path)):
            return True
    return False


def gateway_key_rejected_error(
    error: APIError, provider: str, status: int, *, had_key: bool
) -> APIError:
    """The same error in words for a client, who cannot mend our key.

    The provider's own words are added, but for a wrong key: there some quote what they were sent.
    """
    said = f"The provider {provider!r} refused the gateway's key (HTTP {status})"
    if not had_key:
        said = f"The provider {provider!r} wants a key, and the gateway has none (HTTP {status})"
    quotes_key = status in (401, 407)
    hint = f"Whoever runs the gateway must {'replace or renew it' if had_key else 'add one'}."
    error.message = f"{said}. {hint}" if quotes_key else f"{said}: {error.message}"
    return error


def bad_request_if_provider_said_400(error: APIError) -> APIError:
    """The error for the client, once no other key or target is left.

    Google answers a wrong key with 400, as it does a wrong request, in nearly the same words: the
    client is answered 400 too, with those words, for they may be about its request.
    """
    if error.kind is ErrorKind.KEY_REJECTED and error.upstream_status == 400:
        error.kind, error.status = ErrorKind.INVALID, 400
    return error


def _is_object(body: bytes) -> bool:
    """Whether it is all of a JSON object, as errors are, and no page of some proxy's."""
    try:
        return isinstance(_json.loads(body), dict)
    except _json.NotJSONError:
        return False


def more_relevant_error(before: APIError | None, error: APIError) -> APIError:
    """The failure to report: the last that was tried, but with the soonest time to try again."""
    if before is None:
        return error
    if error.code == NO_KEY and before.code != NO_KEY:
        return before
    if before.about is RefusalScope.UNCLEAR:
        return before  # the other attempt was only to see whether somebody else understands it
    if before.kind is ErrorKind.LIMITED and error.kind is ErrorKind.KEY_REJECTED:
        error, before = before, error  # that one may pass by itself
    if before.kind in _SOON and error.kind in _SOON and before.retry_after is not None:
        error.retry_after = min(before.retry_after, error.retry_after or before.retry_after)
    return error


_SOON = frozenset({ErrorKind.LIMITED, ErrorKind.KEY_REJECTED})
