"""Price usage records that no admission control has priced."""

from __future__ import annotations

import msgspec

from asgi_aiproxy.prices import Pricing
from asgi_aiproxy.prices.call_price import Priced, price_call
from asgi_aiproxy.usage.record import UsageRecord

_FULL_PRICE = 1_000_000  # millionths: no discount


def cost_of(record: UsageRecord, pricing: Pricing) -> int | None:
    """The cost of an exchange in the unit of `pricing`, without the price ratio of a group; None
    if its usage is unknown, or none of its model names has a price."""
    priced = _price_of(record, pricing)
    return priced.cost if priced is not None else None


def priced_record(record: UsageRecord, pricing: Pricing) -> UsageRecord:
    """The record with its cost in dollars and the price, if there is one; see `cost_of`."""
    priced = _price_of(record, pricing)
    if priced is None:
        return record
    return msgspec.structs.replace(record, cost=priced.cost, price=priced.price)


def _price_of(record: UsageRecord, pricing: Pricing) -> Priced | None:
    if record.usage is None:
        return None
    models = (record.upstream_model, record.model, record.requested_model)
    named = [model for model in models if model]
    return price_call(pricing, record.provider, named, record.usage, _FULL_PRICE)
