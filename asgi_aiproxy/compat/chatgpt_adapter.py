"""`ChatGPTAdapterRoutes`: the paths and the model names of bincooo's chatgpt-adapter."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from asgi_aiproxy import __version__
from asgi_aiproxy._asgi import ASGIApp
from asgi_aiproxy.compat import policy
from asgi_aiproxy.compat.adapter_images import AdapterImages
from asgi_aiproxy.compat.callers import Caller, bearer_value, identify, prepared_headers
from asgi_aiproxy.compat.routing import CompatApp, CompatCall, Handler, Route, aliases
from asgi_aiproxy.errors import APIError, invalid
from asgi_aiproxy.hooks import Hook
from asgi_aiproxy.middleware.auth import Verify
from asgi_aiproxy.providers import ModelOffer, Provider, Router, Target
from asgi_aiproxy.shim import AIShim
from asgi_aiproxy.upstream import Transport
from asgi_aiproxy.usage.recorder import UsageSink, discard

_CHAT = ("/v1/chat/completions", "/v1/object/completions", "/proxies/v1/chat/completions")
_IMAGES = (
    "/v1/images/generations",
    "/proxies/v1/images/generations",
    "/v1/object/generations",
    "/v1/chat/generations",
    "/proxies/v1/chat/generations",
)
_EMBEDDINGS = ("/v1/embeddings", "/proxies/v1/embeddings")
_MODELS = ("/v1/models", "/proxies/v1/models")
_INTERPRETER = "open-interpreter"
_ROLES = ("system", "developer", "user", "assistant", "tool", "function")
_OFFICIAL = "Use a model of a provider with an official API."

# Models whose service is gone, or must not be used, by the beginning of their names.
_REFUSED_MODELS: tuple[tuple[str, APIError], ...] = (
    ("bing", policy.retired("Bing's chat", _OFFICIAL)),
    ("lmsys/", policy.retired("The anonymous chatbot arena", _OFFICIAL)),
    ("you/", policy.unsupported("you.com's web site", _OFFICIAL)),
    ("coze/websdk", policy.unsupported("Signing in to Coze with accounts",
                                       "Use 'coze/BOT_ID' with a token of Coze's API.")),
    ("open-interpreter-ws", policy.retired("The reverse connection of Open Interpreter",
                                           f"Use the model {_INTERPRETER!r}.")),
)  # fmt: skip
_COZE_SITE = policy.unsupported(
    "Coze's web site with its signatures", "Use 'coze/BOT_ID' with a token of Coze's API."
)
_COZE_BOT = re.compile(r"coze/([^-/]+)((?:-[^-/]+)*)")
# Models whose names alone meant a session of a web site; a route may give them to a provider.
_SITE_MODELS = {
    "coze": _COZE_SITE,
    "claude": policy.unsupported("Pooling sessions of claude.ai", _OFFICIAL),
}
# Secrets that named a picture service instead of identifying a caller.
_PICTURE_MARKERS = re.compile(
    r"sk-(?:prodia-(?:sd|xl)|dalle-(?:4k|3-xl)|google-xl|animagine-xl-3\.1)"
)
# Models that named one, in the documentation.
_PICTURE_MODELS = re.compile(r"(?:sd|xl|dalle-4k|dalle-3-xl|google)\.dall-e-3")
_SITE_PICTURES = re.compile(r"(?:pg|coze)\.dall-e-3")
_DEMO_SPACES = policy.retired(
    "The demo space that this request names", "Use the model of an image provider."
)
_SESSION = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|.*(?:msToken|sessionid)=.*")
_SITE_SESSION = policy.unsupported(
    "Using the session of another web site", "Use a vendor's API with an API key."
)
_HELPER = policy.unsupported("The browser helper", _OFFICIAL)
_REVERSE = policy.retired(
    "The reverse connection of Open Interpreter", f"Use the model {_INTERPRETER!r}."
)
_ENCIPHER = policy.not_enabled(
    "Encrypting secrets over HTTP", "sealing_keys, and use the command 'keys add' or 'import'"
)


class ChatGPTAdapterRoutes(CompatApp):
    """An ASGI app with the paths of chatgpt-adapter.

    Arguments:

    - `router`: answers models by name. `custom/MODEL` and `coze/BOT_ID` go to the providers of a
      `ProviderRouter` that are named `custom` and `coze`.
    - `interpreter`: the server of Open Interpreter, for the model `open-interpreter`.
    - `verify`: finds the callers of this gateway; without it anyone may use the keys.
    - `around`: wraps the app that calls providers, for example in `Quota`.
    - `transport`, `record`, `hooks`: as for `Shim`. `PromptMarkers` are the markers of prompts,
      `TextReplacements` the `matcher` of the configuration; `custom/MODEL` is given tools by
      `Provider.emulate`.
    - `images`: how pictures are made.

    A caller's own key for the vendor of the model is in `x-api-key`, else in `Authorization`.
    """

    def __init__(
        self,
        router: Router,
        *,
        interpreter: Provider | None = None,
        verify: Verify | None = None,
        around: Callable[[ASGIApp], ASGIApp] | None = None,
        transport: Transport | None = None,
        record: UsageSink = discard,
        hooks: Sequence[Hook] = (),
        images: AdapterImages | None = None,
    ) -> None:
        super().__init__(transport)
        self._verify = verify
        self._pictures = images if images is not None else AdapterImages()
        self._router = AdapterModels(router, interpreter)
        shim = AIShim(
            self._router,
            transport=self.transport,
            record=record,
            allow_client_keys=True,
            hooks=hooks,
        )
        self._shim = self.own((around or (lambda app: app))(shim))
        self.routes = [
            Route("GET", "/", self._banner),
            *aliases("POST", _CHAT, self._chat),
            *aliases("POST", _IMAGES, self._images),
            *aliases("POST", _EMBEDDINGS, self._to("/v1/embeddings")),
            *aliases("GET", _MODELS, self._models),
            Route("POST", "/anthropic/v1/messages", self._to("/v1/messages")),
            Route("POST", "/encipher", policy.refuse(_ENCIPHER)),
            Route("GET", "/log/helper", policy.refuse(_HELPER)),
            Route("*", "/socket.io/*", policy.refuse(_REVERSE)),
        ]

    async def _banner(self, call: CompatCall) -> None:
        await call.text(f"asgi-aiproxy {__version__}")

    def _to(self, path: str) -> Handler:
        async def run(call: CompatCall) -> None:
            await self._serve(call, path)

        return run

    async def _images(self, call: CompatCall) -> None:
        secret = _secrets(call)[0]
        chosen = secret in self._pictures.models
        model = (await call.fields()).get("model")
        named = model if isinstance(model, str) else ""
        if not (chosen or named in self._pictures.models):
            if _PICTURE_MARKERS.fullmatch(secret) or _PICTURE_MODELS.fullmatch(named):
                await policy.refuse(_DEMO_SPACES)(call)
            if _SITE_PICTURES.fullmatch(named):
                await policy.refuse(_SITE_SESSION)(call)
            await self._check_model(call)
        caller = await self._caller(call, without=secret if chosen else "")
        headers = prepared_headers(call, caller)
        await self._pictures.serve(call, self._shim, caller, headers, secret)

    async def _models(self, call: CompatCall) -> None:
        caller = await self._caller(call)
        headers = prepared_headers(call, caller)
        await call.forward(self._shim, headers=headers, extra=caller.extra, path="/v1/models")

    async def _chat(self, call: CompatCall) -> None:
        _check_messages((await call.fields()).get("messages"))
        await self._serve(call, "/v1/chat/completions")

    async def _serve(self, call: CompatCall, path: str) -> None:
        await self._check_model(call)
        caller = await self._caller(call)
        headers = prepared_headers(call, caller)
        await call.forward(self._shim, headers=headers, extra=caller.extra, path=path)

    async def _check_model(self, call: CompatCall) -> None:
        """Refuse models of services that are gone or must not be used."""
        model = (await call.fields()).get("model")
        if not isinstance(model, str):
            return
        error = refused_model(model)
        if error is None and model in _SITE_MODELS and not self._router.targets(model):
            error = _SITE_MODELS[model]
        if error is not None:
            await policy.refuse(error)(call)

    async def _caller(self, call: CompatCall, *, without: str = "") -> Caller:
        """Return the caller, by its credentials but `without`."""
        secrets = [secret for secret in _secrets(call) if secret != without]
        if any(_SESSION.fullmatch(secret) for secret in secrets):
            await policy.refuse(_SITE_SESSION)(call)
        return await identify(call, secrets, self._verify)


def _check_messages(messages: object) -> None:
    """Raise APIError (400) if there is no message, or one whose role is unknown."""
    if not isinstance(messages, list) or not messages:
        raise invalid("messages: at least one message is required.", "messages")
    for index, message in enumerate(messages):
        if not isinstance(message, dict) or message.get("role") not in _ROLES:
            name = f"messages[{index}].role"
            raise invalid(f"{name}: must be one of {', '.join(_ROLES)}.", name)


def _secrets(call: CompatCall) -> tuple[str, str]:
    """Return the caller's credentials, the more important one first."""
    header, other = call.header("x-api-key"), bearer_value(call)
    return (header, other) if header else (other, "")


def refused_model(model: str) -> APIError | None:
    """Return the error for a model of a service that is gone or must not be used, or None."""
    for prefix, error in _REFUSED_MODELS:
        if model.startswith(prefix):
            return error
    bot = _COZE_BOT.fullmatch(model)
    owner_or_sdk = bot is not None and bot[2].endswith(("-o", "-w"))
    return _COZE_SITE if owner_or_sdk else None


class AdapterModels:
    """A router for the model names of chatgpt-adapter: `coze/BOT-VERSION-SCENE` is the bot `BOT`,
    `open-interpreter` is the given server; all other names are those of `router`.
    """

    def __init__(self, router: Router, interpreter: Provider | None) -> None:
        self._router = router
        self._interpreter = interpreter

    def targets(self, model: str, provider: str = "") -> Sequence[Target]:
        """Return the targets for a model, in the order to try them."""
        if model == _INTERPRETER and self._interpreter is not None:
            return self._interpreter.targets(model, provider)
        if (bot := _COZE_BOT.fullmatch(model)) is not None:
            return self._router.targets(f"coze/{bot[1]}", provider)
        return self._router.targets(model, provider)

    def models(self) -> Sequence[str]:
        """Return the names that the router knows."""
        own = [_INTERPRETER] if self._interpreter is not None else []
        return [*self._router.models(), *own]

    def model_offers(self) -> Sequence[ModelOffer]:
        """Return the models whose names only the providers know."""
        return getattr(self._router, "model_offers", tuple)()
