"""The cost of calls: in US dollars by price lists, or in quota units by ratios."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asgi_aiproxy._lazy import on_first_use

if TYPE_CHECKING:
    from asgi_aiproxy.prices.price import Price, Rates, Tier
    from asgi_aiproxy.prices.price_list import Prices
    from asgi_aiproxy.prices.pricing import Pricing
    from asgi_aiproxy.prices.ratios import Ratio, Ratios
    from asgi_aiproxy.prices.token_estimate import SentRequest
    from asgi_aiproxy.prices.updates import PriceChange, PriceUpdates

__all__ = [
    "Price",
    "PriceChange",
    "PriceUpdates",
    "Prices",
    "Pricing",
    "Rates",
    "Ratio",
    "Ratios",
    "SentRequest",
    "Tier",
]

_HOME = {
    "Price": "price",
    "PriceChange": "updates",
    "PriceUpdates": "updates",
    "Prices": "price_list",
    "Pricing": "pricing",
    "Rates": "price",
    "Ratio": "ratios",
    "Ratios": "ratios",
    "SentRequest": "token_estimate",
    "Tier": "price",
}
__getattr__, __dir__ = on_first_use(__name__, _HOME)
