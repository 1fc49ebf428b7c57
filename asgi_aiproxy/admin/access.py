"""Who may use the admin API: by the token shown, and not too often by a wrong one."""

from __future__ import annotations

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
        self._digest = _digest(token)
        self._stored = stored
        self._tries = tries
        self._clock = clock
        self._wrong: dict[str, deque[float]] = {}

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
        self._check(address)
        token = credential({**scope, "query_string": b""})  # queries end up in logs
        if token is None:
            raise APIError(
                Kind.UNAUTHORIZED, "No token was given. Send it as 'Authorization: Bearer <token>'."
            )
        if secrets.compare_digest(_digest(token), self._digest):
            return Principal("admin", "admin", scopes=("root",))
        found = await self._stored(token)
        if found is None:
            self._count(address)
            raise APIError(Kind.UNAUTHORIZED, "The token is not valid.", code="invalid_token")
        if found.networks and not within(found.networks, address):
            raise APIError(Kind.FORBIDDEN, "This token may not be used from this address.")
        return found

    def _check(self, address: str) -> None:
        tries = self._wrong.get(_near(address))
        if tries is None:
            return
        now = self._clock()
        while tries and tries[0] <= now - _WINDOW:
            tries.popleft()
        if len(tries) >= self._tries:
            raise APIError(
                Kind.LIMITED,
                "Too many wrong tokens came from this address.",
                retry_after=tries[0] + _WINDOW - now,
            )

    def _count(self, address: str) -> None:
        near = _near(address)
        tries = self._wrong.pop(near, None)
        if tries is None:
            tries = deque(maxlen=self._tries)
        if len(self._wrong) >= _ADDRESSES:
            del self._wrong[next(iter(self._wrong))]
        tries.append(self._clock())
        self._wrong[near] = tries


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
