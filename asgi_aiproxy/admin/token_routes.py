"""Routes of tokens."""

from __future__ import annotations

from asgi_aiproxy.admin.routing import Route
from asgi_aiproxy.services.base import Page, PageQuery
from asgi_aiproxy.services.tokens import (
    Issued,
    Rotation,
    TokenEdit,
    TokenNew,
    TokenOut,
    TokenService,
)


def token_routes(service: TokenService) -> list[Route]:
    """Routes that list, issue, change, rotate and revoke tokens."""
    many, one = "/tokens", "/tokens/{id}"
    return [
        Route(
            method="GET",
            path=many,
            need="read",
            run=lambda call: service.page(call.query),
            query=PageQuery,
            answer=Page[TokenOut],
            summary="List tokens.",
        ),
        Route(
            method="POST",
            path=many,
            need="write",
            run=lambda call: service.issue(call.body, call.caller),
            body=TokenNew,
            answer=Issued,
            status=201,
            summary="Issue a token; its secret is shown once.",
        ),
        Route(
            method="GET",
            path=one,
            need="read",
            run=lambda call: service.get(call.path["id"]),
            answer=TokenOut,
            summary="One token, and how much of its limits is used.",
        ),
        Route(
            method="PATCH",
            path=one,
            need="write",
            run=lambda call: service.edit(call.path["id"], call.body, call.caller),
            body=TokenEdit,
            answer=TokenOut,
            summary="Change a token.",
        ),
        Route(
            method="POST",
            path=one + "/rotate",
            need="write",
            run=lambda call: service.rotate(call.path["id"], call.body, call.caller),
            body=Rotation,
            answer=Issued,
            summary="Give a token a new secret.",
        ),
        Route(
            method="DELETE",
            path=one,
            need="write",
            run=lambda call: service.revoke(call.path["id"], call.caller),
            summary="Revoke a token: it is dead in all workers within a second.",
        ),
    ]
