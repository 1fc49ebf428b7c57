"""Routes of self-service: a caller's own tokens, usage and vouchers, with any valid token."""

from __future__ import annotations

from asgi_aiproxy.admin.routing import Route
from asgi_aiproxy.services.base import Page
from asgi_aiproxy.services.own_tokens import Allowed, OwnTokenEdit, OwnTokenNew, OwnTokenService
from asgi_aiproxy.services.own_usage import (
    OwnDaysQuery,
    OwnExchangeOut,
    OwnRecordOut,
    OwnUsageQuery,
    OwnUsageService,
    VoucherCode,
)
from asgi_aiproxy.services.tokens import Issued, Rotation, TokenOut
from asgi_aiproxy.services.usage import NearQuery, SumOut
from asgi_aiproxy.services.vouchers import VoucherOut


def own_routes(tokens: OwnTokenService, usage: OwnUsageService) -> list[Route]:
    """Return the routes below `/me`."""
    return [
        Route(
            method="GET",
            path="/me/tokens",
            need="token",
            run=lambda call: tokens.page(call.caller),
            answer=Page[TokenOut],
            summary="The caller's own tokens.",
        ),
        Route(
            method="POST",
            path="/me/tokens",
            need="token",
            run=lambda call: tokens.issue(call.body, call.by),
            body=OwnTokenNew,
            answer=Issued,
            status=201,
            summary="Create a token for oneself, as far as the operator allows; shown once.",
        ),
        Route(
            method="GET",
            path="/me/allowed",
            need="token",
            run=lambda call: tokens.allowed(call.caller),
            answer=Allowed,
            summary="What tokens the caller may create for itself.",
        ),
        Route(
            method="GET",
            path="/me/tokens/{id}",
            need="token",
            run=lambda call: tokens.get(call.path["id"], call.caller),
            answer=TokenOut,
            summary="One of the caller's tokens.",
        ),
        Route(
            method="PATCH",
            path="/me/tokens/{id}",
            need="token",
            run=lambda call: tokens.edit(call.path["id"], call.body, call.by),
            body=OwnTokenEdit,
            answer=TokenOut,
            summary="Change a token that the caller has created.",
        ),
        Route(
            method="DELETE",
            path="/me/tokens/{id}",
            need="token",
            run=lambda call: tokens.revoke(call.path["id"], call.by),
            summary="Remove a token that the caller has created.",
        ),
        Route(
            method="POST",
            path="/me/tokens/{id}/rotate",
            need="token",
            run=lambda call: tokens.rotate(call.path["id"], call.body, call.by),
            body=Rotation,
            answer=Issued,
            summary="Replace the secret of one of the caller's tokens.",
        ),
        Route(
            method="GET",
            path="/me/usage",
            need="token",
            run=lambda call: usage.page(call.query, call.caller),
            query=OwnUsageQuery,
            answer=Page[OwnRecordOut],
            summary="The caller's own exchanges, newest first.",
        ),
        Route(
            method="GET",
            path="/me/usage/daily",
            need="token",
            run=lambda call: usage.daily(call.query, call.caller),
            query=OwnDaysQuery,
            answer=Page[SumOut],
            summary="Sums of the caller's exchanges, by day.",
        ),
        Route(
            method="GET",
            path="/me/usage/{id}",
            need="token",
            run=lambda call: usage.get(call.path["id"], call.query, call.caller),
            query=NearQuery,
            answer=OwnRecordOut,
            summary="One of the caller's exchanges.",
        ),
        *own_exchange_routes(usage),
        Route(
            method="POST",
            path="/me/vouchers/redeem",
            need="token",
            run=lambda call: usage.redeem(call.body, call.by),
            body=VoucherCode,
            answer=VoucherOut,
            summary="Redeem a voucher for one's own budget.",
        ),
    ]


def own_exchange_routes(usage: OwnUsageService) -> list[Route]:
    """Return the routes of the receipts of a caller's exchanges, with and without `/v1`."""
    return [
        Route(
            method="GET",
            path=f"{prefix}/me/exchanges/{{id}}",
            need="token",
            run=lambda call: usage.exchange(call.path["id"], call.query, call.caller),
            query=NearQuery,
            answer=OwnExchangeOut,
            summary="One of the caller's exchanges, by its id or request id, and its receipt.",
        )
        for prefix in ("", "/v1")
    ]
