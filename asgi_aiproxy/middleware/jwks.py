"""`PublicKeySet`: the public keys that an identity provider signs JSON Web Tokens with.

Theory of operation. The provider publishes its keys as a key set (RFC 7517); where it is stands in
its discovery document, `{issuer}/.well-known/openid-configuration` (OpenID Connect Discovery 1.0),
unless `jwks_url` names it.

- The key set is fetched for the first token and kept. When it is older than `max_age` seconds, a
  background task fetches it again. Meanwhile requests use the old one, for up to `stale` more
  seconds while the provider cannot be reached.
- A token that names an unknown key may be signed with a new one (key rotation): the set is fetched
  again, once for all requests that wait, and at most every 10 seconds, so that forged tokens do
  not become requests to the provider.
- Nothing is fetched from an address that a token names (`jku`, `x5u`, `iss`): only from `issuer`
  and `jwks_url`, over TLS, without following redirects.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec

from asgi_aiproxy._background_tasks import FailureLog, start
from asgi_aiproxy.errors import AIProxyError, APIError, ConfigurationError, ErrorKind
from asgi_aiproxy.upstream import Transport, default_transport
from asgi_aiproxy.upstream.base import UpstreamRequest

if TYPE_CHECKING:
    import jwt as pyjwt

_MIN_REFETCH_SECONDS = 10.0
_RETRY_SECONDS = 1.0  # between fetches while there is no key set
_FETCH_TIMEOUT_SECONDS = 10.0
_MAX_DOCUMENT_BYTES = 1024 * 1024
_UNAVAILABLE = "The login service cannot be reached, so your token cannot be checked. Try again."


class PublicKeySet:
    """The public keys of an identity provider, fetched when needed and refreshed."""

    def __init__(
        self,
        jwt: Any,
        issuer: str,
        jwks_url: str,
        transport: Transport | None,
        max_age: float,
        stale: float,
        clock: Callable[[], float],
    ) -> None:
        if jwks_url:
            check_key_url("jwks_url", jwks_url)
        self._jwt = jwt
        self._issuer = issuer
        self._jwks_url = jwks_url
        self._transport = transport
        self._max_age = max_age
        self._stale = stale
        self._clock = clock
        self._keys: list[dict[str, Any]] = []
        self._made: dict[tuple[str | None, str], pyjwt.PyJWK] = {}
        self._fetched: float | None = None  # Unix time, as the next one
        self._tried: float | None = None
        self._task: asyncio.Task[None] | None = None
        self._log = FailureLog(f"key set of {issuer}")
        self.version = 0

    async def refresh(self) -> None:
        """Fetch the set if there is none; refresh one that is old, in the background.

        Raises APIError if there is none and it cannot be fetched.
        """
        now = self._clock()
        age = None if self._fetched is None else now - self._fetched
        if age is not None and age <= self._max_age:
            return
        if age is None or age > self._stale:
            if not await self._fetch_again():
                raise APIError(ErrorKind.OVERLOADED, _UNAVAILABLE, retry_after=5.0)
        elif self._may_fetch(now):
            self._begin()

    async def find(self, key_id: str | None, algorithm: str) -> pyjwt.PyJWK | None:
        """The key with this id (None: the only one there is); None if there is none.

        A set without the key is fetched again, unless that was done just now.
        """
        found = self._find(key_id, algorithm)
        if found is None and (self._running() or self._may_fetch(self._clock())):
            await self._fetch_again()
            found = self._find(key_id, algorithm)
        return found

    def _find(self, key_id: str | None, algorithm: str) -> pyjwt.PyJWK | None:
        made = self._made.get((key_id, algorithm))
        if made is not None:
            return made
        fitting: list[pyjwt.PyJWK] = []
        for each in self._keys:
            if (key_id is None or each.get("kid") == key_id) and each.get("use", "sig") == "sig":
                if each.get("alg", algorithm) != algorithm:
                    continue
                try:
                    fitting.append(self._jwt.PyJWK(each, algorithm=algorithm))
                except self._jwt.PyJWTError:  # of another key type
                    continue
        if len(fitting) != 1:
            return None
        self._made[key_id, algorithm] = fitting[0]
        return fitting[0]

    def _may_fetch(self, now: float) -> bool:
        """Whether the last fetch is long enough ago for another one."""
        pause = _RETRY_SECONDS if self._fetched is None else _MIN_REFETCH_SECONDS
        return self._tried is None or now - self._tried >= pause

    async def _fetch_again(self) -> bool:
        """Wait for a fetch, one for all who wait; return whether there is a usable set."""
        if self._running() is None and self._may_fetch(self._clock()):
            self._begin()
        task = self._running()
        if task is not None:
            await asyncio.wait((task,))
        fetched = self._fetched
        return fetched is not None and self._clock() - fetched <= max(self._stale, self._max_age)

    def _begin(self) -> None:
        if self._running() is None:
            self._tried = self._clock()
            self._task = start(self._fetch(), what=f"fetching the key set of {self._issuer}")

    def _running(self) -> asyncio.Task[None] | None:
        """The fetch that is going on in the running loop."""
        task = self._task
        if task is None or task.done() or task.get_loop() is not asyncio.get_running_loop():
            return None
        return task

    async def _fetch(self) -> None:
        try:
            async with asyncio.timeout(_FETCH_TIMEOUT_SECONDS), self._opened() as transport:
                url = self._jwks_url or await self._discover(transport)
                keys = (await self._get(transport, url)).get("keys")
            if not isinstance(keys, list):
                raise KeySetError(f"{url} is not a key set (RFC 7517)")
        except TimeoutError:
            self._log.log_failure(f"no response within {_FETCH_TIMEOUT_SECONDS:g} s")
        except (APIError, KeySetError) as error:
            self._log.log_failure(error)
        else:
            kept = [key for key in keys if isinstance(key, dict)]
            if kept != self._keys or self._fetched is None:
                self._keys, self._made = kept, {}
                self.version += 1
            self._fetched = self._clock()
            self._log.log_recovery()

    async def _discover(self, transport: Transport) -> str:
        found = await self._get(
            transport, self._issuer.rstrip("/") + "/.well-known/openid-configuration"
        )
        if found.get("issuer") != self._issuer:
            raise KeySetError(f"the discovery document is of issuer {found.get('issuer')!r}")
        url = found.get("jwks_uri")
        if not isinstance(url, str):
            raise KeySetError("the discovery document has no jwks_uri")
        try:
            check_key_url("jwks_uri", url)
        except ConfigurationError as error:
            raise KeySetError(str(error)) from error
        return url

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[Transport]:
        """The given transport, or one for this fetch: between fetches no connection is open."""
        if self._transport is not None:
            yield self._transport
            return
        async with aclosing(default_transport()) as transport:
            yield transport

    async def _get(self, transport: Transport, url: str) -> Mapping[str, Any]:
        headers = [("accept", "application/json"), ("user-agent", "asgi-aiproxy")]
        response = await transport.send(UpstreamRequest(method="GET", url=url, headers=headers))
        try:
            if response.status != 200:
                raise KeySetError(f"{url} answered with status {response.status}")
            body = bytearray()
            while data := await response.read():
                body += data
                if len(body) > _MAX_DOCUMENT_BYTES:
                    raise KeySetError(f"{url} is longer than {_MAX_DOCUMENT_BYTES} bytes")
        finally:
            await response.aclose()
        try:
            return msgspec.json.decode(body, type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise KeySetError(f"{url} is not a JSON object") from error


class KeySetError(AIProxyError):
    """The key set could not be fetched."""


def check_key_url(name: str, url: str) -> None:
    """Raise ConfigurationError unless keys may be fetched from `url`: over TLS, or this machine."""
    parts = urlsplit(url)
    if parts.scheme == "https" and parts.hostname:
        return
    if parts.scheme == "http" and _is_loopback(parts.hostname or ""):
        return
    raise ConfigurationError(
        f"jwt_tokens: {name} must be an https URL, got {url!r}: over plain http, anybody on the "
        "way could replace the keys."
    )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
