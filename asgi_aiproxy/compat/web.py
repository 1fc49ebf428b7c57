"""Web sites of vendors, with the caller's own session only: off unless the operator gives a base.

The session is part of one request: nothing of it is stored, logged, pooled, or used for another
caller, and cookies that the site sets go back to the same caller. A site that answers with a
challenge gets no second request: the caller is sent an error that says so.
"""

from __future__ import annotations

from http.cookies import CookieError, SimpleCookie
from typing import TYPE_CHECKING, Any

from asgi_aiproxy import _asgi, _json
from asgi_aiproxy._asgi import Message, RawHeaders, Send
from asgi_aiproxy._control_headers import CONTROL_HEADERS
from asgi_aiproxy.compat import policy
from asgi_aiproxy.compat.callers import bearer_value, check_sendable
from asgi_aiproxy.compat.routing import CompatCall
from asgi_aiproxy.credentials import CREDENTIAL_HEADERS
from asgi_aiproxy.dialects import OPENAI_CHAT
from asgi_aiproxy.errors import APIError, ErrorKind, invalid
from asgi_aiproxy.passthrough import PassthroughProxy

if TYPE_CHECKING:
    from asgi_aiproxy.compat.routing import CompatApp

_CONTROLS = frozenset(name.encode() for name in CONTROL_HEADERS)
_OWN_NETWORK = frozenset({b"origin", b"referer"})
_REQUIREMENTS = "chat-requirements"
_SESSION_COOKIE = "sessionKey"
_MAX_INSPECTED = 256 * 1024
_IMAGES = "https://files.oaiusercontent.com"


class _Site:
    """A site behind a `PassthroughProxy`; `base` is None if it is switched off."""

    name = ""
    option = ""

    def __init__(self, base: str | None, app: CompatApp) -> None:
        self.base = base.rstrip("/") if base else None
        self._proxy = self._proxy_to(app, self.base)

    def _proxy_to(self, app: CompatApp, url: str | None) -> PassthroughProxy | None:
        if url is None:
            return None
        proxy = PassthroughProxy(url, transport=app.transport, forwarded="drop")
        app.own(proxy)
        return proxy

    @property
    def proxy(self) -> PassthroughProxy:
        """The proxy to the site. Raises APIError if the site is switched off."""
        if self._proxy is None:
            raise policy.not_enabled(self.name, self.option)
        return self._proxy

    def _headers(self, call: CompatCall, credential: RawHeaders) -> RawHeaders:
        """Return the request headers with only this credential."""
        removed = CREDENTIAL_HEADERS | _CONTROLS | _OWN_NETWORK
        return [*(pair for pair in call.scope["headers"] if pair[0] not in removed), *credential]


class ChatGPTSite(_Site):
    """The paths of ChatGPT's site, with the caller's own access token."""

    name = "Forwarding to ChatGPT's web site"
    option = "chatgpt_web"

    def __init__(self, base: str | None, app: CompatApp) -> None:
        super().__init__(base, app)
        self._images = self._proxy_to(app, _IMAGES if base else None)

    async def forward(self, call: CompatCall) -> None:
        """Forward a request with the caller's `Authorization`, unchanged."""
        proxy = self.proxy
        token = call.header("authorization")
        check_sendable(token)
        credential = [(b"authorization", token.encode("latin-1"))] if token else []
        required = call.path.rstrip("/").endswith(_REQUIREMENTS)
        send = ChallengeGuard(call.send, "ChatGPT's web site", read_requirements=required)
        await call.forward(proxy, headers=self._headers(call, credential), send=send)

    async def image(self, call: CompatCall) -> None:
        """Forward the signed address of a picture."""
        proxy = self.proxy
        name = call.names["*"]
        if not name.startswith("file-"):
            raise invalid("The path of a picture begins with file-.")
        send = ChallengeGuard(call.send, "ChatGPT's web site")
        await call.forward(
            self._images or proxy, headers=self._headers(call, []), path=f"/{name}", send=send
        )


class ClaudeSite(_Site):
    """The paths of claude.ai, with the caller's own session cookie."""

    name = "Forwarding to claude.ai"
    option = "claude_web"

    async def forward(self, call: CompatCall) -> None:
        """Forward a request with the caller's session: of its cookie, else of `Authorization`."""
        proxy = self.proxy
        headers = self._headers(call, session_cookie(call))
        send = ChallengeGuard(call.send, "claude.ai")
        await call.forward(proxy, headers=headers, prefix="/claude/web", send=send)


def session_key(call: CompatCall) -> str:
    """Return the caller's session: of its cookie, else of `Authorization`. Raises APIError."""
    session = _cookie(call.header("cookie")) or bearer_value(call)
    check_sendable(session)
    if ";" in session:
        raise APIError(ErrorKind.UNAUTHORIZED, "The session key has characters that are invalid.")
    return session


def session_cookie(call: CompatCall) -> RawHeaders:
    """Return the cookie header with the caller's session; all its other cookies are dropped."""
    session = session_key(call)
    if not session:
        return []
    return [(b"cookie", f"{_SESSION_COOKIE}={session}".encode("latin-1", "replace"))]


def _cookie(text: str) -> str:
    try:
        found = SimpleCookie(text).get(_SESSION_COOKIE)
    except CookieError:
        return ""
    return found.value if found is not None else ""


class ChallengeGuard:
    """A `send` that replaces a challenge of a site by an error that says so.

    A challenge is a 403 or 503 with a web page, or with Cloudflare's header `cf-mitigated`. With
    `read_requirements` also the answer by which ChatGPT's site demands one.
    """

    def __init__(self, send: Send, site: str, *, read_requirements: bool = False) -> None:
        self._send = send
        self._site = site
        self._read = read_requirements
        self._dropped = False
        self._start: Message | None = None
        self._pieces: list[bytes] = []

    async def __call__(self, message: Message) -> None:
        """Pass one message on."""
        if self._dropped:
            return
        if message["type"] == "http.response.start":
            headers = dict(message.get("headers", ()))
            if _is_challenge(message["status"], headers):
                await self._refuse()
            elif self._read and message["status"] == 200:
                self._start = message
            else:
                await self._send(message)
        elif self._start is not None:
            await self._inspect(self._start, message)
        else:
            await self._send(message)

    async def _inspect(self, start: Message, message: Message) -> None:
        self._pieces.append(message.get("body", b""))
        body = b"".join(self._pieces)
        if message.get("more_body", False) and len(body) <= _MAX_INSPECTED:
            return
        self._start = None
        if _demands_challenge(body):
            await self._refuse()
            return
        await self._send(start)
        await self._send({**message, "body": body})

    async def _refuse(self) -> None:
        self._dropped = True
        error = policy.challenge(self._site)
        await _asgi.send_response(self._send, error.status, OPENAI_CHAT.encode_error(error), [])


def _is_challenge(status: int, headers: dict[bytes, bytes]) -> bool:
    if status not in (403, 503, 429):
        return False
    page = headers.get(b"content-type", b"").lower().startswith(b"text/html")
    return b"cf-mitigated" in headers or (page and status != 429)


def _demands_challenge(body: bytes) -> bool:
    """Return whether the site's requirements demand a captcha, a browser check or a puzzle."""
    try:
        found: Any = _json.loads(body)
    except ValueError:
        return False
    if not isinstance(found, dict):
        return False
    demands = (found.get(name) for name in ("arkose", "turnstile", "proofofwork"))
    return any(isinstance(each, dict) and each.get("required") is True for each in demands)
