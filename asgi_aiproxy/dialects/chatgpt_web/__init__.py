"""The conversations of ChatGPT's web site, for a user's own access token or a compatible relay.

There is no documentation; the format is what the site's clients were seen to send (2023 to 2025),
and may change on any day. The gateway is only ever a client, solves no challenge, and is only used
where an operator switched it on (`asgi_aiproxy.compat`).

- `request_encoder`: neutral requests to a question;
- `streams`: snapshots of the answer, or their differences (`delta_encoding` v1), to neutral events.

The site keeps conversations. A client continues one by the ids that it gets in the last chunk:
`chatgpt_web: {"conversation_id", "parent_message_id", "last_message_id"}`; then only what was added
after the last answer is sent. The site reports no usage.
"""

from __future__ import annotations

from typing import ClassVar

from asgi_aiproxy.dialects import _parsing
from asgi_aiproxy.dialects.base import OutboundDialect, ProviderRequest
from asgi_aiproxy.dialects.chatgpt_web import request_encoder, streams
from asgi_aiproxy.errors import APIError, ErrorKind, error_kind_for_status
from asgi_aiproxy.messages import Request, Response


class ChatGPTWeb(OutboundDialect):
    """The dialect of ChatGPT's web site."""

    name: ClassVar[str] = request_encoder.NAME

    def encode_request(self, request: Request) -> ProviderRequest:
        """Write the body of POST /backend-api/conversation."""
        return request_encoder.encode_request(request)

    def decode_response(self, body: bytes) -> Response:
        """Raise the APIError of a body that is not a stream: the site streams all answers."""
        raise self.decode_error(200, body)

    def decode_error(self, status: int, body: bytes) -> APIError:
        """Read `{"detail": ...}`."""
        answer = _parsing.parse_object(body)
        if answer is None:
            return _parsing.unparsable_response_error(status, body)
        if "wss_url" in answer:
            return APIError(
                ErrorKind.UPSTREAM, "The site answers over a WebSocket, which is not supported."
            )
        detail = answer.get("detail")
        message = _parsing.get_text(detail, "message") if isinstance(detail, dict) else detail
        kind = error_kind_for_status(status) if status >= 400 else ErrorKind.UPSTREAM
        if status == 401:
            kind = ErrorKind.KEY_REJECTED
        return APIError(
            kind,
            message if isinstance(message, str) and message else f"The site answered {status}.",
            status=_parsing.client_status(status, kind),
            upstream_status=status if status >= 400 else None,
        )

    def decoder(self) -> streams.Decoder:
        """A new decoder."""
        return streams.Decoder()

    def models_request(self) -> ProviderRequest:
        """GET /backend-api/models."""
        return ProviderRequest("/backend-api/models", {})

    def decode_models(self, body: bytes) -> tuple[str, ...]:
        """Read `{"models": [{"slug"}]}`; raises ValueError."""
        answer = _parsing.parse_object(body)
        if answer is None or not isinstance(answer.get("models"), list):
            raise ValueError("no list of models")
        found = (_parsing.get_text(model, "slug") for model in _parsing.objects(answer["models"]))
        return tuple(slug for slug in found if slug)


CHATGPT_WEB: ChatGPTWeb = ChatGPTWeb()
