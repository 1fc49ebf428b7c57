"""Sign in at an identity provider: any that speaks OpenID Connect, and GitHub.

Theory of operation. The browser is sent to the provider with a `state`, a `nonce` and the SHA-256
of a `verifier`, all random and remembered here (`PendingAuthorization`). It comes back with a code,
which is exchanged for tokens together with the verifier (PKCE, RFC 7636), over TLS and with the
client's own secret.

- An OpenID Connect provider answers with an ID token. It is accepted if it is signed with a key of
  the provider (asymmetric algorithms only), was issued by `issuer` for this client, has not
  expired, and contains the nonce (OpenID Connect Core 1.0, 3.1.3.7). The addresses of the provider
  are those of its discovery document; nothing is fetched from an address that a token names.
- GitHub has no ID token: its API says to whom the access token belongs
  (https://docs.github.com/en/apps/oauth-apps/building-oauth-apps/authorizing-oauth-apps).

Access tokens are used once, here, and are not kept.
"""

from __future__ import annotations

import ipaddress
import logging
import ssl
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol
from urllib.parse import urlsplit

import msgspec

from asgi_aiproxy.errors import APIError, ConfigurationError, ErrorKind
from asgi_aiproxy.services.sign_up import ExternalIdentity
from asgi_aiproxy.upstream.connect import tls

logger = logging.getLogger("asgi_aiproxy")

# Asymmetric ones only: an ID token must not be made with what the client knows.
_KEY_TYPES = ("RSA", "EC", "OKP")
_ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"]
_ALGORITHMS += ["ES256", "ES384", "ES512", "EdDSA", "Ed25519"]
_TIMEOUT_SECONDS = 10.0
_LEEWAY_SECONDS = 60
_MAX_AGE_SECONDS = 300  # of a sign-in at the provider, where a new one is requested
_DISCOVERY_SECONDS = 3600.0
_MAX_SUBJECT = 255  # characters, OpenID Connect Core 1.0, section 2


class PendingAuthorization(msgspec.Struct, frozen=True, kw_only=True):
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


class _OAuthProvider:
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
        except ImportError as error:
            raise ConfigurationError(
                "Identity providers require: pip install 'asgi-aiproxy[accounts]'"
            ) from error
        self._library: Any = httpx_client
        self._failures = (httpx2.HTTPError, httpx2.InvalidURL, ValueError)
        self.name = name
        self.label = label or name
        self.issuer = issuer
        self.email_domains = email_domains
        self.link_by_email = link_by_email
        self._client_id = client_id
        self._client_secret = client_secret
        self._proxy = proxy
        self._tls = ssl_context

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"

    def _client(self, redirect_uri: str = "", scope: str = "", method: str | None = None) -> Any:
        """Return a client for one sign-in: nothing of it is shared with another."""
        if self._tls is None:
            self._tls = tls(None)
        return self._library.AsyncOAuth2Client(
            self._client_id,
            self._client_secret,
            token_endpoint_auth_method=method,
            scope=scope,
            redirect_uri=redirect_uri,
            code_challenge_method="S256",
            timeout=_TIMEOUT_SECONDS,
            follow_redirects=False,
            trust_env=False,
            verify=self._tls,
            proxy=self._proxy,
            headers={"accept": "application/json"},
        )

    async def _token(
        self, client: Any, url: str, pending: PendingAuthorization, answer: Mapping[str, str]
    ) -> dict[str, Any]:
        """Exchange the code for tokens. Raises APIError."""
        code = answer.get("code", "")
        if not code:
            raise self._refused("the answer has no code")
        try:
            token = await client.fetch_token(
                url,
                grant_type="authorization_code",
                code=code,
                code_verifier=pending.verifier,
                redirect_uri=pending.redirect_uri,
            )
        except self._library.OAuthError as error:
            raise self._refused(f"the code was refused: {error.error!r}") from error
        except self._failures as error:
            raise self._unavailable(error) from error
        if not isinstance(token.get("access_token"), str):
            raise self._refused("the answer has no access token")
        return dict(token)

    async def _json(self, client: Any, url: str, *, authorized: bool = False) -> Any:
        """Fetch a JSON document. Raises APIError."""
        try:
            response = await client.request("GET", url, withhold_token=not authorized)
            response.raise_for_status()
            return response.json()
        except self._failures as error:
            raise self._unavailable(error) from error

    def _unavailable(self, error: Exception) -> APIError:
        logger.warning("identity provider %s: %s", self.name, type(error).__name__)
        message = f"{self.label} cannot be reached. Try again later."
        return APIError(ErrorKind.OVERLOADED, message, code="identity_provider")

    def _refused(self, why: str) -> APIError:
        logger.warning("identity provider %s: %s", self.name, why)
        message = f"{self.label} did not confirm who you are. Sign in again."
        return APIError(ErrorKind.UNAUTHORIZED, message, code="identity_provider")


class OIDCProvider(_OAuthProvider):
    """A provider that speaks OpenID Connect.

    Arguments:

    - `name`: in URLs; `label`: for people, by default the name.
    - `issuer`: the URL below which its discovery document is.
    - `client_id`, `client_secret`: as registered there, with the callback
      `<console>/sign-in/with/<name>/callback`.
    - `scopes`: what is requested; the address of a user needs `email`.
    - `email_domains`: only verified addresses at these sign in; empty: all.
    - `link_by_email`: whether a verified address signs in the user that has verified it here.
    - `proxy`: the URL of a proxy for requests to the provider.
    - `ssl_context`: for its own certificate authority; by default those of the system and Mozilla.
    - `clock`: returns Unix time in seconds.

    Requires `pip install 'asgi-aiproxy[accounts]'`. Raises ConfigurationError if an argument is
    invalid.
    """

    def __init__(
        self,
        name: str,
        *,
        issuer: str,
        client_id: str,
        client_secret: str,
        label: str = "",
        scopes: tuple[str, ...] = ("openid", "email", "profile"),
        email_domains: tuple[str, ...] = (),
        link_by_email: bool = True,
        proxy: str | None = None,
        ssl_context: ssl.SSLContext | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(
            name,
            client_id=client_id,
            client_secret=client_secret,
            label=label,
            issuer=issuer,
            email_domains=email_domains,
            link_by_email=link_by_email,
            proxy=proxy,
            ssl_context=ssl_context,
        )
        _check_url("issuer", issuer)
        if "openid" not in scopes:
            raise ConfigurationError(f"Identity provider {name!r}: scopes must contain 'openid'.")
        self._scope = " ".join(scopes)
        self._clock = clock
        self._document: dict[str, Any] = {}
        self._fetched = 0.0

    async def authorization_url(self, pending: PendingAuthorization) -> str:
        """Return the URL to send the browser to. Raises APIError."""
        async with self._client(pending.redirect_uri, self._scope) as client:
            document = await self._discover(client)
            again = {"prompt": "login", "max_age": "0"} if pending.fresh else {}
            url, _ = client.create_authorization_url(
                document["authorization_endpoint"],
                state=pending.state,
                nonce=pending.nonce,
                code_verifier=pending.verifier,
                **again,
            )
        return str(url)

    async def identity(
        self, pending: PendingAuthorization, answer: Mapping[str, str]
    ) -> ExternalIdentity:
        """Return the identity for the query with which the browser came back. Raises APIError."""
        if answer.get("iss", self.issuer) != self.issuer:  # RFC 9207
            raise self._refused("the answer is of another issuer")
        async with self._client(pending.redirect_uri, self._scope) as client:
            document = await self._discover(client)
            client.token_endpoint_auth_method = _client_authentication(document)
            token = await self._token(client, document["token_endpoint"], pending, answer)
            keys = await self._json(client, document["jwks_uri"])
            claims = self._verified(token, keys, pending)
            if "email" not in claims and document.get("userinfo_endpoint"):
                client.token = token
                found = await self._json(client, document["userinfo_endpoint"], authorized=True)
                if not isinstance(found, dict) or found.get("sub") != claims["sub"]:
                    raise self._refused("the user information is of another user")
                claims = {**found, **claims}
        return ExternalIdentity(
            issuer=self.issuer,
            subject=claims["sub"],
            email=_text(claims, "email"),
            email_verified=str(claims.get("email_verified")).lower() == "true",
            username=_text(claims, "preferred_username"),
            name=_text(claims, "name"),
        )

    async def _discover(self, client: Any) -> dict[str, Any]:
        """Return the discovery document, at most an hour old. Raises APIError."""
        now = self._clock()
        if self._document and 0 <= now - self._fetched < _DISCOVERY_SECONDS:
            return self._document
        url = self.issuer.rstrip("/") + "/.well-known/openid-configuration"
        found = await self._json(client, url)
        needed = ("authorization_endpoint", "token_endpoint", "jwks_uri")
        if not isinstance(found, dict) or found.get("issuer") != self.issuer:
            raise self._refused("the discovery document is of another issuer")
        try:
            for name in needed:
                _check_url(name, found.get(name))
        except ConfigurationError as error:
            raise self._refused(f"discovery document: {error}") from error
        self._document, self._fetched = found, now
        return found

    def _verified(
        self, token: Mapping[str, Any], keys: Any, pending: PendingAuthorization
    ) -> dict[str, Any]:
        """Return the claims of the ID token, verified. Raises APIError."""
        from authlib.oidc.core import CodeIDToken  # type: ignore[import-untyped]
        from joserfc import jwt
        from joserfc.errors import JoseError
        from joserfc.jwk import KeySet

        now = int(self._clock())
        try:
            known = [key for key in keys["keys"] if key.get("kty") in _KEY_TYPES]
            read = jwt.decode(
                str(token.get("id_token")),
                KeySet.import_key_set({"keys": known}),
                algorithms=_ALGORITHMS,
            )
            claims = CodeIDToken(
                read.claims,
                read.header,
                options={
                    "iss": {"essential": True, "value": self.issuer},
                    "aud": {"essential": True, "value": self._client_id},
                },
                params={
                    "nonce": pending.nonce,
                    "client_id": self._client_id,
                    "access_token": token["access_token"],
                },
            )
            claims.validate(now, _LEEWAY_SECONDS)
        except (JoseError, ValueError, TypeError, KeyError, AttributeError) as error:
            reason = getattr(error, "error", type(error).__name__)
            raise self._refused(f"the ID token is invalid ({reason})") from error
        subject = claims.get("sub")
        if not isinstance(subject, str) or not 0 < len(subject) <= _MAX_SUBJECT:
            raise self._refused("the ID token has no valid subject")
        if pending.fresh and not now - _MAX_AGE_SECONDS <= claims.get("auth_time", 0):
            raise self._refused("the user did not sign in again")
        return dict(claims)


class GitHubProvider(_OAuthProvider):
    """GitHub, or GitHub Enterprise Server.

    `url` is where browsers reach it, `api_url` its API; the other arguments are those of
    `OIDCProvider`. Raises ConfigurationError if an argument is invalid.
    """

    def __init__(
        self,
        *,
        client_id: str,
        client_secret: str,
        name: str = "github",
        label: str = "GitHub",
        email_domains: tuple[str, ...] = (),
        link_by_email: bool = True,
        proxy: str | None = None,
        ssl_context: ssl.SSLContext | None = None,
        url: str = "https://github.com",
        api_url: str = "https://api.github.com",
    ) -> None:
        super().__init__(
            name,
            client_id=client_id,
            client_secret=client_secret,
            label=label,
            issuer=url.rstrip("/"),
            email_domains=email_domains,
            link_by_email=link_by_email,
            proxy=proxy,
            ssl_context=ssl_context,
        )
        _check_url("url", url)
        _check_url("api_url", api_url)
        self._api_url = api_url.rstrip("/")

    async def authorization_url(self, pending: PendingAuthorization) -> str:
        """Return the URL to send the browser to."""
        async with self._client(pending.redirect_uri, "read:user user:email") as client:
            again = {"prompt": "select_account"} if pending.fresh else {}
            url, _ = client.create_authorization_url(
                f"{self.issuer}/login/oauth/authorize",
                state=pending.state,
                code_verifier=pending.verifier,
                **again,
            )
        return str(url)

    async def identity(
        self, pending: PendingAuthorization, answer: Mapping[str, str]
    ) -> ExternalIdentity:
        """Return the identity for the query with which the browser came back. Raises APIError."""
        method = "client_secret_post"
        async with self._client(pending.redirect_uri, "", method) as client:
            url = f"{self.issuer}/login/oauth/access_token"
            client.token = await self._token(client, url, pending, answer)
            user = await self._json(client, f"{self._api_url}/user", authorized=True)
            emails = await self._json(client, f"{self._api_url}/user/emails", authorized=True)
        id = user.get("id") if isinstance(user, dict) else None
        if not isinstance(id, int) or not isinstance(emails, list):
            raise self._refused("the answer of the API is invalid")
        primary: dict[str, Any] = next(
            (each for each in emails if isinstance(each, dict) and each.get("primary") is True), {}
        )
        return ExternalIdentity(
            issuer=self.issuer,
            subject=str(id),
            email=_text(primary, "email"),
            email_verified=primary.get("verified") is True,
            username=_text(user, "login"),
            name=_text(user, "name"),
        )


def _check_url(name: str, url: Any) -> None:
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


def _client_authentication(document: Mapping[str, Any]) -> str:
    """Return how the client authenticates: with the header unless the provider has only the other
    way.
    """
    known = document.get("token_endpoint_auth_methods_supported") or ["client_secret_basic"]
    basic = "client_secret_basic"
    return basic if basic in known or "client_secret_post" not in known else "client_secret_post"


def _text(claims: Mapping[str, Any], name: str) -> str:
    value = claims.get(name)
    return value if isinstance(value, str) else ""
