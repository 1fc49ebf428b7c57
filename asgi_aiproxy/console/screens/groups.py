"""Groups, which set prices and providers, and accounts, whose budgets several tokens share."""

from __future__ import annotations

from asgi_aiproxy.console.forms import read_form
from asgi_aiproxy.console.pages import PageAnswer, PageRequest, PageRoute, segment
from asgi_aiproxy.console.screens.raises import raise_budget
from asgi_aiproxy.console.screens.tokens import budget_texts


def group_pages() -> list[PageRoute]:
    """Return the pages of groups and accounts, for operators."""
    return [
        PageRoute("GET", "/groups", "read", _groups),
        PageRoute("POST", "/groups", "write", _create_group, again=_groups, confirm=True),
        PageRoute("GET", "/groups/{name}", "read", _group),
        PageRoute("POST", "/groups/{name}/edit", "write", _edit_group, again=_group, confirm=True),
        PageRoute(
            "POST", "/groups/{name}/remove", "write", _remove_group, again=_group, confirm=True
        ),
        PageRoute("GET", "/accounts", "read", _accounts),
        PageRoute("POST", "/accounts", "write", _create_account, again=_accounts, confirm=True),
        PageRoute("GET", "/accounts/{id}", "read", _account),
        PageRoute(
            "POST", "/accounts/{id}/edit", "write", _edit_account, again=_account, confirm=True
        ),
        PageRoute(
            "POST", "/accounts/{id}/raise", "write", _raise_budget, again=_account, confirm=True
        ),
        PageRoute("GET", "/accounts/{id}/statement.csv", "read", _statement),
        PageRoute("POST", "/accounts/{id}/enable", "write", _enable_account, again=_account),
        PageRoute("POST", "/accounts/{id}/disable", "write", _disable_account, again=_account),
        PageRoute(
            "POST", "/accounts/{id}/remove", "write", _remove_account, again=_account, confirm=True
        ),
    ]


async def _groups(request: PageRequest) -> PageAnswer:
    query = {"limit": "50", "after": request.query.get("after", "")}
    page = await request.api("GET /groups", query=query)
    return request.page("groups.html", groups=page.data, next=page.next)


async def _create_group(request: PageRequest) -> PageAnswer:
    body = read_form(request.form, name="text", ratio="number", providers="list", keys="list")
    await request.api("POST /groups", body=body)
    return request.redirect("/groups", done="created")


async def _group(request: PageRequest) -> PageAnswer:
    group = await request.api("GET /groups/{name}", **request.path)
    values = {
        "ratio": f"{group.ratio:g}",
        "providers": ", ".join(group.providers),
        "keys": ", ".join(group.keys),
    }
    address = f"/groups/{segment(group.name)}"
    return request.page("group.html", group=group, values=values, address=address)


async def _edit_group(request: PageRequest) -> PageAnswer:
    body = read_form(request.form, edit=True, ratio="number", providers="list", keys="list")
    if body.get("ratio") is None:
        body.pop("ratio", None)
    await request.api("PATCH /groups/{name}", **request.path, body=body)
    return request.redirect(f"/groups/{segment(request.path['name'])}", done="saved")


async def _remove_group(request: PageRequest) -> PageAnswer:
    await request.api("DELETE /groups/{name}", **request.path)
    return request.redirect("/groups", done="removed")


async def _accounts(request: PageRequest) -> PageAnswer:
    query = {"limit": "50", "after": request.query.get("after", "")}
    page = await request.api("GET /accounts", query=query)
    return request.page("accounts.html", accounts=page.data, next=page.next)


async def _create_account(request: PageRequest) -> PageAnswer:
    body = read_form(request.form, id="text", name="text", budgets="list")
    await request.api("POST /accounts", body=body)
    return request.redirect("/accounts", done="created")


async def _account(request: PageRequest) -> PageAnswer:
    account = await request.api("GET /accounts/{id}", **request.path)
    values = {"name": account.name, "budgets": budget_texts(account.limits.budgets)}
    address = f"/accounts/{segment(account.id)}"
    return request.page("account.html", account=account, values=values, address=address)


async def _edit_account(request: PageRequest) -> PageAnswer:
    body = read_form(request.form, edit=True, name="text", budgets="list")
    return await _change(request, body)


async def _raise_budget(request: PageRequest) -> PageAnswer:
    address = f"/accounts/{segment(request.path['id'])}"
    return await raise_budget(request, "POST /accounts/{id}/raise", address)


async def _statement(request: PageRequest) -> PageAnswer:
    query = {"month": request.query.get("month", "")}
    table = await request.api("GET /accounts/{id}/statement/export", **request.path, query=query)
    headers = [(b"content-disposition", b'attachment; filename="statement.csv"')]
    return PageAnswer(200, table.body, headers, table.media_type.encode())


async def _enable_account(request: PageRequest) -> PageAnswer:
    return await _change(request, {"enabled": True})


async def _disable_account(request: PageRequest) -> PageAnswer:
    return await _change(request, {"enabled": False})


async def _change(request: PageRequest, body: dict[str, object]) -> PageAnswer:
    await request.api("PATCH /accounts/{id}", **request.path, body=body)
    return request.redirect(f"/accounts/{segment(request.path['id'])}", done="saved")


async def _remove_account(request: PageRequest) -> PageAnswer:
    await request.api("DELETE /accounts/{id}", **request.path)
    return request.redirect("/accounts", done="removed")
