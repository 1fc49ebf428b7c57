"""Routes of vouchers."""

from __future__ import annotations

from asgi_aiproxy.admin.routing import AdminRequest, Route, TextBody
from asgi_aiproxy.services.base import Page, PageQuery
from asgi_aiproxy.services.vouchers import (
    BatchQuery,
    Redemption,
    VoucherCodes,
    VoucherEdit,
    VoucherOut,
    VoucherService,
    VouchersNew,
)


def voucher_routes(service: VoucherService) -> list[Route]:
    """Return the routes to list, create, export, redeem, enable and disable vouchers."""

    async def export(call: AdminRequest) -> TextBody:
        text = await service.export(call.query)
        return TextBody(text.encode(), "text/csv; charset=utf-8")

    return [
        Route(
            method="GET",
            path="/vouchers",
            need="read",
            run=lambda call: service.page(call.query),
            query=PageQuery,
            answer=Page[VoucherOut],
            summary="List vouchers.",
        ),
        Route(
            method="POST",
            path="/vouchers",
            need="write",
            run=lambda call: service.create(call.body, call.by),
            body=VouchersNew,
            answer=VoucherCodes,
            status=201,
            summary="Create vouchers; their codes are shown once.",
        ),
        Route(
            method="GET",
            path="/vouchers/export",
            need="read",
            run=export,
            query=BatchQuery,
            answer=TextBody,
            media_type="text/csv",
            summary="All vouchers of a batch, as CSV.",
        ),
        Route(
            method="POST",
            path="/vouchers/redeem",
            need="write",
            run=lambda call: service.redeem(call.body, call.by),
            body=Redemption,
            answer=VoucherOut,
            summary="Redeem a voucher.",
        ),
        Route(
            method="GET",
            path="/vouchers/{id}",
            need="read",
            run=lambda call: service.get(call.path["id"]),
            answer=VoucherOut,
            summary="One voucher.",
        ),
        Route(
            method="PATCH",
            path="/vouchers/{id}",
            need="write",
            run=lambda call: service.enable(call.path["id"], call.body.enabled, call.by),
            body=VoucherEdit,
            answer=VoucherOut,
            summary="Enable or disable a voucher.",
        ),
    ]
