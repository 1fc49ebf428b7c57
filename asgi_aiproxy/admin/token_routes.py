"""Routes of tokens."""

from __future__ import annotations

from collections.abc import Callable

from asgi_aiproxy.admin.routing import Route, resource_routes
from asgi_aiproxy.services.bulk import BulkResult, TokenSelection, change_tokens
from asgi_aiproxy.services.raises import BudgetRaise
from asgi_aiproxy.services.tokens import (
    Issued,
    Rotation,
    TokenEdit,
    TokenNew,
    TokenOut,
    TokenService,
)


def token_routes(service: TokenService, clock: Callable[[], float]) -> list[Route]:
    """Return the routes to list, issue, change, rotate and revoke tokens."""
    return [
        Route(
            method="POST",
            path="/tokens/bulk",
            need="write",
            run=lambda call: change_tokens(service, call.body, call.by, clock),
            body=TokenSelection,
            answer=BulkResult,
            summary="Enable, disable, extend or revoke several tokens.",
        ),
        *resource_routes(
            "/tokens/{id}",
            types=(TokenNew, TokenEdit, TokenOut),
            page=lambda call: service.page(call.query),
            create=lambda call: service.issue(call.body, call.by),
            get=lambda call: service.get(call.path["id"]),
            edit=lambda call: service.edit(call.path["id"], call.body, call.by),
            remove=lambda call: service.revoke(call.path["id"], call.by),
            summaries=(
                "List tokens.",
                "Issue a token; its secret is shown once.",
                "One token, and the usage of its limits.",
                "Change a token.",
                "Revoke a token: all workers refuse it within a second.",
            ),
            created=Issued,
        ),
        Route(
            method="POST",
            path="/tokens/{id}/raise",
            need="write",
            run=lambda call: service.raise_budget(call.path["id"], call.body, call.by),
            body=BudgetRaise,
            answer=TokenOut,
            summary="Raise a budget of a token for some time.",
        ),
        Route(
            method="POST",
            path="/tokens/{id}/rotate",
            need="write",
            run=lambda call: service.rotate(call.path["id"], call.body, call.by),
            body=Rotation,
            answer=Issued,
            summary="Replace the secret of a token.",
        ),
    ]
