"""Models: which one leads to which providers, and what each costs."""

from __future__ import annotations

from asgi_aiproxy.console.pages import PageAnswer, PageRequest, PageRoute


def model_pages() -> list[PageRoute]:
    """Return the pages of routes and prices, for operators."""
    return [
        PageRoute("GET", "/routes", "read", _routes),
        PageRoute("GET", "/prices", "read", _prices),
    ]


async def _routes(request: PageRequest) -> PageAnswer:
    routes = (await request.api("GET /routes")).data
    return request.page(
        "routes.html",
        routes=[route for route in routes if route.kind != "provider"],
        direct=[route for route in routes if route.kind == "provider"],
    )


async def _prices(request: PageRequest) -> PageAnswer:
    models = (await request.api("GET /prices")).data
    return request.page(
        "prices.html",
        models=models,
        unpriced=[model for model in models if model.unpriced],
        changes=(await request.api("GET /prices/changes")).data,
    )
