"""What a dialect is: one API's language, read and written, as server and as client."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal, Protocol

import msgspec

from asgi_aiproxy.errors import APIError
from asgi_aiproxy.framing import Frame, Framer, SSEFramer
from asgi_aiproxy.messages import Event, Request, Response, Usage


class Operation(msgspec.Struct, frozen=True):
    """What a method and path ask for.

    `name` is unique over all dialects; a provider lists the names it serves natively. `path` is
    what such a provider is asked for, below its base URL. `model` and `stream` are what the path
    itself says, if it does. `chat` tells that the request can be put into other dialects, `raw`
    that the answer is bytes to be passed on as they come. `default_model` is the one that a request
    calls which names none; without it that is an error.
    """

    name: str
    path: str
    body: Literal["json", "form", "none"] = "json"
    model: str = ""
    stream: bool | None = None
    chat: bool = False
    raw: bool = False
    default_model: str = ""


class RequestSummary(msgspec.Struct, frozen=True, gc=False):
    """What the gateway itself reads of a client's request.

    `fields` are the members of the body, still encoded. `usage_wanted`: in the stream. `provider`
    is the caller's wish, if its language has a word for it.
    """

    model: str
    stream: bool
    fields: Mapping[str, msgspec.Raw]
    usage_wanted: bool = True
    provider: str = ""


class ProviderRequest(msgspec.Struct, frozen=True, gc=False):
    """An upstream request before base URL and credentials.

    `ignored` names the members of the caller's request that could not be carried.
    """

    path: str
    body: Mapping[str, Any]
    query: str = ""
    headers: Mapping[str, str] = {}
    ignored: tuple[str, ...] = ()


class Decoder(Protocol):
    """A streamed answer in pieces in, events out. One per answer.

    A piece is what the language's framer cuts: the data of an event, or a line. Raises APIError on
    a piece that tells of an error.
    """

    @property
    def usage(self) -> Usage | None:
        """The tokens known so far."""

    @property
    def model(self) -> str:
        """The model that answers, once known."""

    @property
    def ended(self) -> bool:
        """Whether the language's last word was said. (Some have none: False to the end.)"""

    def feed(self, data: bytes) -> Sequence[Event]:
        """The events that one piece carries."""

    def run(self, pieces: list[bytes]) -> tuple[int, list[str]] | None:
        """The block, and the texts, of pieces that hold nothing but more text for one open block.

        None if that is not so, or not known: then nothing has changed, and `feed` must read them.
        """

    def close(self) -> Sequence[Event]:
        """The events that only the end tells; raises APIError if the answer is incomplete."""


class Encoder(Protocol):
    """Events in, whole frames out as bytes. One per answer."""

    def feed(self, event: Event) -> bytes:
        """The frames that tell this event."""

    def run(self, index: int, texts: list[str]) -> bytes:
        """The frames that tell a BlockDelta for each text, all of one block."""

    def fail(self, error: APIError) -> bytes:
        """The frames that tell a client in mid-stream that the answer broke."""


class NativeStream(Protocol):
    """Reads along while an answer passes through in its own dialect."""

    @property
    def usage(self) -> Usage | None:
        """The tokens known so far."""

    @property
    def model(self) -> str:
        """The model that answers, once known."""

    @property
    def started(self) -> bool:
        """Whether content was seen: from here on the answer can not be taken back."""

    @property
    def ended(self) -> bool:
        """Whether the language's last word was said. (Some have none: False to the end.)"""

    def pass_unparsed(self, data: bytes) -> tuple[bytes, bytes]:
        """What the client gets for whole frames `data`, after `started`, as long as none is read.

        The second part begins with the first frame that must be read, by `feed`. It is empty if
        there is none, which is the usual case and costs next to nothing.
        """

    def feed(self, frame: Frame) -> bytes:
        """What the client gets for this frame; raises APIError on an error frame."""

    def close(self) -> bytes:
        """What the client still gets at the end; raises APIError if the answer is incomplete."""

    def fail(self, error: APIError) -> bytes:
        """The frames that tell a client in mid-stream that the answer broke."""

    def whole(self, body: bytes) -> bytes:
        """What the client gets for an answer that is not streamed; raises APIError."""


class InboundDialect(ABC):
    """A language in which we are the server. Pure: no state, no I/O."""

    name: ClassVar[str]
    keepalive: ClassVar[bytes | None]  # what may be sent to a client that waits for a stream
    # Which of the caller's headers a provider sees when the request passes through as it is.
    request_headers: ClassVar[frozenset[str]] = frozenset()
    # Headers that only clients of this API send. Some paths are those of several APIs.
    client_headers: ClassVar[frozenset[bytes]] = frozenset()

    @abstractmethod
    def match(self, method: str, path: str) -> Operation | None:
        """What `method` and `path` (percent-encoded, below the mount) ask for, if anything."""

    @abstractmethod
    def summarize(self, operation: Operation, body: bytes) -> RequestSummary:
        """Read what routing needs; raises APIError of kind `invalid` naming the field."""

    @abstractmethod
    def decode_request(self, operation: Operation, body: bytes) -> Request:
        """Read a client's chat request; raises APIError of kind `invalid` naming the field."""

    @abstractmethod
    def encode_response(self, response: Response, request: Request) -> bytes:
        """Write a whole answer."""

    @abstractmethod
    def encode_error(self, error: APIError) -> bytes:
        """Write an error body."""

    @abstractmethod
    def encode_stream_error(self, error: APIError) -> bytes:
        """Write the frames that end a stream which had no content yet."""

    @abstractmethod
    def encoder(self, request: Request) -> Encoder:
        """A writer for one streamed answer."""

    @abstractmethod
    def native_request(
        self, operation: Operation, model: str, fields: Mapping[str, msgspec.Raw], *, stream: bool
    ) -> ProviderRequest:
        """A client's own request for a provider that speaks this language, asking for `model`.

        `fields` are the members of the body, still encoded.
        """

    @abstractmethod
    def native_stream(self, *, usage_wanted: bool, exact: bool) -> NativeStream:
        """A companion for an answer that passes through.

        `usage_wanted`: the client asked for usage in the stream. `strict_format`: the provider
        speaks
        without slips; otherwise they are mended on the way.
        """


class OutboundDialect(ABC):
    """A language in which we are the client. Pure: no state, no I/O."""

    name: ClassVar[str]

    def model_name(self, model: str) -> str:
        """The model that a caller's name means, where the language has several names for one."""
        return model

    @abstractmethod
    def encode_request(self, request: Request) -> ProviderRequest:
        """Write a request for a provider; raises APIError on structure it can not carry."""

    @abstractmethod
    def decode_response(self, body: bytes) -> Response:
        """Read a provider's whole answer; raises APIError if it is an error or no answer."""

    @abstractmethod
    def decode_error(self, status: int, body: bytes) -> APIError:
        """Read a provider's error answer. `body` may be anything: HTML, text, nothing."""

    @abstractmethod
    def decoder(self) -> Decoder:
        """A reader for one streamed answer."""

    @abstractmethod
    def models_request(self) -> ProviderRequest:
        """Ask a provider (by GET) for the models it offers."""

    @abstractmethod
    def decode_models(self, body: bytes) -> tuple[str, ...]:
        """Read the names of models a provider offers; raises ValueError if they can not be."""

    def framer(self, media_type: str) -> Framer:
        """What cuts a stream of this media type."""
        return SSEFramer()


class Dialect(InboundDialect, OutboundDialect):
    """A language spoken both ways."""

    name: ClassVar[str]


Clock = Callable[[], float]
NewId = Callable[[], str]
