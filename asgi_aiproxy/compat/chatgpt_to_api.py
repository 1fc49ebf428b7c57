"""`ChatGPTToAPIRoutes`: the paths of acheong08's ChatGPT-to-API, answered by an official API."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from asgi_aiproxy import _json
from asgi_aiproxy._asgi import ASGIApp
from asgi_aiproxy.compat import policy
from asgi_aiproxy.compat.callers import (
    Caller,
    bearer_value,
    check_sendable,
    identify,
    prepared_headers,
)
from asgi_aiproxy.compat.outbound_proxies import RotatingProxies
from asgi_aiproxy.compat.routing import CompatApp, CompatCall, Route, aliases
from asgi_aiproxy.errors import APIError, ConfigurationError, ErrorKind
from asgi_aiproxy.keys import Key, KeyPool
from asgi_aiproxy.middleware.auth import Verify
from asgi_aiproxy.providers import OPENAI, Provider, Router
from asgi_aiproxy.services.attempts import give_back, take_password_attempt
from asgi_aiproxy.shim import OpenAIShim
from asgi_aiproxy.stores import MemoryStore, Store
from asgi_aiproxy.stores.base import StoreUnavailableError
from asgi_aiproxy.upstream import Transport
from asgi_aiproxy.usage.recorder import UsageSink, discard

_ACCESS_TOKEN = "eyJ"  # noqa: S105 (the beginning of a JSON web token)
_PLUGINS = policy.retired("ChatGPT's plugins", "Use tools: send 'tools' instead of 'plugin_ids'.")
_PASSWORD = policy.unsupported(
    "Signing in to another site with a password", "Send 'official_api_key' alone."
)
_ATTEMPTS_BY = "ChatGPT-to-API"  # what attempts with the password are counted by
_PONG = {"message": "pong"}
_PUID = policy.not_enabled("Sending a cookie of ChatGPT's web site", "an API key of OpenAI instead")


class ChatGPTToAPIRoutes(CompatApp):
    """An ASGI app with the paths of ChatGPT-to-API.

    Arguments:

    - `provider`: answers all requests; `PATCH /admin/tokens` replaces its keys.
    - `admin_password`: what administrators send in `Authorization`, without `Bearer`. Required.
    - `api_keys`: keys that callers must send, the lines of `api_keys.txt`.
    - `verify`: finds further callers by tokens of this gateway. Without it and `api_keys`
      anyone may use the keys of the provider.
    - `proxies`: URLs of outbound proxies that are used in turn (see `parse_proxies`).
    - `models`: the provider's model for names that clients send.
    - `around`: wraps the app that calls the provider, for example in `Quota`.
    - `store`: counts failed attempts with the password, for all workers; by default this process
      counts its own.
    - `transport`, `record`: as for `Shim`.

    A caller that sends an access token of its own, a JSON web token that `verify` does not know,
    uses that instead of the pool. Raises ConfigurationError if an argument is invalid.
    """

    preflight = _json.dumps(_PONG)

    def __init__(
        self,
        provider: Provider = OPENAI,
        *,
        admin_password: str,
        api_keys: Iterable[str] = (),
        verify: Verify | None = None,
        proxies: Iterable[str] = (),
        models: Mapping[str, str] | None = None,
        around: Callable[[ASGIApp], ASGIApp] | None = None,
        store: Store | None = None,
        transport: Transport | None = None,
        record: UsageSink = discard,
    ) -> None:
        if not isinstance(admin_password, str) or not admin_password.strip():
            raise ConfigurationError(
                "ChatGPTToAPIRoutes: admin_password is required and has no default."
            )
        super().__init__(transport)
        if provider.keys is None:
            pool = KeyPool([], name=provider.name, strategy="round_robin")
            provider = provider.using(pool)
        self._pool = provider.keys
        self._admin = _digest(admin_password)
        self._store = store if store is not None else MemoryStore()
        self._api_keys = frozenset(_digest(key) for key in api_keys)
        self._verify = verify
        urls = list(proxies)
        router: Router = RotatingProxies(provider, urls) if urls else provider
        self._model_names = dict(models or {})
        shim = OpenAIShim(router, transport=self.transport, record=record, allow_client_keys=True)
        self._shim = self.own((around or (lambda app: app))(shim))
        self.routes = [
            Route("GET", "/ping", self._ping),
            Route("POST", "/v1/chat/completions", self._chat),
            *aliases("GET", ("/v1/models", "/v1/engines"), self._models),
            Route("PATCH PUT", "/admin/tokens", self._set_tokens),
            Route("PATCH PUT", "/admin/password", self._set_password),
            Route("PATCH PUT", "/admin/openai", self._set_openai),
            Route("PATCH PUT", "/admin/puid", self._set_puid),
        ]

    async def _ping(self, call: CompatCall) -> None:
        await call.json(_PONG)

    async def _chat(self, call: CompatCall) -> None:
        caller = await self._caller(call)
        fields = await call.fields()
        if fields.pop("plugin_ids", None):
            await policy.refuse(_PLUGINS)(call)
        if fields.get("model") in self._model_names:
            fields["model"] = self._model_names[fields["model"]]
        headers = prepared_headers(call, caller)
        await call.forward(
            self._shim, headers=headers, extra=caller.extra, body=_json.dumps(fields)
        )

    async def _models(self, call: CompatCall) -> None:
        caller = await self._caller(call)
        headers = prepared_headers(call, caller)
        await call.forward(self._shim, headers=headers, extra=caller.extra, path="/v1/models")

    async def _caller(self, call: CompatCall) -> Caller:
        """Return the caller. Raises APIError (401)."""
        token = bearer_value(call)
        if _digest(token) in self._api_keys:
            return Caller()
        own = token.startswith(_ACCESS_TOKEN)
        if self._verify is not None:  # (first: the gateway's tokens may be JSON web tokens, too)
            caller = await identify(call, (token,), self._verify)
            if caller.principal is not None or own:
                return caller
        elif own:
            check_sendable(token)
            return Caller(None, token)
        elif not self._api_keys:
            return Caller()
        message = "The API key is invalid. Send one of the gateway's keys as a bearer token."
        raise APIError(ErrorKind.UNAUTHORIZED, message, code="invalid_api_key")

    # administration

    async def _admin_body(self, call: CompatCall, what: str) -> Any:
        """Return the JSON body of an administrator's request, which has `what`.

        Raises _TextError.
        """
        client = call.scope.get("client")
        address = client[0] if client else "unknown"
        try:
            taken = await take_password_attempt(self._store, _ATTEMPTS_BY, address)
        except APIError as error:
            raise _TextError(error.status, error.message) from error
        except StoreUnavailableError as error:
            raise _TextError(503, "The store is not available. Try again later.") from error
        given = _digest(call.header("authorization"))
        if not secrets.compare_digest(given, self._admin):
            raise _TextError(401, "Unauthorized")
        await give_back(self._store, taken)
        try:
            return _json.loads(await call.body())
        except (ValueError, RecursionError):
            text = f"{what} not provided: the request body is not valid JSON."
            raise _TextError(400, text) from None

    async def _set_tokens(self, call: CompatCall) -> None:
        async def change() -> str:
            tokens = await self._admin_body(call, "tokens")
            keys = [Key(token) for token in dict.fromkeys(_tokens(tokens))]
            await self._replace(keys)
            return f"tokens updated: {len(keys)}"

        await _as_text(call, change)

    async def _set_password(self, call: CompatCall) -> None:
        async def change() -> str:
            password = _member(await self._admin_body(call, "password"), "password")
            self._admin = _digest(password)
            return "password updated until the next start"

        await _as_text(call, change)

    async def _set_openai(self, call: CompatCall) -> None:
        async def change() -> str:
            given = await self._admin_body(call, "official_api_key")
            for name in ("openai_email", "openai_password"):
                if isinstance(given, dict) and given.get(name):
                    await policy.refuse(_PASSWORD)(call)
            key = _member(given, "official_api_key")
            await self._replace([Key(key, id="official")])
            return "API key updated"

        await _as_text(call, change)

    async def _set_puid(self, call: CompatCall) -> None:
        async def change() -> str:
            _member(await self._admin_body(call, "puid"), "puid")
            await policy.refuse(_PUID)(call)
            return ""

        await _as_text(call, change)

    async def _replace(self, keys: list[Key]) -> None:
        if self._pool is None:
            raise _TextError(400, "The provider has no key pool.")
        try:
            await self._pool.replace(keys)
        except ConfigurationError as error:
            raise _TextError(400, str(error)) from error


class _TextError(Exception):
    """An error that is answered as text, as clients of the admin paths expect."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


async def _as_text(call: CompatCall, change: Callable[[], Any]) -> None:
    """Run a change and answer with its text."""
    try:
        text, status = await change(), 200
    except _TextError as error:
        text, status = str(error), error.status
    await call.text(text, status)


def _tokens(given: Any) -> list[str]:
    """Return the tokens of a list of strings, or of objects with a `token`."""
    if not isinstance(given, list):
        raise _TextError(400, "tokens not provided: the body must be a JSON array of tokens.")
    found = []
    for index, item in enumerate(given):
        token = item.get("token") if isinstance(item, dict) else item
        if not isinstance(token, str) or not token.strip():
            raise _TextError(400, f"[{index}]: must be a token, or an object with a token.")
        found.append(token.strip())
    return found


def _member(given: Any, name: str) -> str:
    value = given.get(name) if isinstance(given, dict) else None
    if not isinstance(value, str) or not value.strip():
        raise _TextError(400, f"{name} not provided: it must be a string that is not empty.")
    return value.strip()


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
