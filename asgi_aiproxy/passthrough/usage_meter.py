"""Read the usage and the model of a streamed response from copies of its beginning and its end.

Vendors report usage at the end of a response, some of it at the beginning: so 8 KiB of the
beginning and 16 KiB of the end are enough for any length, and nothing is parsed while the response
streams.
"""

from __future__ import annotations

import logging
from functools import lru_cache

from asgi_aiproxy._headers import content_codings
from asgi_aiproxy.dialects.base import STREAM_TYPES
from asgi_aiproxy.dialects.usage_extraction import extract_usage, extract_usage_from_event
from asgi_aiproxy.exchange.admission import EMPTY_SAMPLE, ResponseSample
from asgi_aiproxy.messages import Usage
from asgi_aiproxy.usage.record import plausible_usage

logger = logging.getLogger("asgi_aiproxy")

HEAD = 8 * 1024
TAIL = 16 * 1024
# The copies are shortened when they exceed this many bytes or pieces, so that bytes are not copied
# repeatedly.
_MAX_HELD, _MAX_PIECES = 4 * TAIL, 256

_TYPES = STREAM_TYPES | {"application/json", "application/jsonl"}


class UsageMeter:
    """Is fed the bytes of a response, and returns at the end the usage that it reported."""

    __slots__ = ("_head", "_held_bytes", "_pieces", "size")

    def __init__(self) -> None:
        self._head = b""  # set once bytes between the beginning and the end were dropped
        self._pieces: list[bytes] = []
        self._held_bytes = 0
        self.size = 0  # number of all bytes fed

    @classmethod
    def for_type(cls, content_type: str, content_encoding: str) -> UsageMeter | None:
        """Return a meter for a response, or None if its format cannot report usage in a readable
        form.
        """
        if content_encoding and content_codings(content_encoding):
            return None
        return cls() if _may_report_usage(content_type) else None

    @property
    def head(self) -> bytes:
        """The beginning of the response."""
        return self._head or b"".join(self._pieces)[:HEAD]

    def feed(self, data: bytes) -> None:
        """Add some bytes of the response."""
        self.size += len(data)
        if len(data) > TAIL:
            # (A copy of the end, so that the whole piece need not be kept in memory.)
            self._head = self._head or (b"".join(self._pieces) + data[:HEAD])[:HEAD]
            self._pieces, self._held_bytes = [data[-TAIL:]], TAIL
            return
        self._pieces.append(data)
        self._held_bytes += len(data)
        if self._held_bytes > _MAX_HELD or len(self._pieces) > _MAX_PIECES:
            self._drop_middle()

    def reported(self) -> tuple[str, Usage | None]:
        """Return the reported model and usage."""
        held = b"".join(self._pieces)
        return extract_usage(self._head or held, held)

    @property
    def sample(self) -> bytes:
        """A sample of the response: the held parts of its beginning and end."""
        return self._head + b"".join(self._pieces)

    def _drop_middle(self) -> None:
        held = b"".join(self._pieces)
        if len(held) > HEAD + TAIL:
            self._head = self._head or held[:HEAD]
            held = held[-TAIL:]
        self._pieces = [held]
        self._held_bytes = len(held)


@lru_cache(maxsize=256)
def _may_report_usage(content_type: str) -> bool:
    return content_type.partition(";")[0].strip().lower() in _TYPES


class SessionUsage:
    """Sum of the usage that the events of a WebSocket session report, and the first model named."""

    def __init__(self) -> None:
        self.usage: Usage | None = None
        self.model = ""

    def reported(self) -> tuple[str, Usage | None]:
        """The model and the usage so far."""
        return self.model, plausible_usage(self.usage)

    def feed(self, text: str) -> bool:
        """Read one event; returns whether it reported usage."""
        if '"usage' not in text and (self.model or '"model"' not in text):
            return False
        try:
            model, reported = extract_usage_from_event(text)
        except Exception:  # the session continues without it
            logger.exception("the usage in an event of a session is unreadable")
            return False
        self.model = self.model or model
        if reported is None:
            return False
        total = self.usage or Usage()
        names = Usage.__struct_fields__
        self.usage = Usage(**{n: getattr(total, n) + getattr(reported, n) for n in names})
        return True


def sample_for_estimate(
    meter: UsageMeter | None, usage: Usage | None, finished: bool
) -> ResponseSample:
    """A sample of a response to estimate its usage by; empty if the response reported it."""
    if meter is None or (usage is not None and usage.output and finished):
        return EMPTY_SAMPLE
    return ResponseSample(meter.size, meter.sample)
