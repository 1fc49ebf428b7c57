"""Sign in with the administrator's token or a token of the store; sign out; choose a language."""

from __future__ import annotations

import time

from asgi_aiproxy.console.pages import PageAnswer, PageRequest, PageRoute
from asgi_aiproxy.console.security import (
    LANGUAGE_COOKIE,
    SESSION_COOKIE,
    is_local_path,
    set_cookie,
)
from asgi_aiproxy.console.sessions import Session
from asgi_aiproxy.errors import invalid

_YEAR = 365 * 86400.0


def sign_in_pages() -> list[PageRoute]:
    """Return the pages to sign in and out."""
    return [
        PageRoute("GET", "/sign-in", "nothing", _show),
        PageRoute("POST", "/sign-in", "nothing", _sign_in, again=_show),
        PageRoute("POST", "/sign-out", "token", _sign_out),
    ]


def language_pages() -> list[PageRoute]:
    """Return the target of the form that chooses the language."""
    return [PageRoute("POST", "/language", "nothing", _language)]


async def _show(request: PageRequest) -> PageAnswer:
    if request.visitor.caller is not None:
        return _to(request, _target(request, request.query.get("next", "")))
    next_page = request.query.get("next") or request.form.get("next", [""])[0]
    return request.page("sign_in.html", next_page=_target(request, next_page))


async def _sign_in(request: PageRequest) -> PageAnswer:
    tools, mount = request.tools, request.mount
    token = request.form.get("token", [""])[0].strip()
    if not token:
        raise invalid("Enter a token.", "token")
    caller, digest = await tools.admin.access.verify(token, request.scope)
    session = Session(kind="token", subject=caller.id, proof=digest, created=time.time())
    if request.visitor.session is not None:
        await tools.sessions.delete(request.visitor.session_id, mount)
    id = await tools.sessions.create(session, mount)
    cookie = set_cookie(
        request.scope,
        SESSION_COOKIE,
        id,
        seconds=tools.sessions.seconds,
        secure=tools.secure_cookie,
    )
    return _to(request, _target(request, request.form.get("next", [""])[0]), cookie)


async def _sign_out(request: PageRequest) -> PageAnswer:
    tools = request.tools
    if request.visitor.session is not None:
        await tools.sessions.delete(request.visitor.session_id, request.mount)
    cookie = set_cookie(request.scope, SESSION_COOKIE, "", seconds=0, secure=tools.secure_cookie)
    return _to(request, request.url("/sign-in"), cookie)


async def _language(request: PageRequest) -> PageAnswer:
    tag = request.form.get("language", [""])[0]
    if tag not in request.renderer.languages.tags:
        raise invalid(f"language: {tag!r} does not exist.", "language")
    cookie = set_cookie(
        request.scope, LANGUAGE_COOKIE, tag, seconds=_YEAR, secure=request.tools.secure_cookie
    )
    return _to(request, _target(request, request.form.get("back", [""])[0]), cookie)


def _target(request: PageRequest, path: str) -> str:
    """Return a page of this console to continue with; the home page in place of anything else."""
    return path if is_local_path(path, request.mount) else request.url("/")


def _to(request: PageRequest, path: str, *headers: tuple[bytes, bytes]) -> PageAnswer:
    location = (b"location", path.encode("ascii", "ignore"))
    return PageAnswer(303, headers=[location, *headers])
