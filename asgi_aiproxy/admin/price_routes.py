"""The route of changes of list prices."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from asgi_aiproxy.admin.routing import Route
from asgi_aiproxy.prices.updates import PriceChange
from asgi_aiproxy.services.base import Page

Changes = Callable[[], Sequence[PriceChange]]


def price_routes(changes: Changes) -> list[Route]:
    """Return the route; `changes` returns the changes of list prices, newest first."""

    async def listed(call: object) -> Page[PriceChange]:
        return Page(list(changes()), None)

    return [
        Route(
            method="GET",
            path="/prices/changes",
            need="read",
            run=listed,
            answer=Page[PriceChange],
            summary="Changes of list prices since the start, and from which month on they apply.",
        )
    ]
