"""Announcements, for operators; their texts are shown on the first page of all visitors."""

from __future__ import annotations

from asgi_aiproxy.console.forms import read_form, time_value
from asgi_aiproxy.console.pages import PageAnswer, PageRequest, PageRoute, segment

_ITEM = "/announcements/{id}"


def announcement_pages() -> list[PageRoute]:
    """Return the pages of announcements."""
    return [
        PageRoute("GET", "/announcements", "read", _list),
        PageRoute("POST", "/announcements", "write", _create, again=_list),
        PageRoute("GET", _ITEM, "read", _show),
        PageRoute("POST", f"{_ITEM}/edit", "write", _edit, again=_show),
        PageRoute("POST", f"{_ITEM}/remove", "write", _remove, again=_show),
    ]


async def _list(request: PageRequest) -> PageAnswer:
    query = {"limit": "50", "after": request.query.get("after", "")}
    page = await request.api("GET /announcements", query=query)
    return request.page("announcements.html", announcements=page.data, next=page.next)


async def _create(request: PageRequest) -> PageAnswer:
    body = read_form(request.form, text="text", level="text", since="time", until="time")
    await request.api("POST /announcements", body=body)
    return request.redirect("/announcements", done="created")


async def _show(request: PageRequest) -> PageAnswer:
    found = await request.api(f"GET {_ITEM}", **request.path)
    values = {"since": time_value(found.since), "until": time_value(found.until)}
    address = f"/announcements/{segment(found.id)}"
    return request.page("announcement.html", found=found, values=values, address=address)


async def _edit(request: PageRequest) -> PageAnswer:
    body = read_form(request.form, edit=True, text="text", level="text", since="time", until="time")
    for name in ("text", "level"):  # which an announcement always has
        if body.get(name) is None:
            body.pop(name, None)
    await request.api(f"PATCH {_ITEM}", **request.path, body=body)
    return request.redirect("/announcements", done="saved")


async def _remove(request: PageRequest) -> PageAnswer:
    await request.api(f"DELETE {_ITEM}", **request.path)
    return request.redirect("/announcements", done="removed")
