"""What the exchanges of one proxy share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from asgi_aiproxy._cancellation import TimerRegistry
from asgi_aiproxy._request_id import request_id
from asgi_aiproxy.exchange.record import ExchangeRecord
from asgi_aiproxy.passthrough.request import ProxyRequest
from asgi_aiproxy.upstream.base import Timeouts, Transport
from asgi_aiproxy.usage.record import Recorder


@dataclass(frozen=True)
class ProxyContext:
    """What all exchanges of one proxy share; sizes in bytes."""

    transport: Transport
    recorder: Recorder
    timeouts: Timeouts
    max_body: int | None
    max_replay: int
    max_inspected: int
    whole_body_reason: str  # why bodies have to be read before they are sent on, if they have to
    keep_host: bool
    recorded: bool  # whether anybody wants to know of exchanges
    clock: Callable[[], float]
    rounds: TimerRegistry = field(default_factory=TimerRegistry)


def new_record(request: ProxyRequest, clock: Callable[[], float]) -> ExchangeRecord:
    """The record of an exchange that begins now."""
    return ExchangeRecord(
        principal=request.principal.id,
        face="passthrough",
        operation=request.route.operation,
        request_id=request_id(request.scope),
        started=clock(),
        provider=request.target.name,
        key_id=request.injected,
    )
