"""`AIProxyRoutes`: the paths of zatxm's aiproxy (earlier: any-proxy).

One path for all providers, `/c/v1/chat/completions`, with the provider in the body, and the
vendors' own APIs below `/v1`, `/claude/api` and `/gemini`. The answers are OpenAI's chunks with a
`delta`; each chunk also has the increment as `message`, and the provider's own object, where
clients of aiproxy read them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from asgi_aiproxy import _json
from asgi_aiproxy._asgi import ASGIApp
from asgi_aiproxy._control_headers import KEY, KEY_HEADERS
from asgi_aiproxy.compat import policy
from asgi_aiproxy.compat.answers import EditingSend, without_headers
from asgi_aiproxy.compat.callers import (
    Caller,
    bearer_value,
    check_is_not_of_gateway,
    check_sendable,
    chosen_key,
    identify,
    prepared_headers,
)
from asgi_aiproxy.compat.coze_chats import COZE_API_MODEL, CozeChats
from asgi_aiproxy.compat.mixed_dialect import AnthropicChatShim, gemini_chat_shim
from asgi_aiproxy.compat.routing import CompatApp, CompatCall, Handler, Route
from asgi_aiproxy.compat.web import ChatGPTSite, ClaudeSite, session_key
from asgi_aiproxy.compat.web_chats import WebChats, web_to_chat
from asgi_aiproxy.dialects.base import ProviderRequest
from asgi_aiproxy.errors import APIError, ErrorKind, invalid
from asgi_aiproxy.middleware.auth import Verify
from asgi_aiproxy.passthrough import PassthroughProxy
from asgi_aiproxy.providers import ANTHROPIC, COZE, GEMINI, OPENAI, Provider
from asgi_aiproxy.shim import OpenAIShim, Shim
from asgi_aiproxy.upstream import Transport
from asgi_aiproxy.usage.recorder import UsageSink, discard

# The members of a body that choose a provider, or continue one of its conversations.
_EXTENSIONS = ("provider", "openai", "gemini", "bing", "coze", "claude")
_VERSIONS = ("v1", "v1alpha", "v1beta")
_DEFAULT_VERSION = "v1beta"

_BING_RETIRED = policy.retired(
    "Bing's chat", "Use a provider with an official API, such as 'gemini' or 'claude'."
)
_ANONYMOUS_WEB = policy.unsupported(
    "ChatGPT's web site without an account", "Use OpenAI's API: leave 'provider' out."
)
_PASSWORD = policy.unsupported(
    "Signing in to another site with a password", "Use an API key of the vendor."
)
_CAPTCHA = policy.unsupported("Solving captchas", "Use an API key of the vendor.")
_DISCORD = policy.unsupported(
    "Coze through a Discord account", f"Use Coze's API: send the model {COZE_API_MODEL!r}."
)
_PLATFORM_LOGIN = policy.retired(
    "OpenAI's earlier identity service", "Use an API key of OpenAI's platform."
)
_BILLING = policy.retired(
    "OpenAI's billing pages for API keys",
    "OpenAI refuses API keys there since July 2023; see its usage API, or send the token of a "
    "session of your own.",
)


class AIProxyRoutes(CompatApp):
    """An ASGI app with the paths of aiproxy and any-proxy.

    Arguments:

    - `openai`, `gemini`, `anthropic`, `coze`: the vendors, with the keys that callers may use.
      The id of a key is what callers name in `x-auth-id`. A key of Google may have the attribute
      `version`, one of Coze must have `bot_id` and `user`.
    - `chatgpt_web`, `claude_web`: base URL of the web site whose requests are forwarded with the
      caller's own session; None refuses them. Both sites forbid or limit such use in their terms.
    - `verify`: finds the callers of this gateway; without it anyone may use the keys.
    - `gemini_model`: the model of requests to Google that name none.
    - `around`: wraps each app that calls a vendor, for example in `Quota`.
    - `transport`, `record`: as for `Shim`.

    Raises ConfigurationError if an argument is invalid.

    ::

        app.mount("/", AIProxyRoutes(openai=OPENAI.using([Key("sk-...", id="1000001")])))
    """

    def __init__(
        self,
        *,
        openai: Provider = OPENAI,
        gemini: Provider = GEMINI,
        anthropic: Provider = ANTHROPIC,
        coze: Provider = COZE,
        chatgpt_web: str | None = None,
        claude_web: str | None = None,
        verify: Verify | None = None,
        gemini_model: str = "gemini-2.5-flash",
        around: Callable[[ASGIApp], ASGIApp] | None = None,
        transport: Transport | None = None,
        record: UsageSink = discard,
    ) -> None:
        super().__init__(transport)
        self._openai, self._gemini = openai, gemini
        self._anthropic = anthropic
        self._verify = verify
        self._gemini_model = gemini_model
        self._record = record
        self._around = around if around is not None else (lambda app: app)
        self._bots = CozeChats(coze, sealed=verify is not None)
        self._chat = {
            "claude": self._shim(OpenAIShim, anthropic),
            "coze": self._shim(OpenAIShim, coze, conversations=self._bots.conversations),
        }
        self._anthropic_chat = self._shim(AnthropicChatShim, anthropic)
        face = gemini_chat_shim(gemini_model)
        self._gemini_chat = {v: self._gemini_shim(OpenAIShim, v) for v in _VERSIONS}
        self._gemini_native = {v: self._gemini_shim(face, v) for v in _VERSIONS}
        self._openai_api = self._proxy(openai)
        self._openai_all = self._proxy(openai, paths="all")
        origin = openai.base_url.rstrip("/").removesuffix("/v1")
        self._dashboard = self._proxy(openai.using(base_url=origin), paths=("/dashboard/**",))
        self._anthropic_api = self._proxy(anthropic)
        self._gemini_api = self._proxy(gemini)
        self._chatgpt_web = ChatGPTSite(chatgpt_web, self)
        self._claude_web = ClaudeSite(claude_web, self)
        self._web_chats = WebChats(self, chatgpt_web, claude_web, record, self._around)
        chatgpt = self._with_session(self._chatgpt_web.forward, bearer_value)
        self.routes = [
            Route("GET", "/ping", self._ping),
            Route("POST", "/c/v1/chat/completions", self._chat_completions),
            Route("*", "/v1/*", self._openai_paths),
            Route("*", "/dashboard/*", self._dashboard_paths),
            Route("POST", "/claude/api/openai", self._anthropic_to_chat),
            Route("*", "/claude/api/*", self._anthropic_paths),
            Route("*", "/claude/web/*", self._with_session(self._claude_web.forward, session_key)),
            Route("POST", "/gemini/openai", self._gemini_to_chat),
            Route("*", "/gemini/*", self._gemini_paths),
            Route("POST", "/backend-api/conversation", policy.refuse(_ANONYMOUS_WEB)),
            Route("POST", "/backend-api/web2api", self._web_to_chat),
            Route("*", "/backend-api/*", chatgpt),
            Route("*", "/public-api/*", chatgpt),
            Route("GET", "/gptimage/*", self._chatgpt_web.image),
            Route("*", "/backend-anon/*", policy.refuse(_ANONYMOUS_WEB)),
            Route("*", "/bing/*", policy.refuse(_BING_RETIRED)),
            Route("*", "/auth/token/web", policy.refuse(_PASSWORD)),
            Route("*", "/auth/*", policy.refuse(_PLATFORM_LOGIN)),
            Route("*", "/arkose/*", policy.refuse(_CAPTCHA)),
        ]

    def _shim(self, face: type[Shim], provider: Provider, **options: Any) -> ASGIApp:
        shim = face(
            provider,
            transport=self.transport,
            record=self._record,
            allow_client_keys=True,
            **options,
        )
        return self.own(self._around(shim))

    def _gemini_shim(self, face: type[Shim], version: str) -> ASGIApp:
        """Return a shim for a version of Google's API."""

        def at_version(draft: ProviderRequest) -> ProviderRequest:
            path = draft.path.replace("/v1beta/", f"/{version}/", 1)
            return msgspec.structs.replace(draft, path=path)

        if version == _DEFAULT_VERSION:
            return self._shim(face, self._gemini)
        return self._shim(face, self._gemini.using(transform_request=at_version))

    def _proxy(self, provider: Provider, **options: Any) -> ASGIApp:
        proxy = PassthroughProxy(
            provider,
            transport=self.transport,
            record=self._record,
            allow_client_keys=True,
            **options,
        )
        return self.own(self._around(proxy))

    async def _ping(self, call: CompatCall) -> None:
        await call.json({"ping": "ok"})

    # one path for all providers

    async def _chat_completions(self, call: CompatCall) -> None:
        fields = await call.fields()
        match fields.get("provider"):
            case "gemini":
                await self._ask_gemini(call, fields)
            case "claude":
                await self._ask_claude(call, fields)
            case "coze":
                await self._ask_coze(call, fields)
            case "bing":
                await policy.refuse(_BING_RETIRED)(call)
            case "openai-chat-web":
                if not bearer_value(call):
                    await policy.refuse(_ANONYMOUS_WEB)(call)
                await self._ask_chatgpt_web(call, fields)
            case _:
                await self._ask_openai(call, fields)

    async def _caller(self, call: CompatCall, *more: str) -> Caller:
        """Return the caller, by `Authorization` and the values `more`, in order of precedence."""
        return await identify(call, (bearer_value(call), *more), self._verify)

    async def _ask_openai(self, call: CompatCall, fields: dict[str, Any]) -> None:
        caller = await self._caller(call)
        key_id = self._key_id(call, caller, self._openai, _object(fields, "openai"))
        body = None
        if any(name in fields for name in _EXTENSIONS):
            body = _json.dumps({k: v for k, v in fields.items() if k not in _EXTENSIONS})
        await self._to(call, self._openai_api, caller, key_id, path="/v1/chat/completions",
                       body=body)  # fmt: skip

    async def _ask_gemini(self, call: CompatCall, fields: dict[str, Any]) -> None:
        caller = await self._caller(call)
        given = _object(fields, "gemini")
        key_id = self._key_id(call, caller, self._gemini, given)
        version, key_id = self._version(call, caller, key_id)
        app = self._gemini_chat[version]
        body = _chat_body(fields, fields.get("model") or self._gemini_model)
        extension = _indexed("gemini", {"type": "api"})
        await self._to(call, app, caller, key_id, path="/v1/chat/completions", body=body,
                       extension=extension)  # fmt: skip

    async def _ask_claude(self, call: CompatCall, fields: dict[str, Any]) -> None:
        given = _object(fields, "claude")
        if given.get("type", "api") not in ("", "api"):
            await self._ask_claude_web(call, fields, given)
            return
        caller = await self._caller(call, call.header("x-api-key"))
        key_id = self._key_id(call, caller, self._anthropic, given)
        body = _chat_body(fields, fields.get("model"))
        extension = _indexed("claude", {"type": "api", "conversation": None})
        await self._to(call, self._chat["claude"], caller, key_id, path="/v1/chat/completions",
                       body=body, extension=extension)  # fmt: skip

    # web sites, with the caller's own session

    def _with_session(self, run: Handler, session: Callable[[CompatCall], str]) -> Handler:
        """Return a handler that never sends a token of this gateway to a web site."""

        async def checked(call: CompatCall) -> None:
            await check_is_not_of_gateway(session(call), self._verify)
            await run(call)

        return checked

    async def _ask_chatgpt_web(self, call: CompatCall, fields: dict[str, Any]) -> None:
        app = self._web_chats.chatgpt
        if app is None:
            raise policy.not_enabled(self._chatgpt_web.name, self._chatgpt_web.option)
        check_sendable(bearer_value(call))
        await check_is_not_of_gateway(bearer_value(call), self._verify)
        ids = _object(_object(fields, "openai"), "conversation")
        body = _chat_body(fields, fields.get("model") or "auto", chatgpt_web=ids)
        await self._to(call, app, Caller(None, bearer_value(call)), "",
                       path="/v1/chat/completions", body=body,
                       extension=_renamed("chatgpt_web", "openai"))  # fmt: skip

    async def _web_to_chat(self, call: CompatCall) -> None:
        if not bearer_value(call):
            await policy.refuse(_ANONYMOUS_WEB)(call)
        await self._ask_chatgpt_web(call, web_to_chat(await call.fields()))

    async def _ask_claude_web(
        self, call: CompatCall, fields: dict[str, Any], given: Mapping[str, Any]
    ) -> None:
        app = self._web_chats.claude
        if app is None:
            raise policy.not_enabled(self._claude_web.name, self._claude_web.option)
        await check_is_not_of_gateway(session_key(call), self._verify)
        known = _object(given, "conversation").get("uuid")
        body = _chat_body(fields, fields.get("model") or "", claude_web={"uuid": known or ""})

        def extension(own: Mapping[str, Any], headers: dict[bytes, bytes]) -> dict[str, Any]:
            found = own.get("claude_web")
            conversation = found if isinstance(found, dict) else {"uuid": known} if known else None
            return {"claude": {"type": "web", "conversation": conversation}}

        await self._to(call, app, Caller(None, session_key(call)), "",
                       path="/v1/chat/completions", body=body, extension=extension)  # fmt: skip

    async def _ask_coze(self, call: CompatCall, fields: dict[str, Any]) -> None:
        if fields.get("model") != COZE_API_MODEL:
            await policy.refuse(_DISCORD)(call)
        caller = await self._caller(call)
        conversation = _object(_object(fields, "coze"), "conversation")
        bot, user, key_id = self._bots.bot(call, caller, conversation)
        known = str(conversation.get("conversation_id") or "")
        body = _chat_body(fields, bot, user=user, **self._bots.member(known))

        def extension(own: Mapping[str, Any], headers: dict[bytes, bytes]) -> dict[str, Any]:
            return {"coze": self._bots.extension(own, bot, user, known), "model": COZE_API_MODEL}

        await self._to(call, self._chat["coze"], caller, key_id, path="/v1/chat/completions",
                       body=body, extension=extension)  # fmt: skip

    # the vendors' own APIs

    async def _openai_paths(self, call: CompatCall) -> None:
        caller = await self._caller(call)
        key_id = self._key_id(call, caller, self._openai)
        app = self._openai_all if caller.secret else self._openai_api
        await self._to(call, app, caller, key_id)

    async def _dashboard_paths(self, call: CompatCall) -> None:
        caller = await self._caller(call)
        if not caller.secret:
            await policy.refuse(_BILLING)(call)
        await self._to(call, self._dashboard, caller, "")

    async def _anthropic_paths(self, call: CompatCall) -> None:
        caller = await self._anthropic_caller(call)
        key_id = self._key_id(call, caller, self._anthropic)
        await self._to(call, self._anthropic_api, caller, key_id, prefix="/claude/api")

    async def _anthropic_to_chat(self, call: CompatCall) -> None:
        caller = await self._anthropic_caller(call)
        key_id = self._key_id(call, caller, self._anthropic)
        extension = _indexed("claude", {"type": "api", "conversation": None})
        await self._to(call, self._anthropic_chat, caller, key_id, path="/openai",
                       extension=extension)  # fmt: skip

    async def _anthropic_caller(self, call: CompatCall) -> Caller:
        return await self._caller(call, call.header("x-api-key"))

    async def _gemini_paths(self, call: CompatCall) -> None:
        caller = await self._caller(
            call, call.header("x-goog-api-key"), call.query.get("key", "").strip()
        )
        key_id = self._key_id(call, caller, self._gemini)
        parts = call.scope.get("query_string", b"").split(b"&")
        query = b"&".join(part for part in parts if part.partition(b"=")[0] != b"key")
        await self._to(call, self._gemini_api, caller, key_id, prefix="/gemini", query=query)

    async def _gemini_to_chat(self, call: CompatCall) -> None:
        caller = await self._caller(call)
        key_id = self._key_id(call, caller, self._gemini)
        version, key_id = self._version(call, caller, key_id)
        app = self._gemini_native[version]
        extension = _indexed("gemini", {"type": "api"})
        await self._to(call, app, caller, key_id, path="/openai", extension=extension)

    # keys

    def _key_id(
        self,
        call: CompatCall,
        caller: Caller,
        provider: Provider,
        given: Mapping[str, Any] | None = None,
    ) -> str:
        """Return the id of the configured key that the caller names; its own key goes first."""
        if caller.secret:
            return ""
        if provider.keys is None:
            raise APIError(
                ErrorKind.UNAUTHORIZED,
                f"The gateway has no API key of {provider.name!r}: send your own in Authorization.",
                code="no_key",
            )
        given = given or {}
        index = _object(given, "conversation").get("index") or given.get("index")
        return chosen_key(call, provider.keys, index)

    def _version(self, call: CompatCall, caller: Caller, key_id: str) -> tuple[str, str]:
        """Return the version of Google's API, and the key: each configured key has a version."""
        if caller.secret:
            return _checked_version(call.header("x-version") or _DEFAULT_VERSION), ""
        keys = self._gemini.keys.keys if self._gemini.keys is not None else {}
        if not key_id and any("version" in key.attributes for key in keys.values()):
            key_id = random.choice(list(keys))  # noqa: S311 (it spreads load)
        key = keys.get(key_id)
        version = key.attributes.get("version") if key is not None else None
        return _checked_version(str(version or _DEFAULT_VERSION)), key_id

    async def _to(
        self,
        call: CompatCall,
        app: ASGIApp,
        caller: Caller,
        key_id: str,
        *,
        extension: Extension | None = None,
        **changes: Any,
    ) -> None:
        """Pass a request on with the chosen key, and add the extension object to the answer."""
        headers = prepared_headers(call, caller, key_id, drop=("x-version", "x-bot-id"))
        send = call.send if extension is None else EditingSend(call.send, _adding(extension))
        if caller.secret:  # it has no id
            send = without_headers(send, KEY_HEADERS)
        await call.forward(app, headers=headers, extra=caller.extra, send=send, **changes)


# Returns the members to add to an answer, by what it has already and the response headers.
Extension = Callable[[Mapping[str, Any], dict[bytes, bytes]], dict[str, Any]]


def _indexed(name: str, members: Mapping[str, Any]) -> Extension:
    """Return an extension object with the id of the configured key that served."""

    def extension(own: Mapping[str, Any], headers: dict[bytes, bytes]) -> dict[str, Any]:
        index = headers.get(KEY.encode(), b"").decode("latin-1")
        return {name: {**members, **({"index": index} if index else {})}}

    return extension


def _renamed(name: str, shown: str) -> Extension:
    """Return an extension object of another name with what an answer has as `name`."""

    def extension(own: Mapping[str, Any], headers: dict[bytes, bytes]) -> dict[str, Any]:
        return {shown: own[name]} if name in own else {}

    return extension


def _adding(extension: Extension) -> Callable[[dict[str, Any], dict[bytes, bytes]], dict[str, Any]]:
    def edit(answer: dict[str, Any], headers: dict[bytes, bytes]) -> dict[str, Any]:
        for choice in answer.get("choices") or ():
            delta = choice.get("delta")
            if delta and isinstance(delta.get("content"), str):
                # Where clients of aiproxy read the increment.
                choice["message"] = {"role": "assistant", "content": delta["content"]}
        return {**answer, **extension(answer, headers)}

    return edit


def _object(fields: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return a member that must be an object; an empty one if it is missing. Raises APIError."""
    found = fields.get(name)
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise invalid(f"{name}: must be an object.", name)
    return found


def _chat_body(fields: Mapping[str, Any], model: Any, **more: Any) -> bytes:
    """Return the chat request for a shim. Like aiproxy it streams unless `stream` is false."""
    own = {name: value for name, value in fields.items() if name not in _EXTENSIONS}
    given = {"model": model} if model is not None else {}
    return _json.dumps({"stream": True, **own, **given, **more})


def _checked_version(version: str) -> str:
    if version not in _VERSIONS:
        known = ", ".join(_VERSIONS)
        raise invalid(f"x-version: must be a version of the API: {known}.", "x-version")
    return version
