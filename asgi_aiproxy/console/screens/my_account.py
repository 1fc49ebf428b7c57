"""A user's own account: password, linked accounts, sessions."""

from __future__ import annotations

from asgi_aiproxy.console.pages import PageAnswer, PageRequest, PageRoute
from asgi_aiproxy.console.screens.sign_in import new_session, own_user, visitor_actor
from asgi_aiproxy.errors import APIError, ErrorKind


def my_account_pages() -> list[PageRoute]:
    """Return the page of one's own account."""
    return [
        PageRoute("GET", "/my/account", "token", account_page),
        PageRoute("POST", "/my/account/password", "token", _change_password, again=account_page),
        PageRoute("POST", "/my/account/sessions/end", "token", _end_session, again=account_page),
    ]


async def account_page(request: PageRequest) -> PageAnswer:
    """Return the page of one's own account."""
    user = await own_user(request)
    tools = request.tools
    return request.page(
        "my_account.html",
        user=user,
        sessions=await tools.sessions.of(str(user.id)),
        own=tools.sessions.name(request.visitor.session_id, request.mount),
        code=await tools.users.invite_code(user.id),
        external=tools.users.external,
        factors=tools.users.factors,
        passkeys=tools.users.passkeys is not None,
    )


async def _change_password(request: PageRequest) -> PageAnswer:
    users = request.tools.users
    user, by = await own_user(request), visitor_actor(request)
    old, new = (request.form.get(name, [""])[0] for name in ("old", "password"))
    if user.password:
        await users.verify(user.username, old, by)
    elif request.visitor.confirm:
        message = "Confirm that it is you: sign in again."
        raise APIError(ErrorKind.FORBIDDEN, message, code="confirm")
    user = await users.change_password(user, new, by)
    cookie = await new_session(request, user)
    return request.redirect("/my/account", headers=[cookie], done="saved")


async def _end_session(request: PageRequest) -> PageAnswer:
    user = await own_user(request)
    await request.tools.sessions.end(str(user.id), request.form.get("session", [""])[0])
    return request.redirect("/my/account", done="removed")
