"""`GitHubProvider`: sign in at GitHub, whose API says to whom an access token belongs.

https://docs.github.com/en/apps/oauth-apps/building-oauth-apps/authorizing-oauth-apps
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any

from asgi_aiproxy.services.identity_providers import (
    OAuthProvider,
    PendingAuthorization,
    check_url,
    text_of,
)
from asgi_aiproxy.services.sign_up import ExternalIdentity


class GitHubProvider(OAuthProvider):
    """GitHub, or GitHub Enterprise Server.

    GitHub has no parameter that requires a new sign-in: where the console confirms that it is still
    the same person, GitHub lets it choose an account and may ask for no password.

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
        check_url("url", url)
        check_url("api_url", api_url)
        self._api_url = api_url.rstrip("/")

    async def authorization_url(self, pending: PendingAuthorization) -> str:
        """Return the URL to send the browser to."""
        async with self.client(pending.redirect_uri, "read:user user:email") as client:
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
        async with self.client(pending.redirect_uri, "", method) as client:
            url = f"{self.issuer}/login/oauth/access_token"
            client.token = await self.token(client, url, pending, answer)
            user = await self.json(client, f"{self._api_url}/user", authorized=True)
            emails = await self.json(client, f"{self._api_url}/user/emails", authorized=True)
        id = user.get("id") if isinstance(user, dict) else None
        if not isinstance(id, int) or not isinstance(emails, list):
            raise self.refused("the answer of the API is invalid")
        primary: dict[str, Any] = next(
            (each for each in emails if isinstance(each, dict) and each.get("primary") is True), {}
        )
        return ExternalIdentity(
            issuer=self.issuer,
            subject=str(id),
            email=text_of(primary, "email"),
            email_verified=primary.get("verified") is True,
            username=text_of(user, "login"),
            name=text_of(user, "name"),
        )
