"""The apps of `[compat]`, over the providers, the router and the store of the configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from asgi_aiproxy._asgi import ASGIApp
from asgi_aiproxy.compat import (
    AdapterImages,
    AIProxyRoutes,
    ChatGPTAdapterRoutes,
    ChatGPTToAPIRoutes,
    OneAPIRoutes,
)
from asgi_aiproxy.compat.routing import CompatApp
from asgi_aiproxy.config.hooks import make_hooks
from asgi_aiproxy.config.providers import make_sealer, secret_value
from asgi_aiproxy.errors import ConfigurationError
from asgi_aiproxy.middleware.auth import Verify
from asgi_aiproxy.middleware.quota import Quota
from asgi_aiproxy.prices import Pricing
from asgi_aiproxy.providers import ANTHROPIC, COZE, GEMINI, OPENAI, Provider, Router
from asgi_aiproxy.stores import Store
from asgi_aiproxy.upstream import Transport
from asgi_aiproxy.usage.recorder import UsageSink

if TYPE_CHECKING:
    from asgi_aiproxy.config.settings import Settings

_INTERPRETER = "interpreter"  # the provider of the model `open-interpreter`
_OTHER_PATHS = ("/admin", "/metrics")


class CompatBuilder:
    """Builds the apps of `[compat]`.

    Arguments:

    - `settings`: the configuration.
    - `providers`, `router`, `store`: what the gateway itself uses.
    - `verify`: finds callers by their tokens; None accepts every request.
    - `transport`, `record`: sends requests, and takes usage records.
    - `prices`: prices in dollars; `quota_options`: the options of `Quota`, but its store.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        providers: Mapping[str, Provider],
        router: Router,
        store: Store | None,
        verify: Verify | None,
        transport: Transport,
        record: UsageSink,
        prices: Pricing,
        quota_options: Mapping[str, Any],
    ) -> None:
        self._settings = settings
        self._providers = providers
        self._router = router
        self._store = store
        self._verify = verify
        self._prices, self._quota_options = prices, quota_options
        self._common: dict[str, Any] = {"transport": transport, "record": record}
        self._callers: dict[str, Any] = {"verify": verify, "around": self._with_quota}

    def apps(self) -> dict[str, CompatApp]:
        """Return the apps by the path to mount them at. Raises ConfigurationError."""
        given = self._settings.compat
        found: dict[str, CompatApp] = {}
        for name, path, make in (
            ("aiproxy", given.aiproxy, self._aiproxy),
            ("oneapi", given.oneapi, self._oneapi),
            ("chatgpt_to_api", given.chatgpt_to_api, self._chatgpt_to_api),
            ("chatgpt_adapter", given.chatgpt_adapter, self._chatgpt_adapter),
        ):
            if path is None:
                continue
            if path in found or path in _OTHER_PATHS:
                raise ConfigurationError(
                    f"compat.{name}: the path {path!r} is taken; use another one."
                )
            found[path] = make()
        return found

    def _with_quota(self, app: ASGIApp) -> ASGIApp:
        if self._store is None or self._verify is None:
            return app
        return Quota(app, store=self._store, **self._quota_options)

    def _vendor(self, row: Provider) -> Provider:
        """Return the configured provider of this name, or the vendor's without keys."""
        return self._providers.get(row.name, row)

    def _aiproxy(self) -> CompatApp:
        given = self._settings.compat
        options: dict[str, Any] = {}
        if given.gemini_model is not None:
            options["gemini_model"] = given.gemini_model
        return AIProxyRoutes(
            openai=self._vendor(OPENAI),
            gemini=self._vendor(GEMINI),
            anthropic=self._vendor(ANTHROPIC),
            coze=self._vendor(COZE),
            chatgpt_web=given.chatgpt_web,
            claude_web=given.claude_web,
            **options,
            **self._callers,
            **self._common,
        )

    def _oneapi(self) -> CompatApp:
        password = self._settings.compat.root_password or self._settings.admin_token
        if password is None or self._store is None:
            raise ConfigurationError(
                "compat.root_password: is required for compat.oneapi, unless admin_token is set."
            )
        sealer = make_sealer(self._settings)
        if sealer is None:
            raise ConfigurationError(
                "sealing_keys: at least one is required for compat.oneapi, because the keys of "
                "its channels are encrypted before they are stored."
            )
        return OneAPIRoutes(
            self._store,
            root_password=password.get_secret_value(),
            api_limit=self._settings.compat.api_limit,
            sealer=sealer,
            prices=self._prices,
            bases={name: one.base_url for name, one in self._providers.items()},
            **self._common,
        )

    def _chatgpt_to_api(self) -> CompatApp:
        given = self._settings.compat
        password = given.admin_password or self._settings.admin_token
        if password is None:
            raise ConfigurationError(
                "compat.admin_password: is required for compat.chatgpt_to_api, unless admin_token "
                "is set."
            )
        if given.chatgpt_to_api == "/" and self._settings.admin_token is not None:
            raise ConfigurationError(
                "compat.chatgpt_to_api: at '/' its paths /admin/... are those of the admin API. "
                "Mount it at another path, or set compat.admin_password instead of admin_token."
            )
        return ChatGPTToAPIRoutes(
            self._vendor(OPENAI),
            admin_password=password.get_secret_value(),
            api_keys=[key.get_secret_value() for key in given.api_keys],
            proxies=[secret_value(url) or "" for url in given.proxies],
            models=given.models,
            store=self._store,
            **self._callers,
            **self._common,
        )

    def _chatgpt_adapter(self) -> CompatApp:
        return ChatGPTAdapterRoutes(
            self._router,
            interpreter=self._providers.get(_INTERPRETER),
            hooks=make_hooks(self._settings),
            images=AdapterImages(**self._settings.compat.images.model_dump()),
            **self._callers,
            **self._common,
        )
