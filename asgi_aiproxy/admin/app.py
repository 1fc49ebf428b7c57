"""`AdminApp`: manage the gateway's tokens, keys, budgets and usage records over HTTP, as JSON."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Self

from asgi_aiproxy import __version__, _asgi
from asgi_aiproxy._asgi import Receive, Scope, Send
from asgi_aiproxy._background_tasks import repeat, start
from asgi_aiproxy._turns import BackgroundTurns
from asgi_aiproxy.accounts import StoredTokenVerifier
from asgi_aiproxy.accounts.tokens import TOKENS
from asgi_aiproxy.admin.announcement_routes import announcement_routes
from asgi_aiproxy.admin.audit_routes import audit_routes
from asgi_aiproxy.admin.auth import AdminAuth
from asgi_aiproxy.admin.billing import billing_routes
from asgi_aiproxy.admin.explain_routes import explain_routes
from asgi_aiproxy.admin.group_routes import account_routes, group_routes
from asgi_aiproxy.admin.key_routes import key_routes
from asgi_aiproxy.admin.live_tail import LiveTail
from asgi_aiproxy.admin.model_routes import price_routes, traffic_routes
from asgi_aiproxy.admin.openapi import openapi_document
from asgi_aiproxy.admin.own_routes import own_routes
from asgi_aiproxy.admin.routing import AdminRequest, Route
from asgi_aiproxy.admin.serve import AdminAPI
from asgi_aiproxy.admin.site_routes import site_routes
from asgi_aiproxy.admin.token_routes import token_routes
from asgi_aiproxy.admin.usage_routes import record_routes, usage_routes
from asgi_aiproxy.admin.user_routes import user_routes
from asgi_aiproxy.admin.voucher_routes import voucher_routes
from asgi_aiproxy.dialects import OPENAI_CHAT
from asgi_aiproxy.keys import KeyPool
from asgi_aiproxy.principal import Principal
from asgi_aiproxy.providers import Provider
from asgi_aiproxy.services.address_policy import Destinations
from asgi_aiproxy.services.announcements import AnnouncementService
from asgi_aiproxy.services.audit import AuditLog
from asgi_aiproxy.services.base import Ok, Page
from asgi_aiproxy.services.explain import Explain, ExplainService
from asgi_aiproxy.services.groups import AccountService, GroupService
from asgi_aiproxy.services.in_flight import InFlightService
from asgi_aiproxy.services.invitations import Invitations
from asgi_aiproxy.services.keys import KeyService
from asgi_aiproxy.services.model_prices import ModelPriceService, PriceTable
from asgi_aiproxy.services.own_tokens import OwnTokenService, TokenAllowance
from asgi_aiproxy.services.own_usage import OwnUsageService
from asgi_aiproxy.services.recent import RecentService
from asgi_aiproxy.services.routes import RouteService, RouteTable
from asgi_aiproxy.services.self_service import SelfService
from asgi_aiproxy.services.settings import SettingOut
from asgi_aiproxy.services.site import SiteService
from asgi_aiproxy.services.statements import StatementService
from asgi_aiproxy.services.tokens import TokenService
from asgi_aiproxy.services.usage import UsageService
from asgi_aiproxy.services.users import UserService
from asgi_aiproxy.services.vouchers import VoucherService
from asgi_aiproxy.stores.base import Store, StoreUnavailableError, check_store
from asgi_aiproxy.upstream import Transport, default_transport


class AdminApp:
    """An ASGI app to administer a gateway over HTTP, mounted at any path.

    `token` is the administrator's token, with all rights; it is required. Tokens of the store that
    have scopes (`read`, `write`, `root`) are accepted within those scopes, and so are callers that
    the host's own `Authenticate(identify=...)` gives scopes. After `max_failures_per_minute`
    invalid tokens from one address, further invalid ones get 429; a valid token is always accepted.
    `pools` are the key pools to manage, together with those of `providers`, whose keys can also be
    tested, through `transport`. `ledger` is the name of the ledger in the store, `units_per_usd`
    the number of quota units per US dollar. `private_networks` are address ranges, such as
    `10.0.0.0/8`, that a key's `base_url` or `proxy` may use over this API although they are not
    public. `self_service` is what callers may create for themselves; by default nothing. `settings`
    are those that `GET /settings` returns. Changes are recorded in `audit`, by default the audit
    log of the store. `users` manages users, by default those of the store. `explain` explains
    requests: `partial(ai.explain, limits=quota.explain)`.
    `callers` are callers that it may be requested for and that have no token in the store, by their
    ids. `router` is a `ProviderRouter` whose routes are listed, `prices` are those of `Quota`.
    `clock` returns Unix time. While the app is open (`lifespan`), it publishes the number of calls
    in flight to the other workers.

    Raises ConfigurationError if an argument is invalid.

    ::

        app.mount("/ai-admin", AdminApp(store, token=os.environ["ADMIN"], pools=[keys]))

    It does not close `store`, `pools`, `providers` or `transport`: their owner does.
    """

    def __init__(
        self,
        store: Store,
        *,
        token: str,
        pools: Iterable[KeyPool] = (),
        providers: Iterable[Provider] = (),
        transport: Transport | None = None,
        ledger: str = "ledger",
        max_failures_per_minute: int = 10,
        units_per_usd: int = 500_000,
        private_networks: Iterable[str] = (),
        self_service: TokenAllowance | None = None,
        settings: Sequence[SettingOut] = (),
        explain: Explain | None = None,
        callers: Mapping[str, Principal] | None = None,
        audit: AuditLog | None = None,
        router: RouteTable | None = None,
        prices: PriceTable | None = None,
        users: UserService | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        check_store(store, "AdminApp")
        self.store = store
        self.units_per_usd = units_per_usd
        self.turns = BackgroundTurns()  # in which requests are handled, here and in the console
        self.access = AdminAuth(
            token,
            StoredTokenVerifier(store, clock=clock),
            max_failures_per_minute=max_failures_per_minute,
        )
        self._owned = default_transport() if transport is None else None
        carries = transport if transport is not None else self._owned
        usage = UsageService(store, ledger, clock=clock)
        audit = audit if audit is not None else AuditLog(store, clock=clock)
        self.users = users if users is not None else UserService(store, audit=audit, clock=clock)
        self.site = SiteService(store, audit=audit)
        destinations = Destinations(private_networks)
        keys = KeyService(pools, providers, carries, destinations, audit)  # type: ignore[arg-type]
        tokens = TokenService(store, audit=audit, clock=clock)
        vouchers = VoucherService(store, audit=audit, clock=clock)
        own = OwnTokenService(tokens, self_service or TokenAllowance(), clock=clock)
        own_usage = OwnUsageService(own, usage, vouchers)
        self._in_flight = InFlightService(store, keys.pools)
        self._publishing: asyncio.Task[None] | None = None
        live_tail = LiveTail(store, ledger, own_usage, self.turns, principal=usage.principal)
        self._settings = tuple(settings)
        self._routes = [
            *token_routes(tokens, clock),
            *group_routes(GroupService(store, audit=audit)),
            *account_routes(
                AccountService(store, audit=audit, clock=clock),
                StatementService(store, ledger, clock=clock),
            ),
            *user_routes(self.users, Invitations(store, audit=audit, clock=clock)),
            *voucher_routes(vouchers),
            *audit_routes(audit),
            *announcement_routes(AnnouncementService(store, audit=audit, clock=clock)),
            *site_routes(self.site),
            *explain_routes(
                ExplainService(store, explain, ledger, callers=callers or {}, clock=clock)
            ),
            *usage_routes(usage, RecentService(store, ledger, clock=clock)),
            *live_tail.routes(),
            *record_routes(usage),
            *price_routes(ModelPriceService(prices, router, usage)),
            *traffic_routes(RouteService(router), self._in_flight),
            *billing_routes(SelfService(store, units_per_usd=units_per_usd, clock=clock)),
            *own_routes(own, own_usage),
            *key_routes(keys),
            *self._own_routes(),
        ]
        self._api = AdminAPI(self._routes, self.access)

    def __repr__(self) -> str:
        return f"AdminApp({self.store!r})"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one ASGI scope."""
        if scope["type"] == "lifespan":
            await _asgi.serve_lifespan(self, receive, send)
        elif scope["type"] == "http":
            await self.turns.run(self._api.handle(scope, receive, send))
        elif scope["type"] == "websocket":
            error = _asgi.no_websocket()
            body = OPENAI_CHAT.encode_error(error)
            await _asgi.refuse_websocket(scope, receive, send, error.status, body, [])

    async def call(self, caller: Principal, operation: str, **request: Any) -> Any:
        """Run an operation of the API for `caller` within this process.

        `operation` is a method and a path, such as `GET /tokens/{id}`; `request` has the values of
        the names in the path, and `query`, `body` and `scope`. Raises AIProxyError.
        """
        return await self._api.call(caller, operation, **request)

    async def __aenter__(self) -> Self:
        what = "the number of calls in flight"
        self._publishing = start(repeat(self._in_flight.publish, what=what), what=what)
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._publishing is not None:
            self._publishing.cancel()
            with suppress(StoreUnavailableError):
                await self._in_flight.withdraw()
        if self._owned is not None:
            await self._owned.aclose()

    def _own_routes(self) -> list[Route]:
        async def health(call: AdminRequest) -> Any:
            return Ok()

        async def ready(call: AdminRequest) -> Any:
            await self.store.version(TOKENS)
            return Ok()

        async def describe(call: AdminRequest) -> Any:
            server = call.scope.get("root_path", "")
            return openapi_document(self._routes, version=__version__, server=server)

        async def effective(call: AdminRequest) -> Any:
            return Page(list(self._settings))

        return [
            Route(
                method="GET",
                path="/settings",
                need="read",
                run=effective,
                answer=Page[SettingOut],
                summary="The settings in effect, without secrets, and where each is from.",
            ),
            Route(
                method="GET",
                path="/health",
                need="nothing",
                run=health,
                summary="Liveness: the process answers.",
            ),
            Route(
                method="GET",
                path="/ready",
                need="nothing",
                run=ready,
                summary="Readiness: the store answers, too; 503 if it does not.",
            ),
            Route(
                method="GET",
                path="/openapi.json",
                need="nothing",
                run=describe,
                answer=dict[str, Any],
                summary="The OpenAPI document.",
            ),
        ]
