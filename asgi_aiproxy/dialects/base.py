"""The interfaces of a dialect: one vendor API, as server (inbound) and as client (outbound)."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal, Protocol

import msgspec

from asgi_aiproxy.errors import APIError
from asgi_aiproxy.framing import Frame, Framer, SSEFramer
from asgi_aiproxy.messages import Event, Request, Response, Usage

# Media types of streamed responses, whatever the dialect.
STREAM_TYPES = frozenset(
    {"text/event-stream", "application/x-ndjson", "application/stream+json"}
    | {"application/vnd.amazon.eventstream"}
)

# Operations whose requests may refer to stored responses; the first makes one.
RESPONSES = "responses"
REFERRING_OPERATIONS = frozenset({RESPONSES, "responses.input_tokens", "responses.compact"})


class Operation(msgspec.Struct, frozen=True):
    """The API operation that a method and path select.

    `name` is unique over all dialects; a provider lists the names it serves natively. `path` is the
    path of such a provider, below its base URL. `body` is the format of the request body. `model`
    and `stream` are set if the path determines them. `chat`: the request can be converted to other
    dialects. `converts`: the kind of another operation that several APIs have, so that it can be
    converted: `token_count`, the count of a chat request's tokens, or that of a `ClientOperation`
    (`asgi_aiproxy.operations`). `raw`: the response is bytes that are passed on unchanged.
    `default_model` is used if the request names no model; without one, such a request is an error.
    `method` is that of the request to the provider; `resource` is the id of what the path names,
    such as a stored response, and `query` the query string for the provider.
    """

    name: str
    path: str
    body: Literal["json", "form", "none"] = "json"
    model: str = ""
    stream: bool | None = None
    chat: bool = False
    converts: str = ""
    raw: bool = False
    default_model: str = ""
    method: str = "POST"
    resource: str = ""
    query: str = ""

    @property
    def free(self) -> bool:
        """Whether providers charge nothing for it."""
        return self.converts == "token_count" or bool(self.resource)


class RequestSummary(msgspec.Struct, frozen=True, gc=False):
    """The parts of a client's request that routing needs.

    `fields` are the members of the body, still encoded. `usage_wanted`: the client requested usage
    in the stream. `provider` is the provider that the client requested, if the dialect allows it.
    """

    model: str
    stream: bool
    fields: Mapping[str, msgspec.Raw]
    usage_wanted: bool = True
    provider: str = ""


class Content(msgspec.Struct, frozen=True, gc=False):
    """A body that is not JSON: its content type, length in bytes, and the bytes in pieces.

    `stream` may be called again, if the request is sent again.
    """

    media_type: str
    length: int
    stream: Callable[[], AsyncIterator[bytes]]


class ProviderRequest(msgspec.Struct, frozen=True, gc=False):
    """A request to a provider, before base URL and credentials are added.

    `base_url` replaces that of the provider, for requests that a vendor serves at another host.
    `ignored` names the members of the caller's request that the provider's API cannot express.
    `content` is sent instead of `body`.
    """

    path: str
    body: Mapping[str, Any]
    query: str = ""
    headers: Mapping[str, str] = {}
    ignored: tuple[str, ...] = ()
    base_url: str = ""
    content: Content | None = None


class ToolNameRule(msgspec.Struct, frozen=True, gc=False):
    """The tool names that an API accepts: what `pattern` matches, up to `length` characters."""

    pattern: re.Pattern[str]
    length: int


class Decoder(Protocol):
    """Converts the pieces of one streamed response to events.

    A piece is one unit of the dialect's framer: the data of an event, or a line. `feed` raises
    APIError for a piece that is an error.
    """

    @property
    def usage(self) -> Usage | None:
        """The tokens known so far."""

    @property
    def model(self) -> str:
        """The model named in the response; empty until known."""

    @property
    def ended(self) -> bool:
        """Whether the final frame was received. Dialects without one always say False."""

    def feed(self, data: bytes) -> Sequence[Event]:
        """The events of one piece."""

    def run(self, pieces: list[bytes]) -> tuple[int, list[str], int] | None:
        """Decode several pieces at once, if they all add text to one open block.

        Returns the block's index, the texts, and how many of the pieces they are from: all, or the
        first ones. Returns None, and changes nothing, if there are none or it is not known: then
        `feed` must decode the pieces.
        """

    def close(self) -> Sequence[Event]:
        """The remaining events at the end; raises APIError if the response is incomplete."""


class ResponseReader(Protocol):
    """Reads the responses of an API, whole or streamed."""

    def decode_response(self, body: bytes) -> Response:
        """Read a provider's whole response; raises APIError for an error or an invalid body."""

    def decoder(self) -> Decoder:
        """A new decoder for one streamed response."""


class Reframer(Protocol):
    """Writes the bytes of one stream in another framing, with the same events."""

    def feed(self, data: bytes) -> bytes:
        """The bytes for `data`; raises APIError for a damaged stream."""

    def close(self) -> bytes:
        """The rest at the end; raises APIError if the stream is incomplete."""


class Encoder(Protocol):
    """Converts the events of one response to encoded frames."""

    def feed(self, event: Event) -> bytes:
        """The frames for one event."""

    def run(self, index: int, texts: list[str]) -> bytes:
        """The frames for one `BlockDelta` per text, all of the block `index`."""

    def fail(self, error: APIError) -> bytes:
        """The frames that report an error to the client in mid-stream."""


class NativeStream(Protocol):
    """Observes a response that passes through in its own dialect, and adjusts it where needed.

    It extracts usage, model and errors, and detects the first content and the end, while most bytes
    are passed on without being parsed. The relay feeds whole frames: first all of them to
    `pass_unparsed`, then, one by one, those that it returns unprocessed to `feed`.
    """

    @property
    def usage(self) -> Usage | None:
        """The tokens known so far."""

    @property
    def model(self) -> str:
        """The model named in the response; empty until known."""

    @property
    def started(self) -> bool:
        """Whether content was received: from here on the call cannot be retried elsewhere."""

    @property
    def ended(self) -> bool:
        """Whether the final frame was received. Dialects without one always say False."""

    def pass_unparsed(self, data: bytes) -> tuple[bytes, bytes]:
        """Pass whole frames on without parsing them, up to the first that must be parsed.

        Only called after `started`. Returns the bytes for the client, and the rest of `data` from
        the first frame that `feed` must parse. The rest is usually empty.
        """

    def feed(self, frame: Frame) -> bytes:
        """The bytes for the client for one frame; raises APIError for an error frame."""

    def close(self) -> bytes:
        """The bytes for the client at the end; raises APIError if the response is incomplete."""

    def fail(self, error: APIError) -> bytes:
        """The frames that report an error to the client in mid-stream."""

    def whole(self, body: bytes) -> bytes:
        """The client's body for a response that is not streamed; raises APIError for an error."""


class InboundDialect(ABC):
    """An API that the gateway serves to clients. Pure: no state, no I/O."""

    name: ClassVar[str]
    keepalive: ClassVar[bytes | None]  # frame to keep a waiting stream alive
    # Client headers that are forwarded when the request passes through unconverted.
    request_headers: ClassVar[frozenset[str]] = frozenset()
    # Parameters of the query that are forwarded likewise.
    request_parameters: ClassVar[frozenset[str]] = frozenset()
    # Headers that only clients of this API send. Some paths are those of several APIs.
    client_headers: ClassVar[frozenset[bytes]] = frozenset()

    @abstractmethod
    def match(self, method: str, path: str) -> Operation | None:
        """The operation of `method` and `path` (percent-encoded, below the mount), if known."""

    def features(self, headers: Mapping[str, str]) -> tuple[str, ...]:
        """What `headers` request of this API's vendor, as named in `aiproxy-ignored` for others.

        It is not known what a feature does to a request, so nothing is refused because of it.
        """
        return ()

    @abstractmethod
    def summarize(self, operation: Operation, body: bytes) -> RequestSummary:
        """Read the parts that routing needs; raises APIError of kind `invalid` naming the field."""

    @abstractmethod
    def decode_request(self, operation: Operation, body: bytes) -> Request:
        """Read a client's chat request; raises APIError of kind `invalid` naming the field."""

    @abstractmethod
    def encode_response(self, response: Response, request: Request) -> bytes:
        """Write a whole response body."""

    @abstractmethod
    def encode_error(self, error: APIError) -> bytes:
        """Write an error body."""

    @abstractmethod
    def encode_stream_error(self, error: APIError) -> bytes:
        """Write the frames of an error for a stream that has no content yet."""

    def encode_token_count(self, count: int) -> bytes:
        """Write the response to an operation that counts tokens."""
        raise NotImplementedError(f"{self.name} has no operation that counts tokens")

    @abstractmethod
    def encoder(self, request: Request) -> Encoder:
        """A new encoder for one streamed response."""

    @abstractmethod
    def native_request(
        self, operation: Operation, model: str, fields: Mapping[str, msgspec.Raw], *, stream: bool
    ) -> ProviderRequest:
        """The client's own request for a provider with this dialect, with `model` as its model.

        `fields` are the members of the body, still encoded.
        """

    @abstractmethod
    def native_stream(self, *, usage_wanted: bool, strict_format: bool) -> NativeStream:
        """A new observer for one response that passes through.

        `usage_wanted`: the client requested usage in the stream. `strict_format`: the provider
        follows the format exactly; otherwise every chunk is normalized.
        """


class OutboundDialect(ABC):
    """An API of providers that the gateway calls. Pure: no state, no I/O."""

    name: ClassVar[str]
    native_errors: ClassVar[bool] = True  # errors have the format that clients of this API expect
    # The operation that counts the tokens of a request, if the API has one.
    token_count_operation: ClassVar[str] = ""
    # The API keeps conversations, which later requests continue: `Request.conversation`.
    keeps_conversations: ClassVar[bool] = False
    # The tool names that it accepts; None if any is accepted, or the rule is not known.
    tool_names: ClassVar[ToolNameRule | None] = None
    # Clients of the API compare the wording of all its errors, so they get those as they are.
    clients_match_errors: ClassVar[bool] = False

    def model_name(self, model: str) -> str:
        """The canonical name of a model, where the API has several names for one."""
        return model

    @abstractmethod
    def encode_request(self, request: Request) -> ProviderRequest:
        """Write a request for a provider; raises APIError for content it cannot express."""

    @abstractmethod
    def decode_response(self, body: bytes) -> Response:
        """Read a provider's whole response; raises APIError for an error or an invalid body."""

    @abstractmethod
    def decode_error(self, status: int, body: bytes) -> APIError:
        """Read a provider's error response. `body` may be anything: HTML, text, empty."""

    @abstractmethod
    def decoder(self) -> Decoder:
        """A new decoder for one streamed response."""

    def encode_token_count_request(self, request: Request) -> ProviderRequest:
        """Write a request to count the tokens of `request`; raises APIError as `encode_request`."""
        raise NotImplementedError(f"{self.name} has no operation that counts tokens")

    def decode_token_count(self, body: bytes) -> int:
        """Read the number of tokens; raises APIError for an invalid body."""
        raise NotImplementedError(f"{self.name} has no operation that counts tokens")

    @abstractmethod
    def models_request(self) -> ProviderRequest:
        """The GET request that lists a provider's models."""

    @abstractmethod
    def decode_models(self, body: bytes) -> tuple[str, ...]:
        """Read the model names of a provider's list; raises ValueError if the list is invalid."""

    def decode_display_names(self, body: bytes) -> Mapping[str, str]:
        """Names for people in the same list, by model; empty if the API has none."""
        return {}

    def framer(self, media_type: str) -> Framer:
        """A new framer for a stream of this media type."""
        return SSEFramer()

    def reframer(self, media_type: str) -> Reframer | None:
        """What makes an event stream of a stream of this media type; None if it is one.

        Only needed by dialects whose clients' requests pass through unconverted.
        """
        return None


class Dialect(InboundDialect, OutboundDialect):
    """An API in both directions: served to clients and called at providers."""

    name: ClassVar[str]


Clock = Callable[[], float]
NewId = Callable[[], str]
