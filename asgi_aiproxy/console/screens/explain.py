"""Explain: what would happen to a request, and what happened to one."""

from __future__ import annotations

from typing import Any

from asgi_aiproxy.console.pages import PageAnswer, PageRequest, PageRoute

_FIELDS = ("model", "principal", "size", "output", "provider", "key_id")


def explain_pages() -> list[PageRoute]:
    """Return the pages that explain requests, for operators."""
    return [
        PageRoute("GET", "/explain", "read", _explain),
        PageRoute("GET", "/explain/request", "read", _request),
    ]


async def _explain(request: PageRequest) -> PageAnswer:
    values = {name: request.query.get(name, "").strip() for name in _FIELDS}
    found: Any = None
    if values["model"]:
        found = await request.api("GET /explain", query=values)
    return request.page("explain.html", values=values, found=found)


async def _request(request: PageRequest) -> PageAnswer:
    id = request.query.get("id", "").strip()
    found: Any = None
    if id:
        found = await request.api("GET /explain/request", query={"id": id})
    return request.page("explain_request.html", id=id, found=found)
