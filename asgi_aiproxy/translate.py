"""Translators: the provider's response bytes in, the client's response bytes out. Pure.

Theory of operation. A translator is made for one attempt and does no I/O:

* `feed(data)` takes the bytes that arrived, cut anywhere, and returns the bytes for the client.
* `close()` is called at the end of the body and returns the rest.
* Both raise APIError if the provider reports an error or its bytes are malformed. `fail(error)`
  then returns what was translated before the error, and the client's error event.
* `started` becomes True with the first content, which is the commit point: what `feed` returned
  before that is collected and not sent, because another attempt may still replace this one.
* `ended` becomes True with the last event of the dialect. Whatever follows, or fails, is ignored.
* `model` and `usage` are what the provider reported so far, also after a broken stream.

There are five. `NativeStreamTranslator`: client and provider speak the same dialect; events pass
through as bytes, and are parsed only as far as usage and errors need it. `ReframedTranslator`: the
same for events that arrive in another framing. `StreamTranslator`: bytes are cut into pieces
(framer), decoded into neutral events (decoder), and encoded for the client (encoder).
`BufferedTranslator`: a body that is complete before it is translated. `RawTranslator`: bytes
that no dialect describes, such as audio.

Speed. In a busy process one read returns many small events. Consecutive deltas that begin with the
same bytes are a *run*; `StreamTranslator` decodes and encodes a run as a whole where the dialects
can. Finding the runs costs one comparison for each piece.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import ClassVar, Protocol

import msgspec

from asgi_aiproxy.dialects.base import Decoder, Encoder, NativeStream, Reframer, ResponseReader
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

# A run has more pieces than this, which are equal in this many bytes at their beginning.
_MIN_RUN_PIECES, _RUN_PREFIX_BYTES = 4, 32

_NO_USAGE = Usage()
_TAIL = 16 * 1024  # bytes at the end of a stream in which its usage is
MAX_WHOLE = 64 * 1024 * 1024  # bytes of a complete response

# What decoders raise if a response is not as the vendor documents it.
MALFORMED = (LookupError, TypeError, ValueError, AttributeError, RecursionError)


class Translator(Protocol):
    """Upstream bytes in, client bytes out."""

    @property
    def usage(self) -> Usage | None:
        """The token counts reported so far, also after a broken stream."""

    @property
    def model(self) -> str:
        """The model that the provider reported, empty until then."""

    @property
    def started(self) -> bool:
        """Whether content was translated: the commit point."""

    @property
    def ended(self) -> bool:
        """Whether the last event was translated: what follows is ignored, also an error."""

    def feed(self, data: bytes) -> bytes:
        """Return the client's bytes for `data`. Raises APIError."""

    def close(self) -> bytes:
        """Return the client's bytes for the end. Raises APIError if the response is incomplete."""

    def fail(self, error: APIError) -> bytes:
        """Return what was translated before `error`, and the client's error event."""


class NativeStreamTranslator:
    """Passes a stream through in its own dialect; the dialect's native stream parses along."""

    def __init__(self, native_stream: NativeStream) -> None:
        self._native_stream = native_stream
        self._framer = SSEFramer()
        self._translated: list[bytes] = []
        self.started = False

    @property
    def usage(self) -> Usage | None:
        """The token counts reported so far."""
        return self._native_stream.usage

    @property
    def model(self) -> str:
        """The model that the provider reported."""
        return self._native_stream.model

    @property
    def ended(self) -> bool:
        """Whether the last event was translated."""
        return self._native_stream.ended

    def feed(self, data: bytes) -> bytes:
        """Return the events that `data` completes."""
        data = self._framer.has_complete_events(data)
        if not self.started:
            return self._feed_until_started(data)
        out, rest = self._native_stream.pass_unparsed(data)
        return out if not rest else self._parse([out], self._framer.split(rest))

    def close(self) -> bytes:
        """Return the rest; the last event may lack its final blank line."""
        rest = self._framer.last_frame()
        out = self._parse([], [rest] if rest else [])
        out += self._native_stream.close()
        self.started = True
        return out

    def fail(self, error: APIError) -> bytes:
        """Return the error event, or nothing after the last event."""
        return b"".join(self._translated) + (b"" if self.ended else self._native_stream.fail(error))

    def _feed_until_started(self, data: bytes) -> bytes:
        """Parse up to the first content, and pass what follows it."""
        out: list[bytes] = []
        for frame, end in self._framer.walk(data):
            out = [self._parse(out, [frame])]
            if self.started:
                plain, rest = self._native_stream.pass_unparsed(data[end:])
                return self._parse([*out, plain], self._framer.split(rest))
        return b"".join(out)

    def _parse(self, before: list[bytes], frames: Iterable[Frame]) -> bytes:
        """Return the client's bytes for `frames`, after the bytes `before`."""
        out = self._translated = before
        try:
            for frame in frames:
                out.append(self._native_stream.feed(frame))
        except MALFORMED as error:
            raise malformed_response_error() from error
        self._translated = []
        self.started = self.started or self._native_stream.started
        return b"".join(out)


class ReframedTranslator:
    """Passes a stream through `translator` that must be framed as an event stream first."""

    def __init__(self, reframer: Reframer, translator: Translator) -> None:
        self._reframer = reframer
        self._translator = translator

    @property
    def usage(self) -> Usage | None:
        """The token counts reported so far."""
        return self._translator.usage

    @property
    def model(self) -> str:
        """The model that the provider reported."""
        return self._translator.model

    @property
    def started(self) -> bool:
        """Whether content was translated."""
        return self._translator.started

    @property
    def ended(self) -> bool:
        """Whether the last event was translated."""
        return self._translator.ended

    def feed(self, data: bytes) -> bytes:
        """Return the events that `data` completes."""
        try:
            framed = self._reframer.feed(data)
        except MALFORMED as error:
            raise malformed_response_error() from error
        return self._translator.feed(framed)

    def close(self) -> bytes:
        """Return the rest."""
        return self._translator.feed(self._reframer.close()) + self._translator.close()

    def fail(self, error: APIError) -> bytes:
        """Return the error event, or nothing after the last event."""
        return self._translator.fail(error)


class StreamTranslator:
    """Translates a stream from one dialect into another."""

    def __init__(self, framer: Framer, decoder: Decoder, encoder: Encoder) -> None:
        self._framer = framer
        self._decoder = decoder
        self._encoder = encoder
        # Bound methods, looked up once: `feed` is the hot path.
        self._cut, self._decode, self._encode = framer.feed, decoder.feed, encoder.feed
        self._translated: list[bytes] = []
        self.started = False

    @property
    def usage(self) -> Usage | None:
        """The token counts reported so far."""
        return self._decoder.usage

    @property
    def model(self) -> str:
        """The model that the provider reported."""
        return self._decoder.model

    @property
    def ended(self) -> bool:
        """Whether the last event was translated."""
        return self._decoder.ended

    def feed(self, data: bytes) -> bytes:
        """Return the client's bytes for `data`."""
        try:
            pieces = self._cut(data)
            if self.started and len(pieces) == 1:
                events = self._decode(pieces[0])
                if len(events) == 1:  # the usual packet
                    return self._encode(events[0])
                return b"".join(map(self._encode, events))
            return self._translate(pieces)
        except MALFORMED as error:
            raise malformed_response_error() from error

    def _translate(self, pieces: list[bytes]) -> bytes:
        decode, encode, started = self._decode, self._encode, self.started
        out = self._translated = []
        index, count = 0, len(pieces)
        run_end = 0  # pieces before this index are translated one by one
        from_end = True  # whether to search the end of a run from the end, which is done once
        while index < count:
            if started and index >= run_end and index + _MIN_RUN_PIECES < count:
                run_end = _end_of_run(pieces, index, from_end=from_end)
                long_enough = run_end > index + _MIN_RUN_PIECES
                run = self._decoder.run(pieces[index:run_end]) if long_enough else None
                search_again, from_end = from_end and run is None, False
                if run is not None:
                    block, texts, used = run
                    out.append(self._encoder.run(block, texts))
                    index += used  # what is left of the run is translated piece by piece
                    continue
                if search_again:
                    run_end = index
                    continue
            events = decode(pieces[index])
            index += 1
            if not started:
                started = self.started = any(map(is_content, events))
            for event in events:
                out.append(encode(event))  # noqa: PERF401 (kept when the next one fails)
        self._translated = []
        return b"".join(out)

    def close(self) -> bytes:
        """Return the end of the message."""
        encode = self._encoder.feed
        out = self._translated = []
        rest = self._framer.close()
        try:
            for event in self._decoder.feed(rest) if rest else ():
                out.append(encode(event))  # noqa: PERF401
            for event in self._decoder.close():
                out.append(encode(event))  # noqa: PERF401
        except MALFORMED as error:
            raise malformed_response_error() from error
        self.started = True
        return b"".join(out)

    def fail(self, error: APIError) -> bytes:
        """Return the error event, or nothing after the last event."""
        return b"".join(self._translated) + (b"" if self.ended else self._encoder.fail(error))


class BodyTranslation(Protocol):
    """Translates a complete body, such as a `NativeStream`. It is called once."""

    @property
    def usage(self) -> Usage | None:
        """The token counts reported in the body; None until then."""

    @property
    def model(self) -> str:
        """The model named in the body; empty until then."""

    def whole(self, body: bytes) -> bytes:
        """Return the client's body; raises APIError if this one is an error."""


class TranslatedBy(msgspec.Struct, eq=False):
    """A `BodyTranslation` by a function that returns the client's body, the model and the usage."""

    translate: Callable[[bytes], tuple[bytes, str, Usage | None]]
    usage: Usage | None = None
    model: str = ""

    def whole(self, body: bytes) -> bytes:
        """Return the client's body."""
        out, self.model, self.usage = self.translate(body)
        return out


class BufferedTranslator(msgspec.Struct, eq=False):
    """Collects a response, and translates it at its end."""

    translation: BodyTranslation
    started: bool = False
    ended: ClassVar[bool] = False
    _pieces: list[bytes] = []
    _size: int = 0

    @property
    def usage(self) -> Usage | None:
        """The token counts that the provider reported."""
        return self.translation.usage

    @property
    def model(self) -> str:
        """The model that the provider reported."""
        return self.translation.model

    def feed(self, data: bytes) -> bytes:
        """Return nothing yet. Raises APIError above `MAX_WHOLE` bytes."""
        self._pieces.append(data)
        self._size += len(data)
        if self._size > MAX_WHOLE:
            raise APIError(
                ErrorKind.UPSTREAM, f"The provider's response is larger than {MAX_WHOLE} bytes."
            )
        return b""

    def close(self) -> bytes:
        """Return the whole body for the client."""
        body = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        try:
            out = self.translation.whole(body)
        except MALFORMED as error:
            raise malformed_response_error() from error
        self.started = True
        return out

    def fail(self, error: APIError) -> bytes:
        """Return nothing: no part of the response was sent."""
        return b""


class RawTranslator:
    """Passes bytes through that no dialect describes, such as audio and images.

    `usage` is what is known of it from the request.
    """

    model = ""
    ended = False

    def __init__(self, usage: Usage | None = None) -> None:
        self.usage = usage if usage != _NO_USAGE else None
        self.started = False

    def feed(self, data: bytes) -> bytes:
        """Return `data`."""
        self.started = True
        return data

    def close(self) -> bytes:
        """Return nothing."""
        self.started = True
        return b""

    def fail(self, error: APIError) -> bytes:
        """Return nothing: these bytes cannot carry an error event."""
        return b""


class RawStreamTranslator(RawTranslator):
    """Passes an event stream of an operation through, and reads the usage near its end."""

    def __init__(self, usage: Usage | None = None) -> None:
        super().__init__(usage)
        self._known = usage if usage is not None else _NO_USAGE
        self._tail = b""

    def feed(self, data: bytes) -> bytes:
        """Return `data`."""
        self._tail = data[-_TAIL:] if len(data) >= _TAIL else (self._tail + data)[-_TAIL:]
        return super().feed(data)

    def close(self) -> bytes:
        """Return nothing."""
        from asgi_aiproxy.dialects.usage_extraction import extract_usage

        _, found = extract_usage(b"data:", self._tail)
        if found is not None:
            known = self._known
            self.usage = msgspec.structs.replace(
                found,
                images=known.images,
                characters=known.characters,
                audio_seconds=known.audio_seconds,
            )
        return super().close()


def collect_stream(reader: ResponseReader, framer: Framer, body: bytes) -> Response:
    """Return the whole response from a complete body that is a stream."""
    decoder = reader.decoder()

    def events() -> Iterator[Event]:
        for piece in framer.feed(body):
            yield from decoder.feed(piece)
        rest = framer.close()
        if rest:
            yield from decoder.feed(rest)
        yield from decoder.close()

    return fold(events())


def _end_of_run(pieces: list[bytes], start: int, *, from_end: bool) -> int:
    """Return the index after the pieces that begin like the one at `start`.

    With `from_end`, pieces in between may differ: the last such piece ends the run.
    """
    prefix = pieces[start][:_RUN_PREFIX_BYTES]
    if from_end:
        end = len(pieces)
        while not pieces[end - 1].startswith(prefix):
            end -= 1
        return end
    end = start + 1
    while end < len(pieces) and pieces[end].startswith(prefix):
        end += 1
    return end


def is_content(event: Event) -> bool:
    """Whether an event has content for the client, or ends the message: the commit point."""
    match event:
        case BlockDelta(_, text):
            return bool(text)
        case BlockStart(_, block):
            return not isinstance(block, Text | Reasoning | Refusal)
        case MessageEnd():
            return True
    return False


def malformed_response_error() -> APIError:
    """The error for a response that is not as the vendor documents it."""
    return APIError(ErrorKind.UPSTREAM, "The provider sent an answer that could not be read.")
