"""Who may use the admin API: by the token shown, and not too often by a wrong one."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from collections import deque
from collections.abc import Callable
from ipaddress import ip_address, ip_network

from asgi_aiproxy._asgi import Scope
from asgi_aiproxy.admin.routes import Need
from asgi_aiproxy.credentials import credential
from asgi_aiproxy.errors import APIError, ConfigurationError, Kind
from asgi_aiproxy.identity import SCOPE_KEY, Principal
from asgi_aiproxy.networks import within
from asgi_aiproxy.tenants import StoredTokens

_RANK = {"read": 1, "write": 2, "root": 3}
_WINDOW = 60.0  # seconds
_ADDRESSES = 10_000  # that are remembered


class Access:
    """Knows callers by `token` (whose scope is `root`), by the tokens of a store, or by what the
    host has put into the scope.

    Who shows a wrong token `tries` times a minute is not heard for the rest of it: each address by
    itself, each worker for itself, so that guessing costs the store nothing.
    """

    def __init__(
        self,
        token: str,
        stored: StoredTokens,
        *,
        tries: int = 10,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not isinstance(token, str) or not token.strip():
            raise ConfigurationError(
                "AdminApp needs a token of your own; there is none by default. "
                "python -c 'import secrets; print(secrets.token_urlsafe(32))' makes one."
            )
        if tries < 1:
            raise ConfigurationError("AdminApp: tries must be at least 1.")
        self._digest = _digest(token)
        self._stored = stored
        self._tries = tries
        self._clock = clock
        self._known_tries: dict[str, _Tries] = {}

    async def caller(self, scope: Scope, need: Need) -> Principal:
        """Who asks, if they may. Raises APIError: 401, 403, or 429 after too many wrong tries."""
        caller = await self._known(scope)
        if need != "token" and max((_RANK[s] for s in caller.scopes), default=0) < _RANK[need]:
            raise APIError(
                Kind.FORBIDDEN, f"This takes a token with the scope {need!r}.", code="scope"
            )
        return caller

    async def _known(self, scope: Scope) -> Principal:
        host: Principal | None = scope.get(SCOPE_KEY)
        if host is not None:
            return host
        address = _address(scope)
        tries = self._tries_of(_near(address))
        # One after the other, so that many guesses at the same time are no more than one by one.
        async with tries.lock:
            self._check(tries)
            token = credential({**scope, "query_string": b""})  # queries end up in logs
            if token is None:
                raise APIError(
                    Kind.UNAUTHORIZED,
                    "No token was given. Send it as 'Authorization: Bearer <token>'.",
                )
            if secrets.compare_digest(_digest(token), self._digest):
                return Principal("admin", "admin", scopes=("root",))
            found = await self._stored(token)
            if found is None:
                tries.wrong.append(self._clock())
                raise APIError(Kind.UNAUTHORIZED, "The token is not valid.", code="invalid_token")
        if found.networks and not within(found.networks, address):
            raise APIError(Kind.FORBIDDEN, "This token may not be used from this address.")
        return found

    def _tries_of(self, near: str) -> _Tries:
        tries = self._known_tries.get(near)
        if tries is None:
            if len(self._known_tries) >= _ADDRESSES:
                del self._known_tries[next(iter(self._known_tries))]
            tries = self._known_tries[near] = _Tries(self._tries)
        return tries

    def _check(self, tries: _Tries) -> None:
        now, wrong = self._clock(), tries.wrong
        while wrong and wrong[0] <= now - _WINDOW:
            wrong.popleft()
        if len(wrong) >= self._tries:
            raise APIError(
                Kind.LIMITED,
                "Too many wrong tokens came from this address.",
                retry_after=wrong[0] + _WINDOW - now,
            )


class _Tries:
    """When an address tried wrong tokens."""

    __slots__ = ("lock", "wrong")

    def __init__(self, most: int) -> None:
        self.lock = asyncio.Lock()
        self.wrong: deque[float] = deque(maxlen=most)


def _digest(token: str) -> bytes:
    # Compared by digest, so that the time taken tells nothing, not even a length.
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def _address(scope: Scope) -> str:
    client = scope.get("client")
    return str(client[0]) if client else ""


def _near(address: str) -> str:
    """An address, or the network of an IPv6 one: who has one of those has all of it."""
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if found.version == 6 and found.ipv4_mapped is None:
        return str(ip_network((found, 64), strict=False))
    return address
