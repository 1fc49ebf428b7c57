"""An identity provider: OpenID Connect with authorization codes and PKCE, and GitHub's API.

It follows OpenID Connect Core 1.0, RFC 6749 and RFC 7636, and is strict: what a client does wrong
is refused. `person` is who has signed in there. A test changes `claims` to have it sign what a
faulty or hostile provider would.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import secrets
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from urllib.parse import urlencode

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from asgi_aiproxy.testing.server import serve_in_thread

CLIENT, SECRET = "the-gateway", "a secret: with / and %"
KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)


@dataclass
class Grant:
    """A code, and what it was given for."""

    redirect_uri: str
    challenge: str
    nonce: str
    fresh: bool
    used: bool = False


@dataclass
class Provider:
    """The provider. `url` is its issuer, `claims` change those of its ID tokens (None: left out),
    `key` signs, `emails` are those of GitHub's API. The answer at the path `endless` does not end;
    `coding` is how it says that it is compressed.
    """

    url: str = ""
    person: dict[str, Any] = field(default_factory=dict)
    claims: dict[str, Any] = field(default_factory=dict)
    userinfo: dict[str, Any] = field(default_factory=dict)
    answer: dict[str, str] = field(default_factory=dict)
    key: Any = KEY
    algorithm: str = "RS256"
    grants: dict[str, Grant] = field(default_factory=dict)
    tokens: set[str] = field(default_factory=set)
    requests: list[dict[str, str]] = field(default_factory=list)
    emails: list[dict[str, Any]] = field(default_factory=list)
    endless: str = ""
    coding: str = ""
    sent: int = 0  # bytes of answers without an end

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope.get("path") != self.endless or not self.endless:
            await self.app(scope, receive, send)
            return
        headers = {"content-encoding": self.coding} if self.coding else {}
        endless = StreamingResponse(self.pieces(), headers=headers, media_type="application/json")
        await endless(scope, receive, send)

    async def pieces(self) -> AsyncIterator[bytes]:
        while True:
            self.sent += 65_536
            yield b" " * 65_536
            await asyncio.sleep(0)  # a server that is not waiting notices that the client has left

    @cached_property
    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/.well-known/openid-configuration", self.discovery),
                Route("/authorize", self.authorize),
                Route("/token", self.token, methods=["POST"]),
                Route("/jwks", self.jwks),
                Route("/userinfo", self.about_user),
                Route("/login/oauth/authorize", self.authorize),
                Route("/login/oauth/access_token", self.github_token, methods=["POST"]),
                Route("/api/user", self.github_user),
                Route("/api/user/emails", self.github_emails),
            ]
        )

    async def discovery(self, request: Request) -> Response:
        return JSONResponse(
            {
                "issuer": self.url,
                "authorization_endpoint": f"{self.url}/authorize",
                "token_endpoint": f"{self.url}/token",
                "jwks_uri": f"{self.url}/jwks",
                "userinfo_endpoint": f"{self.url}/userinfo",
                "code_challenge_methods_supported": ["S256"],
            }
        )

    async def authorize(self, request: Request) -> Response:
        query = dict(request.query_params)
        self.requests.append(query)
        good = query.get("client_id") == CLIENT and query.get("response_type") == "code"
        if not good or query.get("code_challenge_method") != "S256" or not query.get("state"):
            return Response("bad request", 400)
        code = secrets.token_urlsafe()
        fresh = query.get("prompt") == "login" and query.get("max_age") == "0"
        self.grants[code] = Grant(
            query["redirect_uri"], query["code_challenge"], query.get("nonce", ""), fresh
        )
        found = {"code": code, "state": query["state"], **self.answer}
        return RedirectResponse(f"{query['redirect_uri']}?{urlencode(found)}", 303)

    async def exchange(self, request: Request, client: tuple[str, str]) -> Grant | None:
        """The grant of a request for tokens; None if it must be refused."""
        form = await request.form()
        grant = self.grants.get(str(form.get("code")))
        digest = hashlib.sha256(str(form.get("code_verifier")).encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        if (
            client != (CLIENT, SECRET)
            or grant is None
            or grant.used
            or grant.redirect_uri != form.get("redirect_uri")
            or not secrets.compare_digest(grant.challenge, challenge)
        ):
            return None
        grant.used = True
        return grant

    async def token(self, request: Request) -> Response:
        scheme, _, text = request.headers.get("authorization", "").partition(" ")
        user, _, password = base64.b64decode(text).decode().partition(":")
        grant = await self.exchange(request, (user, password) if scheme == "Basic" else ("", ""))
        if grant is None:
            return JSONResponse({"error": "invalid_grant"}, 400)
        now = int(time.time())
        claims = {
            "iss": self.url,
            "aud": CLIENT,
            "iat": now,
            "exp": now + 300,
            "nonce": grant.nonce,
            **({"auth_time": now} if grant.fresh else {}),
            **self.person,
            **self.claims,
        }
        claims = {name: value for name, value in claims.items() if value is not None}
        return JSONResponse(
            {
                "access_token": self.access_token(),
                "token_type": "Bearer",
                "expires_in": 300,
                "id_token": jwt.encode(claims, self.key, self.algorithm, headers={"kid": "one"}),
            }
        )

    def access_token(self) -> str:
        token = secrets.token_urlsafe()
        self.tokens.add(token)
        return token

    async def jwks(self, request: Request) -> Response:
        public = jwt.algorithms.RSAAlgorithm.to_jwk(KEY.public_key(), as_dict=True)
        other = {"kty": "AKP", "alg": "ML-DSA-44", "kid": "two", "pub": "AAAA"}
        return JSONResponse({"keys": [other, {**public, "kid": "one", "use": "sig"}]})

    def is_authorized(self, request: Request) -> bool:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        return scheme == "Bearer" and token in self.tokens

    async def about_user(self, request: Request) -> Response:
        if not self.is_authorized(request):
            return JSONResponse({}, 401)
        return JSONResponse({"sub": self.person.get("sub"), **self.userinfo})

    async def github_token(self, request: Request) -> Response:
        form = await request.form()
        client = str(form.get("client_id")), str(form.get("client_secret"))
        if await self.exchange(request, client) is None:
            return JSONResponse({"error": "bad_verification_code"})  # with status 200, as there
        return JSONResponse({"access_token": self.access_token(), "token_type": "bearer"})

    async def github_user(self, request: Request) -> Response:
        if not self.is_authorized(request):
            return JSONResponse({}, 401)
        return JSONResponse({"id": 583231, "login": "octo_cat", "name": "The Cat"})

    async def github_emails(self, request: Request) -> Response:
        return JSONResponse(self.emails if self.is_authorized(request) else [], 200)


@contextmanager
def identity_provider() -> Iterator[Provider]:
    """Serve a provider on this machine."""
    provider = Provider()
    with serve_in_thread(provider) as provider.url:
        yield provider
