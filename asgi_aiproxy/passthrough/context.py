"""What the exchanges of one proxy share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from asgi_aiproxy._cancellation import TimerRegistry
from asgi_aiproxy.exchange.attribution import LABEL_MEMBERS, NO_LABELS, Attribution
from asgi_aiproxy.exchange.receipts import Receipts
from asgi_aiproxy.exchange.record import ExchangeRecord
from asgi_aiproxy.inspection import Fields
from asgi_aiproxy.keys.resource_records import ResourceOwnership, ResourceRecords
from asgi_aiproxy.passthrough.hooks import ProxyHooks
from asgi_aiproxy.passthrough.request import ProxyRequest
from asgi_aiproxy.upstream.base import Timeouts, Transport
from asgi_aiproxy.usage.recorder import Recorder

NO_RECEIPTS = Receipts(header=False)


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
    attribution: Attribution | None
    clock: Callable[[], float]
    hooks: ProxyHooks | None = None
    resources: ResourceRecords | None = None
    ownership: ResourceOwnership = ResourceOwnership()
    receipts: Receipts = NO_RECEIPTS
    rounds: TimerRegistry = field(default_factory=TimerRegistry)


def new_record(request: ProxyRequest, context: ProxyContext) -> ExchangeRecord:
    """Return the record of an exchange that begins now."""
    attribution = context.attribution
    return ExchangeRecord(
        principal=request.principal.id,
        face="passthrough",
        operation=request.route.operation,
        request_id=request.id,
        started=context.clock(),
        provider=request.target.name,
        key_id=request.injected,
        labels=(
            attribution.labels(request.read_headers, {}, request.principal)
            if attribution is not None
            else NO_LABELS
        ),
    )


def add_labels(
    record: ExchangeRecord, request: ProxyRequest, context: ProxyContext, members: Fields
) -> None:
    """Add the session and the tags that the body names to the record."""
    attribution = context.attribution
    if attribution is not None and not LABEL_MEMBERS.isdisjoint(members):
        record.labels = attribution.labels(request.read_headers, members, request.principal)
