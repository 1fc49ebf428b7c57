"""Which events of a WebSocket session belong together, so that a check sees them as a whole.

Theory of operation. A model's words arrive in pieces, in several events, as text and as audio. They
are complete when their response is: `SessionProtocol.feed` says what an event begins and what it
ends, and a check holds events as long as something has begun and not ended. Events that report what
the client does (`passes`) are never part of a response, and must not wait for one.

- OpenAI's Realtime API and its Responses API over WebSockets: a response is complete with
  `response.done` or `response.completed`; pieces outside of a response, as the transcription of
  what the user says, with the event of the same name that ends with `done` or `completed`.
  https://platform.openai.com/docs/api-reference/realtime-server-events
- Google's Live API: a turn is complete with `turnComplete` or `interrupted`, and interrupted by a
  `toolCall`, which the client must answer. https://ai.google.dev/api/live
"""

from __future__ import annotations

from typing import Any, Protocol

from asgi_aiproxy import _json
from asgi_aiproxy.errors import APIError


class SessionProtocol(Protocol):
    """The events of one session, from the server."""

    def feed(self, event: dict[str, Any]) -> bool:
        """Note an event; return whether something that it belongs to is not complete."""

    def passes(self, event: dict[str, Any]) -> bool:
        """Whether an event belongs to no response, and must not wait for one."""

    def has_audio(self, event: dict[str, Any]) -> bool:
        """Whether an event holds audio, which says the same as the text beside it."""

    def error_event(self, error: APIError) -> str | None:
        """The event that reports an error to the client; None if the API has none."""


_ENDS = ("done", "completed", "failed", "incomplete", "cancelled")


class OpenAISession:
    """The events of OpenAI's Realtime API, and of its Responses API."""

    def __init__(self) -> None:
        self._open: set[tuple[str, object]] = set()

    def feed(self, event: dict[str, Any]) -> bool:
        """Note an event; return whether something that it belongs to is not complete."""
        kind = str(event.get("type"))
        about, _, step = kind.rpartition(".")
        if about == "response":
            response = event.get("response")
            key = ("", response.get("id") if isinstance(response, dict) else None)
            if step in _ENDS:
                self._open.discard(key)
            else:
                self._open.add(key)
        elif step == "delta":
            if not any(name == "" for name, _ in self._open):
                self._open.add((about, event.get("item_id")))
        elif step in _ENDS:
            self._open.discard((about, event.get("item_id")))
        return bool(self._open)

    def passes(self, event: dict[str, Any]) -> bool:
        """Whether an event reports an error or the state of the client's audio."""
        kind = str(event.get("type"))
        return kind == "error" or kind.startswith(("input_audio_buffer.", "session."))

    def has_audio(self, event: dict[str, Any]) -> bool:
        """Whether an event holds audio."""
        return str(event.get("type")).endswith("audio.delta")

    def error_event(self, error: APIError) -> str | None:
        """An `error` event."""
        kind = "server_error" if error.status >= 500 else "invalid_request_error"
        body = {"type": kind, "code": error.code, "message": error.message, "param": error.param}
        return _json.dumps({"type": "error", "error": body}).decode()


class GeminiSession:
    """The messages of Google's Live API."""

    def __init__(self) -> None:
        self._open = False

    def feed(self, event: dict[str, Any]) -> bool:
        """Note a message; return whether its turn is not complete."""
        content = event.get("serverContent")
        if isinstance(content, dict):
            self._open = not (content.get("turnComplete") or content.get("interrupted"))
        elif "toolCall" in event:
            self._open = False
        return self._open

    def passes(self, event: dict[str, Any]) -> bool:
        """Whether a message is about the session itself."""
        return event.keys() <= {"setupComplete", "goAway", "sessionResumptionUpdate"}

    def has_audio(self, event: dict[str, Any]) -> bool:
        """Whether a message holds audio."""
        return b'"inlineData"' in _json.dumps(event)

    def error_event(self, error: APIError) -> str | None:
        """None: the API closes the session instead."""
        return None


def session_protocol(dialect: str) -> SessionProtocol | None:
    """The events of a session with a provider, by the name of its dialect; None if unknown."""
    if dialect in ("openai_chat", "openai_responses"):
        return OpenAISession()
    return GeminiSession() if dialect == "gemini" else None
