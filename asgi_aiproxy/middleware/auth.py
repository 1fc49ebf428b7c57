"""`Authenticate`: no caller passes that `verify` or `identify` does not know."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from asgi_aiproxy._asgi import ASGIApp, Receive, Scope, Send
from asgi_aiproxy._control_headers import KEY, KEY_HEADERS
from asgi_aiproxy.credentials import find_credential
from asgi_aiproxy.errors import APIError, ConfigurationError, ErrorKind, internal_error
from asgi_aiproxy.exchange.session_requests import with_step
from asgi_aiproxy.ip_ranges import in_networks
from asgi_aiproxy.middleware.base import Middleware
from asgi_aiproxy.middleware.error_format import send_error_for
from asgi_aiproxy.principal import SCOPE_KEY, Principal

Identification = Principal | None
Verify = Callable[[str], Awaitable[Identification]]
Identify = Callable[[Scope], Identification | Awaitable[Identification]]


class Authenticate(Middleware):
    """Lets callers through to `app` who show a token, or whom the host has identified.

    `verify` takes the caller's token and returns who that is, or None. `identify` takes the scope
    and returns who the host's own session or JWT middleware says it is, or None; it is asked first.
    Whoever it is stands in the scope for the apps behind. Who calls from outside its networks is
    refused (the address is the scope's: behind a proxy, have the server read its headers). `verify`
    may raise APIError to say why a token is not good.
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
            await self._pass_other_scope(scope, receive, send)
            return
        try:
            principal = await self._who(scope)
        except APIError as error:
            await send_error_for(scope, receive, send, error)
            return
        except Exception:  # of the functions given: the host sees it, the caller a plain 500
            await send_error_for(scope, receive, send, internal_error())
            raise
        identified = _identified(scope, principal)
        if scope["type"] == "websocket":
            identified = with_step(identified, "principal", self._identify_again)
        await self.app(identified, receive, send)

    async def _identify_again(self, scope: Scope) -> Scope:
        """The scope of one more request of a WebSocket. Raises APIError."""
        return _identified(scope, await self._who(scope))

    async def _who(self, scope: Scope) -> Principal:
        """The caller. Raises APIError if it may not."""
        principal = token = None
        if self._identify is not None:
            known = self._identify(scope)
            principal = _somebody(await known if inspect.isawaitable(known) else known)
        if principal is None and self._verify is not None:
            token = find_credential(scope)
            if token:
                said = self._verify(token)
                # A plain function is taken, too.
                principal = _somebody(await said if hasattr(said, "__await__") else said)
        if principal is None:
            raise APIError(ErrorKind.UNAUTHORIZED, self._unknown(token))
        if principal.networks and not in_networks(principal.networks, _address(scope)):
            raise APIError(
                ErrorKind.FORBIDDEN,
                "You may not call from this address.",
                code="address_not_allowed",
            )
        return principal

    def _unknown(self, token: str | None) -> str:
        if self._verify is None:
            return "Authentication required: no signed-in user was found. Sign in first."
        if token is None:
            return "No API key was given. Send it as 'Authorization: Bearer <key>'."
        return "The API key is not valid. Check it, or ask for a new one."


def _pinned(headers: Iterable[tuple[bytes, bytes]], key_id: str) -> list[tuple[bytes, bytes]]:
    """Headers that ask for this key, or for none."""
    kept = [pair for pair in headers if pair[0] not in KEY_HEADERS]
    return [*kept, (KEY.encode(), key_id.encode("latin-1", "replace"))] if key_id else kept


def _identified(scope: Scope, principal: Principal) -> dict[str, Any]:
    """A scope with its caller, and the key that the caller must use."""
    found = {**scope, SCOPE_KEY: principal}
    if principal.key_id or not principal.may_choose_key:
        found["headers"] = _pinned(scope["headers"], principal.key_id)
    return found


def _address(scope: Scope) -> str | None:
    client = scope.get("client")
    return client[0] if client else None


def _somebody(answer: object) -> Identification:
    """What `verify` or `identify` returned, which must be a principal or None."""
    if answer is None or isinstance(answer, Principal):
        return answer
    name = type(answer).__name__
    hint = " Principal(user_id) makes one of a name." if isinstance(answer, str) else ""
    raise ConfigurationError(
        f"verify and identify must return a Principal, or None for an unknown caller: this "
        f"function returned {name}.{hint}"
    )


def static_tokens(tokens: Mapping[str, Principal | str]) -> Verify:
    """A `verify` over tokens known beforehand: token to principal, or to its name."""
    if not isinstance(tokens, Mapping) or not all(tokens):
        raise ConfigurationError(
            "static_tokens() takes a mapping of tokens to names or principals; no token is empty."
        )
    # Looked up by digest, so that the time taken reveals nothing about any token.
    known = {
        _digest(token): who if isinstance(who, Principal) else Principal(who, who)
        for token, who in tokens.items()
    }

    async def verify(token: str) -> Principal | None:
        return known.get(_digest(token))

    return verify


def first_of(*verifiers: Verify) -> Verify:
    """A `verify` that tries several verifiers in order, and takes the first caller that is found.

    If none is found, the first APIError that one of them raised is raised. Raises
    ConfigurationError if one is not a function.
    """
    for each in verifiers:
        if not callable(each):
            raise ConfigurationError(
                f"first_of() takes functions such as stored_tokens(...), not {type(each).__name__}."
            )

    async def verify(token: str) -> Principal | None:
        failure: APIError | None = None
        for each in verifiers:
            try:
                principal = await each(token)
            except APIError as error:
                failure = failure or error
                continue
            if principal is not None:
                return principal
        if failure is not None:
            raise failure
        return None

    return verify


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
