"""`Authenticate`: nobody passes whom `verify` or `identify` does not know."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress

from asgi_aiproxy import _asgi
from asgi_aiproxy._asgi import ASGIApp, Receive, Scope, Send
from asgi_aiproxy._watch import ClientGoneError
from asgi_aiproxy.credentials import credential
from asgi_aiproxy.dialects import OPENAI_CHAT
from asgi_aiproxy.errors import APIError, ConfigurationError, Kind
from asgi_aiproxy.identity import SCOPE_KEY, Principal
from asgi_aiproxy.middleware.base import Wrapper

Who = Principal | None
Verify = Callable[[str], Awaitable[Who]]
Identify = Callable[[Scope], Who | Awaitable[Who]]


class Authenticate(Wrapper):
    """Lets callers through to `app` who show a token, or whom the host has identified.

    `verify` takes the caller's token and returns who that is, or None. `identify` takes the scope
    and returns who the host's own session or JWT middleware says it is, or None; it is asked first.
    Whoever it is stands in the scope for the apps behind.
    """

    def __init__(
        self, app: ASGIApp, *, verify: Verify | None = None, identify: Identify | None = None
    ) -> None:
        if verify is None and identify is None:
            raise ConfigurationError("Authenticate needs verify=, identify=, or both.")
        for function in (verify, identify):
            if function is not None and not callable(function):
                raise ConfigurationError(
                    f"Authenticate: verify and identify are functions, not "
                    f"{type(function).__name__}; for tokens see static_tokens()."
                )
        super().__init__(app)
        self._verify = verify
        self._identify = identify

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one scope on, or answer 401."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        principal = token = None
        if self._identify is not None:
            principal = await _answered(self._identify(scope))
        if principal is None and self._verify is not None:
            token = credential(scope)
            principal = await _answered(self._verify(token)) if token else None
        if principal is not None:
            await self.app({**scope, SCOPE_KEY: principal}, receive, send)
        elif scope["type"] == "websocket":
            await _asgi.refuse_websocket(receive, send)
        else:
            await self._refuse(send, token)

    async def _refuse(self, send: Send, token: str | None) -> None:
        if self._verify is None:
            message = "You are not known here."
        elif token is None:
            message = "No API key was given. Send it as 'Authorization: Bearer <key>'."
        else:
            message = "The API key is not valid."
        error = APIError(Kind.UNAUTHORIZED, message)
        challenge = [(b"www-authenticate", b"Bearer")]
        with suppress(ClientGoneError):
            await _asgi.answer(send, 401, OPENAI_CHAT.encode_error(error), challenge)


async def _answered(answer: object) -> Who:
    """What `verify` or `identify` said: a principal or nobody, and never by a slip somebody."""
    if inspect.isawaitable(answer):
        answer = await answer
    if answer is None or isinstance(answer, Principal):
        return answer
    raise TypeError(
        f"verify and identify return a Principal or None, this one {type(answer).__name__}."
    )


def static_tokens(tokens: Mapping[str, Principal | str]) -> Verify:
    """A `verify` over tokens known beforehand: token to principal, or to its name."""
    if not isinstance(tokens, Mapping) or not all(tokens):
        raise ConfigurationError(
            "static_tokens() takes a mapping of tokens to names or principals; no token is empty."
        )
    # Looked up by digest, so that the time taken tells nothing of any token.
    known = {
        _digest(token): who if isinstance(who, Principal) else Principal(who, who)
        for token, who in tokens.items()
    }

    async def verify(token: str) -> Principal | None:
        return known.get(_digest(token))

    return verify


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
