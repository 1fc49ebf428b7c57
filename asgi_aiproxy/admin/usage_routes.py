"""Routes of usage records and their sums."""

from __future__ import annotations

from asgi_aiproxy.admin.csv_response import csv_response, csv_text
from asgi_aiproxy.admin.routing import AdminRequest, Route, TextBody
from asgi_aiproxy.services.base import Page
from asgi_aiproxy.services.receipts import ExchangeOut, to_receipt
from asgi_aiproxy.services.recent import RecentOut, RecentQuery, RecentService
from asgi_aiproxy.services.unpriced import UnpricedModel, UnpricedQuery, unpriced_models
from asgi_aiproxy.services.usage import (
    ComparedSum,
    DailyQuery,
    NearQuery,
    RecordOut,
    SumOut,
    SumQuery,
    UsageQuery,
    UsageService,
)


def usage_routes(service: UsageService, recent: RecentService) -> list[Route]:
    """Return the routes to list usage records and to sum them up."""

    async def export_sums(call: AdminRequest) -> TextBody:
        return csv_text(await service.export_sums(call.query))

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
            summary="Sums by principal, account, model, provider, key, day, tag or session.",
        ),
        Route(
            method="GET",
            path="/usage/compare",
            need="read",
            run=lambda call: service.compare(call.query),
            query=SumQuery,
            answer=Page[ComparedSum],
            summary="Sums, each beside that of as many days before.",
        ),
        Route(
            method="GET",
            path="/usage/export",
            need="read",
            run=lambda call: csv_response(service.export(call.query)),
            query=UsageQuery,
            answer=TextBody,
            media_type="text/csv",
            summary="All matching usage records of the log, as CSV.",
        ),
        Route(
            method="GET",
            path="/usage/sums/export",
            need="read",
            run=export_sums,
            query=SumQuery,
            answer=TextBody,
            media_type="text/csv",
            summary="All sums, as CSV.",
        ),
        Route(
            method="GET",
            path="/usage/unpriced",
            need="read",
            run=lambda call: unpriced_models(service, call.query),
            query=UnpricedQuery,
            answer=Page[UnpricedModel],
            summary="Models without a price among the latest exchanges.",
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
        Route(
            method="GET",
            path="/usage/recent",
            need="read",
            run=lambda call: recent.recent(call.query),
            query=RecentQuery,
            answer=RecentOut,
            summary="The last minutes, in all workers.",
        ),
    ]


def record_routes(service: UsageService) -> list[Route]:
    """Return the route of one usage record. It must follow the other routes below `/usage`."""

    async def exchange(call: AdminRequest) -> ExchangeOut:
        record = await service.get(call.path["id"], call.query)
        return ExchangeOut(record, to_receipt(record))

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
        Route(
            method="GET",
            path="/exchanges/{id}",
            need="read",
            run=exchange,
            query=NearQuery,
            answer=ExchangeOut,
            summary="One exchange, by its id or request id, and its receipt line by line.",
        ),
    ]
