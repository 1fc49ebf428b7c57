"""Sign in at an identity provider, link an account there, and confirm with it who one is.

The way to the provider is a page that leads on by itself, not a redirect: the policy of the pages
lets forms go to this host only, and browsers apply it to redirects, too. The way back is one as
well, because cookies that are `Strict` are not sent in a navigation that another site began.
"""

from __future__ import annotations

import msgspec

from asgi_aiproxy.accounts.users import User
from asgi_aiproxy.console.pages import PageAnswer, PageRequest, PageRoute, segment
from asgi_aiproxy.console.screens.my_account import account_page
from asgi_aiproxy.console.screens.sign_in import (
    complete_sign_in,
    local_target,
    new_session,
    own_user,
    step_cookie,
    visitor_actor,
)
from asgi_aiproxy.console.security import cookie_values
from asgi_aiproxy.console.steps import STEP_COOKIE, ProviderStep, Purpose
from asgi_aiproxy.errors import APIError, ErrorKind

_TOO_OLD = "This sign-in was begun in another browser, or is too old. Start again."


def external_pages() -> list[PageRoute]:
    """Return the pages of identity providers."""
    return [
        PageRoute("POST", "/sign-in/with/{provider}", "nothing", _sign_in),
        PageRoute("GET", "/sign-in/with/{provider}/callback", "nothing", _callback),
        PageRoute("GET", "/confirm", "token", _show_confirm),
        PageRoute("POST", "/confirm/with/{provider}", "token", _confirm),
        PageRoute(
            "POST",
            "/my/account/link/{provider}",
            "token",
            _link,
            again=account_page,
            confirm=True,
        ),
        PageRoute("POST", "/my/account/unlink", "token", _unlink, again=account_page, confirm=True),
    ]


# to the provider


async def _sign_in(request: PageRequest) -> PageAnswer:
    return await _begin(request, "sign_in", local_target(request))


async def _link(request: PageRequest) -> PageAnswer:
    return await _begin(request, "link", request.url("/my/account"))


async def _show_confirm(request: PageRequest) -> PageAnswer:
    user = await own_user(request)
    return request.page("confirm.html", user=user, next_page=local_target(request))


async def _confirm(request: PageRequest) -> PageAnswer:
    if request.tools.users.confirmation(await own_user(request)) != "provider":
        message = "Confirm that it is you with your password or a code."
        raise APIError(ErrorKind.FORBIDDEN, message)
    return await _begin(request, "confirm", local_target(request))


async def _begin(request: PageRequest, purpose: Purpose, target: str) -> PageAnswer:
    users, name = request.tools.users, request.path["provider"]
    here = users.origin or request.origin
    callback = request.url(f"/sign-in/with/{segment(name)}/callback")
    by, fresh = visitor_actor(request), purpose == "confirm"
    url, pending = await users.external.begin(name, here + callback, by, fresh=fresh)
    step = ProviderStep(
        provider=name,
        pending=pending,
        purpose=purpose,
        next=target,
        code=request.form.get("code", [""])[0],
    )
    if (session := request.visitor.session) is not None:
        old = request.tools.sessions.name(request.visitor.session_id, request.mount)
        step = msgspec.structs.replace(step, session=old)
        if purpose != "sign_in":
            step = msgspec.structs.replace(step, user=session.subject, proof=session.proof)
    id = await request.tools.steps.begin(step, request.mount)
    return continue_page(request, url, step_cookie(request, id))


# back from the provider


async def _callback(request: PageRequest) -> PageAnswer:
    users, name = request.tools.users, request.path["provider"]
    step = None
    for id in cookie_values(request.scope, STEP_COOKIE)[:3]:
        step = step or await request.tools.steps.take(ProviderStep, id, request.mount)
    if step is None or step.provider != name:
        raise APIError(ErrorKind.INVALID, _TOO_OLD, code="state")
    by = visitor_actor(request)
    identity = await users.external.identity(name, step.pending, request.query)
    if step.purpose == "sign_in":
        user = await users.external.user_of(name, identity, by, code=step.code)
        path, cookies = await complete_sign_in(request, user, step.next)
    else:
        user = await _same_user(request, step)
        if step.purpose == "link":
            user = await users.external.link(user, identity, by)
        elif identity.id not in user.identities:
            message = "Sign in with the account that is linked with this user."
            raise APIError(ErrorKind.FORBIDDEN, message, code="identity_other")
        path, cookies = step.next, [await new_session(request, user)]
    if step.session:
        await request.tools.sessions.delete_named(step.session)
    return continue_page(request, path, *cookies)


async def _same_user(request: PageRequest, step: ProviderStep) -> User:
    """Return the user that has begun a step. Raises APIError if its session has ended since."""
    user: User | None = await request.tools.users.recall(step.user, step.proof)
    if user is None:
        raise APIError(ErrorKind.INVALID, _TOO_OLD, code="state")
    return user


# oneself


async def _unlink(request: PageRequest) -> PageAnswer:
    users = request.tools.users
    identity = request.form.get("identity", [""])[0]
    user = await users.external.unlink(await own_user(request), identity, visitor_actor(request))
    cookie = await new_session(request, user)
    return request.redirect("/my/account", headers=[cookie], done="removed")


def continue_page(request: PageRequest, url: str, *cookies: tuple[bytes, bytes]) -> PageAnswer:
    """Return a page that leads to a URL by itself."""
    return request.page("continue.html", target=url).with_headers(cookies)
