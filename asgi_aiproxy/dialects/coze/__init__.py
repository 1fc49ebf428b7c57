"""Coze's chat API, version 3: bots as models. The gateway is only ever its client.

https://www.coze.com/open/docs/developer_guides/chat_v3 and .../chat_submit_tool_outputs; types as
in the official SDK (cozepy 0.20).

- `request_encoder`: neutral requests to a chat, or to the tool outputs that a chat waits for;
- `events`: the framer, which joins the name of an event and its data;
- `streams`: events to neutral events;
- `errors`: error responses, which mostly have status 200.

A bot is the model: its id. Instructions, tools and sampling are set at the bot, so that a request
has no place for them. Without streaming Coze answers with a job to poll; the gateway therefore
always requests a stream, and collects it for clients that do not.

Coze keeps conversations: the id of one is `MessageEnd.conversation`. A request that continues one
is sent without what was said in it. Calls of a client's tools end a chat that waits for their
outputs: the ids of conversation and chat are in `ToolCall.extra`, and the results that a request
ends with have them in `ToolResult.extra`. (`exchange/continuation.py` makes ids for clients of it.)
"""

from __future__ import annotations

from typing import ClassVar

from asgi_aiproxy.dialects import _parsing
from asgi_aiproxy.dialects.base import OutboundDialect, ProviderRequest
from asgi_aiproxy.dialects.coze import errors, request_encoder, streams
from asgi_aiproxy.dialects.coze.events import EventFramer
from asgi_aiproxy.errors import APIError
from asgi_aiproxy.framing import Framer
from asgi_aiproxy.messages import Request, Response, fold


class Coze(OutboundDialect):
    """The dialect of Coze's chat API."""

    name: ClassVar[str] = request_encoder.NAME
    keeps_conversations: ClassVar[bool] = True

    def encode_request(self, request: Request) -> ProviderRequest:
        """Write the body of POST /v3/chat or /v3/chat/submit_tool_outputs."""
        return request_encoder.encode_request(request)

    def decode_response(self, body: bytes) -> Response:
        """Read a chat that is complete, without its messages; raises APIError for an error."""
        answer = _parsing.parse_object(body) or {}
        chat = answer.get("data")
        if answer.get("code") or not isinstance(chat, dict):
            raise errors.decode_error(200, body)
        decoder = self.decoder()
        return fold([*decoder.whole(chat), *decoder.close()])

    def decode_error(self, status: int, body: bytes) -> APIError:
        """Read an error response."""
        return errors.decode_error(status, body)

    def decoder(self) -> streams.Decoder:
        """A new decoder of events."""
        return streams.Decoder()

    def models_request(self) -> ProviderRequest:
        """GET /v1/workspaces: bots are listed by workspace only, but it shows if a key is valid."""
        return ProviderRequest("/v1/workspaces", {}, query="page_size=1")

    def decode_models(self, body: bytes) -> tuple[str, ...]:
        """Return no models; raises ValueError if the list of workspaces is invalid."""
        answer = _parsing.parse_object(body)
        if answer is None or answer.get("code"):
            raise ValueError("no list of workspaces")
        return ()

    def framer(self, media_type: str) -> Framer:
        """An event stream whose event names matter."""
        return EventFramer()


COZE_CHAT: Coze = Coze()
