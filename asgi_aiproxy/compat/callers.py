"""The caller of a request, and its API key: the caller's own, a configured one by its id, or any.

A request to these apps may carry two kinds of credentials in the same headers: a token of this
gateway, or the caller's own key for the vendor. With `verify` the first credential that it knows
identifies the caller, and another one is the caller's own key; a caller with neither is refused,
because it would spend the operator's keys. Without `verify` every caller may use the pools, as in
the gateways that these apps replace.

The request that an inner app gets has no credential but the one that was chosen, in the header
`aiproxy-provider-key`, or the id of the chosen key in `aiproxy-key`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from asgi_aiproxy._asgi import RawHeaders
from asgi_aiproxy._control_headers import (
    CONTROL_HEADERS,
    EARLIER_NAMES,
    KEY,
    PROVIDER_KEY,
)
from asgi_aiproxy.compat.routing import CompatCall
from asgi_aiproxy.credentials import CREDENTIAL_HEADERS
from asgi_aiproxy.errors import APIError, ErrorKind
from asgi_aiproxy.ip_ranges import in_networks
from asgi_aiproxy.keys import KeyPool
from asgi_aiproxy.middleware.auth import Verify
from asgi_aiproxy.principal import SCOPE_KEY, Principal

_CONTROLS = frozenset(name.encode() for name in CONTROL_HEADERS)


class Caller(msgspec.Struct, frozen=True):
    """The caller of one request: its principal if it has a token of this gateway, and its own API
    key for the vendor (empty: it uses the pool).
    """

    principal: Principal | None = None
    secret: str = ""

    def __repr__(self) -> str:
        return f"Caller({self.principal!r})"

    @property
    def extra(self) -> dict[str, Any]:
        """What the ASGI scope gets."""
        return {SCOPE_KEY: self.principal} if self.principal is not None else {}


def bearer_value(call: CompatCall, name: str = "authorization") -> str:
    """Return the value of a credential header; the word `Bearer` before it is optional."""
    value = call.header(name)
    scheme, _, token = value.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else value


def check_sendable(secret: str) -> None:
    """Raise APIError (401) if a caller's credential cannot be sent in a header."""
    if not (secret.isprintable() and secret.isascii()):
        message = "The API key has characters that cannot be sent: only printable ASCII can."
        raise APIError(ErrorKind.UNAUTHORIZED, message)


async def identify(call: CompatCall, secrets: Iterable[str], verify: Verify | None) -> Caller:
    """Return the caller of a request that presents `secrets`, the most important first.

    Raises APIError: 401 for a caller with no credential where one is required, 403 from an address
    that the token may not be used from, and what `verify` raises.
    """
    given = [secret for secret in secrets if secret]
    for secret in given:
        check_sendable(secret)
    if verify is None:
        return Caller(None, given[0] if given else "")
    found: Principal | None = None
    own = ""
    for secret in given:
        principal = await verify(secret) if found is None else None
        if principal is not None:
            found = principal
        elif not own:
            own = secret
    if found is None and not own:
        message = "No API key was sent. Send it as 'Authorization: Bearer <key>'."
        raise APIError(ErrorKind.UNAUTHORIZED, message)
    if found is not None:
        client = call.scope.get("client")
        if found.networks and not in_networks(found.networks, client[0] if client else None):
            message = "Requests from this IP address are not allowed for this API key."
            raise APIError(ErrorKind.FORBIDDEN, message, code="address_not_allowed")
    return Caller(found, own)


async def check_is_not_of_gateway(secret: str, verify: Verify | None) -> None:
    """Raise APIError (401) if a credential for a web site is a token of this gateway, so that it
    is not sent there.
    """
    if verify is None or not secret:
        return
    try:
        principal = await verify(secret)
    except APIError as error:
        if error.kind is ErrorKind.OVERLOADED:
            raise
        return  # a session of another issuer, or a token that is of no use any more
    if principal is not None:
        message = "This is an API key of the gateway. Send your own session of the web site."
        raise APIError(ErrorKind.UNAUTHORIZED, message, code="gateway_key")


def prepared_headers(
    call: CompatCall, caller: Caller, key_id: str = "", *, drop: Iterable[str] = ()
) -> RawHeaders:
    """Return the request headers for an inner app: without the caller's credentials, with the one
    that was chosen. `drop` are names of further headers to leave out.
    """
    dropped = {name.encode() for name in drop}
    headers: RawHeaders = [
        pair
        for pair in call.scope["headers"]
        if pair[0] not in CREDENTIAL_HEADERS and pair[0] not in _CONTROLS and pair[0] not in dropped
    ]
    if caller.secret:
        headers.append((PROVIDER_KEY.encode(), caller.secret.encode("latin-1", "replace")))
    elif key_id:
        headers.append((KEY.encode(), key_id.encode("latin-1", "replace")))
    elif caller.principal is not None and caller.principal.key_id:
        headers.append((KEY.encode(), caller.principal.key_id.encode("latin-1", "replace")))
    return headers


def chosen_key(call: CompatCall, pool: KeyPool | None, *body_ids: object) -> str:
    """Return the id of the configured key that the caller names: in the header `x-auth-id`, else
    in the body (`body_ids`); empty if it names none.

    Raises APIError (401) for an id that the pool does not have.
    """
    named = call.header(EARLIER_NAMES[KEY]) or call.header(KEY)
    ids = [named, *(each for each in body_ids if isinstance(each, str | int))]
    id = next((str(each) for each in ids if each not in ("", None)), "")
    if id and (pool is None or id not in pool.keys):
        message = "Unknown key id: the gateway has no API key with this id."
        raise APIError(ErrorKind.UNAUTHORIZED, message, code="unknown_key_id")
    return id
