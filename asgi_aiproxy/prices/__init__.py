"""The cost of calls: in US dollars by price lists, or in quota units by ratios."""

from __future__ import annotations

from asgi_aiproxy.prices.price import Price, Rates, Tier
from asgi_aiproxy.prices.price_list import Prices
from asgi_aiproxy.prices.pricing import Pricing
from asgi_aiproxy.prices.ratios import Ratio, Ratios
from asgi_aiproxy.prices.token_estimate import SentRequest

__all__ = [
    "Price",
    "Prices",
    "Pricing",
    "Rates",
    "Ratio",
    "Ratios",
    "SentRequest",
    "Tier",
]
