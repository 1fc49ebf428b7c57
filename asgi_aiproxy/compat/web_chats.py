"""Chats with web sites of vendors by the chat API of OpenAI, with the caller's own session only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from asgi_aiproxy._asgi import ASGIApp
from asgi_aiproxy.compat.web_transports import ChatGPTWebTransport, ClaudeWebTransport
from asgi_aiproxy.dialects.chatgpt_web import CHATGPT_WEB
from asgi_aiproxy.dialects.claude_web import CLAUDE_WEB
from asgi_aiproxy.errors import invalid
from asgi_aiproxy.providers import Provider, bearer
from asgi_aiproxy.shim import OpenAIShim
from asgi_aiproxy.upstream import Transport
from asgi_aiproxy.upstream.base import UpstreamRequest
from asgi_aiproxy.usage.recorder import UsageSink

if TYPE_CHECKING:
    from asgi_aiproxy.compat.routing import CompatApp

_CLAUDE_COOKIE = "sessionKey"


class WebChats:
    """The shims of the sites that the operator switched on; None for the others."""

    def __init__(
        self,
        app: CompatApp,
        chatgpt: str | None,
        claude: str | None,
        record: UsageSink,
        around: Callable[[ASGIApp], ASGIApp],
    ) -> None:
        def shim(provider: Provider, transport: Transport) -> ASGIApp:
            made = OpenAIShim(
                provider, transport=transport, record=record, allow_client_keys=True, attempts=1
            )
            return around(app.own(made))

        self.chatgpt: ASGIApp | None = None
        self.claude: ASGIApp | None = None
        if chatgpt:
            site = Provider(name="chatgpt-web", dialect=CHATGPT_WEB, base_url=chatgpt, auth=bearer)
            self.chatgpt = shim(site, ChatGPTWebTransport(app.transport))
        if claude:
            site = Provider(
                name="claude-web", dialect=CLAUDE_WEB, base_url=claude, auth=_session_cookie
            )
            self.claude = shim(site, ClaudeWebTransport(app.transport))


def _session_cookie(request: UpstreamRequest, secret: str) -> UpstreamRequest:
    return request.with_header("cookie", f"{_CLAUDE_COOKIE}={secret}")


def web_to_chat(fields: Mapping[str, Any]) -> dict[str, Any]:
    """A chat request for the request body of ChatGPT's web site.

    Raises APIError if it is not a question of the site.
    """
    if fields.get("action", "next") != "next":
        raise invalid("action: only 'next' is supported.", "action")
    rows = fields.get("messages")
    if not isinstance(rows, list) or not rows:
        raise invalid("messages: must be a list with at least one message.", "messages")
    messages = []
    for number, row in enumerate(rows):
        try:
            found = msgspec.convert(row, _WebMessage)
        except msgspec.ValidationError as error:
            raise invalid(f"messages[{number}]: {error}.", f"messages[{number}]") from None
        role = found.author.role if found.author.role in ("system", "assistant") else "user"
        messages.append({"role": role, "content": "\n".join(found.content.parts)})
    conversation = {
        "conversation_id": fields.get("conversation_id") or "",
        "last_message_id": fields.get("parent_message_id") or "",
    }
    return {
        "model": fields.get("model"),
        "messages": messages,
        "openai": {"conversation": conversation},
    }


class _WebAuthor(msgspec.Struct, frozen=True):
    role: str = "user"


class _WebContent(msgspec.Struct, frozen=True):
    parts: list[str] = []


class _WebMessage(msgspec.Struct, frozen=True):
    content: _WebContent
    author: _WebAuthor = _WebAuthor()
