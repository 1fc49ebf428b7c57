"""Routes that explain requests."""

from __future__ import annotations

from asgi_aiproxy.admin.routing import Route
from asgi_aiproxy.exchange.explain import Explanation
from asgi_aiproxy.services.explain import (
    ExplainQuery,
    ExplainService,
    RequestExplanation,
    RequestQuery,
)


def explain_routes(service: ExplainService) -> list[Route]:
    """Return the routes to explain what would happen to a request, and what happened to one."""
    return [
        Route(
            method="GET",
            path="/explain",
            need="read",
            run=lambda call: service.explain(call.query),
            query=ExplainQuery,
            answer=Explanation,
            summary="What would happen to a chat request now; nothing is sent.",
        ),
        Route(
            method="GET",
            path="/explain/request",
            need="read",
            run=lambda call: service.explain_request(call.query),
            query=RequestQuery,
            answer=RequestExplanation,
            summary="What happened to a request, by its id.",
        ),
    ]
