"""The interfaces of an operation besides chat: what clients request, and how vendors are called.

Theory of operation. An operation (rerank, embeddings, speech ...) has a neutral request and a
neutral response, which belong to no vendor. Two kinds of objects convert from and to them:

- A `ClientOperation` is the API that clients use: it decodes their requests and encodes responses.
- An `OperationAPI` is an API of vendors: it encodes requests and decodes responses. A `Provider`
  has one for each operation that it offers in an API of its own, in `operations`.

So n client APIs and m vendor APIs need n + m classes. A provider that has the client's own API
names the operation in its `native_operations`: then requests and responses pass through unchanged.

Some vendors need several requests for one call. `follow_up` returns the next one from the bodies
received so far: to poll a job, to fetch its result. Then `decode_response` takes the bodies of all.
`parts` are requests that do not depend on one another, and are sent at the same time: to embed more
texts than one request may have, to make several images. Each may have its own follow-ups;
`decode_response` takes the last body of each. None of them keeps state, so that an attempt that
fails can begin again with another key.

Pure: no I/O.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import msgspec

from asgi_aiproxy.dialects import _parsing
from asgi_aiproxy.dialects.base import Operation, ProviderRequest
from asgi_aiproxy.errors import APIError, invalid
from asgi_aiproxy.messages import Usage
from asgi_aiproxy.operations.forms import Form

NO_UNITS = Usage()


class OperationRequest(Protocol):
    """What every neutral request has."""

    @property
    def model(self) -> str:
        """The model."""


class OperationResponse(Protocol):
    """What every neutral response has."""

    @property
    def model(self) -> str:
        """The model that the vendor reported."""

    @property
    def usage(self) -> Usage | None:
        """What the vendor charges for; None if it did not report it."""


RequestT = TypeVar("RequestT", bound=OperationRequest)
ResponseT = TypeVar("ResponseT", bound=OperationResponse)


class FollowUp(msgspec.Struct, frozen=True, kw_only=True):
    """One more request of the same call, sent `delay` seconds after the last response.

    `draft.base_url` may be an address that the vendor named. With `anonymous` the API key is not
    sent: for addresses that carry their own permission.
    """

    draft: ProviderRequest
    method: str = "GET"
    delay: float = 0.0
    anonymous: bool = False


class OperationAPI(ABC, Generic[RequestT, ResponseT]):
    """An API of vendors for one operation.

    - `kind`: the operation, the same as that of its `ClientOperation`.
    - `operation`: the name in `native_operations` of providers that have this API; empty if it is
      only found in `Provider.operations`.
    - `passes`: the response is passed on to the client unchanged, as sound is. It is not decoded.
    - `reducible`: the member of a client's request with the number of `parts`, if fewer of them are
      worth returning. When one fails, the response has those that were answered, and the member is
      listed in `aiproxy-ignored`. Empty: then the call fails.
    """

    kind: ClassVar[str]
    operation: ClassVar[str] = ""
    passes: ClassVar[bool] = False
    reducible: ClassVar[str] = ""

    @abstractmethod
    def encode_request(self, request: RequestT) -> ProviderRequest:
        """Write a request; raises APIError for what the API cannot express."""

    @abstractmethod
    def decode_response(self, bodies: Sequence[bytes], request: RequestT) -> ResponseT:
        """Read the response; raises APIError if it is invalid.

        `bodies` are those of the first response and of all follow-ups; with `parts`, the last of
        each part.
        """

    def follow_up(self, bodies: Sequence[bytes], request: RequestT) -> FollowUp | None:
        """The next request of the call; None if `bodies` is all that is needed. Raises APIError."""
        return None

    def parts(self, request: RequestT) -> Sequence[ProviderRequest]:
        """The requests after the first one that do not depend on its response."""
        return ()

    def part_usage(self, body: bytes, request: RequestT) -> Usage | None:
        """What the response to the first request, or to one of `parts`, is charged for.

        It is recorded if another part fails. Raises APIError if the response has no result, or
        APIError or ValueError if it is invalid.
        """
        return None


class ClientOperation(ABC, Generic[RequestT, ResponseT]):
    """An API of clients for one operation.

    - `kind`: the operation, the same as that of the `OperationAPI` of vendors.
    - `endpoints`: the paths that are served, with their operations, for APIs that belong to no
      dialect. See `OperationFace`.
    - `request_headers`: the headers that pass through to a vendor with the client's API.
    - `streams`: the response is an event stream if the client requests that with `stream`.
    """

    kind: ClassVar[str]
    streams: ClassVar[bool] = False
    endpoints: ClassVar[Mapping[str, Operation]] = {}
    request_headers: ClassVar[frozenset[str]] = frozenset()

    @abstractmethod
    def decode_request(self, operation: Operation, body: bytes | Form) -> RequestT:
        """Read a client's request; raises APIError of kind `invalid` naming the member.

        `body` is JSON, or a form of an operation with uploads.
        """

    @abstractmethod
    def encode_response(self, response: ResponseT, request: RequestT) -> bytes:
        """Write the response to a client."""

    def media_type(self, request: RequestT) -> str:
        """The content type of the response."""
        return "application/json"

    def decode_usage(self, body: bytes) -> tuple[str, Usage | None]:
        """Read model and usage of a response that passes through."""
        return "", None

    def units(self, request: RequestT) -> Usage:
        """What a request costs that is not counted in tokens, as far as the request determines it:
        images, characters, seconds of audio, search units.
        """
        return NO_UNITS

    def upload_units(self, length: int) -> Usage:
        """The same, of a form that passes through, by its length in bytes (0: unknown)."""
        return NO_UNITS

    def encode_error(self, error: APIError) -> bytes | None:
        """Write an error body; None: as OpenAI's API does."""
        return None


def read_json(body: bytes | Form) -> dict[str, Any]:
    """The members of a client's JSON body. Raises APIError if it is not an object."""
    if isinstance(body, Form):
        raise invalid("This operation takes a JSON body, not a form.")
    found = _parsing.parse_object(body)
    if found is None:
        raise invalid("The request body must be a JSON object.")
    return found


def read_object(body: bytes) -> dict[str, Any]:
    """The members of a vendor's response. Raises APIError if it is not an object."""
    found = _parsing.parse_object(body)
    if found is None:
        raise _parsing.unparsable_response_error(200, body)
    return found


# Any of them, where the type of its requests is not known.
AnyOperationAPI = OperationAPI[Any, Any]
AnyClientOperation = ClientOperation[Any, Any]
