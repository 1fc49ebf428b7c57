"""Name, logo, texts and links of the pages, which a root user changes."""

from __future__ import annotations

import base64
from typing import Any

from asgi_aiproxy.console.pages import PageAnswer, PageRequest, PageRoute
from asgi_aiproxy.console.site import ShownSite

_FIELDS = ("name", "logo", "home", "about", "footer", "top_up_url", "chat_url")


def site_pages() -> list[PageRoute]:
    """Return the page of what is added to the pages."""
    return [
        PageRoute("GET", "/site", "root", _show),
        PageRoute("POST", "/site", "root", _save, again=_show, confirm=True),
    ]


async def _show(request: PageRequest) -> PageAnswer:
    return request.page("site.html", shown=_values(request.site), fields=_FIELDS)


async def _save(request: PageRequest) -> PageAnswer:
    configured = _values(request.tools.configured_site)
    body: dict[str, Any] = {}
    for name in _FIELDS:
        if name in request.form:
            text = request.form[name][-1].strip().replace("\r\n", "\n")
            if name == "logo":
                text = text.rpartition("base64,")[2]
            body[name] = None if text == configured[name] else text
    await request.api("PATCH /site", body=body)
    return request.redirect("/site", done="saved")


def _values(shown: ShownSite) -> dict[str, str]:
    """Return what the fields of the form contain."""
    site = shown.site
    return {
        "name": shown.name,
        "logo": base64.b64encode(site.logo).decode(),
        **{name: getattr(site, name) for name in _FIELDS[2:]},
    }
