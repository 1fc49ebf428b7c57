"""The route of the audit log."""

from __future__ import annotations

from asgi_aiproxy.admin.routing import Route
from asgi_aiproxy.services.audit import AuditEntry, AuditLog, AuditQuery
from asgi_aiproxy.services.base import Page


def audit_routes(log: AuditLog) -> list[Route]:
    """Return the route to list the audit log."""
    return [
        Route(
            method="GET",
            path="/audit",
            need="read",
            run=lambda call: log.page(call.query),
            query=AuditQuery,
            answer=Page[AuditEntry],
            summary="The audit log of changes, newest first.",
        )
    ]
