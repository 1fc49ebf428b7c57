"""The conversations of claude.ai, for a user's own session or a compatible relay.

There is no documentation; the format is what the site's clients were seen to send (2023 to 2025),
and may change on any day. The gateway is only ever a client, solves no challenge, and is only used
where an operator switched it on (`asgi_aiproxy.compat`, which also finds the organization and makes
the conversation that the path needs).

The site takes one text. A conversation of several messages becomes one, with `Human:` and
`Assistant:` before each turn. A client continues a conversation of the site by its id, which it
gets in the last chunk: `claude_web: {"uuid": "..."}`; then only what was added after the last
answer is sent. The site reports no usage.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from asgi_aiproxy import _json
from asgi_aiproxy.dialects import _parsing
from asgi_aiproxy.dialects._blocks import Blocks
from asgi_aiproxy.dialects._unsupported import (
    chosen_by_service,
    unsupported_fields,
    vendor_fields,
)
from asgi_aiproxy.dialects.base import OutboundDialect, ProviderRequest
from asgi_aiproxy.errors import APIError, ErrorKind, error_kind_for_status
from asgi_aiproxy.messages import (
    Event,
    Message,
    MessageEnd,
    MessageStart,
    Refusal,
    Request,
    Response,
    StopReason,
    Text,
    Usage,
    new_messages,
)

NAME = "claude_web"
# `-` stands for what the site says: the user's organization, and a new conversation.
PATH = "/api/organizations/-/chat_conversations/{uuid}/completion"
NEW = "-"
CONVERSATION_EVENT = "conversation"  # by which the id of the conversation is passed to the decoder

_LABELS = {"system": "System", "user": "Human", "assistant": "Assistant"}
_STOPS = {"stop_sequence": StopReason.END, "max_tokens": StopReason.LENGTH}


class ClaudeWeb(OutboundDialect):
    """The dialect of claude.ai."""

    name: ClassVar[str] = NAME

    def encode_request(self, request: Request) -> ProviderRequest:
        """Write a question. Raises APIError without any text."""
        own = vendor_fields(request, {NAME}).get(NAME)
        known = _parsing.get_text(own, "uuid") if isinstance(own, dict) else ""
        if known and not known.replace("-", "").isalnum():
            known = ""
        messages = new_messages(request.messages) if known else request.messages
        ignored = chosen_by_service(request)
        if request.tool_choice is not None:
            ignored.append("tool_choice")
        ignored += unsupported_fields(request, NAME, known={NAME})
        prompt = _flatten(messages)
        if not prompt:
            raise _parsing.empty_messages_error()
        body: dict[str, Any] = {
            "prompt": prompt,
            "timezone": "UTC",
            "attachments": [],
            "files": [],
            "rendering_mode": "raw",
        }
        if request.model:
            body["model"] = request.model
        return ProviderRequest(
            PATH.format(uuid=known or NEW),
            body,
            headers={"accept": "text/event-stream"},
            ignored=tuple(dict.fromkeys(ignored)),
        )

    def decode_response(self, body: bytes) -> Response:
        """Raise the APIError of a body that is not a stream: the site streams all answers."""
        raise self.decode_error(200, body)

    def decode_error(self, status: int, body: bytes) -> APIError:
        """Read `{"type": "error", "error": {"type", "message"}}`."""
        answer = _parsing.parse_object(body)
        if answer is None:
            return _parsing.unparsable_response_error(status, body)
        return _error(answer.get("error"), status)

    def decoder(self) -> Decoder:
        """A new decoder."""
        return Decoder()

    def models_request(self) -> ProviderRequest:
        """GET /api/organizations: no list of models, but it shows if a session is valid."""
        return ProviderRequest("/api/organizations", {})

    def decode_models(self, body: bytes) -> tuple[str, ...]:
        """Return no models; raises ValueError if the list of organizations is invalid."""
        if not isinstance(_json.loads(body), list):
            raise ValueError("no list of organizations")
        return ()


CLAUDE_WEB: ClaudeWeb = ClaudeWeb()


class Decoder:
    """Converts the events of one answer to neutral events."""

    usage: Usage | None = None  # the site reports none

    def __init__(self) -> None:
        self.ended = False
        self.model = ""
        self._blocks = Blocks()
        self._started = False
        self._uuid = ""

    def feed(self, data: bytes) -> Sequence[Event]:
        """The neutral events of one event; raises APIError for an error."""
        value = _json.loads(data)
        kind = value.get("type") if isinstance(value, dict) else None
        if kind == "error":
            raise _error(value.get("error"), 0)
        if kind == CONVERSATION_EVENT:
            self._uuid = _parsing.get_text(value, "uuid")
        if kind != "completion":
            return ()
        events: list[Event] = []
        if not self._started:
            self._started = True
            self.model = _parsing.get_text(value, "model")
            events.append(MessageStart(_parsing.get_text(value, "id"), self.model))
        if text := _parsing.get_text(value, "completion"):
            events += self._blocks.text(Text(), text)
        if (stop := _parsing.get_text(value, "stop_reason")) and not self.ended:
            self.ended = True
            extra = {NAME: {"uuid": self._uuid}} if self._uuid else {}
            end = MessageEnd(_STOPS.get(stop, StopReason.OTHER), None, stop, extra=extra)
            events += [*self._blocks.end(), end]
        return events

    def run(self, pieces: list[bytes]) -> tuple[int, list[str], int] | None:
        """Not supported."""
        return None

    def close(self) -> Sequence[Event]:
        """Nothing; raises APIError if the answer is incomplete."""
        if not self.ended:
            raise _parsing.truncated_response_error("the stream ended before the answer did")
        return ()


def _error(error: Any, status: int) -> APIError:
    word = _parsing.get_text(error, "type")
    kind = error_kind_for_status(status) if status >= 400 else ErrorKind.UPSTREAM
    if status in (401, 403):
        kind = ErrorKind.KEY_REJECTED
    elif word == "rate_limit_error":
        kind = ErrorKind.LIMITED
    return APIError(
        kind,
        _parsing.get_text(error, "message") or "The site reported an error.",
        status=_parsing.client_status(status, kind),
        upstream_status=status if status >= 400 else None,
        words=(word,) if word else (),
    )


def _flatten(messages: Sequence[Message]) -> str:
    """One text: that of a single message, or all with the names of their roles before them."""
    texts = [
        (message.role, "\n".join(p.text for p in message.parts if isinstance(p, Text | Refusal)))
        for message in messages
    ]
    texts = [(role, text) for role, text in texts if text]
    if len(texts) == 1:
        return texts[0][1]
    turns = [f"{_LABELS[role]}: {text}" for role, text in texts]
    return "\n\n".join([*turns, "Assistant:"]) if turns else ""
