"""`Authenticate`: identifies the caller of each request, and refuses unknown callers."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Awaitable, Callable, Mapping

from asgi_aiproxy._asgi import ASGIApp, Receive, Scope, Send
from asgi_aiproxy.credentials import find_credential, with_principal
from asgi_aiproxy.errors import APIError, ConfigurationError, ErrorKind, internal_error
from asgi_aiproxy.exchange.session_requests import with_step
from asgi_aiproxy.ip_ranges import in_networks
from asgi_aiproxy.middleware.base import Middleware
from asgi_aiproxy.middleware.error_format import send_error_for
from asgi_aiproxy.principal import IN_PROCESS_KEY, Principal

Identification = Principal | None
Verify = Callable[[str], Awaitable[Identification]]
Identify = Callable[[Scope], Identification | Awaitable[Identification]]


class Authenticate(Middleware):
    """Passes requests to `app` if their caller presents a valid token, or the host has identified
    it.

    Arguments:

    - `verify`: takes the caller's token and returns its `Principal`, or None for an unknown token.
      It may raise APIError to give the reason for a refusal.
    - `identify`: takes the ASGI scope and returns the `Principal` that the host's own session or
      JWT middleware has found, or None. It is called first.

    Calls within the process may name their caller (see `InProcess`), which is not verified. The
    principal is put into the scope for `app`. A caller whose address is not in its `networks`
    is refused (the address is the one in the scope: behind a proxy, configure the server to read
    the proxy's headers). Raises ConfigurationError if neither function is given, or one is not
    callable.
    """

    def __init__(
        self, app: ASGIApp, *, verify: Verify | None = None, identify: Identify | None = None
    ) -> None:
        if verify is None and identify is None:
            raise ConfigurationError("Authenticate requires verify=, identify=, or both.")
        for function in (verify, identify):
            if function is not None and not callable(function):
                raise ConfigurationError(
                    f"Authenticate: verify and identify must be functions, not "
                    f"{type(function).__name__}; for tokens see static_tokens()."
                )
        super().__init__(app)
        self._verify = verify
        self._identify = identify

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one ASGI scope to the app, or answer 401 or 403."""
        if scope["type"] not in ("http", "websocket"):
            await self._pass_other_scope(scope, receive, send)
            return
        try:
            principal = await self._authenticate(scope)
        except APIError as error:
            await send_error_for(scope, receive, send, error)
            return
        # Raised by the given functions: the host gets the exception, the caller a plain 500
        except Exception:
            await send_error_for(scope, receive, send, internal_error())
            raise
        scope_with_principal = with_principal(scope, principal)
        if scope["type"] == "websocket":
            scope_with_principal = with_step(
                scope_with_principal, "principal", self._identify_again
            )
        await self.app(scope_with_principal, receive, send)

    async def _identify_again(self, scope: Scope) -> Scope:
        """Return the scope of one more request of a WebSocket. Raises APIError."""
        return with_principal(scope, await self._authenticate(scope))

    async def _authenticate(self, scope: Scope) -> Principal:
        """Return the caller. Raises APIError if it is unknown or not allowed."""
        given: Principal | None = scope.get(IN_PROCESS_KEY)
        if given is not None:
            return given  # named by the host's own code, which calls without a socket
        principal = token = None
        if self._identify is not None:
            result = self._identify(scope)
            principal = _checked_principal(await result if inspect.isawaitable(result) else result)
        if principal is None and self._verify is not None:
            token = find_credential(scope)
            if token:
                verified = self._verify(token)
                # A plain function is accepted, too.
                principal = _checked_principal(
                    await verified if hasattr(verified, "__await__") else verified
                )
        if principal is None:
            raise APIError(ErrorKind.UNAUTHORIZED, self._unknown_caller_message(token))
        if principal.networks and not in_networks(principal.networks, _address(scope)):
            raise APIError(
                ErrorKind.FORBIDDEN,
                "Requests from this IP address are not allowed for this API key.",
                code="address_not_allowed",
            )
        return principal

    def _unknown_caller_message(self, token: str | None) -> str:
        if self._verify is None:
            return "Authentication required: no signed-in user was found. Sign in first."
        if token is None:
            return "No API key was sent. Send it as 'Authorization: Bearer <key>'."
        return "The API key is invalid. Check it, or request a new one."


def _address(scope: Scope) -> str | None:
    client = scope.get("client")
    return client[0] if client else None


def _checked_principal(answer: object) -> Identification:
    """Return what `verify` or `identify` returned; raise ConfigurationError unless it is a
    Principal or None.
    """
    if answer is None or isinstance(answer, Principal):
        return answer
    name = type(answer).__name__
    hint = " To convert a name, use Principal(user_id)." if isinstance(answer, str) else ""
    raise ConfigurationError(
        f"verify and identify must return a Principal, or None for an unknown caller: this "
        f"function returned {name}.{hint}"
    )


def static_tokens(tokens: Mapping[str, Principal | str]) -> Verify:
    """Return a `verify` function for a fixed set of tokens: each maps to a principal, or to a name.

    Raises ConfigurationError if `tokens` is not a mapping or a token is empty.
    """
    if not isinstance(tokens, Mapping) or not all(tokens):
        raise ConfigurationError(
            "static_tokens() takes a mapping of tokens to names or principals; a token must not "
            "be empty."
        )
    # Looked up by digest, so that the response time reveals nothing about any token.
    known = {
        _digest(token): principal
        if isinstance(principal, Principal)
        else Principal(principal, principal)
        for token, principal in tokens.items()
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
