"""Receipts: what one exchange cost, line by line."""

from __future__ import annotations

import msgspec

from asgi_aiproxy.exchange.receipts import dollars
from asgi_aiproxy.prices.applied import ReceiptLine, receipt_lines
from asgi_aiproxy.services.usage import RecordOut

_RATIO = 1_000_000


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """The cost of one exchange: the `lines` add up to `micro_dollars`.

    `charged` is what the caller pays in US dollars: nothing if the exchange is `not_charged`.
    `price_source` is where the price of the model `priced_as` comes from: `genai-prices`, or
    `own:<name>` for the operator's own prices; `price_ratio` is the ratio of the caller's group.
    `micro_dollars` is null if the model has no price. `estimated`: the provider did not report all
    of the usage.
    """

    micro_dollars: int | None
    charged: str
    not_charged: bool
    estimated: bool
    units: int | None
    priced_as: str
    price_source: str
    price_ratio: float
    lines: list[ReceiptLine]


class ExchangeOut(msgspec.Struct, frozen=True):
    """One exchange and its receipt."""

    record: RecordOut
    receipt: Receipt


def to_receipt(record: RecordOut) -> Receipt:
    """Return the receipt of an exchange."""
    price, cost = record.price, record.cost
    lines = [] if not cost else receipt_lines(price, record.usage, cost)
    return Receipt(
        micro_dollars=cost,
        charged=dollars(record),
        not_charged=record.not_charged,
        estimated=record.estimated,
        units=record.units,
        priced_as=price.model if price is not None else "",
        price_source=price.source if price is not None else "",
        price_ratio=price.ratio / _RATIO if price is not None else 1.0,
        lines=lines,
    )
