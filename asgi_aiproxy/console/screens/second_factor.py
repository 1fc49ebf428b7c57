"""The second factor: at sign-in, and at one's own account.

The pages at sign-in have no session: the cookie of a step says which user has presented its first
factor. A step is taken when its code is right, so that it leads to one session.
"""

from __future__ import annotations

from asgi_aiproxy.accounts.users import User
from asgi_aiproxy.console.pages import PageAnswer, PageRequest, PageRoute
from asgi_aiproxy.console.screens.my_account import account_page
from asgi_aiproxy.console.screens.sign_in import (
    begin_step,
    new_session,
    own_user,
    step_cookie,
    to_page,
    visitor_actor,
)
from asgi_aiproxy.console.security import cookie_values
from asgi_aiproxy.console.steps import STEP_COOKIE, FactorStep
from asgi_aiproxy.errors import APIError, ErrorKind

_OWN = "/my/account/second-factor"


def second_factor_pages() -> list[PageRoute]:
    """Return the pages of second factors."""
    return [
        PageRoute("GET", "/sign-in/code", "nothing", _show_code),
        PageRoute("POST", "/sign-in/code", "nothing", _enter_code, again=_show_code),
        PageRoute("POST", _OWN, "token", _begin, again=account_page, confirm=True),
        PageRoute("GET", _OWN, "token", _show_code),
        PageRoute("POST", f"{_OWN}/enable", "token", _enable, again=_show_code),
        PageRoute("POST", f"{_OWN}/codes", "token", _codes, again=account_page, confirm=True),
        PageRoute("POST", f"{_OWN}/remove", "token", _remove, again=account_page, confirm=True),
    ]


# at sign-in


async def _show_code(request: PageRequest) -> PageAnswer:
    _, step, user = await _step(request)
    if not step.secret:
        return request.page("code.html")
    enrolment = request.tools.users.second_factors.enrolment(user, step.secret)
    target = f"{_OWN}/enable" if step.own else "/sign-in/code"
    return request.page("second_factor.html", enrolment=enrolment, target=target)


async def _enter_code(request: PageRequest) -> PageAnswer:
    id, step, user = await _step(request)
    users, by = request.tools.users, visitor_actor(request)
    code = request.form.get("code", [""])[0]
    if step.secret:
        user, codes = await users.second_factors.enable(user, step.secret, code, by)
    else:
        user, codes = await users.second_factors.check(user, code, by), []
    await _take(request, id)
    user = await users.signed_in(user, by)
    cookies = [await new_session(request, user), step_cookie(request, "")]
    if codes:
        return _shown_codes(request, codes, step.next, *cookies)
    return to_page(request, step.next, *cookies)


# at one's own account


async def _begin(request: PageRequest) -> PageAnswer:
    user = await own_user(request)
    secret = request.tools.users.second_factors.new_secret(user)
    step = FactorStep(
        user=str(user.id),
        proof=user.session_proof,
        next=request.url("/my/account"),
        secret=secret,
        own=True,
    )
    cookie = await begin_step(request, step)
    return request.redirect(_OWN, headers=[cookie])


async def _enable(request: PageRequest) -> PageAnswer:
    id, step, user = await _step(request)
    if not step.secret or user.id != (await own_user(request)).id:
        raise _too_old()
    factors, by = request.tools.users.second_factors, visitor_actor(request)
    user, codes = await factors.enable(user, step.secret, request.form.get("code", [""])[0], by)
    await _take(request, id)
    cookies = [await new_session(request, user), step_cookie(request, "")]
    return _shown_codes(request, codes, step.next, *cookies)


async def _codes(request: PageRequest) -> PageAnswer:
    factors = request.tools.users.second_factors
    codes = await factors.new_codes(await own_user(request), visitor_actor(request))
    return _shown_codes(request, codes, request.url("/my/account"))


async def _remove(request: PageRequest) -> PageAnswer:
    factors = request.tools.users.second_factors
    user = await factors.remove(await own_user(request), visitor_actor(request))
    cookie = await new_session(request, user)
    return request.redirect("/my/account", headers=[cookie], done="removed")


def _shown_codes(
    request: PageRequest, codes: list[str], path: str, *cookies: tuple[bytes, bytes]
) -> PageAnswer:
    return request.page("recovery_codes.html", codes=codes, target=path).with_headers(cookies)


async def _step(request: PageRequest) -> tuple[str, FactorStep, User]:
    """Return the step of this browser with its id and user. Raises APIError."""
    for id in cookie_values(request.scope, STEP_COOKIE)[:3]:
        step = await request.tools.steps.find(FactorStep, id, request.mount)
        if step is not None:
            user = await request.tools.users.recall(step.user, step.proof)
            if user is not None:
                return id, step, user
    raise _too_old()


async def _take(request: PageRequest, id: str) -> None:
    if await request.tools.steps.take(FactorStep, id, request.mount) is None:
        raise _too_old()


def _too_old() -> APIError:
    message = "This sign-in is too old. Start again."
    return APIError(ErrorKind.INVALID, message, code="state")
