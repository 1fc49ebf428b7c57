"""Cuts Coze's event stream into JSON texts that include the names of events.

An event's name is not in its data. As a decoder sees one JSON text for each event, the framer
returns an object whose only member is named after the event and holds the data.
"""

from __future__ import annotations

from asgi_aiproxy import _json
from asgi_aiproxy.framing import Frame, SSEFramer

_MAX_KNOWN_EVENTS = 64
_ONLY_JSON = b'{["tfn-0123456789'  # what a JSON value begins with


class EventFramer:
    """Cuts an event stream."""

    def __init__(self) -> None:
        self._framer = SSEFramer()
        self._known: dict[bytes, bytes] = {}  # the beginnings of JSON texts, by event

    def feed(self, data: bytes) -> list[bytes]:
        """The JSON texts of the events that `data` completes."""
        return [self._joined(frame) for frame in self._framer.frames(data)]

    def close(self) -> bytes | None:
        """The last event, if it lacks its end."""
        frame = self._framer.last_frame()
        return self._joined(frame) if frame is not None else None

    def _joined(self, frame: Frame) -> bytes:
        """The JSON text of an event. Data that is not JSON, such as `[DONE]`, becomes a string."""
        begin = self._known.get(frame.event)
        if begin is None:
            begin = b"{" + _json.dumps(frame.event.decode("utf-8", "replace")) + b":"
            if len(self._known) < _MAX_KNOWN_EVENTS:
                self._known[frame.event] = begin
        data = frame.data
        if not data.startswith(b"{"):
            data = data.strip()
            if data == b"[DONE]" or data[:1] not in _ONLY_JSON or not data:
                data = _json.dumps(data.decode("utf-8", "replace"))
        return begin + data + b"}"
