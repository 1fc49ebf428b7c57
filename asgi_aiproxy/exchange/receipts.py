"""The cost of an exchange in its answer: a header, or a comment at the end of a stream.

A stream has no header for what is known only at its end. Its comment is a line of the event stream
that clients ignore (https://html.spec.whatwg.org/multipage/server-sent-events.html), after the last
event; it is off by default, and not sent to clients that read every line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from asgi_aiproxy._asgi import RawHeaders
from asgi_aiproxy.dialects.base import InboundDialect
from asgi_aiproxy.usage.record import UsageRecord

if TYPE_CHECKING:
    from asgi_aiproxy.prices import Pricing


def dollars(record: UsageRecord) -> str:
    """What the caller is charged, in US dollars with six decimals."""
    cost = 0 if record.not_charged else record.cost or 0
    return f"{cost // 1_000_000}.{cost % 1_000_000:06d}"


class Receipts:
    """Where an app shows what an exchange cost.

    `header`: whole answers have `aiproxy-cost`, in US dollars. `comment`: streams end with the
    comment `aiproxy-cost: ...`. `prices` price exchanges that no `Quota` has priced; a list of
    prices is loaded with the first of them, unless `prices.load()` was called before.
    """

    def __init__(
        self, *, header: bool = True, comment: bool = False, prices: Pricing | None = None
    ) -> None:
        self.header = header
        self.comment = comment
        self.prices = prices

    def headers(self, record: UsageRecord | None) -> RawHeaders:
        """The response headers for an exchange that has ended."""
        if not self.header or record is None or record.cost is None:
            return []
        return [(b"aiproxy-cost", dollars(record).encode())]

    def end_of_stream(self, record: UsageRecord | None, face: InboundDialect) -> bytes:
        """The comment after the last event of a stream; empty if there is none."""
        shown = self.comment and face.keepalive is not None
        if not shown or record is None or record.cost is None:
            return b""
        return f": aiproxy-cost: {dollars(record)}\n\n".encode()
