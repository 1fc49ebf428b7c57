"""The settings in effect, masked, with their origin."""

from __future__ import annotations

from asgi_aiproxy.console.pages import PageAnswer, PageRequest, PageRoute


def settings_pages() -> list[PageRoute]:
    """Return the page of settings, for operators."""
    return [PageRoute("GET", "/settings", "read", _show)]


async def _show(request: PageRequest) -> PageAnswer:
    return request.page("settings.html", settings=(await request.api("GET /settings")).data)
