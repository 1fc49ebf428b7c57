"""Cuts Coze's event stream into JSON texts that include the names of events.

An event's name is not in its data. As a decoder sees one JSON text for each event, the framer
returns an object whose only member is named after the event and holds the data. The data of the
most frequent event, a piece of a message, is returned without its name.
"""

from __future__ import annotations

from asgi_aiproxy import _json
from asgi_aiproxy.framing import Frame, SSEFramer, split_run

DELTA = "conversation.message.delta"
_DELTA = DELTA.encode()
_ONLY_JSON = b'{["tfn-0123456789'  # what a JSON value begins with


class EventFramer:
    """Cuts an event stream."""

    def __init__(self) -> None:
        self._framer = SSEFramer()

    def feed(self, data: bytes) -> list[bytes]:
        """The JSON texts of the events that `data` completes."""
        data = self._framer.has_complete_events(data)
        run = split_run(data)
        if run is None or run.event != _DELTA:
            return self._cut(data)
        return [*self._cut(run.before), *run.texts, *self._cut(run.after)]

    def close(self) -> bytes | None:
        """The last event, if it lacks its end."""
        frame = self._framer.last_frame()
        return _text(frame) if frame is not None else None

    def _cut(self, data: bytes) -> list[bytes]:
        return [_text(frame) for frame in self._framer.split(data)]


def _text(frame: Frame) -> bytes:
    """The JSON text of an event."""
    text = _json_text(frame.data)
    if frame.event == _DELTA and text.startswith(b"{"):
        return text
    return b"{" + _json.dumps(frame.event.decode("utf-8", "replace")) + b":" + text + b"}"


def _json_text(data: bytes) -> bytes:
    """The data of an event as JSON: a string if it is something else, such as `[DONE]`."""
    if data.startswith(b"{"):
        return data
    data = data.strip()
    if data == b"[DONE]" or data[:1] not in _ONLY_JSON or not data:
        return _json.dumps(data.decode("utf-8", "replace"))
    return data
