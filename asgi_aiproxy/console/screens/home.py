"""The first page: what is left and spent of one's own; for operators what happens now."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from asgi_aiproxy.console.pages import PageAnswer, PageRequest, PageRoute


def home_pages() -> list[PageRoute]:
    """Return the home page, and the part of it that is refreshed."""
    return [
        PageRoute("GET", "/", "token", _home),
        PageRoute("GET", "/now", "read", _now),
    ]


async def _home(request: PageRequest) -> PageAnswer:
    month = datetime.now(UTC).date().replace(day=1)
    days = (await request.api("GET /me/usage/daily", query={"since": month.isoformat()})).data
    return request.page(
        "home.html",
        announcements=(await request.api("GET /me/announcements")).data,
        me=await request.api("GET /me"),
        today=days[-1],
        spent=sum(day.usd for day in days),
        requests=sum(day.requests for day in days),
        failures=(
            await request.api(
                "GET /me/usage", query={"state": "failed", "limit": "5", "scan": "2000"}
            )
        ).data,
        **(await _figures(request) if request.may("read") else {"recent": None}),
    )


async def _now(request: PageRequest) -> PageAnswer:
    return request.page("now.html", **await _figures(request))


async def _figures(request: PageRequest) -> dict[str, Any]:
    recent = await request.api("GET /usage/recent")
    return {
        "recent": recent,
        "shares": {share.provider: share for share in recent.providers},
        "in_flight": await request.api("GET /in-flight"),
        "providers": (await request.api("GET /providers")).data,
    }
