"""Passkeys: at sign-in, and at one's own account.

A page with a challenge calls the browser by a script, and sends what it has signed as a form. The
challenge is in a step, whose cookie is that of this browser; it is taken before the response is
verified, so that each is used once.
"""

from __future__ import annotations

from asgi_aiproxy.console.pages import PageAnswer, PageRequest, PageRoute
from asgi_aiproxy.console.screens.my_account import account_page
from asgi_aiproxy.console.screens.sign_in import (
    begin_step,
    complete_sign_in,
    local_target,
    new_session,
    own_user,
    sign_in_page,
    step_cookie,
    to_page,
    visitor_actor,
)
from asgi_aiproxy.console.security import cookie_values
from asgi_aiproxy.console.steps import STEP_COOKIE, PasskeyStep
from asgi_aiproxy.errors import APIError, ErrorKind

_SIGN_IN, _OWN = "/sign-in/passkey", "/my/account/passkeys"


def passkey_pages() -> list[PageRoute]:
    """Return the pages of passkeys."""
    return [
        PageRoute("POST", _SIGN_IN, "nothing", _begin_sign_in, again=sign_in_page),
        PageRoute("GET", _SIGN_IN, "nothing", _show_sign_in),
        PageRoute("POST", f"{_SIGN_IN}/response", "nothing", _sign_in, again=sign_in_page),
        PageRoute("POST", _OWN, "token", _begin_new, again=account_page, confirm=True),
        PageRoute("GET", _OWN, "token", _show_new),
        PageRoute("POST", f"{_OWN}/response", "token", _add, again=account_page),
        PageRoute("POST", f"{_OWN}/remove", "token", _remove, again=account_page, confirm=True),
    ]


# at sign-in


async def _begin_sign_in(request: PageRequest) -> PageAnswer:
    found = await request.tools.users.passkeys.authentication(visitor_actor(request))
    step = PasskeyStep(challenge=found.challenge, options=found.options, next=local_target(request))
    return request.redirect(_SIGN_IN, headers=[await begin_step(request, step)])


async def _show_sign_in(request: PageRequest) -> PageAnswer:
    _, step = await _step(request)
    return request.page(
        "passkey.html", options=step.options, kind="get", target=f"{_SIGN_IN}/response"
    )


async def _sign_in(request: PageRequest) -> PageAnswer:
    step = await _take(request)
    if step.user:
        raise _too_old()
    users, by = request.tools.users, visitor_actor(request)
    user = await users.verify_passkey(users.passkeys, step.challenge, _response(request), by)
    path, cookies = await complete_sign_in(request, user, step.next, both=True)
    ended = [] if path != step.next else [step_cookie(request, "")]
    return to_page(request, path, *cookies, *ended)


# at one's own account


async def _begin_new(request: PageRequest) -> PageAnswer:
    user, name = await own_user(request), request.form.get("name", [""])[0].strip()
    found = request.tools.users.passkeys.registration(user, name)
    step = PasskeyStep(
        challenge=found.challenge,
        options=found.options,
        user=str(user.id),
        proof=user.session_proof,
        name=name,
    )
    return request.redirect(_OWN, headers=[await begin_step(request, step)])


async def _show_new(request: PageRequest) -> PageAnswer:
    _, step = await _step(request)
    target = f"{_OWN}/response"
    return request.page("passkey.html", options=step.options, kind="create", target=target)


async def _add(request: PageRequest) -> PageAnswer:
    user, step = await own_user(request), await _take(request)
    if (step.user, step.proof) != (str(user.id), user.session_proof):
        raise _too_old()
    passkeys, by = request.tools.users.passkeys, visitor_actor(request)
    user = await passkeys.add(user, step.challenge, _response(request), step.name, by)
    cookies = [await new_session(request, user), step_cookie(request, "")]
    return request.redirect("/my/account", headers=cookies, done="created")


async def _remove(request: PageRequest) -> PageAnswer:
    user, by = await own_user(request), visitor_actor(request)
    id = request.form.get("passkey", [""])[0]
    user = await request.tools.users.passkeys.remove(user, id, by)
    cookie = await new_session(request, user)
    return request.redirect("/my/account", headers=[cookie], done="removed")


def _response(request: PageRequest) -> str:
    return request.form.get("credential", [""])[0]


async def _step(request: PageRequest) -> tuple[str, PasskeyStep]:
    """Return the step of this browser with its id. Raises APIError."""
    for id in cookie_values(request.scope, STEP_COOKIE)[:3]:
        step = await request.tools.steps.find(PasskeyStep, id, request.mount)
        if step is not None:
            return id, step
    raise _too_old()


async def _take(request: PageRequest) -> PasskeyStep:
    id, _ = await _step(request)
    taken: PasskeyStep | None = await request.tools.steps.take(PasskeyStep, id, request.mount)
    if taken is None:
        raise _too_old()
    return taken


def _too_old() -> APIError:
    message = "This sign-in is too old. Start again."
    return APIError(ErrorKind.INVALID, message, code="state")
