"""The neutral types of `messages` as an API: for calls within the process.

A request is the JSON of a `Request`, a response that of a `Response` (for embeddings see
`asgi_aiproxy.operations.embeddings.neutral`). A stream has one event in each line. An error is the
JSON of a `Failure`. No path leads here: the host's own code selects an operation with SCOPE_KEY in
the ASGI scope, which clients cannot set.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, NoReturn

import msgspec

from asgi_aiproxy import _json
from asgi_aiproxy.dialects import _parsing
from asgi_aiproxy.dialects.base import InboundDialect, Operation, ProviderRequest, RequestSummary
from asgi_aiproxy.errors import APIError, ErrorKind, error_kind_for_status
from asgi_aiproxy.messages import (
    BlockDelta,
    BlockEnd,
    BlockStart,
    Event,
    MessageEnd,
    MessageStart,
    Request,
    Response,
)

# The key of the operation in an ASGI scope.
SCOPE_KEY = "asgi_aiproxy.neutral_operation"

CHAT = Operation("in_process.chat", "", chat=True)
EMBEDDINGS = Operation("in_process.embeddings", "", converts="embeddings")


class Failure(msgspec.Struct, frozen=True, omit_defaults=True, tag=True):
    """An APIError, with its attributes."""

    kind: ErrorKind
    message: str
    status: int
    param: str | None = None
    code: str | None = None
    retry_after: float | None = None
    upstream_status: int | None = None
    provider: str = ""
    request_id: str = ""


_request = msgspec.json.Decoder(Request)
_response = msgspec.json.Decoder(Response)
_failure = msgspec.json.Decoder(Failure)
_line: msgspec.json.Decoder[Event | Failure] = msgspec.json.Decoder(
    MessageStart | BlockStart | BlockDelta | BlockEnd | MessageEnd | Failure
)


class Encoder:
    """Writes events, one in each line."""

    def feed(self, event: Event) -> bytes:
        """The line of one event."""
        return _json.dumps(event) + b"\n"

    def run(self, index: int, texts: list[str]) -> bytes:
        """The lines of one `BlockDelta` per text."""
        return b"".join([self.feed(BlockDelta(index, text)) for text in texts])

    def fail(self, error: APIError) -> bytes:
        """The line of an error."""
        return encode_error(error) + b"\n"


class Neutral(InboundDialect):
    """The neutral types, as the API of calls within the process."""

    name: ClassVar[str] = "in_process"
    keepalive: ClassVar[bytes | None] = None

    def match(self, method: str, path: str) -> Operation | None:
        """None: no path leads here."""
        return None

    def summarize(self, operation: Operation, body: bytes) -> RequestSummary:
        """Read model and streaming."""
        fields = _parsing.fields(body)
        stream = _parsing.member(fields, "stream", _parsing.flag)
        return RequestSummary(_parsing.read_model(fields), stream is True, fields)

    def decode_request(self, operation: Operation, body: bytes) -> Request:
        """Read a `Request`."""
        return _parsing.body(_request, body)

    def encode_response(self, response: Response, request: Request) -> bytes:
        """Write a `Response`."""
        return _json.dumps(response)

    def encode_error(self, error: APIError) -> bytes:
        """Write a `Failure`."""
        return encode_error(error)

    def encode_stream_error(self, error: APIError) -> bytes:
        """Write a `Failure` as a line."""
        return encode_error(error) + b"\n"

    def encoder(self, request: Request) -> Encoder:
        """A new encoder of events."""
        return Encoder()

    def native_request(
        self, operation: Operation, model: str, fields: Mapping[str, msgspec.Raw], *, stream: bool
    ) -> ProviderRequest:
        """Raises NotImplementedError: no provider has this API."""
        raise _no_provider()

    def native_stream(self, *, usage_wanted: bool, strict_format: bool) -> NoReturn:
        """Raises NotImplementedError: no provider has this API."""
        raise _no_provider()


def _no_provider() -> NotImplementedError:
    return NotImplementedError("providers do not have the API of calls within the process")


# What the caller within the process needs.


def encode_request(request: Request) -> bytes:
    """Write the body of a request."""
    return _json.dumps(request)


def decode_response(body: bytes) -> Response:
    """Read a whole response."""
    return _json.typed(_response, body)


def decode_line(line: bytes) -> Event:
    """Read a line of a stream. Raises the APIError of a `Failure`."""
    read = _json.typed(_line, line)
    if isinstance(read, Failure):
        raise _error(read)
    return read


def encode_error(error: APIError) -> bytes:
    """Write an error."""
    return _json.dumps(
        Failure(
            error.kind,
            error.message,
            error.status,
            error.param,
            error.code,
            error.retry_after,
            error.upstream_status,
            error.provider,
            error.request_id,
        )
    )


def decode_error(status: int, body: bytes) -> APIError:
    """Read an error response; one that is not a `Failure` is that of another app."""
    try:
        return _error(_json.typed(_failure, body))
    except ValueError:
        message = f"The app answered with status {status}: does it serve AI APIs at this path?"
        return APIError(error_kind_for_status(status), message, status=status)


def _error(failure: Failure) -> APIError:
    error = APIError(
        failure.kind,
        failure.message,
        status=failure.status,
        param=failure.param,
        code=failure.code,
        retry_after=failure.retry_after,
        upstream_status=failure.upstream_status,
    )
    error.provider, error.request_id = failure.provider, failure.request_id
    return error


NEUTRAL: Neutral = Neutral()
