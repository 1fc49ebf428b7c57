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
from asgi_aiproxy.console.steps import STEP_COOKIE, STEP_SECONDS, FactorStep, PasskeyStep
from asgi_aiproxy.errors import APIError, ErrorKind, invalid
from asgi_aiproxy.principal import ANONYMOUS
from asgi_aiproxy.services.base import Actor

_YEAR = 365 * 86400.0


def sign_in_pages() -> list[PageRoute]:
    """Return the pages to sign in and out."""
    return [
        PageRoute("GET", "/sign-in", "nothing", sign_in_page),
        PageRoute("POST", "/sign-in", "nothing", _sign_in, again=sign_in_page),
        PageRoute("POST", "/sign-out", "token", _sign_out),
    ]


def language_pages() -> list[PageRoute]:
    """Return the target of the form that chooses the language."""
    return [PageRoute("POST", "/language", "nothing", _language)]


async def sign_in_page(request: PageRequest) -> PageAnswer:
    """Return the page to sign in; a visitor that has done so is sent on."""
    if request.visitor.caller is not None:
        return to_page(request, local_target(request))
    return request.page("sign_in.html", next_page=local_target(request))


async def _sign_in(request: PageRequest) -> PageAnswer:
    tools = request.tools
    if "username" in request.form and tools.users is not None:
        return await _sign_in_user(request)
    token = request.form.get("token", [""])[0].strip()
    if not token:
        raise invalid("Enter a token.", "token")
    caller, digest = await tools.admin.access.verify(token, request.scope)
    now = time.time()
    session = Session(kind="token", subject=caller.id, proof=digest, created=now, confirmed=now)
    _, cookie = await replace_session(request, session)
    return to_page(request, local_target(request), cookie)


async def _sign_in_user(request: PageRequest) -> PageAnswer:
    by = visitor_actor(request)
    name, password = request.form["username"][0], request.form.get("password", [""])[0]
    user = await request.tools.users.verify(name, password, by)
    path, cookies = await complete_sign_in(request, user, local_target(request))
    return to_page(request, path, *cookies)


async def complete_sign_in(
    request: PageRequest, user: User, path: str, *, both: bool = False
) -> tuple[str, list[tuple[bytes, bytes]]]:
    """Sign in a user that has presented its first factor, or have it present the second one;
    `both`: it has presented both.

    Returns the path to continue with, and the headers that set cookies.
    """
    users = request.tools.users
    step = users.next_step(user)
    if step == "done" or (step == "code" and both):
        user = await users.signed_in(user, visitor_actor(request))
        return path, [await new_session(request, user)]
    secret = users.second_factors.new_secret(user) if step == "enrol" else ""
    begun = FactorStep(user=str(user.id), proof=user.session_proof, next=path, secret=secret)
    cookie = await begin_step(request, begun)
    return request.url("/sign-in/code"), [cookie]


async def begin_step(request: PageRequest, step: FactorStep | PasskeyStep) -> tuple[bytes, bytes]:
    """Remember a step; returns the header with its cookie."""
    return step_cookie(request, await request.tools.steps.begin(step, request.mount))


def visitor_actor(request: PageRequest) -> Actor:
    """Return the visitor for the audit log, and for limits per address."""
    client = request.scope.get("client")
    caller = request.visitor.caller or ANONYMOUS
    return Actor(caller, "console", str(client[0]) if client else "", request_id(request.scope))


async def new_session(request: PageRequest, user: User) -> tuple[bytes, bytes]:
    """Sign a user in, in place of the visitor's session; returns the header with the cookie."""
    client = request.scope.get("client")
    session = Session(
        kind="user",
        subject=str(user.id),
        proof=user.session_proof,
        created=time.time(),
        confirmed=time.time(),
        address=str(client[0]) if client else "",
        agent=(_asgi.header(request.scope, b"user-agent") or "")[:200],
    )
    return (await replace_session(request, session))[1]


async def replace_session(
    request: PageRequest, session: Session
) -> tuple[str, tuple[bytes, bytes]]:
    """Begin a session in place of the visitor's; returns its id, and the header with the cookie."""
    tools, mount = request.tools, request.mount
    if request.visitor.session is not None:
        await tools.sessions.delete(request.visitor.session_id, mount)
    id = await tools.sessions.create(session, mount)
    seconds, secure = tools.sessions.seconds, tools.secure_cookie
    return id, set_cookie(request.scope, SESSION_COOKIE, id, seconds=seconds, secure=secure)


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
    return to_page(request, local_target(request, "back"), cookie)


def local_target(request: PageRequest, field: str = "next") -> str:
    """Return the page of this console that a field names, to continue with; the home page in place
    of anything else.
    """
    path = request.query.get(field) or request.form.get(field, [""])[0]
    return path if is_local_path(path, request.mount) else request.url("/")


def step_cookie(request: PageRequest, id: str) -> tuple[bytes, bytes]:
    """Return the header with the cookie of a step; with an empty id, that removes it."""
    return set_cookie(
        request.scope,
        STEP_COOKIE,
        id,
        seconds=STEP_SECONDS if id else 0,
        secure=request.tools.secure_cookie,
        same_site="Lax",
    )


async def own_user(request: PageRequest) -> User:
    """Return the user that is signed in. Raises APIError if the visitor is not one."""
    session = request.visitor.session
    if session is None or session.kind != "user":
        message = "This page is for users that have signed in with a password."
        raise APIError(ErrorKind.FORBIDDEN, message)
    user: User = await request.tools.users.service.users.get(int(session.subject))
    return user


def to_page(request: PageRequest, path: str, *headers: tuple[bytes, bytes]) -> PageAnswer:
    """Return a redirect to a path of this host."""
    location = (b"location", path.encode("ascii", "ignore"))
    return PageAnswer(303, headers=[location, *headers])
