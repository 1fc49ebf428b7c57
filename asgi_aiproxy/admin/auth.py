"""Authentication of the admin API.

A valid token is always accepted, whatever was sent before: behind a reverse proxy, or at a shared
address, other clients must not be able to lock an operator out. Invalid tokens are counted by
client address (as the server reports it). When too many arrive within a minute, further invalid
ones get 429 with `retry-after`, and the log has one warning: a script with an old token stops, and
an operator sees attempts to guess. What makes guessing hopeless is the length of a token:
tokens of the store have 226 random bits, and a short administrator's token causes a warning.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
import time
from collections import deque
from collections.abc import Callable

from asgi_aiproxy._asgi import Scope
from asgi_aiproxy.accounts import StoredTokenVerifier
from asgi_aiproxy.accounts.token import parse_token
from asgi_aiproxy.admin.routing import Need
from asgi_aiproxy.credentials import find_credential
from asgi_aiproxy.errors import APIError, ConfigurationError, ErrorKind
from asgi_aiproxy.ip_ranges import address_or_network, in_networks
from asgi_aiproxy.principal import SCOPE_KEY, Principal
from asgi_aiproxy.services.base import ROOT

logger = logging.getLogger("asgi_aiproxy")

_SCOPE_RANKS = {"read": 1, "write": 2, "root": 3}
_WINDOW_SECONDS = 60.0
_MAX_ADDRESSES = 10_000  # with failures, kept in memory
_MIN_TOKEN_LENGTH = 16  # characters; shorter ones cause a warning


class AdminAuth:
    """Authenticate callers by the administrator's `token` (scope `root`), by the tokens of a store,
    or by the `Principal` that the host has put into the ASGI scope.

    An address that has sent `max_failures_per_minute` invalid tokens within a minute gets 429 for
    further invalid ones; each worker counts on its own. `clock` returns seconds.

    Raises ConfigurationError if `token` is empty or the number is below 1.
    """

    def __init__(
        self,
        token: str,
        stored: StoredTokenVerifier,
        *,
        max_failures_per_minute: int = 10,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not isinstance(token, str) or not token.strip():
            raise ConfigurationError(
                "AdminApp requires a token and has no default. Create one with: "
                "python -c 'import secrets; print(secrets.token_urlsafe(32))'"
            )
        if max_failures_per_minute < 1:
            raise ConfigurationError("AdminApp: max_failures_per_minute must be at least 1.")
        if len(token) < _MIN_TOKEN_LENGTH:
            logger.warning(
                "AdminApp: the administrator's token is shorter than %d characters and may be "
                "guessed. Create a better one with: "
                "python -c 'import secrets; print(secrets.token_urlsafe(32))'",
                _MIN_TOKEN_LENGTH,
            )
        self._digest = _digest(token)
        self._stored = stored
        self._max_failures = max_failures_per_minute
        self._clock = clock
        self._failure_times: dict[str, deque[float]] = {}  # by address, oldest address first

    async def caller(self, scope: Scope, need: Need) -> Principal:
        """Authenticate a request and check that its caller has the scope `need`.

        Raises APIError: 401, 403, or 429 after too many invalid tokens.
        """
        caller = await self._authenticate(scope)
        require_scope(caller, need)
        return caller

    def is_admin_token(self, digest: str) -> bool:
        """Whether the SHA-256 `digest`, in hexadecimal, is that of the administrator's token."""
        return secrets.compare_digest(digest, self._digest.hex())

    async def recall(self, id: str, digest: str) -> Principal | None:
        """Return the caller that authenticated before with a token that had this `digest`; None if
        it is not valid any more. `id` is the id of the caller.

        Raises APIError (401, 403) if the token is disabled or expired.
        """
        if id == ROOT.id and self.is_admin_token(digest):
            return ROOT
        return await self._stored.recall(id, digest)

    async def _authenticate(self, scope: Scope) -> Principal:
        from_host: Principal | None = scope.get(SCOPE_KEY)
        if from_host is not None:
            return from_host
        token = find_credential({**scope, "query_string": b""})  # query strings end up in logs
        if token is None:
            raise APIError(
                ErrorKind.UNAUTHORIZED,
                "No token was sent. Send it as 'Authorization: Bearer <token>'.",
            )
        return (await self.verify(token, scope))[0]

    async def verify(self, token: str, scope: Scope) -> tuple[Principal, str]:
        """Return the caller with this token, and the digest by which `recall` finds it again.

        `scope` is that of the request, for the client's address. Raises APIError (401, 403, 429).
        """
        if secrets.compare_digest(_digest(token), self._digest):
            return ROOT, self._digest.hex()
        address = _client_address(scope)
        found = await self._stored(token)
        if found is None:
            raise self._record_failure(address_or_network(address))
        if found.networks and not in_networks(found.networks, address):
            raise APIError(ErrorKind.FORBIDDEN, "This token must not be used from this IP address.")
        digests = [each.digest for each in parse_token(token) if each.id == found.id]
        return found, digests[0]

    def _record_failure(self, address: str) -> APIError:
        """Count an invalid token of an address; returns the error to answer with."""
        now = self._clock()
        times = self._failure_times.pop(address, None) or deque(maxlen=self._max_failures)
        self._failure_times[address] = times  # moved to the end: the last one to be dropped
        while len(self._failure_times) > _MAX_ADDRESSES:
            del self._failure_times[next(iter(self._failure_times))]
        while times and times[0] <= now - _WINDOW_SECONDS:
            times.popleft()
        if len(times) < self._max_failures:
            times.append(now)
            if len(times) == self._max_failures:
                logger.warning(
                    "admin API: %d invalid tokens from %s within a minute",
                    self._max_failures,
                    address,
                )
            return APIError(ErrorKind.UNAUTHORIZED, "The token is invalid.", code="invalid_token")
        return APIError(
            ErrorKind.LIMITED,
            "The token is invalid, and this address has sent too many invalid tokens.",
            retry_after=times[0] + _WINDOW_SECONDS - now,
        )


def may(caller: Principal, need: Need) -> bool:
    """Whether a caller has the scope `need`."""
    rank = max((_SCOPE_RANKS.get(name, 0) for name in caller.scopes), default=0)
    return rank >= _SCOPE_RANKS.get(need, 0)


def require_scope(caller: Principal, need: Need) -> None:
    """Raise APIError (403) unless a caller has the scope `need`."""
    if not may(caller, need):
        raise APIError(
            ErrorKind.FORBIDDEN,
            f"This request requires a token with the scope {need!r}.",
            code="scope",
        )


def _digest(token: str) -> bytes:
    # Digests are compared, so that the time taken reveals nothing, not even a length.
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def _client_address(scope: Scope) -> str:
    client = scope.get("client")
    return str(client[0]) if client else ""
