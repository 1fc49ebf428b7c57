"""Users of the gateway, for operators."""

from __future__ import annotations

from asgi_aiproxy.console.forms import read_form
from asgi_aiproxy.console.pages import PageAnswer, PageRequest, PageRoute, segment
from asgi_aiproxy.errors import invalid


def user_pages() -> list[PageRoute]:
    """Return the pages on which operators manage users."""
    return [
        PageRoute("GET", "/users", "read", _users),
        PageRoute("POST", "/users", "write", _create, again=_users, confirm=True),
        PageRoute("GET", "/users/{id}", "read", _user),
        PageRoute("POST", "/users/{id}/edit", "write", _edit, again=_user, confirm=True),
        PageRoute("POST", "/users/{id}/enable", "write", _enable, again=_user),
        PageRoute("POST", "/users/{id}/disable", "write", _disable, again=_user),
        PageRoute(
            "POST", "/users/{id}/password-link", "write", _password_link, again=_user, confirm=True
        ),
        PageRoute(
            "POST",
            "/users/{id}/second-factor",
            "write",
            _reset_second_factor,
            again=_user,
            confirm=True,
        ),
        PageRoute(
            "POST", "/users/{id}/passkeys", "write", _remove_passkeys, again=_user, confirm=True
        ),
        PageRoute("POST", "/users/{id}/remove", "write", _remove, again=_user, confirm=True),
        PageRoute("POST", "/invitations", "write", _invite, again=_users),
        PageRoute("POST", "/invitations/{id}/remove", "write", _remove_invitation, again=_users),
    ]


def _value(request: PageRequest, name: str) -> str:
    return request.form.get(name, [""])[-1]


async def _users(request: PageRequest) -> PageAnswer:
    query = {"limit": "50", "after": request.query.get("after", "")}
    page = await request.api("GET /users", query=query)
    invitations = await request.api("GET /invitations")
    return request.page("users.html", users=page.data, next=page.next, invitations=invitations.data)


async def _create(request: PageRequest) -> PageAnswer:
    body = read_form(request.form, username="text", role="text", email="text", group="text")
    made = await request.api("POST /users", body=body)
    return _shown_link(request, made.user.username, made.link)


async def _user(request: PageRequest) -> PageAnswer:
    user = await request.api("GET /users/{id}", **_path(request))
    return request.page("user.html", user=user, address=f"/users/{user.id}")


async def _edit(request: PageRequest) -> PageAnswer:
    kinds = read_form(request.form, display_name="text", email="text", group="text")
    body = {name: kinds.get(name, "") for name in ("display_name", "email", "group")}
    before = await request.api("GET /users/{id}", **_path(request))
    if body["email"] == before.email:
        del body["email"]  # else it would count as verified by the operator
    if role := _value(request, "role"):
        body["role"] = role
    await request.api("PATCH /users/{id}", **_path(request), body=body)
    return request.redirect(f"/users/{before.id}", done="saved")


async def _enable(request: PageRequest) -> PageAnswer:
    return await _set_enabled(request, True)


async def _disable(request: PageRequest) -> PageAnswer:
    return await _set_enabled(request, False)


async def _set_enabled(request: PageRequest, enabled: bool) -> PageAnswer:
    await request.api("PATCH /users/{id}", **_path(request), body={"enabled": enabled})
    return request.redirect(f"/users/{segment(request.path['id'])}", done="saved")


async def _password_link(request: PageRequest) -> PageAnswer:
    made = await request.api("POST /users/{id}/password-link", **_path(request))
    return _shown_link(request, request.path["id"], made.link)


async def _reset_second_factor(request: PageRequest) -> PageAnswer:
    await request.api("DELETE /users/{id}/second-factor", **_path(request))
    return request.redirect(f"/users/{segment(request.path['id'])}", done="saved")


async def _remove_passkeys(request: PageRequest) -> PageAnswer:
    await request.api("DELETE /users/{id}/passkeys", **_path(request))
    return request.redirect(f"/users/{segment(request.path['id'])}", done="saved")


async def _remove(request: PageRequest) -> PageAnswer:
    await request.api("DELETE /users/{id}", **_path(request))
    return request.redirect("/users", done="removed")


async def _invite(request: PageRequest) -> PageAnswer:
    body = read_form(request.form, uses="integer", note="text", expires="time")
    made = await request.api("POST /invitations", body=body)
    return request.page("link.html", title="", url_="", code=made.code)


async def _remove_invitation(request: PageRequest) -> PageAnswer:
    await request.api("DELETE /invitations/{id}", **_path(request))
    return request.redirect("/users", done="removed")


def _shown_link(request: PageRequest, title: str, link: str) -> PageAnswer:
    url = request.url("/password", link=link)
    return request.page("link.html", title=title, url_=url, code="")


def _path(request: PageRequest) -> dict[str, dict[str, str]]:
    if not request.path.get("id"):
        raise invalid("id: is missing.", "id")
    return dict(request.path)  # type: ignore[arg-type]
