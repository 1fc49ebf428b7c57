"""Routes of what is added to the pages of the console."""

from __future__ import annotations

from asgi_aiproxy.admin.routing import Route
from asgi_aiproxy.services.site import SiteEdit, SiteService, SiteTexts


def site_routes(service: SiteService) -> list[Route]:
    """Return the routes to read and change name, logo, texts and links."""
    return [
        Route(
            method="GET",
            path="/site",
            need="read",
            run=lambda call: service.get(),
            answer=SiteTexts,
            summary="Name, logo, texts and links of the console that are stored.",
        ),
        Route(
            method="PATCH",
            path="/site",
            need="root",
            run=lambda call: service.edit(call.body, call.by),
            body=SiteEdit,
            answer=SiteTexts,
            summary="Change name, logo, texts and links of the console; null is as configured.",
        ),
    ]
