"""Responses that pass through event filters before the client is sent any of them.

Theory of operation. Where filters are set, a response is always decoded into neutral events, also
if client and provider speak the same dialect. `feed` and `close` only decode; `flush` passes what
was decoded through the filters, one after the other, and encodes what the last one releases.
Filters may hold events back, change them, or end the response by raising APIError, and may await
something. `started`, the commit point, is the first content that all filters have released.

A response of an operation other than chat has no events: `GuardedBody` holds it until it is
complete, and its texts are checked where they are (see `guarded_content`).
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence

from asgi_aiproxy.dialects.base import Decoder, Encoder
from asgi_aiproxy.errors import APIError, ErrorKind
from asgi_aiproxy.framing import Framer
from asgi_aiproxy.messages import (
    Event,
    EventFilter,
    Response,
    Usage,
    add_usage,
    fold,
    unfold,
)
from asgi_aiproxy.providers.emulator import EmulatingFilter
from asgi_aiproxy.translate import (
    MALFORMED,
    MAX_WHOLE,
    Translator,
    is_content,
    malformed_response_error,
)

logger = logging.getLogger("asgi_aiproxy")


class ResponseRefusedError(APIError):
    """A filter ended a response. The provider and its key are not at fault."""


def unchecked_response_error(what: str) -> ResponseRefusedError:
    """The error for a response that the guards cannot check; `what` begins the sentence."""
    message = f"{what} cannot be returned here: it would reach you unchecked."
    return ResponseRefusedError(ErrorKind.FORBIDDEN, message, code="unchecked_response")


def _too_long_error() -> APIError:
    message = f"The response is longer than {MAX_WHOLE} bytes, so it cannot be checked."
    return APIError(ErrorKind.UPSTREAM, message)


async def filter_events(
    filters: Sequence[EventFilter], events: Sequence[Event], *, closing: bool
) -> list[Event]:
    """Return what is released when `events` pass through the filters, one after the other.

    `closing`: they are the last ones of the response. Raises ResponseRefusedError if a filter ends
    the response, or fails.
    """
    try:
        for each in filters:
            events = await _pass(each, events, closing=closing)
    except APIError as error:
        refused = ResponseRefusedError(
            error.kind, error.message, status=error.status, code=error.code
        )
        raise refused from error
    except Exception as error:  # of a filter that was given: the response was not checked
        logger.exception("a filter of a response failed")
        raise ResponseRefusedError(
            ErrorKind.OVERLOADED,
            "The response could not be checked. Try again later.",
            code="hook_failed",
        ) from error
    return list(events)


async def _pass(each: EventFilter, events: Sequence[Event], *, closing: bool) -> list[Event]:
    passed: list[Event] = []
    for event in events:
        passed += await each.feed(event)
    if closing:
        passed += await each.close()
    return passed


class GuardedBody:
    """Holds a response that is not decoded into events until it is complete, and checks it then.

    Arguments:

    - `inner`: translates the response.
    - `check`: returns the client's body as the filters release it, or raises APIError.
    """

    emulated: tuple[str, ...] = ()
    ended = False

    def __init__(self, inner: Translator, check: Callable[[bytes], Awaitable[bytes]]) -> None:
        self.inner = inner
        self._check = check
        self._held = bytearray()
        self._complete = False
        self.started = False

    @property
    def usage(self) -> Usage | None:
        """The token counts reported so far."""
        return self.inner.usage

    @property
    def model(self) -> str:
        """The model that the provider reported."""
        return self.inner.model

    def feed(self, data: bytes) -> bytes:
        """Hold `data`. Raises APIError above `MAX_WHOLE` bytes."""
        self._held += self.inner.feed(data)
        if len(self._held) > MAX_WHOLE:
            raise _too_long_error()
        return b""

    def close(self) -> bytes:
        """End the response; `flush` checks it."""
        self._held += self.inner.close()
        self._complete = True
        return b""

    async def flush(self) -> bytes:
        """Return the body once it is complete. Raises ResponseRefusedError if it is refused."""
        if not self._complete:
            return b""
        body, self._held = bytes(self._held), bytearray()
        self.started = True
        return await self._check(body) if body else b""

    def fail(self, error: APIError) -> bytes:
        """Return nothing: no part of the response was sent."""
        return b""


class GuardedTranslator:
    """Translates a response through filters.

    Arguments:

    - `framer`, `decoder`: of the provider's stream; None if the response is one body.
    - `decode`: decodes one body.
    - `encoder`: encodes events for a client that streams; None for one body.
    - `encode`: encodes a whole response.
    - `filters`: what events pass through, in order.
    - `emulation`: a filter before these, which stands for the provider: its errors are those of the
      provider. `emulated` are the features that it emulates.
    """

    def __init__(
        self,
        filters: Sequence[EventFilter],
        *,
        emulation: EmulatingFilter | None = None,
        emulated: tuple[str, ...] = (),
        stream: tuple[Framer, Decoder] | None,
        decode: Callable[[bytes], Response],
        encoder: Encoder | None,
        encode: Callable[[Response], bytes],
    ) -> None:
        self._filters = filters
        self._emulation = emulation
        self._features = emulated
        self._further_usage: Usage | None = None
        self._stream = stream
        self._decode = decode
        self._encoder = encoder
        self._encode = encode
        self._body: list[bytes] = []
        self._size = 0
        self._decoded: list[Event] = []
        self._released: list[Event] = []  # for a client that takes one body
        self._closing = self._refused = False
        self._failure: APIError | None = None
        self._model, self._usage = "", None if stream is None else stream[1].usage
        self.started = False

    @property
    def usage(self) -> Usage | None:
        """The token counts reported so far, with those of further requests."""
        usage = self._stream[1].usage if self._stream is not None else self._usage
        return add_usage(usage, self._further_usage)

    @property
    def emulated(self) -> tuple[str, ...]:
        """The features that are emulated, and what that made necessary so far."""
        return (*self._features, *(self._emulation.remarks if self._emulation is not None else ()))

    def count_further(self, usage: Usage | None) -> None:
        """Add the token counts of a further request that the emulation sent."""
        self._further_usage = add_usage(self._further_usage, usage)

    @property
    def model(self) -> str:
        """The model that the provider reported."""
        return self._stream[1].model if self._stream is not None else self._model

    @property
    def ended(self) -> bool:
        """Whether the provider's last event was decoded, and the filters released it."""
        return self._stream is not None and self._stream[1].ended and not self._refused

    def feed(self, data: bytes) -> bytes:
        """Decode `data`; `flush` returns the bytes for the client.

        Raises APIError above `MAX_WHOLE` bytes of one body.
        """
        if self._stream is None:
            self._body.append(data)
            self._size += len(data)
            if self._size > MAX_WHOLE:
                raise _too_long_error()
            return b""
        framer, decoder = self._stream
        try:
            for piece in framer.feed(data):
                self._decoded += decoder.feed(piece)
        except MALFORMED:
            self._failure = malformed_response_error()
        except APIError as error:
            self._failure = error
        return b""

    def close(self) -> bytes:
        """Decode the rest; `flush` raises APIError if the response is incomplete."""
        self._closing = True
        try:
            if self._stream is None:
                response = self._decode(b"".join(self._body))
                self._model, self._usage = response.model, response.usage
                self._decoded += unfold(response)
            else:
                framer, decoder = self._stream
                rest = framer.close()
                if rest:
                    self._decoded += decoder.feed(rest)
                self._decoded += decoder.close()
        except MALFORMED:
            self._failure = malformed_response_error()
        except APIError as error:
            self._failure = error
        return b""

    async def flush(self) -> bytes:
        """Return the bytes for the client of what the filters release.

        Raises ResponseRefusedError if one of them ends the response, and the APIError of the
        provider if the response is an error or malformed, or the emulation says so.
        """
        if self._failure is not None:
            raise self._failure
        events: Sequence[Event] = self._decoded
        self._decoded = []
        if self._emulation is not None:
            events = await _pass(self._emulation, events, closing=self._closing)
        try:
            events = await filter_events(self._filters, events, closing=self._closing)
        except ResponseRefusedError:
            self._refused = True
            raise
        return self._write(events)

    def _write(self, events: Iterable[Event]) -> bytes:
        events = list(events)
        if self._encoder is not None:
            self.started = self.started or self._closing or any(map(is_content, events))
            return b"".join(map(self._encoder.feed, events))
        self._released += events
        if not self._closing:
            return b""
        self.started = True
        return self._encode(fold(self._released))

    def fail(self, error: APIError) -> bytes:
        """Return the error event for a client that streams."""
        return self._encoder.fail(error) if self._encoder is not None else b""


# Translators whose bytes for the client come from `flush`, since filters may await.
FILTERING = (GuardedTranslator, GuardedBody)
