"""The price that a call was charged by, kept in its usage record, and its receipt line by line.

Theory of operation. A list of prices changes, so a receipt that is made later cannot look the price
up again. Whatever prices a call notes the rates that it used (`AppliedPrice`), and a receipt is
arithmetic on the record alone: for each kind of token the number times its rate. Rates are in
millionths of a micro-dollar per token; the sum is rounded up to whole micro-dollars, multiplied by
the price ratio of the caller, and rounded up again. The last line of a receipt is that rounding, so
its lines add up to the cost exactly.
"""

from __future__ import annotations

from decimal import Decimal

import msgspec

from asgi_aiproxy.messages import Usage
from asgi_aiproxy.prices.price import KINDS, Rates

_FULL_RATIO = 1_000_000  # millionths
_TRILLION = Decimal(10) ** 12
_UNITS = {
    "request": "requests",
    "image": "images",
    "character": "characters",
    "second": "seconds",
    "search": "searches",
}


class AppliedPrice(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """The price of one call: `model` is the name that has the price, `source` where it comes from
    (`genai-prices`, or the name or pattern among your own prices), `ratio` the price ratio in
    millionths, and `rates` are per token, in millionths of a micro-dollar.
    """

    model: str
    source: str
    rates: Rates
    ratio: int = _FULL_RATIO


class ReceiptLine(msgspec.Struct, frozen=True):
    """`quantity` of a kind (`input`, `cache_read` ...) times the price of one in micro-dollars.

    Amounts are exact decimal numbers. The kind `rounding` is what rounding up added.
    """

    kind: str
    quantity: int
    unit: str
    price: str
    micro_dollars: str


def compact(price: AppliedPrice, usage: Usage | None) -> AppliedPrice:
    """The price with the rates only of what was used, for storing it."""
    if usage is None:
        return price
    used = {
        kind: getattr(price.rates, kind)
        for kind, quantity in zip(KINDS, price.rates.quantities(usage), strict=True)
        if quantity
    }
    return msgspec.structs.replace(price, rates=Rates(**used))


def receipt_lines(price: AppliedPrice | None, usage: Usage | None, cost: int) -> list[ReceiptLine]:
    """The lines of a receipt, which add up to `cost` micro-dollars.

    Without a price (of a pricing of your own) there is one line, `call`.
    """
    if price is None or usage is None:
        return [ReceiptLine("call", 1, "calls", _text(Decimal(cost)), _text(Decimal(cost)))]
    lines = []
    rest = Decimal(cost)
    for kind, quantity in zip(KINDS, price.rates.quantities(usage), strict=True):
        rate = getattr(price.rates, kind)
        if not quantity or (kind == "request" and not rate):
            continue
        each = Decimal(rate * price.ratio) / _TRILLION
        amount = each * quantity
        rest -= amount
        lines.append(
            ReceiptLine(kind, quantity, _UNITS.get(kind, "tokens"), _text(each), _text(amount))
        )
    if rest:
        lines.append(ReceiptLine("rounding", 1, "", _text(rest), _text(rest)))
    return lines


def describe_price(price: AppliedPrice, usage: Usage) -> str:
    """The calculation of a cost as a sentence without its end: quantities, rates, and the ratio."""
    parts = []
    for kind, quantity in zip(KINDS, price.rates.quantities(usage), strict=True):
        rate = Decimal(getattr(price.rates, kind))
        if not quantity or (kind == "request" and not rate):
            continue
        if kind in _UNITS:
            parts.append(f"{quantity} {_UNITS[kind]} at ${_text(rate / _TRILLION)} each")
        else:
            each = _text(rate / _FULL_RATIO)
            parts.append(f"{quantity} {kind} tokens at ${each} per million")
    used = ", ".join(parts) or "nothing that has a price"
    ratio = f", times the caller's price ratio {ratio_text(price)}" if ratio_text(price) else ""
    return f"{used}, by the price of {price.model!r} ({price.source}){ratio}"


def ratio_text(price: AppliedPrice) -> str:
    """The price ratio as a decimal number; empty if it is 1."""
    return "" if price.ratio == _FULL_RATIO else _text(Decimal(price.ratio) / _FULL_RATIO)


def _text(amount: Decimal) -> str:
    return format(amount.normalize(), "f")
