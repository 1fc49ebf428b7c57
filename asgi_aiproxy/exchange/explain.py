"""What would happen to a request: targets in order, their keys, limits, and a refusal.

Theory of operation. An explanation takes the steps of an exchange (see `exchange.engine`) without
sending anything, with the same functions: the targets that the router names for the caller, its
limits and budgets, and the keys of each target. The first step that refuses decides, so the
refusal is the error that a request would get now. What only a provider or a hook knows is not part
of it: a key that the provider will refuse is usable until it has done so.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import msgspec

from asgi_aiproxy import dialects
from asgi_aiproxy.dialects.base import Operation
from asgi_aiproxy.errors import APIError
from asgi_aiproxy.exchange.error_mapping import more_relevant_error, no_key_error
from asgi_aiproxy.exchange.relay import Relay
from asgi_aiproxy.exchange.request import GatewayRequest
from asgi_aiproxy.exchange.targets import allowed_targets
from asgi_aiproxy.keys.explain import KeyReport
from asgi_aiproxy.principal import ANONYMOUS, Principal
from asgi_aiproxy.providers.base import Router, Target

_CHAT = Operation("chat.completions", "/chat/completions", chat=True)


class LimitReport(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A limit or budget of the caller: how much is used, and how much the request would reserve.

    Amounts of a budget in dollars are in micro-dollars. `refuses`: the request would exceed it.
    """

    name: str
    limit: int
    used: int
    needed: int
    refuses: bool = False


class TargetReport(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A provider and a model that may serve the request.

    `first` are the ids of the keys of which one would be used; a provider without keys has none.
    `problem` says why no key is usable; `usable`: one is now, or will be within the `max_wait`
    seconds that its pool lets requests wait. `max_cost` is the highest cost in micro-dollars, None
    without a price.
    """

    provider: str
    model: str
    priority: int = 0
    weight: float = 1.0
    keys: tuple[KeyReport, ...] = ()
    first: tuple[str, ...] = ()
    usable: bool = True
    problem: str = ""
    max_wait: float = 0.0
    max_cost: int | None = None


class RefusalReport(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The error that the request would get. `retry_after` is in seconds."""

    status: int
    message: str
    code: str = ""
    retry_after: float | None = None


class Explanation(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What would happen to a request now. `targets` are in the order in which they are tried;
    those of equal priority are drawn by weight.
    """

    model: str
    principal: str = ""
    targets: tuple[TargetReport, ...] = ()
    limits: tuple[LimitReport, ...] = ()
    refusal: RefusalReport | None = None

    @property
    def first_targets(self) -> tuple[TargetReport, ...]:
        """The targets of which one would serve the request; empty if it would be refused."""
        usable = [target for target in self.targets if target.usable]
        if self.refusal is not None or not usable:
            return ()
        best = min(target.priority for target in usable)
        return tuple(target for target in usable if target.priority == best)


class LimitsExplanation(msgspec.Struct, frozen=True):
    """Limits, the highest cost for each target, and the error if one of them refuses."""

    limits: tuple[LimitReport, ...] = ()
    costs: tuple[int | None, ...] = ()
    refusal: APIError | None = None


# Explains the limits of a caller for a request to some targets (provider and model), of so many
# input and output tokens; None for as many as requests without a limit may have.
ExplainLimits = Callable[
    [Principal, Sequence[tuple[str, str]], int, int | None], Awaitable[LimitsExplanation]
]


async def explain_call(
    router: Router,
    model: str,
    principal: Principal = ANONYMOUS,
    size: int = 0,
    *,
    output: int | None = None,
    provider: str = "",
    key_id: str = "",
    limits: ExplainLimits | None = None,
) -> Explanation:
    """Explain a chat request for `model`; nothing is sent or reserved.

    `size` and `output` are its input tokens and the most output tokens that it allows, `provider`
    and `key_id` what its headers request, `limits` explains the limits of the caller. Raises
    StoreUnavailableError.
    """
    request = GatewayRequest(
        dialects.OPENAI_CHAT,
        _CHAT,
        model=model,
        principal=principal,
        provider=provider,
        key_id=key_id,
    )
    try:
        targets = allowed_targets(router, request)
    except APIError as error:
        return Explanation(model=model, principal=principal.id, refusal=_refusal(error))
    explained = LimitsExplanation()
    if limits is not None:
        names = [(target.provider.name, target.model) for target in targets]
        explained = await limits(principal, names, size, output)
    failure: APIError | None = None
    reports: list[TargetReport] = []
    for target in targets:
        report, missing = _explain_target(target, request)
        if missing is not None:
            failure = more_relevant_error(failure, missing)
        reports.append(report)
    if explained.costs:
        reports = [
            msgspec.structs.replace(report, max_cost=cost)
            for report, cost in zip(reports, explained.costs, strict=True)
        ]
    refused = explained.refusal
    if refused is None and not any(report.usable for report in reports):
        refused = failure
    return Explanation(
        model=model,
        principal=principal.id,
        targets=tuple(reports),
        limits=explained.limits,
        refusal=_refusal(refused) if refused is not None else None,
    )


def _explain_target(
    target: Target, request: GatewayRequest
) -> tuple[TargetReport, APIError | None]:
    provider = target.provider
    report = TargetReport(
        provider=provider.name, model=target.model, priority=target.priority, weight=target.weight
    )
    if provider.keys is None:
        return report, None
    key_id, among = request.key_id, request.principal.keys
    keys, first, missing = provider.keys.explain(model=target.model, key_id=key_id, among=among)
    report = msgspec.structs.replace(report, keys=tuple(keys), first=tuple(first))
    if missing is None:
        return report, None
    error = no_key_error(missing, provider.name, target.model)
    max_wait = provider.keys.max_wait_seconds
    usable = any(key.wait is not None and key.wait <= max_wait for key in keys)
    report = msgspec.structs.replace(
        report, usable=usable, problem=error.message, max_wait=max_wait
    )
    return report, error


def _refusal(error: APIError) -> RefusalReport:
    return RefusalReport(
        status=error.status,
        message=error.message,
        code=error.code or "",
        retry_after=error.retry_after,
    )


class ExplainsCalls:
    """The method `explain` of shims."""

    _relay: Relay

    async def explain(
        self,
        model: str,
        principal: Principal = ANONYMOUS,
        size: int = 0,
        *,
        output: int | None = None,
        provider: str = "",
        key_id: str = "",
        limits: ExplainLimits | None = None,
    ) -> Explanation:
        """Explain what would happen to a chat request now: its targets in order with their keys,
        limits and price, and why it would be refused. Nothing is sent or reserved.

        `size` and `output` are its input tokens and the most output tokens that it allows (None:
        those of the model); `provider` and `key_id` are what its headers request. `limits` is
        `quota.explain` of a `Quota`. Raises StoreUnavailableError.
        """
        return await explain_call(
            self._relay.router,
            model,
            principal,
            size,
            output=output,
            provider=provider,
            key_id=key_id,
            limits=limits,
        )
