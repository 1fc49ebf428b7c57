"""`Console`: the gateway's pages for operators and users, mounted at any path of any host."""

from __future__ import annotations

import inspect
import logging
import re
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Self
from urllib.parse import parse_qs, parse_qsl, unquote, urlencode

from asgi_aiproxy import _asgi
from asgi_aiproxy._asgi import ASGIApp, RawHeaders, Receive, Scope, Send
from asgi_aiproxy._cancellation import ClientGoneError
from asgi_aiproxy._slices import give_way
from asgi_aiproxy.admin import AdminApp
from asgi_aiproxy.admin.auth import require_scope
from asgi_aiproxy.admin.routing import router_of
from asgi_aiproxy.console.assets import ASSET_HEADERS
from asgi_aiproxy.console.confirmation import Confirmations
from asgi_aiproxy.console.pages import PageAnswer, PageRequest, PageRoute, Run, Visitor
from asgi_aiproxy.console.rendering import Renderer
from asgi_aiproxy.console.screens import page_routes
from asgi_aiproxy.console.screens.sign_in import replace_session, visitor_actor
from asgi_aiproxy.console.security import (
    LANGUAGE_COOKIE,
    PAGE_HEADERS,
    SESSION_COOKIE,
    content_policy,
    cookie_values,
    is_same_origin,
    mount_path,
)
from asgi_aiproxy.console.sessions import Session, SessionStore
from asgi_aiproxy.console.site import Site, SiteSource
from asgi_aiproxy.console.steps import StepStore
from asgi_aiproxy.console.tools import Tools
from asgi_aiproxy.errors import (
    AIProxyError,
    APIError,
    ConfigurationError,
    ErrorKind,
    invalid,
    require_int_at_least,
)
from asgi_aiproxy.ip_ranges import in_networks
from asgi_aiproxy.middleware.auth import Identify
from asgi_aiproxy.principal import Principal
from asgi_aiproxy.services.sign_in import SignInService
from asgi_aiproxy.services.validation import to_api_error

logger = logging.getLogger("asgi_aiproxy")

Recall = Callable[[Session], Awaitable[Principal | None]]
_MAX_FORM = 4 * 1024 * 1024
_MAX_FIELDS = 2_000
_SAFE_METHODS = ("GET", "HEAD")
_OLD_FORM = "This page was of an earlier sign-in. Check the form and send it again."


class Console:
    """An ASGI app with the pages of a gateway: for operators all of it, for users their own.

    Arguments:

    - `admin`: the `AdminApp` whose operations the pages use; it need not be mounted.
    - `identify`: takes the ASGI scope and returns the `Principal` that the host has signed in, or
      None. Its scopes decide what it sees: none, only its own; `read`, `write` and `root` as in
      the admin API.
    - `login_url`: where visitors without a `Principal` are sent, with `?next=` and the page.
    - `sign_in`: whether the console signs in visitors itself, by the administrator's token or a
      token of the store; by default if there is no `identify`.
    - `gateway`: the ASGI app of the gateway, which the playground calls.
    - `playgrounds`: further ASGI apps that the playground may call instead, by the names that it
      shows: for example gateways in front of vendors with a fault, from the test kit.
    - `gateway_url`: where clients reach the gateway, absolute or relative to the console.
    - `name`: the name in the title of pages, unless a root user has stored another one.
    - `session_seconds`: for how long a sign-in is valid.
    - `max_concurrent`: how many pages are made at the same time; a further one gets 503, so that
      the console does not slow down the gateway.
    - `secure_cookie`: whether cookies are sent over HTTPS only; None: if the page came over HTTPS.
    - `users`: signs in users with passwords; None: there are none.
    - `confirm_seconds`: for how long a sign-in is enough for actions of weight, such as changes of
      roles and keys; later they require the password, code or token again. None: never.
    - `site`: what the operator adds to the pages: logo, texts, links; a root user may replace them.

    Requires `pip install 'asgi-aiproxy[console]'`. Raises ConfigurationError if an argument is
    invalid. It does not close `admin`: its owner does.
    """

    def __init__(
        self,
        admin: AdminApp,
        *,
        identify: Identify | None = None,
        login_url: str = "",
        sign_in: bool | None = None,
        gateway: ASGIApp | None = None,
        playgrounds: Mapping[str, ASGIApp] | None = None,
        gateway_url: str = "../",
        name: str = "AI gateway",
        session_seconds: float = 12 * 3600.0,
        secure_cookie: bool | None = None,
        max_concurrent: int = 16,
        users: SignInService | None = None,
        site: Site | None = None,
        confirm_seconds: float | None = 600.0,
    ) -> None:
        require_int_at_least(1, max_concurrent=max_concurrent)
        if not isinstance(admin, AdminApp):
            raise ConfigurationError(
                f"Console: admin must be an AdminApp, not {type(admin).__name__}."
            )
        if identify is not None and not callable(identify):
            raise ConfigurationError("Console: identify must be a function.")
        self._admin = admin
        self._max_concurrent = max_concurrent
        self._running = 0
        self._identify = identify
        self._login_url = login_url
        self._sign_in = sign_in if sign_in is not None else identify is None or users is not None
        site = site if site is not None else Site()
        self._renderer = Renderer(site)
        self._site = SiteSource(name, site, admin.site)
        self._sessions = SessionStore(admin.store, seconds=session_seconds)
        self._tools = Tools(
            admin=admin,
            sessions=self._sessions,
            steps=StepStore(admin.store),
            gateway=gateway,
            playgrounds=dict(playgrounds or {}),
            gateway_url=gateway_url,
            secure_cookie=secure_cookie,
            sign_in=self._sign_in,
            configured_site=self._site.configured,
            users=users,
        )
        self._users = users
        self._confirmations = Confirmations(admin, users, confirm_seconds)
        self._recall: Mapping[str, Recall] = {
            "token": self._recall_token,
            "user": self._recall_user,
        }
        self.routes: Sequence[PageRoute] = page_routes(
            sign_in=self._sign_in,
            playground=gateway is not None,
            users=users is not None,
            external=users is not None and bool(users.external.providers),
            second_factors=users is not None and users.factors is not None,
            passkeys=users is not None and users.passkeys is not None,
        )
        self._router = router_of(self.routes, self._run)

    def __repr__(self) -> str:
        return f"Console({self._admin!r})"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one ASGI scope."""
        if scope["type"] == "lifespan":
            await _asgi.serve_lifespan(self, receive, send)
        elif scope["type"] == "http":
            with suppress(ClientGoneError):
                await self._admin.turns.run(self._serve(scope, receive, send))
        elif scope["type"] == "websocket":
            await _asgi.refuse_websocket(scope, receive, send, 426, b"", [], b"text/plain")

    async def __aenter__(self) -> Self:
        self._renderer.prepare()
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._users is not None:
            await self._users.aclose()

    # one request

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = _asgi.local_path(scope) or "/"
        head = scope["method"] == "HEAD"
        if path.startswith("/static/"):
            await self._send_asset(path.removeprefix("/static/"), send, head=head)
            return
        method = "GET" if head else scope["method"]
        request = await self._request(scope)
        await give_way()
        try:
            try:
                matched = {**scope, "method": method, "path": path, "root_path": ""}
                await self._router({**matched, _KEY: request}, receive, send)
            except AIProxyError as error:
                if isinstance(error, ClientGoneError):
                    raise
                await _send_page(send, self._error_page(request, to_api_error(error)), head=head)
        except AIProxyError:
            raise
        except Exception:
            logger.exception("the console failed")
            failure = APIError(ErrorKind.INTERNAL, "Internal error of the gateway.")
            await _send_page(send, self._error_page(request, failure), head=head)

    async def _request(self, scope: Scope) -> PageRequest:
        chosen = next(iter(cookie_values(scope, LANGUAGE_COOKIE)), None)
        accepted = _asgi.header(scope, b"accept-language") or ""
        query = scope.get("query_string", b"").decode("latin-1")
        return PageRequest(
            scope=scope,
            mount=mount_path(scope),
            visitor=Visitor(),
            texts=self._renderer.languages.choose(chosen, accepted),
            renderer=self._renderer,
            site=await self._site.current(),
            call=self._admin.call,
            tools=self._tools,
            query=dict(parse_qsl(query, keep_blank_values=True)),
        )

    async def _run(self, route: PageRoute, matched: Scope, receive: Receive, send: Send) -> None:
        request: PageRequest = matched[_KEY]
        names = {name: unquote(value) for name, value in matched["path_params"].items()}
        visitor = await self._visitor(request)
        await give_way()

        async def check() -> None:
            caller = (await self._visitor(request)).caller
            if caller is None:
                raise APIError(ErrorKind.UNAUTHORIZED, "Sign in first.")
            require_scope(caller, route.need)

        request = replace(request, path=names, visitor=visitor, check=check)
        head = request.scope["method"] == "HEAD"
        try:
            answer = await self._answer(route, request, receive)
        except AIProxyError as error:
            if isinstance(error, ClientGoneError):
                raise
            answer = self._error_page(request, to_api_error(error))
        if isinstance(answer, PageAnswer):
            await _send_page(send, answer, head=head)
        else:
            await answer(request.scope, receive, send)

    async def _make(self, run: Run, request: PageRequest) -> PageAnswer | ASGIApp:
        """Run a page, unless too many are being made. Raises AIProxyError."""
        if self._running >= self._max_concurrent:
            message = "The console is busy. Load the page again."
            raise APIError(ErrorKind.OVERLOADED, message, retry_after=1.0)
        self._running += 1
        try:
            made = await run(request)
            return await made.completed() if isinstance(made, PageAnswer) else made
        finally:
            self._running -= 1

    async def _answer(
        self, route: PageRoute, request: PageRequest, receive: Receive
    ) -> PageAnswer | ASGIApp:
        """Run a page for its visitor. Raises AIProxyError."""
        visitor = request.visitor
        if route.need != "nothing":
            if visitor.caller is None:
                return self._sign_in_redirect(request)
            require_scope(visitor.caller, route.need)
        if route.method in _SAFE_METHODS:
            return await self._make(route.run, request)
        form = await self._form(request, receive)
        token = form.pop("form_token", [""])[0]
        request = replace(request, form=form)
        headers: RawHeaders = []
        try:
            if not _equal(token, visitor.form):
                raise APIError(ErrorKind.FORBIDDEN, _OLD_FORM, code="form")
            if route.confirm:
                request, headers = await self._confirmed(request)
            answer = await self._make(route.run, request)
            return _with_headers(answer, headers)
        except AIProxyError as error:
            if route.again is None or isinstance(error, ClientGoneError):
                raise
            failed = to_api_error(error)
        field = re.split(r"[.\[]", failed.param or "")[0]
        failed_request = replace(request, error=failed.message, error_field=field)
        shown = await self._make(route.again, failed_request)
        if isinstance(shown, PageAnswer):
            shown = replace(shown, status=failed.status)
        return _with_headers(shown, headers)

    async def _form(self, request: PageRequest, receive: Receive) -> dict[str, list[str]]:
        """Return the fields of a form. Raises APIError (403) if another site has sent it."""
        if not is_same_origin(request.scope):
            message = "This form was not sent by a page of this console."
            raise APIError(ErrorKind.FORBIDDEN, message, code="form")
        body = await _asgi.read_body(request.scope, receive, _MAX_FORM)
        text = body.decode("utf-8", "replace")
        try:
            return parse_qs(text, keep_blank_values=True, max_num_fields=_MAX_FIELDS)
        except ValueError as error:
            raise invalid(f"The form has more than {_MAX_FIELDS} fields.") from error

    # the visitor

    async def _visitor(self, request: PageRequest) -> Visitor:
        scope, mount = request.scope, request.mount
        if self._identify is not None:
            result = self._identify(scope)
            caller = await result if inspect.isawaitable(result) else result
            if caller is not None and _may_come_from(caller, scope):
                form = await self._sessions.form_token(f"user {caller.id} {mount}")
                return Visitor(caller, form=form)
        if self._sign_in:
            for id in cookie_values(scope, SESSION_COOKIE)[:3]:
                session = await self._sessions.find(id, mount)
                found = await self._caller_of(session) if session is not None else None
                if session and found is not None and _may_come_from(found, scope):
                    confirm = await self._confirmations.required(session)
                    return Visitor(found, session, id, await self._form_of(id, mount), confirm)
        return Visitor(form=await self._sessions.form_token(f"visitor {mount}"))

    async def _form_of(self, session_id: str, mount: str) -> str:
        return await self._sessions.form_token(f"session {session_id} {mount}")

    async def _confirmed(self, request: PageRequest) -> tuple[PageRequest, RawHeaders]:
        """Check the confirmation in a form; returns the request with the session that replaces the
        visitor's, and the header with its cookie. Raises APIError.
        """
        session = request.visitor.session
        if session is None or not request.visitor.confirm:
            return request, []
        secret = request.form.get("confirm_secret", [""])[0]
        by = visitor_actor(request)
        session = await self._confirmations.check(session, secret, by, request.scope)
        id, cookie = await replace_session(request, session)
        form = await self._form_of(id, request.mount)
        visitor = Visitor(request.visitor.caller, session, id, form)
        return replace(request, visitor=visitor), [cookie]

    async def _caller_of(self, session: Session) -> Principal | None:
        recall = self._recall.get(session.kind)
        if recall is None:
            return None
        try:
            return await recall(session)
        except APIError as error:
            if error.status in (401, 403):  # disabled or expired since
                return None
            raise

    async def _recall_token(self, session: Session) -> Principal | None:
        return await self._admin.access.recall(session.subject, session.proof)

    async def _recall_user(self, session: Session) -> Principal | None:
        if self._users is None:
            return None
        return await self._users.principal(session.subject, session.proof)

    def _sign_in_redirect(self, request: PageRequest) -> PageAnswer:
        """Send a visitor to the sign-in; what it has entered in a form is not lost."""
        if _asgi.header(request.scope, b"hx-request") is not None:  # a part of a page
            return PageAnswer(401, headers=[(b"hx-refresh", b"true")])
        target = request.here
        if self._login_url:
            joint = "&" if "?" in self._login_url else "?"
            location = f"{self._login_url}{joint}{urlencode({'next': target})}"
        elif self._sign_in:
            given = target if target != request.url("/") else ""
            location = request.url("/sign-in", next=given)
        else:
            error = APIError(ErrorKind.UNAUTHORIZED, "Sign in first.")
            return self._error_page(request, error)
        if request.scope["method"] not in _SAFE_METHODS:
            return request.page("signed_out.html", status=401, location=location)
        return PageAnswer(303, headers=[(b"location", location.encode("latin-1", "ignore"))])

    # answers

    def _error_page(self, request: PageRequest, error: APIError) -> PageAnswer:
        headers = [pair for pair in _asgi.error_headers(error) if pair[0] != b"www-authenticate"]
        page = request.page("error.html", status=error.status, failure=error)
        return replace(page, headers=headers)

    async def _send_asset(self, name: str, send: Send, *, head: bool) -> None:
        found = self._renderer.assets.find(name)
        if found is None:
            await _asgi.send_response(
                send,
                404,
                b"Not found.\n",
                [content_policy(), *PAGE_HEADERS],
                b"text/plain",
                head=head,
            )
            return
        content, media_type = found
        await _asgi.send_response(send, 200, content, ASSET_HEADERS, media_type.encode(), head=head)


_KEY = "asgi_aiproxy.console.request"


def _with_headers(answer: PageAnswer | ASGIApp, headers: RawHeaders) -> PageAnswer | ASGIApp:
    """Add the cookie of a new session; one that the page itself has set comes later, and counts."""
    if isinstance(answer, PageAnswer) and headers:
        return replace(answer, headers=[]).with_headers([*headers, *answer.headers])
    return answer


async def _send_page(send: Send, answer: PageAnswer, *, head: bool) -> None:
    answer = await answer.completed()
    headers = [content_policy(answer.other_origin), *PAGE_HEADERS, *answer.headers]
    await _asgi.send_response(
        send, answer.status, answer.body, headers, answer.media_type, head=head
    )


def _may_come_from(caller: Principal, scope: Scope) -> bool:
    client = scope.get("client")
    return not caller.networks or in_networks(caller.networks, client[0] if client else None)


def _equal(left: str, right: str) -> bool:
    return bool(right) and secrets.compare_digest(left.encode(), right.encode())
