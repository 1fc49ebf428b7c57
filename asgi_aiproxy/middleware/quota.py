"""`Quota`: no caller uses more than its limits allow, in all workers together."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

from asgi_aiproxy._asgi import ASGIApp, Message, Receive, Scope, Send
from asgi_aiproxy.errors import APIError, ConfigurationError
from asgi_aiproxy.exchange.admission import GATE_KEY
from asgi_aiproxy.exchange.session_requests import with_step
from asgi_aiproxy.middleware.base import Middleware
from asgi_aiproxy.middleware.error_format import send_error_for
from asgi_aiproxy.prices import Pricing
from asgi_aiproxy.principal import ANONYMOUS, NO_LIMITS, SCOPE_KEY, Limits, Principal
from asgi_aiproxy.providers.vendor_headers import RATE_LIMIT_PREFIXES
from asgi_aiproxy.quotas.admission import CallAdmission
from asgi_aiproxy.quotas.limiter import NO_TARIFF, Limiter, OnLow
from asgi_aiproxy.stores.base import OutagePolicy, Store, check_store

logger = logging.getLogger("asgi_aiproxy")

_OURS = tuple(prefix.encode() for prefix in RATE_LIMIT_PREFIXES)


class Quota(Middleware):
    """Holds callers to their limits: requests and tokens a minute, requests at once, budgets.

    The limits are those of the `Principal` in the scope; `limits` are for callers that have none,
    also for all unknown callers together. `store` is where all workers count; a call costs one
    trip to it before it goes out, and one in the background when it has ended. A budget is reserved
    by an upper estimate, and settled with what the provider says was used: `default_output` is how
    many tokens an answer is taken to have if the request does not limit them. `prices` (by default
    the list prices of genai-prices) are for budgets in dollars, `ratios` for those in units; if
    they are given, all exchanges are priced, also of callers without a budget.

    While the store is away `limits_away` and `budgets_away` say what happens: `fail_open`,
    `fail_closed` (a 503), or `local_estimate` (by what this process knows). What is used meanwhile
    is booked when the store is back. `on_low` is called once when a budget falls below `low`, a
    share of it. `ttl` is after how many seconds the slots and reservations of a dead worker end:
    they are charged as they were reserved.

    Raises ConfigurationError if `limits` has a budget in a unit in which nothing has a price. (If
    only callers of their own have such budgets, the log says so, and their calls are refused.)

    An app that relays calls asks for more by itself, when it knows the model (see
    `asgi_aiproxy.exchange.admission`); before any other app each request counts.
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
        low: float = 0.1,
        on_low: OnLow | None = None,
        ttl: float = 60.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(app)
        check_store(store, "Quota")
        if not 0 <= low <= 1:
            raise ConfigurationError("Quota: low is a share of a budget, between 0 and 1.")
        self._limits = limits if limits is not None else NO_LIMITS
        self._limiter = Limiter(
            store,
            prices=prices,
            ratios=ratios,
            default_output=default_output,
            limits_away=_mode(limits_away),
            budgets_away=_mode(budgets_away),
            low=low,
            on_low=on_low,
            ttl=ttl,
            clock=clock,
        )
        self._limiter.check(self._limits)
        if "usd" not in self._limiter.tariffs:
            logger.warning("%s", NO_TARIFF["usd"])
        self._asked = _asks(app)

    async def __aexit__(self, *exc: object) -> None:
        await super().__aexit__(*exc)
        await self._limiter.drain()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one scope on, or answer 429."""
        if scope["type"] not in ("http", "websocket"):
            await self._pass_other_scope(scope, receive, send)
            return
        if scope["type"] == "websocket":
            scope = with_step(scope, "admission", self._admit_again)
        gate = self._control(scope)
        if gate is None:
            await self.app(scope, receive, send)
            return
        try:
            if not self._asked:
                await gate.admit_request()
        except APIError as error:
            await send_error_for(scope, receive, _with(gate, send), error)
            return
        try:
            await self.app({**scope, GATE_KEY: gate}, receive, _with(gate, send))
        finally:
            gate.close()

    def _control(self, scope: Scope) -> CallAdmission | None:
        """The admission control of a request, if its caller has limits or is priced."""
        principal: Principal = scope.get(SCOPE_KEY) or ANONYMOUS
        limits = self._limits if principal.limits == NO_LIMITS else principal.limits
        if limits == NO_LIMITS and not self._limiter.priced:
            return None
        return CallAdmission(self._limiter, principal, limits)

    async def _admit_again(self, scope: Scope) -> Scope:
        """The scope of one more request of a WebSocket."""
        return {**scope, GATE_KEY: self._control(scope)}


def _mode(mode: OutagePolicy | str) -> OutagePolicy:
    try:
        return OutagePolicy(mode)
    except ValueError as error:
        known = ", ".join(OutagePolicy)
        raise ConfigurationError(f"Unknown mode {mode!r}. There are: {known}.") from error


def _asks(app: object) -> bool:
    """Whether the app behind, or the one behind that, asks the gate by itself."""
    while app is not None:
        if getattr(app, "handles_admission", False):
            return True
        app = getattr(app, "app", None)
    return False


_STARTS = frozenset({"http.response.start", "websocket.http.response.start"})


def _with(gate: CallAdmission, send: Send) -> Send:
    """A `send` that adds the headers with the remaining limits, not those of a provider."""

    def sending(message: Message) -> object:
        if message["type"] in _STARTS and gate.headers:
            headers: Sequence[tuple[bytes, bytes]] = message.get("headers", ())
            kept = [pair for pair in headers if not pair[0].lower().startswith(_OURS)]
            message = {**message, "headers": [*kept, *gate.headers]}
        return send(message)

    return sending  # type: ignore[return-value]
