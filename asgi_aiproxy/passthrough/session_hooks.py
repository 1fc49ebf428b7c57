"""Hooks within a WebSocket session.

The hooks run when the session begins, with an empty body, and for each message of the client that
is JSON, as its body. With filters, the messages of the upstream are held until a response is
complete (see `asgi_aiproxy.dialects.session_events`), then all of their texts are checked, and the
messages are sent as they were received unless a text was masked. A text that was spoken cannot be
masked: such a response is refused, and a refusal ends the session.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from asgi_aiproxy.dialects.session_events import SessionProtocol, session_protocol
from asgi_aiproxy.errors import APIError, ErrorKind, invalid
from asgi_aiproxy.exchange.document_check import check_documents, parse_document
from asgi_aiproxy.exchange.guarded import ResponseRefusedError, unchecked_response_error
from asgi_aiproxy.exchange.guarded_content import checked_body
from asgi_aiproxy.passthrough.guarded_response import MAX_HELD
from asgi_aiproxy.passthrough.hooks import ProxiedCall, ProxyHooks, proxied_call
from asgi_aiproxy.passthrough.request import ProxyRequest
from asgi_aiproxy.passthrough.session_guard import UTF16_MARKS, may_be_json
from asgi_aiproxy.usage.record import UsageRecord

Data = str | bytes


class SessionHooks:
    """The hooks of one session; `open` makes it."""

    def __init__(
        self, hooks: ProxyHooks, call: ProxiedCall, protocol: SessionProtocol | None
    ) -> None:
        self._hooks = hooks
        self._call = call
        self._protocol = protocol
        self._filtering = bool(hooks.chain.filters(call))
        self._held: list[tuple[Data, dict[str, Any]]] = []
        self._held_size = 0

    @classmethod
    async def open(cls, hooks: ProxyHooks, request: ProxyRequest) -> SessionHooks:
        """Run the hooks for a session that begins. Raises APIError if they refuse it, or if its
        messages could not be checked.
        """
        call = proxied_call(request, b"")
        await hooks.chain.run_before(call)
        provider = request.target.provider
        protocol = session_protocol(provider.dialect.name) if provider is not None else None
        made = cls(hooks, call, protocol)
        if made._filtering and protocol is None:
            raise unchecked_response_error("What this WebSocket sends")
        return made

    @property
    def sent_headers(self) -> Mapping[str, str]:
        """The headers that the hooks have added to the handshake with the upstream."""
        return self._call.sent_headers

    async def client_message(self, data: Data) -> Data:
        """Run the hooks on a message of the client; return the one to send. Raises APIError."""
        body = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
        if isinstance(data, bytes):
            if not may_be_json(data):
                return data  # audio
            if data.startswith(UTF16_MARKS):
                raise invalid("A message with JSON must be in UTF-8.")
        call = self._call
        call.body = body
        await self._hooks.chain.run_before(call)
        changed = call.body_to_send()
        if changed is body:
            return data
        return changed.decode() if isinstance(data, str) else changed

    async def server_message(self, data: Data) -> list[Data]:
        """Note a message of the upstream; return what may be sent now. Raises APIError."""
        protocol = self._protocol
        if not self._filtering or protocol is None:
            return [data]
        try:
            event = parse_document(data)
        except (ValueError, UnicodeError):
            event = None
        if not isinstance(event, dict):
            raise unchecked_response_error("A message of an unknown format")
        if protocol.passes(event):
            return await self._checked([(data, event)])
        self._held.append((data, event))
        self._held_size += len(data)
        if self._held_size > MAX_HELD:
            raise ResponseRefusedError(
                ErrorKind.UPSTREAM,
                f"The response is longer than {MAX_HELD} bytes, so it cannot be checked.",
            )
        return [] if protocol.feed(event) else await self.rest()

    async def rest(self) -> list[Data]:
        """Return what is held. Raises APIError if it is refused."""
        held, self._held, self._held_size = self._held, [], 0
        return await self._checked(held)

    async def _checked(self, messages: list[tuple[Data, dict[str, Any]]]) -> list[Data]:
        if not messages:
            return []
        before = [json.dumps(event) for _, event in messages]
        events = [event for _, event in messages]
        filters = self._hooks.chain.filters(self._call)
        if not await check_documents(filters, events):
            return [data for data, _ in messages]
        protocol = self._protocol
        if protocol is not None and any(map(protocol.has_audio, events)):
            raise unchecked_response_error("Speech whose text must be masked")
        out: list[Data] = []
        for (data, event), old in zip(messages, before, strict=True):
            new = json.dumps(event)
            changed: Data = new if isinstance(data, str) else new.encode()
            out.append(data if new == old else changed)
        return out

    async def checked_error(self, error: APIError) -> APIError:
        """The error of the upstream, with its texts as the filters release them."""
        return await self._hooks.checked_error(error, self._call)

    async def checked_refusal(self, content_type: str, body: bytes) -> bytes:
        """The body of the upstream's refusal of the session. Raises APIError."""
        filters = self._hooks.chain.filters(self._call)
        return await checked_body(filters, content_type, body) if filters and body else body

    async def checked_reason(self, reason: str) -> str:
        """The reason of the upstream's close; empty if a filter refuses it."""
        if not self._filtering or not reason:
            return reason
        documents = [{"reason": reason}]
        try:
            await check_documents(self._hooks.chain.filters(self._call), documents)
        except ResponseRefusedError:
            return ""
        return documents[0]["reason"]

    def error_event(self, error: APIError) -> str | None:
        """The event that reports an error to the client; None if the API has none."""
        return self._protocol.error_event(error) if self._protocol is not None else None

    def ended(self, record: UsageRecord) -> None:
        """Run the hooks for a session that has ended, in the background."""
        if self._hooks.chain.observing:
            self._hooks.chain.ended(self._call, record)
