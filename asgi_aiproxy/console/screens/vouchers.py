"""Vouchers: created, disabled and exported by operators, redeemed by users."""

from __future__ import annotations

from asgi_aiproxy.console.forms import read_form
from asgi_aiproxy.console.pages import PageAnswer, PageRequest, PageRoute


def voucher_pages() -> list[PageRoute]:
    """Return the pages for operators."""
    return [
        PageRoute("GET", "/vouchers", "read", _list),
        PageRoute("POST", "/vouchers", "write", _create, again=_list, confirm=True),
        PageRoute("GET", "/vouchers.csv", "read", _export),
        PageRoute("POST", "/vouchers/{id}/enable", "write", _enable, again=_list, confirm=True),
        PageRoute("POST", "/vouchers/{id}/disable", "write", _disable, again=_list),
    ]


def redeem_pages() -> list[PageRoute]:
    """Return the page for users."""
    return [
        PageRoute("GET", "/my/redeem", "token", _redeem_form),
        PageRoute("POST", "/my/redeem", "token", _redeem, again=_redeem_form),
    ]


async def _list(request: PageRequest) -> PageAnswer:
    query = {"limit": "50", "after": request.query.get("after", "")}
    page = await request.api("GET /vouchers", query=query)
    return request.page("vouchers.html", vouchers=page.data, next=page.next, codes=None)


async def _create(request: PageRequest) -> PageAnswer:
    body = read_form(
        request.form, count="integer", usd="number", units="integer", name="text", expires="time"
    )
    created = await request.api("POST /vouchers", body=body)
    return request.page("vouchers.html", vouchers=[], next=None, codes=created.codes)


async def _export(request: PageRequest) -> PageAnswer:
    name = request.query.get("name", "")
    table = await request.api("GET /vouchers/export", query={"name": name})
    headers = [(b"content-disposition", b'attachment; filename="vouchers.csv"')]
    return PageAnswer(200, table.body, headers, table.media_type.encode())


async def _enable(request: PageRequest) -> PageAnswer:
    return await _switch(request, enabled=True)


async def _disable(request: PageRequest) -> PageAnswer:
    return await _switch(request, enabled=False)


async def _switch(request: PageRequest, *, enabled: bool) -> PageAnswer:
    await request.api("PATCH /vouchers/{id}", id=request.path["id"], body={"enabled": enabled})
    return request.redirect("/vouchers", done="saved", after=request.query.get("after"))


async def _redeem_form(request: PageRequest) -> PageAnswer:
    return request.page("redeem.html", me=await request.api("GET /me"))


async def _redeem(request: PageRequest) -> PageAnswer:
    code = request.form.get("code", [""])[0].strip()
    await request.api("POST /me/vouchers/redeem", body={"code": code})
    return request.redirect("/my/redeem", done="redeemed")
