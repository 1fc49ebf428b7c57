"""The log of exchanges, with its filters in the URL, and one exchange."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from asgi_aiproxy._asgi import ASGIApp
from asgi_aiproxy.console.pages import PageAnswer, PageRequest, PageRoute
from asgi_aiproxy.errors import invalid

STATES = ("done", "cut", "failed", "refused", "estimated", "not_charged")
_OWN_FILTERS = ("principal", "model", "state")
_FILTERS = (
    "principal", "account", "group", "provider", "model", "key", "session", "tag", "state",
)  # fmt: skip
_FREQUENT = ("principal", "provider", "model", "state")  # filters that are always shown
_ROWS = 50
_SCAN = 5000  # records that are examined for one page


def log_pages() -> list[PageRoute]:
    """Return the pages of one's own log, and of all of it."""
    return [
        PageRoute("GET", "/my/log", "token", _own),
        PageRoute("GET", "/my/log/live", "token", _own_live),
        PageRoute("GET", "/my/log/rows", "token", _own_newest),
        PageRoute("GET", "/my/log/{id}", "token", _own_exchange),
        PageRoute("GET", "/log", "read", _all),
        PageRoute("GET", "/log/live", "read", _live),
        PageRoute("GET", "/log/rows", "read", _newest),
        PageRoute("GET", "/log/{id}", "read", _exchange),
    ]


async def _own(request: PageRequest) -> PageAnswer:
    return await _list(request, "/me/usage", "/my/log", _OWN_FILTERS)


async def _all(request: PageRequest) -> PageAnswer:
    return await _list(request, "/usage", "/log", _FILTERS)


async def _list(request: PageRequest, api: str, base: str, names: tuple[str, ...]) -> PageAnswer:
    filters = {name: request.query.get(name, "") for name in names}
    times = {name: request.query.get(name, "") for name in ("since", "until")}
    query = {**filters, **{name: _seconds(name, text) for name, text in times.items()}}
    query |= {"limit": str(_ROWS), "scan": str(_SCAN), "after": request.query.get("after", "")}
    page = await request.api(f"GET {api}", query=query)
    tokens = (await request.api("GET /me/tokens")).data if base == "/my/log" else []
    return request.page(
        "log.html",
        records=page.data,
        next=page.next,
        base=base,
        own=base == "/my/log",
        filters={**filters, **times},
        rare_filters=[name for name in names if name not in _FREQUENT],
        more_filters=any(
            value for name, value in {**filters, **times}.items() if name not in _FREQUENT
        ),
        states=STATES,
        tokens=tokens,
        rows=_ROWS,
        live=request.url(f"{base}/live", **filters),
        newest=request.url(f"{base}/rows", **filters),
    )


async def _own_newest(request: PageRequest) -> PageAnswer:
    return await _rows(request, "/me/usage", "/my/log", _OWN_FILTERS)


async def _newest(request: PageRequest) -> PageAnswer:
    return await _rows(request, "/usage", "/log", _FILTERS)


async def _rows(request: PageRequest, api: str, base: str, names: tuple[str, ...]) -> PageAnswer:
    """Return the newest rows of the table alone, which the live log adds to its page."""
    query = {name: request.query.get(name, "") for name in (*names, "limit")}
    page = await request.api(f"GET {api}", query={**query, "scan": str(_SCAN)})
    return request.page("record_rows.html", rows=page.data, base=base, own=base == "/my/log")


async def _own_live(request: PageRequest) -> ASGIApp:
    return await _follow(request, "/me/usage/live", _OWN_FILTERS)


async def _live(request: PageRequest) -> ASGIApp:
    return await _follow(request, "/usage/live", _FILTERS)


async def _follow(request: PageRequest, api: str, names: tuple[str, ...]) -> ASGIApp:
    """Return the live tail with the filters of the page."""
    query = {name: request.query.get(name, "") for name in names}
    app: ASGIApp = await request.api(f"GET {api}", query=query)
    return app


async def _own_exchange(request: PageRequest) -> PageAnswer:
    return await _show(request, "/me/exchanges", "/my/log")


async def _exchange(request: PageRequest) -> PageAnswer:
    return await _show(request, "/exchanges", "/log")


async def _show(request: PageRequest, api: str, base: str) -> PageAnswer:
    found: Any = await request.api(
        f"GET {api}/{{id}}",
        id=request.path["id"],
        query={"near": request.query.get("near", "")},
    )
    return request.page(
        "exchange.html",
        record=found.record,
        receipt=found.receipt,
        base=base,
        own=base == "/my/log",
    )


def _seconds(name: str, text: str) -> str:
    """Return a date, or a date and time in UTC, as Unix time."""
    if not text:
        return ""
    try:
        return str(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())
    except (ValueError, OverflowError) as error:
        raise invalid(f"{name}: must be a date, got {text!r}.", name) from error
