"""The audit log: every change, with its caller and origin."""

from __future__ import annotations

import json

from asgi_aiproxy.console.pages import PageAnswer, PageRequest, PageRoute
from asgi_aiproxy.services.audit import AuditEntry

_FILTERS = ("actor", "action", "target", "source")


def audit_pages() -> list[PageRoute]:
    """Return the page of the audit log, for operators."""
    return [PageRoute("GET", "/audit", "read", _list)]


async def _list(request: PageRequest) -> PageAnswer:
    filters = {name: request.query.get(name, "") for name in _FILTERS}
    query = {**filters, "limit": "50", "after": request.query.get("after", "")}
    page = await request.api("GET /audit", query=query)
    rows = [(entry, _changes(entry)) for entry in page.data]
    return request.page("audit.html", rows=rows, next=page.next, filters=filters)


def _changes(entry: AuditEntry) -> list[tuple[str, str, str]]:
    """Return the members that changed: name, value before, value after."""
    before, after = entry.before or {}, entry.after or {}
    return [
        (name, _text(before.get(name)), _text(after.get(name)))
        for name in sorted(before.keys() | after.keys())
    ]


def _text(value: object) -> str:
    return "" if value is None else json.dumps(value, ensure_ascii=False, default=str)
