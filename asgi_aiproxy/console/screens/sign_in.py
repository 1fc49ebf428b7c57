"""Sign in with the administrator's token or a token of the store; sign out; choose a language."""

from __future__ import annotations

import time

from asgi_aiproxy import _asgi
from asgi_aiproxy._request_id import request_id
from asgi_aiproxy.accounts.users import User
from asgi_aiproxy.console.pages import PageAnswer, PageRequest, PageRoute
from asgi_aiproxy.console.security import (
    LANGUAGE_COOKIE,
    SESSION_COOKIE,
    is_local_path,
    set_cookie,
)
from asgi_aiproxy.console.sessions import Session
from asgi_aiproxy.errors import invalid
from asgi_aiproxy.principal import ANONYMOUS
from asgi_aiproxy.services.base import Actor

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
        return to_page(request, _target(request, request.query.get("next", "")))
    next_page = request.query.get("next") or request.form.get("next", [""])[0]
    return request.page("sign_in.html", next_page=_target(request, next_page))


async def _sign_in(request: PageRequest) -> PageAnswer:
    tools = request.tools
    if "username" in request.form and tools.users is not None:
        return await _sign_in_user(request)
    token = request.form.get("token", [""])[0].strip()
    if not token:
        raise invalid("Enter a token.", "token")
    caller, digest = await tools.admin.access.verify(token, request.scope)
    session = Session(kind="token", subject=caller.id, proof=digest, created=time.time())
    cookie = await _replace_session(request, session)
    return to_page(request, _target(request, request.form.get("next", [""])[0]), cookie)


async def _sign_in_user(request: PageRequest) -> PageAnswer:
    client = request.scope.get("client")
    address = str(client[0]) if client else ""
    by = Actor(ANONYMOUS, "console", address, request_id(request.scope))
    name, password = request.form["username"][0], request.form.get("password", [""])[0]
    user = await request.tools.users.verify(name, password, by)
    cookie = await new_session(request, user)
    return to_page(request, _target(request, request.form.get("next", [""])[0]), cookie)


async def new_session(request: PageRequest, user: User) -> tuple[bytes, bytes]:
    """Sign a user in, in place of the visitor's session; returns the header with the cookie."""
    client = request.scope.get("client")
    session = Session(
        kind="user",
        subject=str(user.id),
        proof=user.session_proof,
        created=time.time(),
        address=str(client[0]) if client else "",
        agent=(_asgi.header(request.scope, b"user-agent") or "")[:200],
    )
    return await _replace_session(request, session)


async def _replace_session(request: PageRequest, session: Session) -> tuple[bytes, bytes]:
    tools, mount = request.tools, request.mount
    if request.visitor.session is not None:
        await tools.sessions.delete(request.visitor.session_id, mount)
    id = await tools.sessions.create(session, mount)
    return set_cookie(
        request.scope,
        SESSION_COOKIE,
        id,
        seconds=tools.sessions.seconds,
        secure=tools.secure_cookie,
    )


async def _sign_out(request: PageRequest) -> PageAnswer:
    tools = request.tools
    if request.visitor.session is not None:
        await tools.sessions.delete(request.visitor.session_id, request.mount)
    cookie = set_cookie(request.scope, SESSION_COOKIE, "", seconds=0, secure=tools.secure_cookie)
    return to_page(request, request.url("/sign-in"), cookie)


async def _language(request: PageRequest) -> PageAnswer:
    tag = request.form.get("language", [""])[0]
    if tag not in request.renderer.languages.tags:
        raise invalid(f"language: {tag!r} does not exist.", "language")
    cookie = set_cookie(
        request.scope, LANGUAGE_COOKIE, tag, seconds=_YEAR, secure=request.tools.secure_cookie
    )
    return to_page(request, _target(request, request.form.get("back", [""])[0]), cookie)


def _target(request: PageRequest, path: str) -> str:
    """Return a page of this console to continue with; the home page in place of anything else."""
    return path if is_local_path(path, request.mount) else request.url("/")


def to_page(request: PageRequest, path: str, *headers: tuple[bytes, bytes]) -> PageAnswer:
    """Return a redirect to a path of this host."""
    location = (b"location", path.encode("ascii", "ignore"))
    return PageAnswer(303, headers=[location, *headers])
