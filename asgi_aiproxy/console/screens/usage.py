"""Usage by day and by model, caller, provider or key; as charts, tables and CSV."""

from __future__ import annotations

from asgi_aiproxy.console.charts import Bar, bar_chart
from asgi_aiproxy.console.pages import PageAnswer, PageRequest, PageRoute, csv_answer
from asgi_aiproxy.console.rendering import format_number, format_usd
from asgi_aiproxy.services.usage import SumOut

KINDS = ("day", "principal", "account", "model", "provider", "key", "tag", "session")
_COLUMNS = ("requests", "failed", "input", "output", "usd", "not_charged_usd", "units")


def usage_pages() -> list[PageRoute]:
    """Return the pages of usage, and the same as CSV."""
    return [
        PageRoute("GET", "/my/usage", "token", _own),
        PageRoute("GET", "/my/usage.csv", "token", _own_csv),
        PageRoute("GET", "/usage", "read", _all),
        PageRoute("GET", "/usage.csv", "read", _all_csv),
    ]


async def _own(request: PageRequest) -> PageAnswer:
    days = await _own_days(request)
    tokens = (await request.api("GET /me/tokens")).data
    return _page(request, days, [], own=True, by="day", tokens=tokens)


async def _own_csv(request: PageRequest) -> PageAnswer:
    return _csv(await _own_days(request))


async def _own_days(request: PageRequest) -> list[SumOut]:
    query = _given(request, "since", "until", "principal")
    found: list[SumOut] = (await request.api("GET /me/usage/daily", query=query)).data
    return found


async def _all(request: PageRequest) -> PageAnswer:
    by = _kind(request)
    daily = {**_given(request, "since", "until"), "by": by}
    name = request.query.get("name", "")
    if by != "day" and name:
        daily["name"] = name
    else:
        daily["by"] = "day"
    days = (await request.api("GET /usage/daily", query=daily)).data
    sums = await _sums(request, by) if by != "day" else []
    return _page(request, days, sums, own=False, by=by, tokens=[])


async def _all_csv(request: PageRequest) -> PageAnswer:
    return _csv(await _sums(request, _kind(request), limit="1000"))


async def _sums(request: PageRequest, by: str, limit: str = "100") -> list[SumOut]:
    query = {**_given(request, "since", "until", "name"), "by": by, "limit": limit}
    found: list[SumOut] = (await request.api("GET /usage/sums", query=query)).data
    return found


def _page(
    request: PageRequest,
    days: list[SumOut],
    sums: list[SumOut],
    *,
    own: bool,
    by: str,
    tokens: list[object],
) -> PageAnswer:
    _ = request.texts
    cost = [Bar(day.name[5:], day.usd, f"{day.name}: {format_usd(day.usd)}") for day in days]
    calls = [
        Bar(day.name[5:], day.requests, f"{day.name}: {format_number(day.requests)}", day.failed)
        for day in days
    ]
    return request.page(
        "usage.html",
        days=days,
        sums=sums,
        own=own,
        by=by,
        kinds=KINDS,
        tokens=tokens,
        base="/my/usage" if own else "/usage",
        cost=bar_chart(cost, title=_("Cost by day"), unit="$"),
        calls=bar_chart(calls, title=_("Requests by day; failed ones are highlighted")),
        total={name: sum(getattr(day, name) for day in days) for name in _COLUMNS},
    )


def _csv(sums: list[SumOut]) -> PageAnswer:
    rows = [[row.name, row.label, *(getattr(row, name) for name in _COLUMNS)] for row in sums]
    return csv_answer("usage.csv", ["name", "label", *_COLUMNS], rows)


def _kind(request: PageRequest) -> str:
    by = request.query.get("by", "day")
    return by if by in KINDS else "day"


def _given(request: PageRequest, *names: str) -> dict[str, str]:
    return {name: request.query[name] for name in names if request.query.get(name)}
