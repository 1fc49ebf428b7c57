"""What the web sites of vendors want before a question: requests that a dialect cannot express.

A wrapped transport sends them with the credential of the question itself, the caller's own. It
keeps nothing. A site that answers with a challenge gets no question: the caller is sent an error
that says so.
"""

from __future__ import annotations

import json
import uuid
from typing import Any
from urllib.parse import urlsplit

import msgspec

from asgi_aiproxy import _json
from asgi_aiproxy.compat import policy
from asgi_aiproxy.dialects.claude_web import CONVERSATION_EVENT, NEW
from asgi_aiproxy.errors import APIError, ErrorKind
from asgi_aiproxy.upstream.base import (
    Headers,
    Transport,
    UpstreamRequest,
    UpstreamResponse,
    fetch,
    header,
)

_MAX_ANSWER = 256 * 1024
_QUESTION = "/conversation"
_REQUIREMENTS = "/sentinel/chat-requirements"
_CHATGPT, _CLAUDE = "ChatGPT's web site", "claude.ai"


class _SiteTransport:
    """A transport to a site, whose challenges become errors."""

    site = ""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def aclose(self) -> None:
        """Do nothing: the transport below is closed by its owner."""

    async def _send(self, request: UpstreamRequest) -> UpstreamResponse:
        response = await self._transport.send(request)
        kind = (header(response.headers, "content-type") or "").lower()
        page = response.status in (403, 503) and kind.startswith("text/html")
        if page or header(response.headers, "cf-mitigated") is not None:
            await response.aclose()
            raise policy.challenge(self.site)
        return response

    async def _fetch(self, request: UpstreamRequest) -> tuple[int, bytes]:
        return await fetch(_Sending(self._send), request, _MAX_ANSWER)


class _Sending:
    """`_send` as a transport."""

    def __init__(self, send: Any) -> None:
        self.send = send

    async def aclose(self) -> None:
        """Do nothing."""


class ChatGPTWebTransport(_SiteTransport):
    """Asks the site for its requirements before each question, and sends the token that it gives.

    A relay that has no requirements answers 404, and is sent the question.
    """

    site = _CHATGPT

    async def send(self, request: UpstreamRequest) -> UpstreamResponse:
        """Send a request. Raises APIError if the site demands a challenge."""
        if request.method != "POST" or not urlsplit(request.url).path.endswith(_QUESTION):
            return await self._send(request)
        url = request.url.removesuffix(_QUESTION) + _REQUIREMENTS
        headers = [(n, v) for n, v in request.headers if n not in ("accept", "content-length")]
        before = UpstreamRequest(
            method="POST", url=url, headers=[*headers, ("accept", "*/*")], proxy=request.proxy
        )
        status, body = await self._fetch(before)
        if status == 404:
            return await self._send(request)
        if status != 200:
            return _Known(status, body)
        found = _parse(body)
        for name in ("arkose", "turnstile", "proofofwork"):
            demand = found.get(name)
            if isinstance(demand, dict) and demand.get("required") is True:
                raise policy.challenge(self.site)
        token = found.get("token")
        if isinstance(token, str) and token.isprintable():
            request = request.with_header("openai-sentinel-chat-requirements-token", token)
        return await self._send(request)


class ClaudeWebTransport(_SiteTransport):
    """Finds the user's organization and makes a conversation, unless the question names one."""

    site = _CLAUDE

    async def send(self, request: UpstreamRequest) -> UpstreamResponse:
        """Send a request. Raises APIError if the site answers with a challenge."""
        base, middle, rest = request.url.partition("/api/organizations/-/chat_conversations/")
        if not middle:
            return await self._send(request)
        status, body = await self._fetch(self._request(request, "GET", f"{base}/api/organizations"))
        if status != 200:
            return _Known(status, body)
        conversations = f"{base}/api/organizations/{_organization(body)}/chat_conversations"
        known, _, action = rest.partition("/")
        if known == NEW:
            known = str(uuid.uuid4())
            made = json.dumps({"uuid": known, "name": ""}).encode()
            status, body = await self._fetch(self._request(request, "POST", conversations, made))
            if not 200 <= status < 300:
                return _Known(status, body)
            named = _parse(body).get("uuid")
            known = named if isinstance(named, str) and named.replace("-", "").isalnum() else known
        question = msgspec.structs.replace(request, url=f"{conversations}/{known}/{action}")
        response = await self._send(question)
        if not 200 <= response.status < 300:
            return response
        event = json.dumps({"type": CONVERSATION_EVENT, "uuid": known}).encode()
        return _Preceded(response, b"data: " + event + b"\n\n")

    @staticmethod
    def _request(
        request: UpstreamRequest, method: str, url: str, body: bytes | None = None
    ) -> UpstreamRequest:
        headers = [(n, v) for n, v in request.headers if n not in ("accept", "content-length")]
        headers.append(("accept", "application/json"))
        return UpstreamRequest(
            method=method, url=url, headers=headers, body=body, proxy=request.proxy
        )


def _organization(body: bytes) -> str:
    """The first organization that can chat, else the last. Raises APIError without any."""
    try:
        rows = _json.loads(body)
    except ValueError:
        rows = None
    found = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    able = [row for row in found if "chat" in (row.get("capabilities") or ())]
    chosen = (able[:1] or found[-1:] or [{}])[0].get("uuid")
    if not isinstance(chosen, str) or not chosen.replace("-", "").isalnum():
        raise APIError(ErrorKind.UPSTREAM, "The site named no organization of this session.")
    return chosen


def _parse(body: bytes) -> dict[str, Any]:
    try:
        found = _json.loads(body)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


class _Known:
    """A response that was read already."""

    def __init__(self, status: int, body: bytes) -> None:
        self.status = status
        self.headers: Headers = (("content-type", "application/json"),)
        self._body = body

    async def read(self) -> bytes:
        """Return the body, then nothing."""
        body, self._body = self._body, b""
        return body

    async def aclose(self) -> None:
        """Do nothing."""


class _Preceded:
    """A response with bytes before its body."""

    def __init__(self, response: UpstreamResponse, first: bytes) -> None:
        self._response = response
        self._first = first
        self.status = response.status
        self.headers = response.headers

    async def read(self) -> bytes:
        """Return the next bytes."""
        first, self._first = self._first, b""
        return first or await self._response.read()

    async def aclose(self) -> None:
        """Release the response."""
        await self._response.aclose()
