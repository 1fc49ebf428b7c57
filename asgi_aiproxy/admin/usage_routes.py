"""Routes of usage records and their sums."""

from __future__ import annotations

from asgi_aiproxy.admin.routing import Route
from asgi_aiproxy.services.base import Page
from asgi_aiproxy.services.usage import RecordOut, SumOut, SumQuery, UsageQuery, UsageService


def usage_routes(service: UsageService) -> list[Route]:
    """Return the routes to list usage records and to sum them up."""
    return [
        Route(
            method="GET",
            path="/usage",
            need="read",
            run=lambda call: service.page(call.query),
            query=UsageQuery,
            answer=Page[RecordOut],
            summary="Usage records, newest first.",
        ),
        Route(
            method="GET",
            path="/usage/total",
            need="read",
            run=lambda call: service.total(call.query),
            query=UsageQuery,
            answer=SumOut,
            summary="The sum of the usage records in the log that match.",
        ),
        Route(
            method="GET",
            path="/usage/sums",
            need="read",
            run=lambda call: service.sums(call.query),
            query=SumQuery,
            answer=Page[SumOut],
            summary="Sums by principal, account, model, provider, key or day.",
        ),
    ]
