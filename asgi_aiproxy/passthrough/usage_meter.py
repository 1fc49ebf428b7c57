"""Usage and model of an answer that passes, read on the side from copies of its ends.

Vendors tell usage at the end of an answer, some of it at the beginning: so 8 KiB of the head and
16 KiB of the tail are enough, however long the answer is, and reading them costs nothing while it
passes.
"""

from __future__ import annotations

import logging
from functools import lru_cache

from asgi_aiproxy._headers import content_codings
from asgi_aiproxy.dialects.base import STREAM_TYPES
from asgi_aiproxy.dialects.usage_extraction import extract_usage, extract_usage_from_event
from asgi_aiproxy.messages import Usage
from asgi_aiproxy.usage.record import plausible_usage

logger = logging.getLogger("asgi_aiproxy")

HEAD = 8 * 1024
TAIL = 16 * 1024
# So much may wait before it is cut, lest it be copied again and again.
_MAX_HELD, _MOST_PIECES = 4 * TAIL, 256

_TYPES = STREAM_TYPES | {"application/json", "application/jsonl"}


class UsageMeter:
    """Is shown an answer, and asked at its end, whatever that was."""

    __slots__ = ("_head", "_held_bytes", "_pieces", "size")

    def __init__(self) -> None:
        self._head = b""  # once something between it and the rest may be missing
        self._pieces: list[bytes] = []
        self._held_bytes = 0
        self.size = 0  # of all that was seen

    @classmethod
    def for_type(cls, content_type: str, content_encoding: str) -> UsageMeter | None:
        """A meter for such an answer, if it may tell usage in words that can be read."""
        return (
            cls()
            if _may_report_usage(content_type) and not content_codings(content_encoding)
            else None
        )

    @property
    def head(self) -> bytes:
        """How it began."""
        return self._head or b"".join(self._pieces)[:HEAD]

    def feed(self, data: bytes) -> None:
        """See some more of it."""
        self.size += len(data)
        if len(data) > TAIL:
            # (Its end is copied, so that all the rest need not be kept for it.)
            self._head = self._head or (b"".join(self._pieces) + data[:HEAD])[:HEAD]
            self._pieces, self._held_bytes = [data[-TAIL:]], TAIL
            return
        self._pieces.append(data)
        self._held_bytes += len(data)
        if self._held_bytes > _MAX_HELD or len(self._pieces) > _MOST_PIECES:
            self._drop_middle()

    def reported(self) -> tuple[str, Usage | None]:
        """The model and the usage, as far as they were told."""
        rest = b"".join(self._pieces)
        return extract_usage(self._head or rest, rest)

    @property
    def sample(self) -> bytes:
        """A part of it: what is held of its beginning and of its end."""
        return self._head + b"".join(self._pieces)

    def _drop_middle(self) -> None:
        rest = b"".join(self._pieces)
        if len(rest) > HEAD + TAIL:
            self._head = self._head or rest[:HEAD]
            rest = rest[-TAIL:]
        self._pieces = [rest]
        self._held_bytes = len(rest)


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
        except Exception:  # the session goes on without it
            logger.exception("the usage in an event of a session is unreadable")
            return False
        self.model = self.model or model
        if reported is None:
            return False
        total = self.usage or Usage()
        names = Usage.__struct_fields__
        self.usage = Usage(**{n: getattr(total, n) + getattr(reported, n) for n in names})
        return True
