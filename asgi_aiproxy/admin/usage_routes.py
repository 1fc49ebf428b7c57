"""Routes of usage records and their sums."""

from __future__ import annotations

from asgi_aiproxy.admin.routing import Route
from asgi_aiproxy.services.base import Page
from asgi_aiproxy.services.usage import RecordOut, SumOut, SumQuery, UsageQuery, UsageService


def usage_routes(service: UsageService) -> list[Route]:
    """Routes that list usage records and sum them up."""
    return [
        Route(
            method="GET",
            path="/usage",
            need="read",
            run=lambda call: service.page(call.query),
            query=UsageQuery,
            answer=Page[RecordOut],
            summary="Exchanges, the newest first.",
        ),
        Route(
            method="GET",
            path="/usage/total",
            need="read",
            run=lambda call: service.total(call.query),
            query=UsageQuery,
            answer=SumOut,
            summary="What the exchanges come to that are kept one by one.",
        ),
        Route(
            method="GET",
            path="/usage/sums",
            need="read",
            run=lambda call: service.sums(call.query),
            query=SumQuery,
            answer=Page[SumOut],
            summary="Sums by caller, account, model, provider, key or day.",
        ),
    ]
