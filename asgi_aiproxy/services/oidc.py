"""`OIDCProvider`: sign in at any provider that speaks OpenID Connect.

Theory of operation. The addresses of the provider are those of its discovery document (OpenID
Connect Discovery 1.0); nothing is fetched from an address that a token names. The code is exchanged
for an ID token, which is accepted if it is signed with a key of the provider (asymmetric algorithms
only), was issued by `issuer` for this client, has not expired, and contains the nonce (OpenID
Connect Core 1.0, 3.1.3.7). The keys are fetched at each sign-in, so that none is used that the
provider has withdrawn.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Mapping
from typing import Any

from asgi_aiproxy.errors import ConfigurationError
from asgi_aiproxy.services.identity_providers import (
    OAuthProvider,
    PendingAuthorization,
    check_url,
    text_of,
)
from asgi_aiproxy.services.sign_up import ExternalIdentity

# Asymmetric ones only: an ID token must not be made with what the client knows.
_KEY_TYPES = ("RSA", "EC", "OKP")
_ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"]
_ALGORITHMS += ["ES256", "ES384", "ES512", "EdDSA", "Ed25519"]
_LEEWAY_SECONDS = 60
_MAX_AGE_SECONDS = 300  # of a sign-in at the provider, where a new one is requested
_DISCOVERY_SECONDS = 3600.0
_MAX_SUBJECT = 255  # characters, OpenID Connect Core 1.0, section 2


class OIDCProvider(OAuthProvider):
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
        check_url("issuer", issuer)
        if "openid" not in scopes:
            raise ConfigurationError(f"Identity provider {name!r}: scopes must contain 'openid'.")
        self._scope = " ".join(scopes)
        self._clock = clock
        self._document: dict[str, Any] = {}
        self._fetched = 0.0

    async def authorization_url(self, pending: PendingAuthorization) -> str:
        """Return the URL to send the browser to. Raises APIError."""
        async with self.client(pending.redirect_uri, self._scope) as client:
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
            raise self.refused("the answer is of another issuer")
        async with self.client(pending.redirect_uri, self._scope) as client:
            document = await self._discover(client)
            client.token_endpoint_auth_method = _client_authentication(document)
            token = await self.token(client, document["token_endpoint"], pending, answer)
            keys = await self.json(client, document["jwks_uri"])
            claims = self._verified(token, keys, pending)
            if "email" not in claims and document.get("userinfo_endpoint"):
                client.token = token
                found = await self.json(client, document["userinfo_endpoint"], authorized=True)
                if not isinstance(found, dict) or found.get("sub") != claims["sub"]:
                    raise self.refused("the user information is of another user")
                claims = {**found, **claims}
        return ExternalIdentity(
            issuer=self.issuer,
            subject=claims["sub"],
            email=text_of(claims, "email"),
            email_verified=str(claims.get("email_verified")).lower() == "true",
            username=text_of(claims, "preferred_username"),
            name=text_of(claims, "name"),
        )

    async def _discover(self, client: Any) -> dict[str, Any]:
        """Return the discovery document, at most an hour old. Raises APIError."""
        now = self._clock()
        if self._document and 0 <= now - self._fetched < _DISCOVERY_SECONDS:
            return self._document
        url = self.issuer.rstrip("/") + "/.well-known/openid-configuration"
        found = await self.json(client, url)
        needed = ("authorization_endpoint", "token_endpoint", "jwks_uri")
        if not isinstance(found, dict) or found.get("issuer") != self.issuer:
            raise self.refused("the discovery document is of another issuer")
        try:
            for name in needed:
                check_url(name, found.get(name))
        except ConfigurationError as error:
            raise self.refused(f"discovery document: {error}") from error
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
                    "aud": {"essential": True, "value": self.client_id},
                },
                params={
                    "nonce": pending.nonce,
                    "client_id": self.client_id,
                    "access_token": token["access_token"],
                },
            )
            claims.validate(now, _LEEWAY_SECONDS)
        except (JoseError, ValueError, TypeError, KeyError, AttributeError) as error:
            reason = getattr(error, "error", type(error).__name__)
            raise self.refused(f"the ID token is invalid ({reason})") from error
        subject = claims.get("sub")
        if not isinstance(subject, str) or not 0 < len(subject) <= _MAX_SUBJECT:
            raise self.refused("the ID token has no valid subject")
        if pending.fresh and not now - _MAX_AGE_SECONDS <= (claims.get("auth_time") or 0):
            raise self.refused("the user did not sign in again")
        return dict(claims)


def _client_authentication(document: Mapping[str, Any]) -> str:
    """Return how the client authenticates: with the header unless the provider has only the other
    way.
    """
    known = document.get("token_endpoint_auth_methods_supported") or ["client_secret_basic"]
    basic = "client_secret_basic"
    return basic if basic in known or "client_secret_post" not in known else "client_secret_post"
