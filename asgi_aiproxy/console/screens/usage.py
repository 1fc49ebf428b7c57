"""Usage by day and by model, caller, provider or key; as charts, tables and CSV."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta

from asgi_aiproxy._slices import give_way
from asgi_aiproxy.console.charts import Bar, bar_chart
from asgi_aiproxy.console.pages import PageAnswer, PageRequest, PageRoute, csv_answer
from asgi_aiproxy.console.rendering import format_number, format_usd
from asgi_aiproxy.services.usage import ComparedSum, SumOut

KINDS = ("day", "principal", "account", "model", "provider", "key", "tag", "session")
_COLUMNS = ("requests", "failed", "input", "output", "usd", "not_charged_usd", "units")
_ROWS = "100"


def usage_pages() -> list[PageRoute]:
    """Return the pages of usage, and the same as CSV."""
    return [
        PageRoute("GET", "/my/usage", "token", _own),
        PageRoute("GET", "/my/usage.csv", "token", _own_csv),
        PageRoute("GET", "/usage", "read", _all),
        PageRoute("GET", "/usage.csv", "read", _all_csv),
    ]


@dataclass(frozen=True, slots=True)
class _Shown:
    """What a page shows: the sums of `days` and those of as many days `before` (empty: they are not
    compared), and `rows` by the kind `by`.
    """

    base: str
    days: list[SumOut]
    before: list[SumOut]
    by: str = "day"
    rows: list[ComparedSum] = field(default_factory=list)
    next: str | None = None
    tokens: list[object] = field(default_factory=list)


async def _own(request: PageRequest) -> PageAnswer:
    query = _given(request, "since", "until", "principal")
    days, before = await _days(request, "/me/usage/daily", query)
    tokens = (await request.api("GET /me/tokens")).data
    return await _page(request, _Shown("/my/usage", days, before, tokens=tokens))


async def _own_csv(request: PageRequest) -> PageAnswer:
    query = _given(request, "since", "until", "principal")
    return _csv((await request.api("GET /me/usage/daily", query=query)).data)


async def _all(request: PageRequest) -> PageAnswer:
    by, name = _kind(request), request.query.get("name", "")
    query = {**_given(request, "since", "until"), "by": "day"}
    if by != "day" and name:
        query |= {"by": by, "name": name}
    days, before = await _days(request, "/usage/daily", query)
    if by == "day":
        return await _page(request, _Shown("/usage", days, before))
    query = {**_given(request, "since", "until", "name", "after"), "by": by, "limit": _ROWS}
    if _compared(request):
        page = await request.api("GET /usage/compare", query=query)
        return await _page(request, _Shown("/usage", days, before, by, page.data, page.next))
    page = await request.api("GET /usage/sums", query=query)
    rows = [ComparedSum(row, row) for row in page.data]
    return await _page(request, _Shown("/usage", days, before, by, rows, page.next))


async def _all_csv(request: PageRequest) -> PageAnswer:
    query = {**_given(request, "since", "until", "name"), "by": _kind(request), "limit": "1000"}
    return _csv((await request.api("GET /usage/sums", query=query)).data)


async def _days(
    request: PageRequest, api: str, query: Mapping[str, str]
) -> tuple[list[SumOut], list[SumOut]]:
    """Return the sums of each day of the period, and of the one before if they are compared."""
    days: list[SumOut] = (await request.api(f"GET {api}", query=query)).data
    if not _compared(request):
        return days, []
    first, length = date.fromisoformat(days[0].name), timedelta(days=len(days))
    period = {"since": first - length, "until": first - timedelta(days=1)}
    shifted = {**query, **{name: day.isoformat() for name, day in period.items()}}
    return days, (await request.api(f"GET {api}", query=shifted)).data


async def _page(request: PageRequest, shown: _Shown) -> PageAnswer:
    _ = request.texts
    cost = bar_chart(_cost_bars(shown), title=_("Cost by day"), unit="$")
    await give_way()
    calls = bar_chart(_call_bars(shown), title=_("Requests by day; failures are highlighted"))
    await give_way()
    return request.page(
        "usage.html",
        shown=shown,
        own=shown.base == "/my/usage",
        kinds=KINDS,
        compared=_compared(request),
        by_day=list(map(ComparedSum, shown.days, shown.before or shown.days))[::-1],
        cost=cost,
        calls=calls,
        total=_total(shown.days),
        total_before=_total(shown.before),
    )


def _cost_bars(shown: _Shown) -> list[Bar]:
    before = [day.usd for day in shown.before] or [0.0] * len(shown.days)
    return [
        Bar(day.name[5:], day.usd, f"{day.name}: {format_usd(day.usd)}", before=earlier)
        for day, earlier in zip(shown.days, before, strict=True)
    ]


def _call_bars(shown: _Shown) -> list[Bar]:
    before = [day.requests for day in shown.before] or [0] * len(shown.days)
    return [
        Bar(
            day.name[5:],
            day.requests,
            f"{day.name}: {format_number(day.requests)}",
            day.failed,
            earlier,
        )
        for day, earlier in zip(shown.days, before, strict=True)
    ]


def _total(days: list[SumOut]) -> dict[str, float]:
    return {name: sum(getattr(day, name) for day in days) for name in _COLUMNS}


def _csv(sums: list[SumOut]) -> PageAnswer:
    rows = [[row.name, row.label, *(getattr(row, name) for name in _COLUMNS)] for row in sums]
    return csv_answer("usage.csv", ["name", "label", *_COLUMNS], rows)


def _kind(request: PageRequest) -> str:
    by = request.query.get("by", "day")
    return by if by in KINDS else "day"


def _compared(request: PageRequest) -> bool:
    return "compare" in request.query


def _given(request: PageRequest, *names: str) -> dict[str, str]:
    return {name: request.query[name] for name in names if request.query.get(name)}
