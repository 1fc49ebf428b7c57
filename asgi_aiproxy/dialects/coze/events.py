"""Cuts Coze's event stream into JSON texts that include the names of events.

An event's name is not in its data. As a decoder sees one JSON text for each event, the framer
returns an object whose only member is named after the event and holds the data.
"""

from __future__ import annotations

import re

from asgi_aiproxy import _json
from asgi_aiproxy.framing import Frame, SSEFramer

_MAX_KNOWN_EVENTS = 64
# Events with a name and one line of data.
_split_usual = re.compile(rb"^event: ?(.*+)\ndata: ?(.*+)\n\n", re.MULTILINE).split
_ONLY_JSON = b'{["tfn-0123456789'  # what a JSON value begins with


class EventFramer:
    """Cuts an event stream."""

    def __init__(self) -> None:
        self._framer = SSEFramer()
        self._known: dict[bytes, bytes] = {}  # the beginnings of JSON texts, by event

    def feed(self, data: bytes) -> list[bytes]:
        """The JSON texts of the events that `data` completes."""
        data = self._framer.has_complete_events(data)
        parts = _split_usual(data)
        if data.find(b"\r") < 0 and not any(parts[::3]):  # there is nothing between these events
            known = {event: self._begin(event) for event in set(parts[1::3])}
            pairs = zip(parts[1::3], parts[2::3], strict=True)
            return [
                known[event] + (text if text[:1] == b"{" else _json_text(text)) + b"}"
                for event, text in pairs
            ]
        return [self._joined(frame) for frame in self._framer.split(data)]

    def close(self) -> bytes | None:
        """The last event, if it lacks its end."""
        frame = self._framer.last_frame()
        return self._joined(frame) if frame is not None else None

    def _joined(self, frame: Frame) -> bytes:
        return self._begin(frame.event) + _json_text(frame.data) + b"}"

    def _begin(self, event: bytes) -> bytes:
        """The beginning of the JSON text of an event with this name."""
        begin = self._known.get(event)
        if begin is None:
            begin = b"{" + _json.dumps(event.decode("utf-8", "replace")) + b":"
            if len(self._known) < _MAX_KNOWN_EVENTS:
                self._known[event] = begin
        return begin


def _json_text(data: bytes) -> bytes:
    """The data of an event as JSON: a string if it is something else, such as `[DONE]`."""
    if data.startswith(b"{"):
        return data
    data = data.strip()
    if data == b"[DONE]" or data[:1] not in _ONLY_JSON or not data:
        return _json.dumps(data.decode("utf-8", "replace"))
    return data
