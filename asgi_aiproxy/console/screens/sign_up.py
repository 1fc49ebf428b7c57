"""Sign up, verify an address, and set a password by a link."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from asgi_aiproxy.console.pages import PageAnswer, PageRequest, PageRoute
from asgi_aiproxy.console.screens.sign_in import complete_sign_in, to_page, visitor_actor
from asgi_aiproxy.services.sign_up import SignUpForm
from asgi_aiproxy.services.turnstile import Action


def sign_up_pages() -> list[PageRoute]:
    """Return the pages of users that have no session yet."""
    return [
        PageRoute("GET", "/sign-up", "nothing", _show_sign_up),
        PageRoute("POST", "/sign-up", "nothing", _sign_up, again=_show_sign_up),
        PageRoute("GET", "/verify-email", "nothing", _show_verify),
        PageRoute("POST", "/verify-email", "nothing", _verify, again=_show_verify),
        PageRoute("GET", "/reset-password", "nothing", _show_reset),
        PageRoute("POST", "/reset-password", "nothing", _reset, again=_show_reset),
        PageRoute("GET", "/password", "nothing", _show_password),
        PageRoute("POST", "/password", "nothing", _set_password, again=_show_password),
    ]


def _value(request: PageRequest, name: str) -> str:
    """Return a field of the form, or of the query of a page without a form."""
    return request.form.get(name, [request.query.get(name, "")])[-1]


def _guarded(request: PageRequest, template: str, **context: Any) -> PageAnswer:
    """Return a page whose form only persons may send."""
    turnstile = request.tools.users.turnstile
    page = request.page(template, turnstile=turnstile, **context)
    return replace(page, other_origin=turnstile.origin) if turnstile is not None else page


async def _check_person(request: PageRequest, action: Action) -> None:
    """Raise APIError unless a form was sent by a person, if that is required."""
    turnstile = request.tools.users.turnstile
    if turnstile is not None:
        token = request.form.get("cf-turnstile-response", [""])[-1]
        await turnstile.check(token, action, visitor_actor(request).address)


async def _show_sign_up(request: PageRequest) -> PageAnswer:
    rules = request.tools.users.rules
    return _guarded(request, "sign_up.html", rules=rules, code=_value(request, "code"))


async def _sign_up(request: PageRequest) -> PageAnswer:
    await _check_person(request, "sign-up")
    users = request.tools.users
    names = ("username", "password", "email", "code")
    form = SignUpForm(**{name: _value(request, name) for name in names})
    user = await users.sign_up(form, visitor_actor(request))
    if user is None:
        return request.page("message.html", kind="verify")
    path, cookies = await complete_sign_in(request, user, request.url("/"))
    return to_page(request, path, *cookies)


async def _show_verify(request: PageRequest) -> PageAnswer:
    return request.page("verify_email.html", link=_value(request, "link"))


async def _verify(request: PageRequest) -> PageAnswer:
    await request.tools.users.verify_email(_value(request, "link"), visitor_actor(request))
    return request.page("message.html", kind="verified")


async def _show_reset(request: PageRequest) -> PageAnswer:
    return _guarded(request, "reset_password.html")


async def _reset(request: PageRequest) -> PageAnswer:
    await _check_person(request, "mail")
    await request.tools.users.request_reset(_value(request, "email"), visitor_actor(request))
    return request.page("message.html", kind="reset")


async def _show_password(request: PageRequest) -> PageAnswer:
    return request.page("password.html", link=_value(request, "link"))


async def _set_password(request: PageRequest) -> PageAnswer:
    link, password = _value(request, "link"), _value(request, "password")
    await request.tools.users.set_password(link, password, visitor_actor(request))
    return request.page("message.html", kind="password")
