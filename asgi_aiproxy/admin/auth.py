"""Who may use the admin API: by the token shown.

A right token is let in, whatever was shown before: behind a reverse proxy, or a shared address, it
must not be up to others whether an operator gets in. So wrong tokens are counted by the address
they come from (as the server tells it), and too many of them in a minute are answered 429 with
`retry-after`, and logged: a script with an old token learns that it should stop, and an operator
that somebody guesses. What keeps guesses from being right is the length of a token: those of the
store have 226 bits, and a short one of the administrator's own is warned of.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
import time
from collections import deque
from collections.abc import Callable
from ipaddress import ip_address, ip_network

from asgi_aiproxy._asgi import Scope
from asgi_aiproxy.accounts import StoredTokenVerifier
from asgi_aiproxy.admin.routing import ROOT, Need
from asgi_aiproxy.credentials import find_credential
from asgi_aiproxy.errors import APIError, ConfigurationError, ErrorKind
from asgi_aiproxy.ip_ranges import in_networks
from asgi_aiproxy.principal import SCOPE_KEY, Principal

logger = logging.getLogger("asgi_aiproxy")

_RANK = {"read": 1, "write": 2, "root": 3}
_WINDOW = 60.0  # seconds
_ADDRESSES = 10_000  # that are remembered
_SHORT = 16  # characters


class AdminAuth:
    """Knows callers by `token` (whose scope is `root`), by the tokens of a store, or by what the
    host has put into the scope.

    Who has shown a wrong token `attempt_details` times a minute gets 429 for further wrong ones:
    each address
    by itself, and each worker counts for itself.
    """

    def __init__(
        self,
        token: str,
        stored: StoredTokenVerifier,
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
        if len(token) < _SHORT:
            logger.warning(
                "AdminApp: the administrator's token has fewer than %d characters, so it may be "
                "guessed. python -c 'import secrets; print(secrets.token_urlsafe(32))' makes one.",
                _SHORT,
            )
        self._digest = _digest(token)
        self._stored = stored
        self._tries = tries
        self._clock = clock
        self._times: dict[str, deque[float]] = {}  # of wrong tokens, by address

    async def caller(self, scope: Scope, need: Need) -> Principal:
        """Who asks, if they may. Raises APIError: 401, 403, or 429 after too many wrong tries."""
        caller = await self._known(scope)
        if need != "token" and max((_RANK[s] for s in caller.scopes), default=0) < _RANK[need]:
            raise APIError(
                ErrorKind.FORBIDDEN, f"This takes a token with the scope {need!r}.", code="scope"
            )
        return caller

    async def _known(self, scope: Scope) -> Principal:
        host: Principal | None = scope.get(SCOPE_KEY)
        if host is not None:
            return host
        token = find_credential({**scope, "query_string": b""})  # queries end up in logs
        if token is None:
            raise APIError(
                ErrorKind.UNAUTHORIZED,
                "No token was given. Send it as 'Authorization: Bearer <token>'.",
            )
        if secrets.compare_digest(_digest(token), self._digest):
            return ROOT
        address = _address(scope)
        found = await self._stored(token)
        if found is None:
            raise self._wrong(_near(address))
        if found.networks and not in_networks(found.networks, address):
            raise APIError(ErrorKind.FORBIDDEN, "This token may not be used from this address.")
        return found

    def _wrong(self, near: str) -> APIError:
        """Note that a wrong token came from an address; the answer to it."""
        now = self._clock()
        times = self._times.pop(near, None) or deque(maxlen=self._tries)
        self._times[near] = times  # the last that is forgotten
        while len(self._times) > _ADDRESSES:
            del self._times[next(iter(self._times))]
        while times and times[0] <= now - _WINDOW:
            times.popleft()
        if len(times) < self._tries:
            times.append(now)
            if len(times) == self._tries:
                logger.warning(
                    "admin API: %d wrong tokens came from %s within a minute", self._tries, near
                )
            return APIError(ErrorKind.UNAUTHORIZED, "The token is not valid.", code="invalid_token")
        return APIError(
            ErrorKind.LIMITED,
            "The token is not valid, and too many wrong ones came from this address.",
            retry_after=times[0] + _WINDOW - now,
        )


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
