"""Routes of announcements."""

from __future__ import annotations

from asgi_aiproxy.admin.routing import Route, resource_routes
from asgi_aiproxy.services.announcements import (
    Announcement,
    AnnouncementEdit,
    AnnouncementNew,
    AnnouncementService,
)
from asgi_aiproxy.services.base import Page


def announcement_routes(service: AnnouncementService) -> list[Route]:
    """Return the routes of announcements: to manage all, and to read those of now."""
    return [
        Route(
            method="GET",
            path="/me/announcements",
            need="token",
            run=lambda call: service.current(),
            answer=Page[Announcement],
            summary="The announcements that are shown now.",
        ),
        *resource_routes(
            "/announcements/{id}",
            types=(AnnouncementNew, AnnouncementEdit, Announcement),
            page=lambda call: service.page(call.query),
            create=lambda call: service.create(call.body, call.by),
            get=lambda call: service.get(call.path["id"]),
            edit=lambda call: service.edit(call.path["id"], call.body, call.by),
            remove=lambda call: service.drop(call.path["id"], call.by),
            summaries=(
                "List announcements.",
                "Make an announcement.",
                "One announcement.",
                "Change an announcement.",
                "Remove an announcement.",
            ),
        ),
    ]
