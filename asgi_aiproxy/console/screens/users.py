"""Users of the gateway: sign-up, verification, passwords and sessions; for operators all users."""

from __future__ import annotations

from asgi_aiproxy._request_id import request_id
from asgi_aiproxy.console.forms import read_form
from asgi_aiproxy.console.pages import PageAnswer, PageRequest, PageRoute, segment
from asgi_aiproxy.console.screens.sign_in import new_session, to_page
from asgi_aiproxy.errors import APIError, ErrorKind, invalid
from asgi_aiproxy.principal import ANONYMOUS
from asgi_aiproxy.services.base import Actor
from asgi_aiproxy.services.sign_in import SignUpForm


def user_pages() -> list[PageRoute]:
    """Return the pages of a gateway whose users have passwords."""
    return [
        PageRoute("GET", "/sign-up", "nothing", _show_sign_up),
        PageRoute("POST", "/sign-up", "nothing", _sign_up, again=_show_sign_up),
        PageRoute("GET", "/verify-email", "nothing", _show_verify),
        PageRoute("POST", "/verify-email", "nothing", _verify, again=_show_verify),
        PageRoute("GET", "/reset-password", "nothing", _show_reset),
        PageRoute("POST", "/reset-password", "nothing", _reset, again=_show_reset),
        PageRoute("GET", "/password", "nothing", _show_password),
        PageRoute("POST", "/password", "nothing", _set_password, again=_show_password),
        PageRoute("GET", "/my/account", "token", _account),
        PageRoute("POST", "/my/account/password", "token", _change_password, again=_account),
        PageRoute("POST", "/my/account/sessions/end", "token", _end_session, again=_account),
        PageRoute("GET", "/users", "read", _users),
        PageRoute("POST", "/users", "write", _create, again=_users),
        PageRoute("GET", "/users/{id}", "read", _user),
        PageRoute("POST", "/users/{id}/edit", "write", _edit, again=_user),
        PageRoute("POST", "/users/{id}/enable", "write", _enable, again=_user),
        PageRoute("POST", "/users/{id}/disable", "write", _disable, again=_user),
        PageRoute("POST", "/users/{id}/password-link", "write", _password_link, again=_user),
        PageRoute("POST", "/users/{id}/remove", "write", _remove, again=_user),
        PageRoute("POST", "/invitations", "write", _invite, again=_users),
        PageRoute("POST", "/invitations/{id}/remove", "write", _remove_invitation, again=_users),
    ]


def visitor_actor(request: PageRequest) -> Actor:
    """Return the visitor for the audit log, and for limits per address."""
    client = request.scope.get("client")
    caller = request.visitor.caller or ANONYMOUS
    return Actor(caller, "console", str(client[0]) if client else "", request_id(request.scope))


def _value(request: PageRequest, name: str) -> str:
    """Return a field of the form, or of the query of a page without a form."""
    return request.form.get(name, [request.query.get(name, "")])[-1]


# without a session


async def _show_sign_up(request: PageRequest) -> PageAnswer:
    rules = request.tools.users.rules
    return request.page("sign_up.html", rules=rules, code=_value(request, "code"))


async def _sign_up(request: PageRequest) -> PageAnswer:
    users = request.tools.users
    names = ("username", "password", "email", "code")
    form = SignUpForm(**{name: _value(request, name) for name in names})
    user = await users.sign_up(form, visitor_actor(request))
    if user is None:
        return request.page("message.html", kind="verify")
    return to_page(request, request.url("/"), await new_session(request, user))


async def _show_verify(request: PageRequest) -> PageAnswer:
    return request.page("verify_email.html", link=_value(request, "link"))


async def _verify(request: PageRequest) -> PageAnswer:
    await request.tools.users.verify_email(_value(request, "link"), visitor_actor(request))
    return request.page("message.html", kind="verified")


async def _show_reset(request: PageRequest) -> PageAnswer:
    return request.page("reset_password.html")


async def _reset(request: PageRequest) -> PageAnswer:
    await request.tools.users.request_reset(_value(request, "email"), visitor_actor(request))
    return request.page("message.html", kind="reset")


async def _show_password(request: PageRequest) -> PageAnswer:
    return request.page("password.html", link=_value(request, "link"))


async def _set_password(request: PageRequest) -> PageAnswer:
    link, password = _value(request, "link"), _value(request, "password")
    await request.tools.users.set_password(link, password, visitor_actor(request))
    return request.page("message.html", kind="password")


# oneself


async def _account(request: PageRequest) -> PageAnswer:
    subject = _own_subject(request)
    user = await request.tools.users.service.get(int(subject))
    sessions = await request.tools.sessions.of(subject)
    own = request.tools.sessions.name(request.visitor.session_id, request.mount)
    code = await request.tools.users.invite_code(user.id)
    return request.page("my_account.html", user=user, sessions=sessions, own=own, code=code)


async def _change_password(request: PageRequest) -> PageAnswer:
    users = request.tools.users
    row = await users.service.users.get(int(_own_subject(request)))
    old, new = _value(request, "old"), _value(request, "password")
    user = await users.change_password(row, old, new, visitor_actor(request))
    cookie = await new_session(request, user)
    return request.redirect("/my/account", headers=[cookie], done="saved")


async def _end_session(request: PageRequest) -> PageAnswer:
    await request.tools.sessions.end(_own_subject(request), _value(request, "session"))
    return request.redirect("/my/account", done="removed")


def _own_subject(request: PageRequest) -> str:
    """Return the number of the user that is signed in, as text. Raises APIError."""
    session = request.visitor.session
    if session is None or session.kind != "user":
        message = "This page is for users that have signed in with a password."
        raise APIError(ErrorKind.FORBIDDEN, message)
    return session.subject


# for operators


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
