"""Limits of attempts, kept in the store, so that all workers share them."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from asgi_aiproxy.accounts.users import folded
from asgi_aiproxy.errors import APIError, ErrorKind
from asgi_aiproxy.ip_ranges import address_or_network
from asgi_aiproxy.stores.base import Admitted, Denied, RateLimit, Store

HOUR = 3600.0
TOO_MANY = "Too many requests of this kind. Try again later."
TOO_MANY_ATTEMPTS = "Too many failed attempts. Try again later."

_WINDOW = 600.0  # seconds in which attempts with passwords are counted
_PER_ADDRESS, _PER_NAME_AND_ADDRESS, _PER_NAME = 30, 10, 100
_ACCOUNT = "sign-in"


def attempt_limit(kind: str, name: str, limit: int, seconds: float) -> RateLimit:
    """Return the limit of `limit` attempts of a kind in `seconds`, by what or whom `name` names."""
    return RateLimit(_ACCOUNT, f"{kind}:{name}", limit, seconds)


async def take_attempt(store: Store, limits: Sequence[RateLimit], message: str) -> Admitted:
    """Count one attempt against all `limits`.

    Raises APIError (429) with `message` if one of them is reached; then none is counted.
    """
    taken = await store.admit(secrets.token_hex(16), limits)
    if isinstance(taken, Denied):
        retry_after = taken.retry_after
        raise APIError(ErrorKind.LIMITED, message, code="attempts", retry_after=retry_after)
    return taken


async def take_password_attempt(store: Store, name: str, address: str) -> Admitted:
    """Count one attempt with a password, before it is checked.

    `name` is what the password is for, `address` the client's IP address; an IPv6 network counts as
    one. Raises APIError (429) after too many.
    """
    network, key = address_or_network(address), folded(name)
    limits = [
        attempt_limit("address", network, _PER_ADDRESS, _WINDOW),
        attempt_limit("name", key, _PER_NAME, _WINDOW),
        attempt_limit("both", f"{network}:{key}", _PER_NAME_AND_ADDRESS, _WINDOW),
    ]
    return await take_attempt(store, limits, TOO_MANY_ATTEMPTS)


async def give_back(store: Store, taken: Admitted) -> None:
    """Uncount an attempt that was successful."""
    await store.settle(taken, dict.fromkeys(taken.grants, 0))
