"""A reply of the mock, and how it is sent."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from asgi_aiproxy._asgi import Receive, Send
from asgi_aiproxy._cancellation import RequestMonitor, SharedTimer


class ConnectionCutError(Exception):
    """Raised by the mock on purpose: the server then cuts the connection in the middle of the
    response.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An HTTP response, sent piece by piece.

    `events` are the bytes of its body; in a stream each is one event. `length` is the content
    length in bytes; a stream has none. `end` is what follows the last event: the regular end, a cut
    connection, or silence. `first_after` is in seconds; if it is infinite, nothing is sent at all.
    """

    status: int = 200
    media_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)
    events: tuple[bytes, ...] = ()
    length: int | None = None
    end: Literal["done", "cut", "silence"] = "done"
    first_after: float = 0.0
    pace: float = 0.0

    @classmethod
    def whole(
        cls,
        body: bytes,
        media_type: str = "application/json",
        *,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """Return a reply in one piece."""
        return cls(
            status=status,
            media_type=media_type,
            headers=headers or {},
            events=(body,),
            length=len(body),
        )

    @property
    def streamed(self) -> bool:
        """Whether this is a stream of events."""
        return self.length is None

    def raw_headers(self) -> list[tuple[bytes, bytes]]:
        """The headers in the form of ASGI; those in `headers` take precedence."""
        headers = {"content-type": self.media_type}
        if self.length is not None:
            headers["content-length"] = str(self.length)
        headers |= {name.lower(): value for name, value in self.headers.items()}
        return [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]


async def send_reply(reply: Reply, receive: Receive, send: Send) -> None:
    """Send a reply.

    Raises ClientGoneError if the client disconnected, and ConnectionCutError if the script says so.
    """
    with RequestMonitor(SharedTimer(asyncio.get_running_loop()), receive) as watch:
        watch.watch_disconnect()
        await _pause(reply.first_after)
        await send(
            {
                "type": "http.response.start",
                "status": reply.status,
                "headers": reply.raw_headers(),
            }
        )
        for at, event in enumerate(reply.events):
            # Even a pause of 0 seconds lets the server flush, and detects a disconnect.
            await _pause(reply.pace if at else 0.0)
            await send({"type": "http.response.body", "body": event, "more_body": True})
        if reply.end == "silence":
            await _pause(math.inf)
    if reply.end == "cut":
        raise ConnectionCutError("A scripted fault: the mock provider dies here.")
    # Outside the watch: after the last message, servers report a client that has everything as
    # disconnected.
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _pause(seconds: float) -> None:
    if math.isinf(seconds):
        await asyncio.Event().wait()
    await asyncio.sleep(seconds)
