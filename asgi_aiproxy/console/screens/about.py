"""The page about this gateway, as its operator has written it."""

from __future__ import annotations

from asgi_aiproxy.console.pages import PageAnswer, PageRequest, PageRoute
from asgi_aiproxy.errors import APIError, ErrorKind


def about_pages() -> list[PageRoute]:
    """Return the page about this gateway."""
    return [PageRoute("GET", "/about", "nothing", _about)]


async def _about(request: PageRequest) -> PageAnswer:
    if not request.site.site.about:
        raise APIError(ErrorKind.NOT_FOUND, "There is no text about this gateway.")
    return request.page("about.html")
