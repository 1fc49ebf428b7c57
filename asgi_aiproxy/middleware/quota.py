"""`Quota`: enforces the limits and budgets of callers, in all workers together."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

from asgi_aiproxy._asgi import ASGIApp, Message, Receive, Scope, Send
from asgi_aiproxy.errors import APIError, ConfigurationError
from asgi_aiproxy.exchange.admission import GATE_KEY
from asgi_aiproxy.exchange.explain import LimitsExplanation
from asgi_aiproxy.exchange.session_requests import with_step
from asgi_aiproxy.middleware.base import Middleware
from asgi_aiproxy.middleware.error_format import send_error_for
from asgi_aiproxy.prices import Pricing
from asgi_aiproxy.principal import ANONYMOUS, NO_LIMITS, SCOPE_KEY, Limits, Principal
from asgi_aiproxy.providers.vendor_headers import RATE_LIMIT_PREFIXES
from asgi_aiproxy.quotas.admission import CallAdmission
from asgi_aiproxy.quotas.alerts import OnThreshold
from asgi_aiproxy.quotas.explain import explain_limits
from asgi_aiproxy.quotas.limiter import NO_TARIFF, Limiter
from asgi_aiproxy.stores.base import OutagePolicy, Store, check_store

logger = logging.getLogger("asgi_aiproxy")

_RATE_LIMIT_HEADERS = tuple(prefix.encode() for prefix in RATE_LIMIT_PREFIXES)


class Quota(Middleware):
    """Enforces the limits of callers: requests and tokens per minute, concurrent requests, budgets.

    The limits are those of the `Principal` in the scope; `limits` apply to callers without limits
    of their own, and to all unknown callers together. All workers count in `store`: a call takes
    one round trip before it is sent, and one in the background when it has ended. An upper estimate
    of the cost is reserved from the budgets, and replaced by the usage that the provider reports;
    `default_output` is the number of output tokens assumed for a request that does not limit them.
    `prices` (by default the list prices of genai-prices) are for budgets in dollars, `ratios` for
    budgets in quota units; if they are given, all exchanges are priced, also those of callers
    without a budget.

    While the store is unavailable, `limits_away` and `budgets_away` decide: `fail_open` (admit),
    `fail_closed` (503), or `local_estimate` (count in this process). The usage of that time is
    recorded when the store is available again. When one of `thresholds`, fractions of a budget, is
    spent, `on_threshold` (a function, or several) is called with a `BudgetAlert`: once a period, by
    one worker (see `asgi_aiproxy.quotas.alerts`). `ttl` is the number of seconds after which the
    reservations of a worker that died expire: they are charged in full. `clock` returns Unix time.

    Raises ConfigurationError if an argument is invalid, or `limits` has a budget in a unit for
    which nothing has a price. (If only callers of their own have such budgets, the log has a
    warning, and their calls are refused.)

    This package's apps request the admission of a call themselves, once its model is known (see
    `asgi_aiproxy.exchange.admission`); with any other app each request is admitted here.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        store: Store,
        limits: Limits | None = None,
        prices: Pricing | None = None,
        ratios: Pricing | None = None,
        default_output: int = 4096,
        limits_away: OutagePolicy | str = OutagePolicy.LOCAL_ESTIMATE,
        budgets_away: OutagePolicy | str = OutagePolicy.FAIL_CLOSED,
        thresholds: Sequence[float] = (0.5, 0.8, 0.95),
        on_threshold: OnThreshold | Sequence[OnThreshold] = (),
        ttl: float = 60.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(app)
        check_store(store, "Quota")
        if not all(0 < threshold <= 1 for threshold in thresholds):
            raise ConfigurationError(
                "Quota: thresholds must be fractions of a budget, above 0 and at most 1."
            )
        self._limits = limits if limits is not None else NO_LIMITS
        self._limiter = Limiter(
            store,
            prices=prices,
            ratios=ratios,
            default_output=default_output,
            limits_away=_mode(limits_away),
            budgets_away=_mode(budgets_away),
            thresholds=thresholds,
            on_threshold=(on_threshold,) if callable(on_threshold) else tuple(on_threshold),
            ttl=ttl,
            clock=clock,
        )
        self._limiter.check(self._limits)
        if "usd" not in self._limiter.tariffs:
            logger.warning("%s", NO_TARIFF["usd"])
        self._app_handles_admission = _handles_admission(app)

    async def __aexit__(self, *exc: object) -> None:
        await super().__aexit__(*exc)
        await self._limiter.drain()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one ASGI scope to the app, or answer 429."""
        if scope["type"] not in ("http", "websocket"):
            await self._pass_other_scope(scope, receive, send)
            return
        if scope["type"] == "websocket":
            scope = with_step(scope, "admission", self._admit_again)
        admission = self._admission(scope)
        if admission is None:
            await self.app(scope, receive, send)
            return
        try:
            if not self._app_handles_admission:
                await admission.admit_request()
        except APIError as error:
            await send_error_for(scope, receive, _sending_limits(admission, send), error)
            return
        try:
            await self.app(
                {**scope, GATE_KEY: admission}, receive, _sending_limits(admission, send)
            )
        finally:
            admission.close()

    async def explain(
        self,
        principal: Principal,
        targets: Sequence[tuple[str, str]],
        size: int,
        output: int | None,
    ) -> LimitsExplanation:
        """Explain the limits of a caller for a request: the `limits` of `Shim.explain`.

        Raises StoreUnavailableError.
        """
        limits = self._limits if principal.limits == NO_LIMITS else principal.limits
        return await explain_limits(self._limiter, principal, limits, targets, size, output)

    def _admission(self, scope: Scope) -> CallAdmission | None:
        """Return the admission of a request; None if nothing is limited or priced."""
        principal: Principal = scope.get(SCOPE_KEY) or ANONYMOUS
        limits = self._limits if principal.limits == NO_LIMITS else principal.limits
        if limits == NO_LIMITS and not self._limiter.priced:
            return None
        return CallAdmission(self._limiter, principal, limits)

    async def _admit_again(self, scope: Scope) -> Scope:
        """Return the scope of one more request of a WebSocket."""
        return {**scope, GATE_KEY: self._admission(scope)}


def _mode(mode: OutagePolicy | str) -> OutagePolicy:
    try:
        return OutagePolicy(mode)
    except ValueError as error:
        known = ", ".join(OutagePolicy)
        raise ConfigurationError(f"Unknown mode {mode!r}. There are: {known}.") from error


def _handles_admission(app: object) -> bool:
    """Return whether the app, or an app that it wraps, requests admission itself."""
    while app is not None:
        if getattr(app, "handles_admission", False):
            return True
        app = getattr(app, "app", None)
    return False


_STARTS = frozenset({"http.response.start", "websocket.http.response.start"})


def _sending_limits(admission: CallAdmission, send: Send) -> Send:
    """Return a `send` that adds the headers with the remaining limits, and removes those of a
    provider.
    """

    def sending(message: Message) -> object:
        if message["type"] in _STARTS and admission.headers:
            headers: Sequence[tuple[bytes, bytes]] = message.get("headers", ())
            kept = [pair for pair in headers if not pair[0].lower().startswith(_RATE_LIMIT_HEADERS)]
            message = {**message, "headers": [*kept, *admission.headers]}
        return send(message)

    return sending  # type: ignore[return-value]
