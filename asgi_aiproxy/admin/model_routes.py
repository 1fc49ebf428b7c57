"""Operations on routes and prices: which model leads where, and what it costs."""

from __future__ import annotations

from asgi_aiproxy.admin.routing import Route
from asgi_aiproxy.prices.updates import PriceChange
from asgi_aiproxy.services.base import Page
from asgi_aiproxy.services.in_flight import InFlightOut, InFlightService
from asgi_aiproxy.services.model_prices import ModelPriceOut, ModelPriceService
from asgi_aiproxy.services.routes import RouteOut, RouteService


def price_routes(prices: ModelPriceService) -> list[Route]:
    """Return the routes of prices."""

    async def changes(call: object) -> Page[PriceChange]:
        return Page(list(prices.changes), None)

    return [
        Route(
            method="GET",
            path="/prices",
            need="read",
            run=lambda call: prices.page(),
            answer=Page[ModelPriceOut],
            summary="Prices of the models in routes and in the latest exchanges, and their source.",
        ),
        Route(
            method="GET",
            path="/prices/changes",
            need="read",
            run=changes,
            answer=Page[PriceChange],
            summary="Changes of list prices since the start, and from which month on they apply.",
        ),
    ]


def traffic_routes(routes: RouteService, in_flight: InFlightService) -> list[Route]:
    """Return the routes of what leads where, and what is on its way."""
    return [
        Route(
            method="GET",
            path="/routes",
            need="read",
            run=lambda call: routes.page(),
            answer=Page[RouteOut],
            summary="Which model leads to which providers, in the order in which they are tried.",
        ),
        Route(
            method="GET",
            path="/in-flight",
            need="read",
            run=lambda call: in_flight.now(),
            answer=InFlightOut,
            summary="The number of calls in flight, in all workers.",
        ),
    ]
