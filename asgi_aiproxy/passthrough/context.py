"""What the exchanges of one proxy share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from asgi_aiproxy._cancellation import TimerRegistry
from asgi_aiproxy._request_id import request_id
from asgi_aiproxy.exchange.record import ExchangeRecord
from asgi_aiproxy.passthrough.hooks import ProxyHooks
from asgi_aiproxy.passthrough.request import ProxyRequest
from asgi_aiproxy.upstream.base import Timeouts, Transport
from asgi_aiproxy.usage.record import Recorder


@dataclass(frozen=True)
class ProxyContext:
    """What all exchanges of one proxy share; sizes are in bytes."""

    transport: Transport
    recorder: Recorder
    timeouts: Timeouts
    max_body: int | None
    max_replay: int
    max_inspected: int
    # Why bodies must be read completely before they are sent; empty if they need not be
    whole_body_reason: str
    keep_host: bool
    recorded: bool  # whether usage records are written
    clock: Callable[[], float]
    hooks: ProxyHooks | None = None
    rounds: TimerRegistry = field(default_factory=TimerRegistry)


def new_record(request: ProxyRequest, clock: Callable[[], float]) -> ExchangeRecord:
    """Return the record of an exchange that begins now."""
    return ExchangeRecord(
        principal=request.principal.id,
        face="passthrough",
        operation=request.route.operation,
        request_id=request_id(request.scope),
        started=clock(),
        provider=request.target.name,
        key_id=request.injected,
    )
