"""Routes of usage records and their sums."""

from __future__ import annotations

from asgi_aiproxy.admin.routing import Route
from asgi_aiproxy.services.base import Page
from asgi_aiproxy.services.usage import (
    DailyQuery,
    NearQuery,
    RecordOut,
    SumOut,
    SumQuery,
    UsageQuery,
    UsageService,
)


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
        Route(
            method="GET",
            path="/usage/daily",
            need="read",
            run=lambda call: service.daily(call.query),
            query=DailyQuery,
            answer=Page[SumOut],
            summary="Sums of each day, of all exchanges or of one principal, model, ...",
        ),
    ]


def record_routes(service: UsageService) -> list[Route]:
    """Return the route of one usage record. It must follow the other routes below `/usage`."""
    return [
        Route(
            method="GET",
            path="/usage/{id}",
            need="read",
            run=lambda call: service.get(call.path["id"], call.query),
            query=NearQuery,
            answer=RecordOut,
            summary="One usage record.",
        ),
    ]
