"""The faults of a provider, one constructor each."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self, get_args

from asgi_aiproxy import _json
from asgi_aiproxy.testing.answers import Answer
from asgi_aiproxy.testing.reply import Reply
from asgi_aiproxy.testing.simulator import RetryAfter, VendorSimulator, with_pacing

Shape = Callable[[Reply, VendorSimulator], Reply]

NO_JSON = b"{this is no JSON"
BLOCK_PAGE = b"""<!DOCTYPE html>
<html><head><title>Attention Required!</title><style>body { color: black }</style></head>
<body><h1>Sorry, you have been blocked</h1>
<p>You are unable to access this site. Ray ID: 0000000000000000</p></body></html>
"""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of a provider, made by one of the class methods.

    `Fault.dies_after(3) | Fault.split()` combines two faults, and
    `Fault.dies_after(3).of(Answer(...))` applies a fault to this answer instead of the default one.
    A custom fault is a name and a function that turns the correct reply, and the simulator that
    made it, into the faulty reply.

    Faults count the events of a stream, and stop before its last event: a stream that breaks off is
    never complete. In a response that is not streamed, "after `events` events" means after half of
    the body (or, with 0 events, after the headers).
    """

    name: str
    shape: Shape = field(repr=False, compare=False)
    answer: Answer | None = None

    def of(self, answer: Answer) -> Self:
        """Return the same fault, applied to another answer."""
        return replace(self, answer=answer)

    def __or__(self, other: Fault) -> Fault:
        """Return a fault that applies this one, and then the other one."""

        def shape(reply: Reply, simulator: VendorSimulator) -> Reply:
            return other.shape(self.shape(reply, simulator), simulator)

        return Fault(f"{self.name} | {other.name}", shape, other.answer or self.answer)

    # ── error responses ──

    @classmethod
    def status(
        cls,
        status: int,
        message: str = "",
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | str | dict[str, Any] | None = None,
    ) -> Fault:
        """A response with this status, with `body` or else an error in the provider's own
        format.
        """

        def shape(reply: Reply, simulator: VendorSimulator) -> Reply:
            if body is None:
                error = simulator.error(status, message, headers=headers)
            else:
                error = Reply.whole(
                    _bytes(body), simulator.json_type, status=status, headers=headers
                )
            return with_pacing(error, simulator.answer)

        return cls(f"status({status})", shape)

    @classmethod
    def rate_limited(
        cls, retry_after: RetryAfter | None = "seconds", *, seconds: float = 2.0
    ) -> Fault:
        """Status 429 that gives the time to wait in one of these forms.

        "seconds" and "date": `retry-after` (a date counts whole seconds, and is rounded up); "ms":
        `retry-after-ms`; "reset": the provider's headers of an exhausted limit; "body": in the
        error message, or Google's `RetryInfo`. Google has no such headers: "reset" is the same as
        "body" there. None gives no time.
        """
        if retry_after is not None and retry_after not in get_args(RetryAfter):
            raise ValueError(f"retry_after must be None or one of {get_args(RetryAfter)}")

        def shape(reply: Reply, simulator: VendorSimulator) -> Reply:
            return with_pacing(simulator.rate_limited_reply(retry_after, seconds), simulator.answer)

        return cls(f"rate_limited({retry_after}, {seconds:g})", shape)

    @classmethod
    def overloaded_first(cls) -> Fault:
        """Status 200, and the stream's first event is an error. Not streamed: status 503 or 529."""

        def shape(reply: Reply, simulator: VendorSimulator) -> Reply:
            if not reply.streamed:
                return with_pacing(
                    simulator.error(simulator.overloaded, "Overloaded"), simulator.answer
                )
            return replace(reply, events=(simulator.broken(simulator.overloaded, "Overloaded", 0),))

        return cls("overloaded_first", shape)

    @classmethod
    def html(cls, status: int = 403) -> Fault:
        """An HTML block page, as a firewall sends it; `status` may be 200."""
        return cls(
            f"html({status})",
            lambda reply, simulator: with_pacing(
                Reply.whole(BLOCK_PAGE, "text/html; charset=UTF-8", status=status), simulator.answer
            ),
        )

    # ── responses that break off ──

    @classmethod
    def error_after(cls, events: int, message: str = "Internal server error") -> Fault:
        """An error event after `events` events. Not streamed: status 500."""

        def shape(reply: Reply, simulator: VendorSimulator) -> Reply:
            if not reply.streamed:
                return with_pacing(simulator.error(500, message), simulator.answer)
            begun = _begin(reply, events)
            return replace(reply, events=(*begun, simulator.broken(500, message, len(begun))))

        return cls(f"error_after({events})", shape)

    @classmethod
    def dies_after(cls, events: int) -> Fault:
        """The connection is cut after `events` events.

        The mock raises `reply.ConnectionCutError` after what it has sent: servers then log the
        exception and close the connection, and clients get an incomplete body. A middleware around
        the mock might end the response regularly instead; use none there. An ASGI app cannot cut a
        connection before the status line.
        """
        return cls(
            f"dies_after({events})",
            lambda reply, simulator: replace(reply, events=_begin(reply, events), end="cut"),
        )

    @classmethod
    def truncated_after(cls, events: int) -> Fault:
        """The response ends early, as if it were complete."""

        def shape(reply: Reply, simulator: VendorSimulator) -> Reply:
            begun = _begin(reply, events)
            length = None if reply.streamed else sum(map(len, begun))
            return replace(reply, events=begun, length=length)

        return cls(f"truncated_after({events})", shape)

    @classmethod
    def silence(cls) -> Fault:
        """No response at all, until the client disconnects."""
        return cls("silence", lambda reply, simulator: replace(reply, first_after=math.inf))

    @classmethod
    def silence_after(cls, events: int) -> Fault:
        """Nothing more after `events` events, until the client disconnects; with 0 events only the
        headers are sent.
        """
        return cls(
            f"silence_after({events})",
            lambda reply, simulator: replace(reply, events=_begin(reply, events), end="silence"),
        )

    # ── responses in an unusual form ──

    @classmethod
    def split(cls, size: int = 1) -> Fault:
        """The body in pieces of `size` bytes, each sent separately (a client may receive several
        together).
        """

        def shape(reply: Reply, simulator: VendorSimulator) -> Reply:
            body = b"".join(reply.events)
            pieces = tuple(body[at : at + size] for at in range(0, len(body), size))
            return replace(reply, events=pieces)

        return cls(f"split({size})", shape)

    @classmethod
    def wrong_type(cls, content_type: str) -> Fault:
        """The correct body with a wrong content type."""
        return cls(
            f"wrong_type({content_type})",
            lambda reply, simulator: replace(reply, media_type=content_type),
        )

    @classmethod
    def whole(cls) -> Fault:
        """The whole response in one piece, although a stream was requested."""
        return cls(
            "whole", lambda reply, simulator: simulator.reply(simulator.answer, stream=False)
        )

    @classmethod
    def garbage(cls, after: int = 1) -> Fault:
        """One event whose data is not JSON, after `after` correct ones. Not streamed:
        such a body.
        """

        def shape(reply: Reply, simulator: VendorSimulator) -> Reply:
            if not reply.streamed:
                return with_pacing(Reply.whole(NO_JSON, reply.media_type), simulator.answer)
            at = len(_begin(reply, after))
            invalid = simulator.frame(NO_JSON, at)
            return replace(reply, events=(*reply.events[:at], invalid, *reply.events[at + 1 :]))

        return cls(f"garbage({after})", shape)

    @classmethod
    def huge(cls, size: int) -> Fault:
        """One event (or body) with a text of `size` characters."""

        def shape(reply: Reply, simulator: VendorSimulator) -> Reply:
            answer = replace(simulator.answer, text="x" * size, pieces=1)
            return simulator.reply(answer, stream=reply.streamed)

        return cls(f"huge({size})", shape)


def _begin(reply: Reply, events: int) -> tuple[bytes, ...]:
    if reply.streamed:
        return reply.events[: max(0, min(events, len(reply.events) - 1))]
    body = b"".join(reply.events)
    return (body[: len(body) // 2],) if events > 0 else ()


def _bytes(body: bytes | str | dict[str, Any]) -> bytes:
    if isinstance(body, bytes):
        return body
    return body.encode() if isinstance(body, str) else _json.dumps(body)
