"""Price a call, and keep the price that was used (see `applied`)."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from asgi_aiproxy.messages import Usage
from asgi_aiproxy.prices.applied import AppliedPrice
from asgi_aiproxy.prices.price import Rates
from asgi_aiproxy.prices.price_list import Prices, apply_ratio
from asgi_aiproxy.prices.pricing import Pricing


class Priced(msgspec.Struct, frozen=True, gc=False):
    """The cost of a call in the unit of its pricing, and the price if that is known."""

    cost: int
    price: AppliedPrice | None = None


def price_call(
    pricing: Pricing, provider: str, models: Iterable[str], usage: Usage, ratio: int
) -> Priced | None:
    """Price a call by the first of `models` that has a price; None without one.

    `ratio` is the price ratio of the caller, in millionths.
    """
    # (A subclass may have a `cost` of its own.)
    listed = isinstance(pricing, Prices) and type(pricing).cost is Prices.cost
    for model in models:
        if listed:
            rates: Rates | None = pricing.find(provider, model)  # type: ignore[attr-defined]
            if rates is not None:
                row = rates.row(usage)
                cost = apply_ratio(row.row_cost(usage), ratio)
                return Priced(cost, AppliedPrice(model, rates.source, row, ratio))
        else:
            found = pricing.cost(provider, model, usage, ratio)
            if found is not None:
                return Priced(found)
    return None
