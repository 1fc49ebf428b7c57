"""What goes back over the wire, and how it is sent."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from asgi_aiproxy._asgi import Receive, Send
from asgi_aiproxy._cancellation import RequestMonitor, SharedTimer


class ConnectionCutError(Exception):
    """Raised out of the mock on purpose: the server then cuts the connection in mid-answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An HTTP answer as it will be sent, piece by piece.

    `events` are the bytes of its body; of a stream each is one event. `length` is announced as
    content-length; a stream has none. `end` is what follows the last event: the regular end, a cut
    connection, or silence. `first_after` may be infinite: then nothing is sent at all.
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
        """A reply that comes in one piece."""
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
        """The headers as ASGI wants them; those of `headers` win."""
        headers = {"content-type": self.media_type}
        if self.length is not None:
            headers["content-length"] = str(self.length)
        headers |= {name.lower(): value for name, value in self.headers.items()}
        return [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]


async def send_reply(reply: Reply, receive: Receive, send: Send) -> None:
    """Send a reply.

    Raises ClientGoneError if the client left, and ConnectionCutError if the script says so.
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
            # Also a pause of nothing lets the server flush, and the client's leaving be noticed.
            await _pause(reply.pace if at else 0.0)
            await send({"type": "http.response.body", "body": event, "more_body": True})
        if reply.end == "silence":
            await _pause(math.inf)
    if reply.end == "cut":
        raise ConnectionCutError("A scripted fault: the mock provider dies here.")
    # Outside the watch: once this is sent, servers report a client as gone that has all it wants.
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _pause(seconds: float) -> None:
    if math.isinf(seconds):
        await asyncio.Event().wait()
    await asyncio.sleep(seconds)
