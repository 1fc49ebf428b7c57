"""What one WebSocket remembers of its responses."""

from __future__ import annotations

from collections import OrderedDict

from asgi_aiproxy.responses_state.history import History

_MAX_RESPONSES = 64


class ConnectionMemory:
    """The histories of the last responses of a WebSocket, by the ids of the responses.

    They share their segments, so that a long conversation is held once. The oldest are dropped
    above `max_bytes`; the last one remains.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._histories: OrderedDict[str, History] = OrderedDict()

    def __len__(self) -> int:
        return len(self._histories)

    def get(self, id: str) -> History | None:
        """The history up to a response, None if it is not known."""
        return self._histories.get(id)

    def put(self, id: str, history: History) -> None:
        """Remember a response. Without its content it is not remembered here."""
        if history.segments is None:
            return
        replaced = self._histories.pop(id, None)
        self._bytes += history.size - (replaced.size if replaced is not None else 0)
        self._histories[id] = history
        while len(self._histories) > 1 and (
            self._bytes > self._max_bytes or len(self._histories) > _MAX_RESPONSES
        ):
            _, dropped = self._histories.popitem(last=False)
            self._bytes -= dropped.size
