"""`ProviderRouter`: selects the providers that may serve a model."""

from __future__ import annotations

import inspect
import random
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any, Self
from urllib.parse import unquote

from asgi_aiproxy import _asgi
from asgi_aiproxy._asgi import ASGIApp, Receive, Scope, Send
from asgi_aiproxy.dialects import OPENAI_CHAT
from asgi_aiproxy.errors import APIError, ConfigurationError, ErrorKind
from asgi_aiproxy.exchange.error_responses import send_error
from asgi_aiproxy.passthrough import PassthroughProxy
from asgi_aiproxy.passthrough.target import Paths
from asgi_aiproxy.patterns import is_pattern, matches_pattern
from asgi_aiproxy.providers.base import ModelOffer, Provider, Target
from asgi_aiproxy.shim import AIShim

# What a route may lead to: a provider, a provider and its own name for the model, or a target with
# weight and priority.
Route = Provider | tuple[Provider, str] | Target


class ProviderRouter:
    """Selects providers by the name of the model.

    ::

        ProviderRouter({
            "gpt-*": OPENAI.using("sk-..."),                     # a pattern
            "fast": (GROQ.using("gsk-..."), "llama-3.3-70b"),    # an alias
            "smart": [anthropic, (openai, "gpt-5")],             # the second if the first fails
        })

    An exact name takes precedence over patterns, and a pattern with more literal characters over
    one with fewer. `provider/model` always works, for the providers named here and in `providers`.
    Routes of one name are tried in order; `Target`s of one priority share the load by weight. A
    request that names a provider gets the routes that lead to it, or else that provider under the
    model name of the request.

    `display_names` are shown to people in lists of models, by the name of the model. Clients that
    only list names of one kind can be served any model by an alias: Claude Code, for example, those
    that begin with `claude` or `anthropic`.

    It is also an ASGI app: below `/<provider>/` it serves each provider alone: chat in all client
    dialects, and the other paths of the provider's own API unchanged (see `PassthroughProxy`;
    `paths` selects the paths that are served). Models are listed in OpenAI's format, and for the
    vendor's own clients in the vendor's. These requests take the same options as a `Shim`.
    """

    handles_admission = True  # see `asgi_aiproxy.exchange.admission`

    def __init__(
        self,
        routes: Mapping[str, Route | Sequence[Route]] | None = None,
        *,
        providers: Iterable[Provider] = (),
        display_names: Mapping[str, str] | None = None,
        random: random.Random | None = None,
        paths: Paths | None = None,
        **options: Any,
    ) -> None:
        _check(routes, options)
        self._options = options
        self.display_names = dict(display_names or {})
        self._paths = paths
        self._shims: dict[str, AIShim] = {}
        self._natives: dict[str, PassthroughProxy] = {}
        self._random = random if random is not None else _system_random()
        self._exact: dict[str, tuple[Target, ...]] = {}
        self._patterns: list[tuple[str, tuple[Target, ...]]] = []
        self._providers: dict[str, Provider] = {}
        for provider in providers:
            self._register(provider)
        for name, given in (routes or {}).items():
            targets = tuple(_targets(name, given))
            for target in targets:
                self._register(target.provider)
            if is_pattern(name):
                self._patterns.append((name, targets))
            else:
                self._exact[name] = targets
        self._patterns.sort(key=lambda pattern: -len(pattern[0].replace("*", "").replace("?", "")))

    def __repr__(self) -> str:
        return (
            f"ProviderRouter({len(self._exact)} names, {len(self._patterns)} patterns, "
            f"providers: {', '.join(self._providers) or 'none'})"
        )

    @property
    def providers(self) -> Mapping[str, Provider]:
        """All providers by name."""
        return self._providers

    @property
    def routes(self) -> Mapping[str, Sequence[Target]]:
        """The targets by name or pattern, in the order in which routes are searched."""
        return {**self._exact, **dict(self._patterns)}

    def targets(self, model: str, provider: str = "") -> Sequence[Target]:
        """Return the targets for `model` in the order to try them; an empty sequence if the model
        is unknown.
        """
        found: Sequence[Target] = self._find(model)
        if provider:
            wished = self._providers.get(provider)
            if wished is None:
                return ()
            found = [target for target in found if target.provider is wished]
            found = found or wished.targets(model)
        return found if len(found) < 2 else weighted_shuffle(found, self._random)

    def models(self) -> Sequence[str]:
        """Return all exact names."""
        return list(self._exact)

    def model_offers(self) -> Sequence[ModelOffer]:
        """Return the model offers of each pattern's first provider, and of all providers without a
        route.
        """
        offers = [
            ModelOffer(targets[0].provider, pattern)
            for pattern, targets in self._patterns
            if not targets[0].model
        ]
        routed = {
            target.provider.name
            for targets in [*self._exact.values(), *(found for _, found in self._patterns)]
            for target in targets
        }
        others = [provider for name, provider in self._providers.items() if name not in routed]
        return [*offers, *(ModelOffer(provider, prefix=f"{provider.name}/") for provider in others)]

    # as an app

    async def __aenter__(self) -> Self:
        for name in self._providers:
            await self._shim(name).__aenter__()
            await self._native(name).__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        async with AsyncExitStack() as stack:  # closes all of them if one fails
            for shim in self._shims.values():
                stack.push_async_exit(shim)
            for native in self._natives.values():
                stack.push_async_exit(native)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one ASGI scope to the provider that the path begins with."""
        if scope["type"] == "lifespan":
            await _asgi.serve_lifespan(self, receive, send)
            return
        if scope["type"] not in ("http", "websocket"):
            return
        path = _asgi.local_path(scope)
        name = unquote((path or "").removeprefix("/").partition("/")[0])
        if name in self._providers:
            root = scope.get("root_path", "").rstrip("/")
            below = {**scope, "root_path": f"{root}/{name}"}
            await self._app(name, below)(below, receive, send)
        else:
            known = ", ".join(f"/{known}/" for known in self._providers) or "no provider's name"
            where = path if path is not None else scope["path"]
            error = APIError(
                ErrorKind.NOT_FOUND, f"There is nothing at {where!r}, only below {known}."
            )
            await send_error(scope, receive, send, OPENAI_CHAT, error)

    def _app(self, name: str, scope: Scope) -> ASGIApp:
        """Return the app that serves a request to this provider: its proxy or its shim."""
        if scope["type"] == "http":
            shim = self._shim(name)
            if shim.matches(scope) and not self._is_vendor_client(name, scope):
                return shim
        return self._native(name)

    def _is_vendor_client(self, name: str, scope: Scope) -> bool:
        """Return whether the vendor's own client requests models: it gets the vendor's own list."""
        own = getattr(self._providers[name].dialect, "client_headers", frozenset[bytes]())
        return scope["method"] == "GET" and any(header in own for header, _ in scope["headers"])

    def _native(self, name: str) -> PassthroughProxy:
        if name not in self._natives:
            options = {o: value for o, value in self._options.items() if o in _SHARED}
            provider = self._providers[name]
            self._natives[name] = PassthroughProxy(provider, paths=self._paths, **options)
        return self._natives[name]

    def _shim(self, name: str) -> AIShim:
        if name not in self._shims:
            self._shims[name] = AIShim(self._providers[name], **self._options)
        return self._shims[name]

    def _register(self, provider: Provider) -> None:
        if not isinstance(provider, Provider):
            raise ConfigurationError(
                f"ProviderRouter: expected providers, got {type(provider).__name__}."
            )
        known = self._providers.setdefault(provider.name, provider)
        if known is not provider:
            raise ConfigurationError(
                f"Two different providers are named {provider.name!r}: use the same object for "
                f"both, or give one another name with .using(..., name='...')."
            )

    def _find(self, model: str) -> tuple[Target, ...]:
        if model in self._exact:
            return self._exact[model]
        name, slash, rest = model.partition("/")
        prefixed = bool(slash) and name in self._providers
        # Google's lists and SDKs write models as `models/gemini-...`: routes for the name without
        # the prefix also match it, unless a route is for this very name.
        bare = rest if name == "models" and not prefixed else ""
        if bare in self._exact:
            return self._exact[bare]
        for pattern, targets in self._patterns:
            # A pattern that contains the slash matches this very name; a single `*` does not.
            if (not prefixed or "/" in pattern) and matches_pattern(pattern, model):
                return tuple(_with_model(target, model) for target in targets)
            if bare and matches_pattern(pattern, bare):
                return tuple(_with_model(target, bare) for target in targets)
        return (_with_model(Target(self._providers[name], ""), rest),) if prefixed and rest else ()


def weighted_shuffle(targets: Sequence[Target], random: random.Random) -> list[Target]:
    """Return targets by priority, and those of one priority in an order drawn at random by
    weight.
    """
    # Efraimidis and Spirakis: sorting by u^(1/w) is a weighted draw without replacement.
    keyed = [(t.priority, -(random.random() ** (1 / t.weight)), at) for at, t in enumerate(targets)]
    return [targets[at] for _, _, at in sorted(keyed)]


_OPTIONS = [
    name
    for name, parameter in inspect.signature(AIShim).parameters.items()
    if parameter.kind is inspect.Parameter.KEYWORD_ONLY
]


# The options that the proxies of providers take, too.
_SHARED = frozenset({"transport", "record", "timeouts", "allow_client_keys", "hooks", "ownership"})


def _check(routes: object, options: Iterable[str]) -> None:
    """Raise ConfigurationError for routes or options that would otherwise fail with the first
    request.
    """
    if routes is not None and not isinstance(routes, Mapping):
        raise ConfigurationError(
            f"ProviderRouter takes a mapping of model names to providers, like "
            f'{{"gpt-*": OPENAI.using("sk-...")}}, not {type(routes).__name__}.'
        )
    for option in options:
        if option not in _OPTIONS:
            known = ", ".join(_OPTIONS)
            raise ConfigurationError(
                f"ProviderRouter has no option {option!r}. There are: providers, display_names, "
                f"random, paths, {known}."
            )


def _targets(name: str, given: Route | Sequence[Route]) -> Iterable[Target]:
    several = isinstance(given, Sequence) and not isinstance(given, tuple)
    routes: Sequence[Route] = given if several else (given,)  # type: ignore[assignment]
    if isinstance(given, tuple) and not (len(given) == 2 and isinstance(given[1], str)):
        routes = given
    if not routes:
        raise ConfigurationError(f"Route {name!r} is empty: it must name a provider.")
    own = "" if is_pattern(name) else name
    for at, route in enumerate(routes):
        match route:
            case Target():
                yield route if route.model else replace(route, model=own)
            case Provider():
                yield Target(route, own, priority=at)
            case (Provider() as provider, str(model)):
                yield Target(provider, model or own, priority=at)
            case _:
                raise ConfigurationError(
                    f"Route {name!r}: expected a provider, (provider, model) or a Target, "
                    f"got {type(route).__name__}."
                )


def _with_model(target: Target, model: str) -> Target:
    """Return a pattern's target, with the requested model name unless the target has its own."""
    if target.model:
        return target
    provider = target.provider
    name = provider.dialect.model_name(model)
    return Target(provider, name, target.weight, target.priority)


def _system_random() -> random.Random:
    return random.Random()  # noqa: S311 (it spreads load, it keeps no secret)
