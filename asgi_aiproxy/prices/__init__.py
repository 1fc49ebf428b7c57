"""What exchanges cost: in dollars by price lists, or in quota units by ratios."""

from __future__ import annotations

from asgi_aiproxy.prices.book import Prices
from asgi_aiproxy.prices.estimate import Sent
from asgi_aiproxy.prices.price import Price, Rates, Tier
from asgi_aiproxy.prices.ratios import Ratio, Ratios
from asgi_aiproxy.prices.tariff import Tariff

__all__ = ["Price", "Prices", "Rates", "Ratio", "Ratios", "Sent", "Tariff", "Tier"]
