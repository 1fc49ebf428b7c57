"""Translators: a provider's bytes in, the client's bytes out.

A translator is made for one attempt and knows nothing of sockets. `feed` takes what arrived and
returns what can be passed on; `close` is called at the end. Both raise APIError; `fail` then makes
the frame that tells a client in mid-stream, after all that came before the error. Until `started`,
nothing returned may be sent: another attempt may still take over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from asgi_aiproxy.dialects.base import Decoder, Encoder, NativeStream, OutboundDialect
from asgi_aiproxy.errors import APIError, ErrorKind
from asgi_aiproxy.framing import Frame, Framer, SSEFramer
from asgi_aiproxy.messages import (
    BlockDelta,
    BlockStart,
    Event,
    MessageEnd,
    Reasoning,
    Refusal,
    Response,
    Text,
    Usage,
    fold,
)

# More pieces than this in one packet, if they begin alike for so many bytes, may be a run of text.
_FEW, _LOOK = 4, 32

MAX_WHOLE = 64 * 1024 * 1024

# What reading stumbles over when bytes are not what their vendor documents.
_MALFORMED = (LookupError, TypeError, ValueError, AttributeError, RecursionError)


class Translator(Protocol):
    """Upstream bytes in, client bytes out."""

    @property
    def usage(self) -> Usage | None:
        """The tokens known so far, also after a broken stream."""

    @property
    def model(self) -> str:
        """The model that answers, once known."""

    @property
    def started(self) -> bool:
        """Whether content came out: the commit point."""

    @property
    def ended(self) -> bool:
        """Whether the last word came out: what follows, or fails to, is of no interest."""

    def feed(self, data: bytes) -> bytes:
        """What `data` gives the client."""

    def close(self) -> bytes:
        """What the end gives the client; raises APIError if the answer is incomplete."""

    def fail(self, error: APIError) -> bytes:
        """What tells a client in mid-stream that the answer broke."""


class NativeStreamTranslator:
    """A stream passes through in its own dialect, frame by frame, read along by an echo."""

    def __init__(self, echo: NativeStream) -> None:
        self._echo = echo
        self._framer = SSEFramer()
        self._before: list[bytes] = []
        self.started = False

    @property
    def usage(self) -> Usage | None:
        """The tokens known so far."""
        return self._echo.usage

    @property
    def model(self) -> str:
        """The model that answers."""
        return self._echo.model

    @property
    def ended(self) -> bool:
        """Whether the last word came out."""
        return self._echo.ended

    def feed(self, data: bytes) -> bytes:
        """The frames that `data` completes."""
        data = self._framer.has_complete_events(data)
        if not self.started:
            return self._begin(data)
        out, rest = self._echo.pass_unparsed(data)
        return out if not rest else self._read([out], self._framer.split(rest))

    def close(self) -> bytes:
        """What is left; the last frame may lack its end."""
        rest = self._framer.last_frame()
        out = self._read([], [rest] if rest else [])
        out += self._echo.close()
        self.started = True
        return out

    def fail(self, error: APIError) -> bytes:
        """An error in mid-stream; nothing after the last word."""
        return b"".join(self._before) + (b"" if self.ended else self._echo.fail(error))

    def _begin(self, data: bytes) -> bytes:
        """Read up to the first content, and skim what follows it."""
        out: list[bytes] = []
        for frame, end in self._framer.walk(data):
            out = [self._read(out, [frame])]
            if self.started:
                plain, rest = self._echo.pass_unparsed(data[end:])
                return self._read([*out, plain], self._framer.split(rest))
        return b"".join(out)

    def _read(self, before: list[bytes], frames: Iterable[Frame]) -> bytes:
        """What the client gets for frames, after what it gets for those `before`."""
        out = self._before = before
        try:
            for frame in frames:
                out.append(self._echo.feed(frame))
        except _MALFORMED as error:
            raise malformed_response_error() from error
        self._before = []
        self.started = self.started or self._echo.started
        return b"".join(out)


class StreamTranslator:
    """A stream in one dialect becomes a stream in another."""

    def __init__(self, framer: Framer, decoder: Decoder, encoder: Encoder) -> None:
        self._framer = framer
        self._decoder = decoder
        self._encoder = encoder
        # Looked up once: this is where microseconds count.
        self._cut, self._decode, self._encode = framer.feed, decoder.feed, encoder.feed
        self._before: list[bytes] = []
        self.started = False

    @property
    def usage(self) -> Usage | None:
        """The tokens known so far."""
        return self._decoder.usage

    @property
    def model(self) -> str:
        """The model that answers."""
        return self._decoder.model

    @property
    def ended(self) -> bool:
        """Whether the last word came out."""
        return self._decoder.ended

    def feed(self, data: bytes) -> bytes:
        """All that `data` lets the client know, in one piece."""
        try:
            pieces = self._cut(data)
            if self.started and len(pieces) == 1:
                events = self._decode(pieces[0])
                if len(events) == 1:  # the usual packet
                    return self._encode(events[0])
                return b"".join(map(self._encode, events))
            return self._translate(pieces)
        except _MALFORMED as error:
            raise malformed_response_error() from error

    def _translate(self, pieces: list[bytes]) -> bytes:
        decode, encode, started = self._decode, self._encode, self.started
        out = self._before = []
        at, count = 0, len(pieces)
        single = 0  # up to here, pieces are no run
        last = True  # whether to look for the end of a run from behind, which is done once
        while at < count:
            if started and at >= single and at + _FEW < count:
                single = _alike(pieces, at, last=last)
                run = self._decoder.run(pieces[at:single]) if single > at + _FEW else None
                again, last = last and run is None, False
                if run is not None:
                    out.append(self._encoder.run(*run))
                    at = single
                    continue
                if again:
                    single = at
                    continue
            events = decode(pieces[at])
            at += 1
            if not started:
                started = self.started = any(map(is_content, events))
            for event in events:
                out.append(encode(event))  # noqa: PERF401 (kept when the next one fails)
        self._before = []
        return b"".join(out)

    def close(self) -> bytes:
        """The end of the message."""
        encode = self._encoder.feed
        out = self._before = []
        rest = self._framer.close()
        try:
            for event in self._decoder.feed(rest) if rest else ():
                out.append(encode(event))  # noqa: PERF401
            for event in self._decoder.close():
                out.append(encode(event))  # noqa: PERF401
        except _MALFORMED as error:
            raise malformed_response_error() from error
        self.started = True
        return b"".join(out)

    def fail(self, error: APIError) -> bytes:
        """An error in mid-stream; nothing after the last word."""
        return b"".join(self._before) + (b"" if self.ended else self._encoder.fail(error))


class BufferedTranslator:
    """An answer is collected and told at its end, by `tell` from the whole body."""

    ended = False

    def __init__(self, tell: Callable[[bytes], tuple[bytes, str, Usage | None]]) -> None:
        self._tell = tell
        self._pieces: list[bytes] = []
        self._size = 0
        self.usage: Usage | None = None
        self.model = ""
        self.started = False

    def feed(self, data: bytes) -> bytes:
        """Nothing yet."""
        self._pieces.append(data)
        self._size += len(data)
        if self._size > MAX_WHOLE:
            raise APIError(
                ErrorKind.UPSTREAM, f"The provider's answer is larger than {MAX_WHOLE} bytes."
            )
        return b""

    def close(self) -> bytes:
        """The answer."""
        body = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        try:
            out, self.model, self.usage = self._tell(body)
        except _MALFORMED as error:
            raise malformed_response_error() from error
        self.started = True
        return out

    def fail(self, error: APIError) -> bytes:
        """Nothing: a whole answer does not break in the middle."""
        return b""


class RawTranslator:
    """Bytes pass through unread: sound, pictures, what no dialect knows."""

    usage: Usage | None = None
    model = ""
    ended = False

    def __init__(self) -> None:
        self.started = False

    def feed(self, data: bytes) -> bytes:
        """The same."""
        self.started = True
        return data

    def close(self) -> bytes:
        """Nothing."""
        self.started = True
        return b""

    def fail(self, error: APIError) -> bytes:
        """Nothing that could be said in these bytes."""
        return b""


def collect_stream(language: OutboundDialect, framer: Framer, body: bytes) -> Response:
    """The whole answer in a body that is a stream after all."""
    decoder = language.decoder()

    def events() -> Iterator[Event]:
        for piece in framer.feed(body):
            yield from decoder.feed(piece)
        rest = framer.close()
        if rest:
            yield from decoder.feed(rest)
        yield from decoder.close()

    return fold(events())


def _alike(pieces: list[bytes], at: int, *, last: bool) -> int:
    """Where the pieces that begin like the one at `at` end: behind the last one, or the first."""
    look = pieces[at][:_LOOK]
    if last:
        end = len(pieces)
        while not pieces[end - 1].startswith(look):
            end -= 1
        return end
    end = at + 1
    while end < len(pieces) and pieces[end].startswith(look):
        end += 1
    return end


def is_content(event: Event) -> bool:
    """Whether an event is something for the reader, or the end: no way back after it."""
    match event:
        case BlockDelta(_, text):
            return bool(text)
        case BlockStart(_, block):
            return not isinstance(block, Text | Reasoning | Refusal)
        case MessageEnd():
            return True
    return False


def malformed_response_error() -> APIError:
    """The provider sent something its own documentation does not know."""
    return APIError(ErrorKind.UPSTREAM, "The provider sent an answer that could not be read.")
