"""Sign in at an identity provider, by authorization codes with PKCE (RFC 6749, RFC 7636).

Theory of operation. The browser is sent to the provider with a `state`, a `nonce` and the SHA-256
of a `verifier`, all random and remembered here (`PendingAuthorization`). It comes back with a code,
which is exchanged for tokens together with the verifier (PKCE, RFC 7636), over TLS and with the
client's own secret. `oidc.py` and `github.py` say how the tokens become an identity.

Access tokens are used once, here, and are not kept. A provider is not trusted to end: answers have
a maximum size, and each exchange with it a maximum time.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import ssl
from collections.abc import Mapping
from typing import Any, Protocol
from urllib.parse import urlsplit

from asgi_aiproxy._concealed import ConcealedStruct
from asgi_aiproxy.errors import APIError, ConfigurationError, ErrorKind
from asgi_aiproxy.services.sign_up import ExternalIdentity
from asgi_aiproxy.upstream.connect import tls

logger = logging.getLogger("asgi_aiproxy")

_TIMEOUT_SECONDS = 10.0  # of a request with its whole answer
_MAX_ANSWER = 1024 * 1024  # bytes


class PendingAuthorization(ConcealedStruct, frozen=True, kw_only=True):
    """What is remembered while a browser is at a provider.

    - `redirect_uri`: where the browser comes back to.
    - `fresh`: whether the provider must let the user sign in again, although it has a session.
    """

    state: str
    nonce: str
    verifier: str
    redirect_uri: str
    fresh: bool = False


class IdentityProvider(Protocol):
    """A service at which users have accounts.

    `name` is its name in URLs, `label` for people, `issuer` its own URL. Only verified addresses
    at `email_domains` sign in; empty: all. `link_by_email`: whether a verified address of the
    provider signs in the user that has verified the same address here.
    """

    name: str
    label: str
    issuer: str
    email_domains: tuple[str, ...]
    link_by_email: bool

    async def authorization_url(self, pending: PendingAuthorization) -> str:
        """Return the URL to send the browser to. Raises APIError."""
        ...

    async def identity(
        self, pending: PendingAuthorization, answer: Mapping[str, str]
    ) -> ExternalIdentity:
        """Return the identity for the query with which the browser came back. Raises APIError."""
        ...


class OAuthProvider:
    """What both kinds have in common: arguments, and requests that fail in the same way."""

    def __init__(
        self,
        name: str,
        *,
        client_id: str,
        client_secret: str,
        label: str,
        issuer: str,
        email_domains: tuple[str, ...],
        link_by_email: bool,
        proxy: str | None,
        ssl_context: ssl.SSLContext | None,
    ) -> None:
        if not name.isascii() or not name.replace("-", "").replace("_", "").isalnum():
            raise ConfigurationError(
                f"Identity provider {name!r}: the name must consist of letters, digits, - and _."
            )
        if not client_id or not client_secret:
            raise ConfigurationError(
                f"Identity provider {name!r}: client_id and client_secret are required."
            )
        try:
            import httpx2
            from authlib.integrations import httpx_client  # type: ignore[import-untyped]

            from asgi_aiproxy.services.bounded_responses import BoundedTransport
        except ImportError as error:
            raise ConfigurationError(
                "Identity providers require: pip install 'asgi-aiproxy[accounts]'"
            ) from error
        self._library: Any = httpx_client
        self._transport = BoundedTransport
        self._failures = (httpx2.HTTPError, httpx2.InvalidURL, ValueError, TimeoutError)
        self.name = name
        self.label = label or name
        self.issuer = issuer
        self.email_domains = email_domains
        self.link_by_email = link_by_email
        self.client_id = client_id
        self._client_secret = client_secret
        self._proxy = proxy
        self._tls = ssl_context

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"

    def client(self, redirect_uri: str = "", scope: str = "", method: str | None = None) -> Any:
        """Return a client for one sign-in: nothing of it is shared with another."""
        if self._tls is None:
            self._tls = tls(None)
        return self._library.AsyncOAuth2Client(
            self.client_id,
            self._client_secret,
            token_endpoint_auth_method=method,
            scope=scope,
            redirect_uri=redirect_uri,
            code_challenge_method="S256",
            timeout=_TIMEOUT_SECONDS,
            follow_redirects=False,
            transport=self._transport(_MAX_ANSWER, verify=self._tls, proxy=self._proxy),
            headers={"accept": "application/json", "accept-encoding": "identity"},
        )

    async def token(
        self, client: Any, url: str, pending: PendingAuthorization, answer: Mapping[str, str]
    ) -> dict[str, Any]:
        """Exchange the code for tokens. Raises APIError."""
        code = answer.get("code", "")
        if not code:
            raise self.refused("the answer has no code")
        try:
            async with asyncio.timeout(_TIMEOUT_SECONDS):
                token = await client.fetch_token(
                    url,
                    grant_type="authorization_code",
                    code=code,
                    code_verifier=pending.verifier,
                    redirect_uri=pending.redirect_uri,
                )
        except self._library.OAuthError as error:
            raise self.refused(f"the code was refused: {error.error!r}") from error
        except self._failures as error:
            raise self._unavailable(error) from error
        if not isinstance(token.get("access_token"), str):
            raise self.refused("the answer has no access token")
        return dict(token)

    async def json(self, client: Any, url: str, *, authorized: bool = False) -> Any:
        """Fetch a JSON document. Raises APIError."""
        try:
            async with asyncio.timeout(_TIMEOUT_SECONDS):
                response = await client.request("GET", url, withhold_token=not authorized)
            response.raise_for_status()
            return response.json()
        except self._failures as error:
            raise self._unavailable(error) from error

    def _unavailable(self, error: Exception) -> APIError:
        logger.warning("identity provider %s: %s", self.name, type(error).__name__)
        message = f"{self.label} cannot be reached. Try again later."
        return APIError(ErrorKind.OVERLOADED, message, code="identity_provider_unavailable")

    def refused(self, why: str) -> APIError:
        """Log why an answer of the provider is not accepted; returns the error to raise."""
        logger.warning("identity provider %s: %s", self.name, why)
        message = f"{self.label} did not confirm who you are. Sign in again."
        return APIError(ErrorKind.UNAUTHORIZED, message, code="identity_provider")


def check_url(name: str, url: Any) -> None:
    """Raise ConfigurationError unless a URL has TLS, or is on this machine."""
    parts = urlsplit(url) if isinstance(url, str) else urlsplit("")
    if parts.scheme == "http" and _is_loopback(parts.hostname or ""):
        return
    if parts.scheme != "https" or not parts.hostname or parts.username is not None:
        raise ConfigurationError(f"{name} must be a URL that begins with https://.")


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def text_of(claims: Mapping[str, Any], name: str) -> str:
    """Return a member that should be a string; empty if it is not one."""
    value = claims.get(name)
    return value if isinstance(value, str) else ""
